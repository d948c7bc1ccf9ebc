//! A service on all replicas, with one route that only the leader serves.
//!
//! Run two replicas in two terminals, and end the leader:
//!
//! ```text
//! cargo demo -- up
//! export KUBECONFIG=$(cargo demo -- kubeconfig)
//! POD_NAME=otter cargo run --example service -- 127.0.0.1:8001
//! POD_NAME=heron cargo run --example service -- 127.0.0.1:8002
//! curl --data 'two loaves' http://127.0.0.1:8001/orders http://127.0.0.1:8002/orders
//! ```
//!
//! `/leader` is for a load balancer that routes requests to the leader, `/healthz` for the liveness probe.
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
use k8sensus::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::RwLock;

type Answer = (StatusCode, String);

struct Service {
    campaign: Campaign,
    /// The term under which orders are taken. Each order holds a read lock until it is answered.
    order_term: RwLock<Option<Term>>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "0.0.0.0:8080".to_owned());
    let namespace = std::env::var("POD_NAMESPACE").unwrap_or_else(|_| "default".to_owned());
    let mut shutdown = Shutdown::listen()?;
    let campaign = Campaign::builder(namespace, "service").start(&kube::Config::infer().await?)?;
    let service = Arc::new(Service { campaign, order_term: RwLock::new(None) });
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
        println!("{}: finishing open requests", shutdown.requested().await);
        leaving.campaign.leave();
    });
    let (served, ()) = tokio::join!(serve, lead(&service));
    Ok(served?)
}

async fn lead(service: &Service) {
    while let Some(leader) = service.campaign.lead().await {
        *service.order_term.write().await = Some(leader.term().clone());
        println!("{} leads with token {}", service.campaign.identity(), leader.token());
        leader.lost().await;
        // Waits until all open orders are answered.
        *service.order_term.write().await = None;
        leader.end();
        println!("{} stopped leading", service.campaign.identity());
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

/// Fails if the Lease has expired and an order is still open: then this process is stuck.
async fn healthz(State(service): State<Arc<Service>>) -> Answer {
    match service.campaign.health().check() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(problem) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{problem}\n")),
    }
}

/// Takes an order, on the leader only.
async fn take_order(State(service): State<Arc<Service>>, body: Body) -> Answer {
    let order_term = service.order_term.read().await;
    let Some(term) = &*order_term else { return not_leading(&service) };
    let order = tokio::select! {
        biased;
        _ = term.revoked() => return not_leading(&service),
        body = to_bytes(body, 1 << 16) => match body {
            Ok(order) => String::from_utf8_lossy(&order).into_owned(),
            Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")),
        },
    };
    // Checked right before the step that must not happen twice; the token is part of that step.
    if !term.is_valid() {
        return not_leading(&service);
    }
    println!("ordered under token {}: {order}", term.token());
    (StatusCode::OK, format!("{order}: taken by {} under token {}\n", service.campaign.identity(), term.token()))
}

fn not_leading(service: &Service) -> Answer {
    let holder = service.campaign.watch().borrow().holder.clone().unwrap_or_default();
    let leader = if holder.is_empty() { "there is no leader, try again".to_owned() } else { format!("{holder} leads") };
    (StatusCode::SERVICE_UNAVAILABLE, format!("{leader}\n"))
}
