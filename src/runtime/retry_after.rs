//! Keeps the `Retry-After` header of a refusal, which kube drops.
//!
//! An overloaded API server answers 429 with this header and a line of text. kube returns the body of an error and not
//! its headers, so the header goes into the body: as `details.retryAfterSeconds` of the `Status`.

use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt};
use http::header::{CONTENT_LENGTH, RETRY_AFTER};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use kube::client::Body;
use serde_json::{Value, json};
use tower::{BoxError, Layer, Service};

/// The most bytes that are read of a refusal. A longer one is a proxy's page.
const LONGEST: usize = 64 << 10;

type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

/// A layer of a kube client that turns refusals (4xx) with a `Retry-After` header in seconds into a `Status` with these
/// seconds.
///
/// A `Status` that already has seconds keeps them. A date in place of seconds is ignored, as in client-go.
#[derive(Clone, Copy, Debug)]
pub struct KeepRetryAfter;

/// The service that [`KeepRetryAfter`] makes.
#[derive(Clone, Debug)]
pub struct RetryAfterKeeper<S>(S);

impl<S> Layer<S> for KeepRetryAfter {
    type Service = RetryAfterKeeper<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RetryAfterKeeper(inner)
    }
}

impl<S, B> Service<Request<Body>> for RetryAfterKeeper<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<AnswerBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<AnswerBody>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.call(request).map(|answer| match answer {
            Ok(response) => Ok(response.map(|body| body.map_err(Into::into).boxed_unsync())),
            Err(error) => Err(error.into()),
        });
        async move {
            match answer.await {
                Ok(response) => match seconds_of(&response) {
                    Some(seconds) => Ok(with_seconds(response, seconds).await),
                    None => Ok(response),
                },
                Err(error) => Err(error),
            }
        }
        .boxed()
    }
}

fn seconds_of<B>(response: &Response<B>) -> Option<u32> {
    let header = response.headers().get(RETRY_AFTER).filter(|_| response.status().is_client_error())?;
    header.to_str().ok()?.trim().parse().ok().filter(|seconds| *seconds > 0)
}

async fn with_seconds(response: Response<AnswerBody>, seconds: u32) -> Response<AnswerBody> {
    let (mut head, body) = response.into_parts();
    let text = text_of(body).await;
    let mut status = serde_json::from_slice::<Value>(&text).ok().filter(|status| status["kind"] == "Status");
    let status = status.get_or_insert_with(|| {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": String::from_utf8_lossy(&text).trim(),
            "reason": head.status.canonical_reason().unwrap_or_default().replace(' ', ""),
            "code": head.status.as_u16(),
        })
    });
    if !status["details"].is_object() {
        status["details"] = json!({});
    }
    if status["details"]["retryAfterSeconds"].as_u64().is_none_or(|known| known == 0) {
        status["details"]["retryAfterSeconds"] = json!(seconds);
    }
    head.headers.remove(CONTENT_LENGTH);
    let body = Full::new(Bytes::from(status.to_string())).map_err(|never| match never {});
    Response::from_parts(head, body.boxed_unsync())
}

/// Reads the body, up to the limit.
async fn text_of(mut body: AnswerBody) -> Vec<u8> {
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { break };
        text.extend_from_slice(&data);
        if text.len() > LONGEST {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use k8s_openapi::api::coordination::v1::Lease;
    use kube::client::ClientBuilder;
    use kube::{Api, Error};
    use tower::service_fn;

    use super::*;

    /// Returns code, message and `retryAfterSeconds` of the error that kube returns for this answer.
    fn refusal(code: u16, header: Option<&'static str>, body: &'static str) -> (u16, String, u32) {
        let server = service_fn(move |_: Request<Body>| {
            let mut response = Response::builder().status(code);
            if let Some(header) = header {
                response = response.header(RETRY_AFTER, header);
            }
            ready(Ok::<_, BoxError>(response.body(Body::from(body.as_bytes().to_vec())).unwrap()))
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let error = runtime.block_on(async {
            let client = ClientBuilder::new(server, "river").with_layer(&KeepRetryAfter).build();
            Api::<Lease>::namespaced(client, "river").get("weir").await.unwrap_err()
        });
        let Error::Api(status) = error else { panic!("{error}") };
        (status.code, status.message, status.details.map_or(0, |details| details.retry_after_seconds))
    }

    const FULL: &str = "Too many requests, please try again later.\n";

    #[test]
    fn the_error_of_an_overloaded_server_has_the_seconds_of_its_header() {
        assert_eq!(refusal(429, Some("7"), FULL), (429, FULL.trim().to_owned(), 7));
        let status = r#"{"kind":"Status","message":"full","code":429}"#;
        assert_eq!(refusal(429, Some("7"), status), (429, "full".to_owned(), 7));
    }

    #[test]
    fn seconds_of_a_status_stay() {
        let status = r#"{"kind":"Status","message":"full","code":429,"details":{"retryAfterSeconds":3}}"#;
        assert_eq!(refusal(429, Some("7"), status), (429, "full".to_owned(), 3));
    }

    #[test]
    fn an_answer_without_seconds_is_unchanged() {
        for header in [None, Some("0"), Some("-1"), Some("Wed, 21 Oct 2026 07:28:00 GMT"), Some("99999999999999")] {
            assert_eq!(refusal(429, header, FULL), (429, FULL.trim().to_owned(), 0), "{header:?}");
        }
        // A 503 does not show whether a write happened, so the election retries at once.
        assert_eq!(refusal(503, Some("7"), FULL).2, 0);
    }
}
