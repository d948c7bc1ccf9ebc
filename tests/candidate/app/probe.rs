//! Probes and hooks against real servers.

use std::convert::Infallible;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8sensus_candidate::app::AppSpec;
use k8sensus_candidate::app::probe::{ProbeError, Prober, Runner};
use k8sensus_candidate::app::spec::Probe;
use k8sensus_runtime::clock::SystemClock;
use serde_json::{Value, json};

use crate::support::shared;

/// Records the commands; each ends with the code that its first argument names, or never.
#[derive(Default)]
struct Notes(Mutex<Vec<Vec<String>>>);

impl Runner for Notes {
    fn run(&self, command: Vec<String>) -> BoxFuture<'static, io::Result<u8>> {
        self.0.lock().unwrap().push(command.clone());
        Box::pin(async move {
            match command[1].parse() {
                Ok(code) => Ok(code),
                Err(_) if command[1] == "missing" => Err(io::Error::from_raw_os_error(libc::ENOENT)),
                Err(_) => std::future::pending().await,
            }
        })
    }
}

fn prober() -> Prober {
    Prober::new("127.0.0.1", Arc::new(Notes::default()), Arc::new(SystemClock))
}

fn probe(probe: Value) -> Probe {
    AppSpec::parse(&json!({ "readinessProbe": probe }).to_string()).unwrap().readiness_probe.unwrap()
}

/// Returns the result of one probe, and its duration.
fn ask(what: Value) -> (Result<String, String>, Duration) {
    let (answer, duration) = run(what);
    (answer.map_err(|error| error.to_string()), duration)
}

fn run(what: Value) -> (Result<String, ProbeError>, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let start = Instant::now();
    let answer = runtime.block_on(prober().probe(&probe(what)));
    (answer, start.elapsed())
}

fn ask_http(port: u16, path: &str) -> Result<String, String> {
    ask(json!({ "httpGet": { "port": port, "path": path } })).0
}

/// Starts a server that answers each path as `answer` defines, and returns the requests' heads.
fn server(answer: impl Fn(&str) -> String + Send + 'static) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heads, seen) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut head = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|read| read > 0) {}
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let _ = (&stream).write_all(answer(&path).as_bytes());
            let _ = heads.send(head);
        }
    });
    (port, seen)
}

fn status(code: u16) -> String {
    format!("HTTP/1.1 {code} Any\r\nContent-Length: 2\r\n\r\nhi")
}

fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
}

#[test]
fn http_from_200_to_399_is_a_success() {
    let (port, _seen) = server(|path| status(path[1..].parse().unwrap()));
    for code in [200, 204, 299, 300, 304, 399] {
        assert_eq!(ask_http(port, &format!("/{code}")), Ok(format!("HTTP probe answered with status {code}")));
    }
    for code in [400, 404, 500, 503] {
        assert_eq!(ask_http(port, &format!("/{code}")), Err(format!("HTTP probe answered with status {code}")));
    }
}

#[test]
fn http_sends_the_requests_of_the_kubelet() {
    let (port, seen) = server(|_| status(200));
    ask_http(port, "up?full=a b").unwrap();
    let head = seen.recv().unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /up?full=a%20b http/1.1\r\n"), "{head}");
    for line in
        [&format!("host: 127.0.0.1:{port}"), "user-agent: kube-probe/k8sensus-", "accept: */*", "connection: close"]
    {
        assert_eq!(head.matches(&format!("\r\n{line}")).count(), 1, "{line} in {head}");
    }
    let headers = json!([
        { "name": "Host", "value": "weir.example" }, { "name": "User-Agent", "value": "otter" }, { "name": "Accept" },
        { "name": "X-A", "value": "1" }, { "name": "X-A", "value": "2" },
    ]);
    ask(json!({ "httpGet": { "port": port, "httpHeaders": headers } })).0.unwrap();
    let head = seen.recv().unwrap().to_ascii_lowercase();
    for line in ["host: weir.example\r\n", "user-agent: otter\r\n", "x-a: 1\r\n", "x-a: 2\r\n"] {
        assert_eq!(head.matches(line).count(), 1, "{line} in {head}");
    }
    assert!(head.starts_with("get / http/1.1\r\n") && !head.contains("accept:"), "{head}");
    assert!(ask(json!({ "httpGet": { "port": port, "httpHeaders": [{ "name": "a b", "value": "" }] } })).0.is_err());
}

