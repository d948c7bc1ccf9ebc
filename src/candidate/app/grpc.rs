//! `grpc.health.v1.Health/Check` over plain HTTP/2. One message of one field each way needs no generated code.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::dial::connect;
use super::http::{Background, PROBE};
use super::spec::Grpc;

const METHOD: &str = "/grpc.health.v1.Health/Check";
/// An answer is five bytes and a number; a server may send unknown fields.
const LONGEST_ANSWER: usize = 64 << 10;
const SERVING: u64 = 1;
const NAMES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

/// Checks whether the service is serving.
pub(super) async fn check(call: &Grpc, address: &str) -> Result<String, String> {
    let service = call.service.as_deref().unwrap_or_default();
    let stream = connect(address, call.port).await?;
    let failed = |error: &dyn std::fmt::Display| format!("no gRPC answer from {address}, port {}: {error}", call.port);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    let _connection = Background::spawn(async {
        // A failure of the connection also fails the request.
        let _ = connection.await;
    });
    let authority =
        if address.contains(':') { format!("[{address}]:{}", call.port) } else { format!("{address}:{}", call.port) };
    let mut request = Request::new(Full::new(Bytes::from(encode_request(service))));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = format!("http://{authority}{METHOD}").parse::<Uri>().map_err(|error| failed(&error))?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(USER_AGENT, HeaderValue::from_static(PROBE));
    let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
    if response.status() != 200 {
        return Err(failed(&format_args!("HTTP status {}", response.status())));
    }
    let (head, body) = response.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(|error| failed(&error))?;
    // A response without a message has its status in the headers.
    let trailers = body.trailers().cloned().unwrap_or_else(|| head.headers.clone());
    grpc_error(&trailers).map_or(Ok(()), Err)?;
    match decode_status(&body.to_bytes()) {
        Some(SERVING) => Ok("gRPC probe answered SERVING".to_owned()),
        Some(status) => {
            let known = usize::try_from(status).ok().and_then(|status| NAMES.get(status));
            Err(format!("gRPC probe answered {}", known.map_or_else(|| status.to_string(), |name| (*name).to_owned())))
        }
        None => Err(failed(&"expected a HealthCheckResponse, found other bytes")),
    }
}

/// Returns why the call failed, if it did.
fn grpc_error(trailers: &HeaderMap) -> Option<String> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text("grpc-status") {
        "0" => None,
        "5" => Some(
            "gRPC probe: the server does not know the service (status 5, NOT_FOUND): check the probe's service"
                .to_owned(),
        ),
        "12" => {
            Some("gRPC probe: the server does not serve grpc.health.v1.Health (status 12, UNIMPLEMENTED)".to_owned())
        }
        other => Some(format!("gRPC probe answered status {other:?}: {}", text("grpc-message"))),
    }
}

/// Encodes a HealthCheckRequest in its frame: uncompressed, the length, and `service` as field 1.
fn encode_request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut left = service.len();
        while left > 0x7f {
            message.push(u8::try_from(left & 0x7f).unwrap_or(0) | 0x80);
            left >>= 7;
        }
        message.push(u8::try_from(left).unwrap_or(0));
        message.extend(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), &message].concat()
}

/// Returns field 1 of the HealthCheckResponse in this frame; 0 if it is absent, as proto3 omits zeros.
fn decode_status(frame: &[u8]) -> Option<u64> {
    let (head, message) = frame.split_first_chunk::<5>()?;
    let length = usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]])).ok()?;
    if head[0] != 0 {
        return None;
    }
    let mut rest = message.get(..length)?;
    let mut status = 0;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let skip = match key & 7 {
            0 => {
                let number = varint(&mut rest)?;
                if key >> 3 == 1 {
                    status = number;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut rest)?).ok()?,
            5 => 4,
            _ => return None,
        };
        rest = rest.get(skip..)?;
    }
    Some(status)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
