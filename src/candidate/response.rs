//! The responses of the candidate's HTTP server.

use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;

pub(super) fn verdict(result: Result<String, String>) -> Response<Full<Bytes>> {
    match result {
        Ok(what) => text(StatusCode::OK, what),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

pub(super) fn text(status: StatusCode, sentence: impl Into<String>) -> Response<Full<Bytes>> {
    let mut sentence: String = sentence.into();
    sentence.push('\n');
    reply(status, "text/plain; charset=utf-8", sentence.into_bytes())
}

pub(super) fn reply(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
