//! No write of a replica that does not lead: checked for every request when it is handed to the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use kube::client::Body;
use tower::{BoxError, Layer, Service};

use crate::campaign::Term;

/// Refuses every request but reads once it was closed, and while its term is not valid.
#[derive(Clone)]
pub(super) struct Gate {
    term: Term,
    open: Arc<AtomicBool>,
}

impl Gate {
    pub(super) fn open(term: Term) -> Self {
        Self { term, open: Arc::new(AtomicBool::new(true)) }
    }

    /// From now on no write passes; all clones are one gate.
    pub(super) fn close(&self) {
        self.open.store(false, Ordering::Release);
    }

    fn lets_write(&self) -> bool {
        self.open.load(Ordering::Acquire) && self.term.is_valid()
    }
}

/// The service behind a [`Gate`].
#[derive(Clone)]
pub(super) struct Gated<S> {
    gate: Gate,
    inner: S,
}

/// The write was not sent.
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
        if request.method() == http::Method::GET || self.gate.lets_write() {
            return Either::Left(self.inner.call(request));
        }
        let error = NotLeading { method: request.method().to_string(), path: request.uri().path().to_owned() };
        Either::Right(ready(Err(error.into())))
    }
}