#[test]
fn http_follows_redirects_on_the_same_host_as_often_as_go_does() {
    let (other, asked_elsewhere) = server(|_| status(200));
    let (port, _seen) = server(move |path| match path {
        "/a/start?x=1" => redirect("next"),
        "/a/next" => redirect("?query"),
        "/a/next?query" => redirect("/root"),
        "/root" => redirect(&format!("HTTP://127.0.0.1:{other}/there#part")),
        "/away" => redirect("http://localhost:1/"),
        "/down" => redirect("/503"),
        "/nowhere" => redirect("http://[::/"),
        "/mute" => "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "/503" => status(503),
        _ => {
            let left: u32 = path[1..].parse().unwrap();
            if left == 0 { status(200) } else { redirect(&format!("/{}", left - 1)) }
        }
    });
    assert!(ask_http(port, "/a/start?x=1").is_ok());
    let head = asked_elsewhere.recv().unwrap();
    assert!(head.starts_with("GET /there ") && head.contains(&format!("127.0.0.1:{other}")), "{head}");
    assert_eq!(
        ask_http(port, "/away"),
        Ok("HTTP probe answered with status 302".to_owned()),
        "another host gets no request"
    );
    assert_eq!(ask_http(port, "/mute"), Ok("HTTP probe answered with status 302".to_owned()));
    assert_eq!(ask_http(port, "/down"), Err("HTTP probe answered with status 503".to_owned()));
    assert!(ask_http(port, "/nowhere").is_err());
    assert!(ask_http(port, "/9").is_ok());
    assert_eq!(ask_http(port, "/10"), Err("stopped after 10 redirects".to_owned()));
}

#[test]
fn https_accepts_a_certificate_of_an_unknown_authority() {
    let port: u16 = shared().server().rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
    let (answer, _) =
        ask(json!({ "httpGet": { "port": port, "scheme": "HTTPS", "path": "/livez" }, "timeoutSeconds": 10 }));
    assert_eq!(answer, Ok("HTTP probe answered with status 200".to_owned()));
    let (plain, _seen) = server(|_| status(200));
    let (answer, _) = ask(json!({ "httpGet": { "port": plain, "scheme": "HTTPS" } }));
    assert!(answer.as_ref().is_err_and(|why| why.contains("no TLS with 127.0.0.1")), "{answer:?}");
}

#[test]
fn a_late_answer_is_a_failure() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    for what in [
        json!({ "httpGet": { "port": port } }),
        json!({ "httpGet": { "port": port, "scheme": "HTTPS" } }),
        json!({ "grpc": { "port": port } }),
        json!({ "exec": { "command": ["/bin/kestrel", "never"] } }),
    ] {
        let (answer, duration) = ask(what.clone());
        assert_eq!(answer, Err("no answer within 1 s".to_owned()), "{what}");
        assert!((1.0..1.9).contains(&duration.as_secs_f64()), "{what}: {duration:?}");
    }
    // Half an answer does not count.
    let (half, _seen) = server(|_| "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi".to_owned());
    assert!(ask_http(half, "/").is_err());
    let (garbage, _seen) = server(|_| "otter\r\n\r\n".to_owned());
    assert!(ask_http(garbage, "/").is_err());
}

#[test]
fn tcp_connects() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(ask(json!({ "tcpSocket": { "port": port } })).0.is_ok());
    assert!(ask(json!({ "tcpSocket": { "port": port, "host": "localhost" } })).0.is_ok());
    drop(listener);
    for what in ["tcpSocket", "httpGet", "grpc"] {
        let (answer, _) = ask(json!({ what: { "port": port } }));
        let expected = format!("cannot connect to 127.0.0.1, port {port}: Connection refused");
        assert!(answer.as_ref().is_err_and(|why| why.starts_with(&expected)), "{what}: {answer:?}");
    }
}

#[test]
fn exec_passes_with_exit_code_0_alone() {
    assert_eq!(
        ask(json!({ "exec": { "command": ["kestrel", "0"] } })).0,
        Ok("kestrel ended with exit code 0".to_owned())
    );
    assert_eq!(
        ask(json!({ "exec": { "command": ["kestrel", "3"] } })).0,
        Err("kestrel ended with exit code 3".to_owned())
    );
}

