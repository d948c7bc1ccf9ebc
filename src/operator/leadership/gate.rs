//! A layer of the client that refuses writes while this replica does not lead. It checks each request right before the
//! connection gets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use kube::client::Body;
use tower::{BoxError, Layer, Service};

use crate::campaign::Term;

/// The gate of one term. It permits reads always, and writes while it is open and the term is valid.
#[derive(Clone)]
pub(crate) struct Gate {
    term: Term,
    open: Arc<AtomicBool>,
}

impl Gate {
    /// Returns an open gate.
    pub(crate) fn open(term: Term) -> Self {
        Self { term, open: Arc::new(AtomicBool::new(true)) }
    }

    /// Refuses all further writes, in every clone.
    pub(crate) fn close(&self) {
        self.open.store(false, Ordering::Release);
    }

    fn permits_writes(&self) -> bool {
        self.open.load(Ordering::Acquire) && self.term.is_valid()
    }
}

/// The service behind a [`Gate`].
#[derive(Clone)]
pub(crate) struct Gated<S> {
    gate: Gate,
    inner: S,
}

/// The error of a write that was not sent.
#[derive(Debug, thiserror::Error)]
#[error("leadership is not valid at the moment: {method} {path} was not sent")]
struct NotLeading {
    method: String,
    path: String,
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.clone(), inner }
    }
}

impl<S, R> Service<http::Request<Body>> for Gated<S>
where
    S: Service<http::Request<Body>, Response = R, Error = BoxError>,
{
    type Response = R;
    type Error = BoxError;
    type Future = Either<S::Future, Ready<Result<R, BoxError>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.method() == http::Method::GET || self.gate.permits_writes() {
            return Either::Left(self.inner.call(request));
        }
        let error = NotLeading { method: request.method().to_string(), path: request.uri().path().to_owned() };
        Either::Right(ready(Err(error.into())))
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    use futures::FutureExt;
    use http::Method;

    use super::*;
    use crate::election::{Moment, Version};
    use crate::runtime::clock::Clock;

    /// A clock that a test sets, in seconds.
    #[derive(Clone, Default)]
    struct ManualClock(Arc<AtomicU64>);

    impl Clock for ManualClock {
        fn since_boot(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }

        fn wall_micros(&self) -> i64 {
            0
        }

        fn sleep_until(&self, _: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(std::future::pending())
        }
    }

    /// Returns a gate whose term is valid for the first 10 s, and its clock.
    fn gate() -> (Gate, ManualClock) {
        let clock = ManualClock::default();
        let [renewed, valid_until] = [0, 10].map(|seconds| Moment::since_boot(Duration::from_secs(seconds)));
        (Gate::open(Term::new(1, Version::new("6"), 0, valid_until, renewed, Arc::new(clock.clone()))), clock)
    }

    /// A service that answers every request at once.
    struct AlwaysOk;

    impl Service<http::Request<Body>> for AlwaysOk {
        type Response = ();
        type Error = BoxError;
        type Future = Ready<Result<(), BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Body>) -> Self::Future {
            ready(Ok(()))
        }
    }

    fn passes(gate: &Gate, method: Method) -> Result<(), String> {
        let request = http::Request::builder().method(method).uri("/apis/x").body(Body::empty()).unwrap();
        let response = gate.layer(AlwaysOk).call(request).now_or_never().expect("a response without waiting");
        response.map_err(|error| error.to_string())
    }

    const WRITES: [Method; 4] = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

    #[test]
    fn valid_term_permits_reads_and_writes() {
        let (gate, _) = gate();
        for method in WRITES.into_iter().chain([Method::GET]) {
            assert_eq!(passes(&gate, method), Ok(()));
        }
    }

    #[test]
    fn expired_term_permits_only_reads() {
        let (gate, clock) = gate();
        clock.0.store(10, Ordering::Relaxed);
        for method in WRITES {
            let refusal = passes(&gate, method.clone()).unwrap_err();
            assert_eq!(refusal, format!("leadership is not valid at the moment: {method} /apis/x was not sent"));
        }
        assert_eq!(passes(&gate, Method::GET), Ok(()));
    }

    #[test]
    fn closed_gate_refuses_writes_of_a_valid_term() {
        let (gate, _) = gate();
        gate.clone().close();
        for method in WRITES {
            assert!(passes(&gate, method).is_err());
        }
        assert_eq!(passes(&gate, Method::GET), Ok(()));
    }
}
