//! No write of a replica that does not lead: checked for every request, right before it is sent.

use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use kube::client::Body;
use tower::{BoxError, Layer, Service};

use crate::campaign::Term;

/// Refuses every request but reads once `term` is no longer valid.
#[derive(Clone)]
pub(super) struct Gate(pub(super) Term);

/// The service behind a [`Gate`].
#[derive(Clone)]
pub(super) struct Gated<S> {
    term: Term,
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
        Gated { term: self.0.clone(), inner }
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
        if request.method() == http::Method::GET || self.term.is_valid() {
            return Either::Left(self.inner.call(request));
        }
        let error = NotLeading { method: request.method().to_string(), path: request.uri().path().to_owned() };
        Either::Right(ready(Err(error.into())))
    }
}