#[test]
fn an_exec_probe_that_cannot_be_run_is_not_one_that_failed() {
    let (failed, _) = run(json!({ "exec": { "command": ["kestrel", "3"] } }));
    assert!(matches!(failed, Err(ProbeError::Failed(_))), "{failed:?}");
    let (missing, _) = run(json!({ "exec": { "command": ["kestrel", "missing"] } }));
    let Err(ProbeError::NotRun(why)) = missing else { panic!("{missing:?}") };
    assert!(why.starts_with("cannot run kestrel: No such file"), "{why}");
}

/// The health service like grpc-go's: the answer depends on the service's name.
async fn health(
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let (head, body) = request.into_parts();
    let frame = body.collect().await.unwrap().to_bytes();
    let is_valid_request = head.uri.path() == "/grpc.health.v1.Health/Check"
        && head.method == "POST"
        && head.headers["content-type"] == "application/grpc"
        && head.headers["te"] == "trailers";
    let length = u32::from_be_bytes(frame[1..5].try_into().unwrap()) as usize;
    assert_eq!((frame[0], frame.len()), (0, 5 + length), "a frame");
    let service = String::from_utf8(frame[5..].iter().copied().skip(2 + usize::from(length > 130)).collect()).unwrap();
    let (message, code): (&[u8], &str) = match service.as_str() {
        _ if !is_valid_request => (&[], "13"),
        "down" => (&[8, 2], "0"),
        "unknown" => (&[], "5"),
        "none" => (&[], "12"),
        "zero" => (&[], "0"),
        // Unknown fields come before and after the status.
        "newer" => (&[0x12, 2, 8, 2, 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 8, 1, 0x25, 1, 2, 3, 4], "0"),
        "torn" => (&[8], "0"),
        _ => (&[8, 1], "0"),
    };
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    let trailers =
        HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_str(code).unwrap())]);
    let body = if message.is_empty() && code != "0" { Bytes::new() } else { Bytes::from(frame) };
    let mut response = Response::new(Full::new(body).with_trailers(async move { Some(Ok(trailers)) }));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

#[test]
fn grpc_asks_the_health_service() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), hyper::service::service_fn(health)));
            }
        });
    });
    let grpc = |service: &str| ask(json!({ "grpc": { "port": port, "service": service } })).0;
    let long = "a".repeat(300);
    for serving in ["", "up", "newer", long.as_str()] {
        assert_eq!(grpc(serving), Ok("gRPC probe answered SERVING".to_owned()), "{serving}");
    }
    for (service, why) in [
        ("down", "gRPC probe answered NOT_SERVING"),
        ("zero", "gRPC probe answered UNKNOWN"),
        ("unknown", "the server does not know the service"),
        ("none", "the server does not serve grpc.health.v1.Health"),
        ("torn", "expected a HealthCheckResponse"),
    ] {
        let answer = grpc(service);
        assert!(answer.as_ref().is_err_and(|error| error.contains(why)), "{service}: {answer:?}");
    }
    // HTTP/1 is not gRPC.
    let (plain, _seen) = server(|_| status(200));
    assert!(ask(json!({ "grpc": { "port": plain } })).0.is_err());
}

#[test]
fn a_hook_accepts_any_answer_without_a_timeout() {
    let (port, seen) = server(|_| status(500));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = |hook: Value| {
        let spec = AppSpec::parse(&json!({ "lifecycle": { "preStop": hook } }).to_string()).unwrap();
        let start = Instant::now();
        (runtime.block_on(prober().hook(spec.pre_stop().unwrap())), start.elapsed())
    };
    assert_eq!(run(json!({ "httpGet": { "port": port, "path": "/drain" } })).0, Ok(()));
    assert!(seen.recv().unwrap().to_ascii_lowercase().contains("user-agent: kube-lifecycle/k8sensus-"));
    assert!(run(json!({ "exec": { "command": ["drain", "1"] } })).0.is_err());
    assert_eq!(run(json!({ "exec": { "command": ["drain", "0"] } })).0, Ok(()));
    let (slept, duration) = run(json!({ "sleep": { "seconds": 2 } }));
    assert_eq!(slept, Ok(()));
    assert!(duration >= Duration::from_secs(2), "{duration:?}");
}
