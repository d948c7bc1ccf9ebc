//! The admin endpoints: /healthz, /readyz and /metrics.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;

use super::connections::{self, Answer};
use super::origin::Origin;
use crate::protocol::paths;

/// A reason why the endpoints cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is in use or not of this machine.
    #[error("cannot listen on {address} for /healthz, /readyz and /metrics: {source}")]
    Bind {
        /// The requested address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The system refuses a thread, or an event queue for it.
    #[error("cannot start the thread that answers /healthz, /readyz and /metrics: {0}")]
    Thread(io::Error),
}

/// The bound endpoints.
pub struct Admin {
    listener: TcpListener,
    registry: Registry,
    readiness: Readiness,
}

/// The reason why the program is not ready, if it is not. Clones share it.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<Option<String>>>);

impl Readiness {
    /// Marks the program as not ready because of `problem`.
    pub fn set(&self, problem: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem.to_owned());
    }

    /// Marks the program as ready.
    pub fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns the reason why the program is not ready, if any.
    pub fn problem(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Admin {
    /// Binds the address, so that a wrong one is reported at the start.
    ///
    /// # Errors
    /// [`Error::Bind`].
    pub fn bind(address: SocketAddr, registry: Registry) -> Result<Self, Error> {
        let listener = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let listener = listener.map_err(|source| Error::Bind { address, source })?;
        Ok(Self { listener, registry, readiness: Readiness::default() })
    }

    /// Returns a handle to the program's readiness.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Serves on a thread of its own until the result is dropped, so that a busy program still answers its probes. Each
    /// /healthz calls `unhealthy` and each /readyz calls `unready`: `None` becomes a 200, a text becomes a 503 with
    /// that text.
    ///
    /// The number, duration and size of connections are limited, see [`connections`].
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub fn serve(self, unhealthy: impl Problem, unready: impl Problem) -> Result<Serving, Error> {
        let answers = Answers { registry: Arc::new(self.registry), unhealthy, unready };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
        let (stop, stopped) = oneshot::channel();
        let serve = async move {
            match tokio::net::TcpListener::from_std(self.listener) {
                Ok(listener) => connections::accept(listener, answers, Vec::new()).await,
                Err(error) => tracing::error!("cannot serve /healthz, /readyz and /metrics: {error}"),
            }
        };
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve => {}
                    _ = stopped => {}
                }
            });
        };
        thread::Builder::new().name("admin".to_owned()).spawn(run).map_err(Error::Thread)?;
        Ok(Serving(stop))
    }
}

/// The running endpoints; they stop when this is dropped.
#[must_use]
pub struct Serving(#[expect(dead_code, reason = "its drop ends the endpoints")] oneshot::Sender<()>);

#[derive(Clone)]
struct Answers<H, R> {
    registry: Arc<Registry>,
    unhealthy: H,
    unready: R,
}

impl<H: Problem, R: Problem> Answer for Answers<H, R> {
    async fn answer(&self, request: Request<Incoming>, _: Origin) -> Response<Full<Bytes>> {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "expected GET or HEAD\n".to_owned());
        }
        match request.uri().path() {
            paths::HEALTHZ => problem_reply((self.unhealthy)()),
            paths::READYZ => problem_reply((self.unready)()),
            paths::METRICS => metrics(&self.registry),
            _ => text(StatusCode::NOT_FOUND, "no such path; there are /healthz, /readyz and /metrics\n".to_owned()),
        }
    }
}

/// A check that returns the current problem, if there is one.
pub trait Problem: Fn() -> Option<String> + Clone + Send + Sync + 'static {}

impl<F: Fn() -> Option<String> + Clone + Send + Sync + 'static> Problem for F {}

fn problem_reply(problem: Option<String>) -> Response<Full<Bytes>> {
    match problem {
        None => text(StatusCode::OK, "ok\n".to_owned()),
        Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut metrics = String::new();
    match encode(&mut metrics, registry) {
        Ok(()) => reply(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", metrics),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    reply(status, "text/plain; charset=utf-8", text)
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    fn start_server() -> (SocketAddr, Serving) {
        let admin = Admin::bind("127.0.0.1:0".parse().unwrap(), Registry::default()).unwrap();
        let address = admin.listener.local_addr().unwrap();
        (address, admin.serve(|| None, || Some("not yet".to_owned())).unwrap())
    }

    fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: operator\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer, and the end of the connection");
        text
    }

    #[test]
    fn probes_are_answered_while_the_threads_of_the_program_are_busy() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // The only thread of this runtime is blocked while it waits for the answers.
            let (address, _serving) = start_server();
            for (path, start) in [("/healthz", "HTTP/1.1 200"), ("/readyz", "HTTP/1.1 503"), ("/", "HTTP/1.1 404")] {
                assert!(ask(address, path).starts_with(start), "{path}");
            }
            assert!(ask(address, "/metrics").ends_with("# EOF\n"));
        });
    }

    #[test]
    fn silent_connections_are_closed_and_block_no_other_request() {
        let (address, _serving) = start_server();
        let mut idle: Vec<TcpStream> = (0..500).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert!(ask(address, "/healthz").starts_with("HTTP/1.1 200"));
        for stream in &mut idle {
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            // Closed, or reset.
            assert!(!matches!(stream.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock));
        }
    }

    #[test]
    fn endpoints_stop_when_dropped() {
        let (address, serving) = start_server();
        drop(serving);
        let ended = (0..1_000_000).any(|_| {
            thread::yield_now();
            TcpStream::connect(address).is_err()
        });
        assert!(ended);
    }
}
