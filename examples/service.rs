//! A service that all replicas serve, with one route that only the leader does.
//!
//! Run two, in two terminals, and end the one that leads:
//!
//! ```text
//! cargo demo -- up
//! export KUBECONFIG=$(cargo demo -- kubeconfig)
//! POD_NAME=otter cargo run --example service -- 127.0.0.1:8001
//! POD_NAME=heron cargo run --example service -- 127.0.0.1:8002
//! curl --data 'two loaves' http://127.0.0.1:8001/orders http://127.0.0.1:8002/orders
//! ```
//!
//! `/leader` is for who routes requests to the leader, `/healthz` for the liveness probe.
//!
//! In a cluster it needs POD_NAME and POD_NAMESPACE from the downward API, and this Role in its namespace:
//!
//! ```yaml
//! rules:
//!   - apiGroups: [coordination.k8s.io]
//!     resources: [leases]
//!     verbs: [get, list, watch, create, update]
//! ```

use std::error::Error;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use k8sensus::campaign::{Campaign, Term};
use k8sensus::runtime::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::RwLock;

type Answer = (StatusCode, String);

struct Service {
    campaign: Campaign,
    /// The term that orders are taken under. Each order holds it for reading until it is answered.
    orders_under: RwLock<Option<Term>>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "0.0.0.0:8080".to_owned());
    let namespace = std::env::var("POD_NAMESPACE").unwrap_or_else(|_| "default".to_owned());
    let mut shutdown = Shutdown::listen()?;
    let campaign = Campaign::builder(namespace, "service").start(&kube::Config::infer().await?)?;
    let service = Arc::new(Service { campaign, orders_under: RwLock::new(None) });
    let routes = Router::new()
        .route("/", get(home))
        .route("/leader", get(leader))
        .route("/healthz", get(healthz))
        .route("/orders", post(take_order))
        .with_state(service.clone());

    let listener = TcpListener::bind(&address).await?;
    println!("listening on {}", listener.local_addr()?);
    let leaving = service.clone();
    let serve = axum::serve(listener, routes).with_graceful_shutdown(async move {
        println!("{}: answering what was begun", shutdown.requested().await);
        leaving.campaign.leave();
    });
    let (served, ()) = tokio::join!(serve, lead(&service));
    Ok(served?)
}

async fn lead(service: &Service) {
    while let Some(leader) = service.campaign.lead().await {
        *service.orders_under.write().await = Some(leader.term().clone());
        println!("{} leads with token {}", service.campaign.identity(), leader.token());
        leader.lost().await;
        // Waits until the orders that were begun are answered.
        *service.orders_under.write().await = None;
        leader.end();
        println!("{} leads no longer", service.campaign.identity());
    }
}

async fn home(State(service): State<Arc<Service>>) -> String {
    format!("served by {}\n", service.campaign.identity())
}

async fn leader(State(service): State<Arc<Service>>) -> Answer {
    if service.campaign.watch().borrow().is_leader() {
        (StatusCode::OK, format!("{}\n", service.campaign.identity()))
    } else {
        not_leading(&service)
    }
}

/// Fails where an order is still being taken although the Lease has run out: this process is stuck.
async fn healthz(State(service): State<Arc<Service>>) -> Answer {
    match service.campaign.health().check() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(problem) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{problem}\n")),
    }
}

/// Only the leader takes orders.
async fn take_order(State(service): State<Arc<Service>>, body: Body) -> Answer {
    let under = service.orders_under.read().await;
    let Some(term) = &*under else { return not_leading(&service) };
    let order = tokio::select! {
        biased;
        _ = term.revoked() => return not_leading(&service),
        body = to_bytes(body, 1 << 16) => match body {
            Ok(order) => String::from_utf8_lossy(&order).into_owned(),
            Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")),
        },
    };
    // Asked right before the step that must not happen twice; the token goes along with it.
    if !term.is_valid() {
        return not_leading(&service);
    }
    println!("ordered under token {}: {order}", term.token());
    (StatusCode::OK, format!("{order}: taken by {} under token {}\n", service.campaign.identity(), term.token()))
}

fn not_leading(service: &Service) -> Answer {
    let holder = service.campaign.watch().borrow().holder.clone().unwrap_or_default();
    let whom = if holder.is_empty() { "nobody leads, try again".to_owned() } else { format!("{holder} leads") };
    (StatusCode::SERVICE_UNAVAILABLE, format!("{whom}\n"))
}
