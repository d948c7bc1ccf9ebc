//! /healthz, /readyz and /metrics.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

/// The endpoints cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("cannot listen on {address} for /healthz, /readyz and /metrics: {source}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// The bound endpoints.
pub struct Admin {
    listener: TcpListener,
    registry: Registry,
    readiness: Readiness,
}

/// Why the program is not ready, if it is not.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<Option<String>>>);

impl Readiness {
    /// Not ready, because of `problem`.
    pub fn set(&self, problem: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem.to_owned());
    }

    /// Ready.
    pub fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What stands in the way.
    pub fn problem(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Admin {
    /// Takes the address, so that a wrong one is known at the start.
    ///
    /// # Errors
    /// [`Error::Bind`].
    pub async fn bind(address: SocketAddr, registry: Registry) -> Result<Self, Error> {
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Bind { address, source })?;
        Ok(Self { listener, registry, readiness: Readiness::default() })
    }

    /// What /readyz says, in the caller's hand.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Serves until dropped. `unhealthy` is asked at each /healthz, `unready` at each /readyz: `None` is 200, a text is
    /// 503 with that text.
    pub fn serve(self, unhealthy: impl Problem, unready: impl Problem) -> impl Future<Output = ()> {
        let registry = Arc::new(self.registry);
        let router = Router::new()
            .route("/healthz", get(async move || answer(unhealthy())))
            .route("/readyz", get(async move || answer(unready())))
            .route(
                "/metrics",
                get(move || {
                    let registry = registry.clone();
                    async move { metrics(&registry) }
                }),
            );
        async move {
            if let Err(error) = axum::serve(self.listener, router).await {
                tracing::error!("the admin endpoints ended: {error}");
            }
        }
    }
}

/// What stands in the way at the moment, if anything does.
pub trait Problem: Fn() -> Option<String> + Clone + Send + Sync + 'static {}

impl<F: Fn() -> Option<String> + Clone + Send + Sync + 'static> Problem for F {}

fn answer(problem: Option<String>) -> (StatusCode, String) {
    match problem {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn metrics(registry: &Registry) -> impl IntoResponse + use<> {
    let mut text = String::new();
    match encode(&mut text, registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text)
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], format!("{error}\n")),
    }
}
