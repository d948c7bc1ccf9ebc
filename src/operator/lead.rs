//! The replicas of the operator elect one that reconciles, by the same campaign as the workloads.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use kube::Config;
use kube::client::ClientBuilder;
use kube::runtime::Controller;
use kube::runtime::controller;
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::apply::Applier;
use super::gate::Gate;
use super::observe::{self, WatchHealth};
use super::publish::Metrics;
use super::reconcile::{Context, on_error, reconcile};
use crate::campaign::{self, ConnectError, Notice, Term};
use crate::runtime::admin::{self, Admin};
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::Shutdown;

/// What the operator is told at its start.
pub struct Options {
    /// The campaign for the operator's own Lease.
    pub campaign: campaign::Options,
    /// The image that mode Exec takes the candidate program from.
    pub candidate_image: String,
    /// Where /healthz, /readyz and /metrics are served.
    pub listen: SocketAddr,
    /// How many groups are reconciled at a time, 1 to 65535.
    pub concurrency: u16,
}

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration makes no client.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The same, for the client that reconciles.
    #[error("cannot make a client: {0}")]
    Client(#[from] kube::Error),
    /// The admin endpoints cannot be served.
    #[error(transparent)]
    Admin(#[from] admin::Error),
}

/// Runs until SIGTERM or SIGINT; then stops reconciling, releases the operator's Lease and returns.
///
/// # Errors
/// [`Error`], before anything was reconciled.
pub async fn run(config: Config, options: Options, mut shutdown: Shutdown) -> Result<(), Error> {
    let mut registry = Registry::default();
    let metrics = Metrics::default();
    metrics.register(&mut registry);
    options.campaign.metrics.register(&mut registry);
    let health = WatchHealth::default();
    let admin = Admin::bind(options.listen, registry).await?;
    let ready = admin.readiness();
    ready.set("the operator's Lease was not seen yet");

    let me = options.campaign.candidate.identity().to_owned();
    let (handle, mut notices) = campaign::start(&config, options.campaign.clone())?;
    let mut controller: Option<JoinHandle<()>> = None;
    let serving = tokio::spawn({
        let (ready, health) = (ready.clone(), health.clone());
        admin.serve(move || ready.problem().or_else(|| health.problem()))
    });
    loop {
        let notice = tokio::select! {
            signal = shutdown.requested() => {
                info!("{signal}: stopping");
                handle.shutdown();
                continue;
            }
            notice = notices.recv() => notice,
        };
        match notice {
            Some(Notice::Lead(term)) => {
                info!("{me} reconciles from now on");
                let client = gated_client(config.clone(), term)?;
                let health = health.clone();
                let context = (options.candidate_image.clone(), metrics.clone(), options.campaign.clock.clone());
                controller = Some(tokio::spawn(control(client, context, options.concurrency, health)));
            }
            Some(Notice::Stop { loss, .. }) => {
                if let Some(controller) = controller.take() {
                    // Reconciles are cut, not finished: a loser must not write on.
                    controller.abort();
                    let _ = controller.await;
                    health.forget();
                    info!("{me} reconciles no longer ({loss:?})");
                    handle.work_ended();
                }
            }
            Some(Notice::Holder(holder)) => {
                ready.clear();
                if !holder.is_empty() && holder != me {
                    info!("standing by: {holder} reconciles");
                }
            }
            Some(Notice::Finished) | None => break,
        }
    }
    serving.abort();
    Ok(())
}

/// Requests are tried once: the reconciler has its own backoff, and no retry may outlive the leadership.
fn gated_client(mut config: Config, term: Term) -> Result<kube::Client, kube::Error> {
    config.default_retry = false;
    Ok(ClientBuilder::try_from(config)?.with_layer(&Gate(term)).build())
}

type Parts = (String, Metrics, Arc<dyn Clock>);

async fn control(
    client: kube::Client,
    (candidate_image, metrics, clock): Parts,
    concurrency: u16,
    health: WatchHealth,
) {
    let (caches, groups, group_stream, triggers) = observe::watch(&client, clock.clone(), &health);
    let context = Context {
        applier: Applier::new(client.clone()),
        client,
        clock,
        caches,
        candidate_image,
        metrics,
        failures: Mutex::new(HashMap::new()),
    };
    Controller::for_stream(group_stream, groups)
        .with_config(controller::Config::default().concurrency(concurrency))
        .reconcile_on(triggers)
        .run(reconcile, on_error, Arc::new(context))
        .for_each(async |result| {
            // The reconciler's own errors are told where they are counted, failing watches where they are noted.
            if let Err(error @ controller::Error::RunnerError(_)) = result {
                warn!("{error}");
            }
        })
        .await;
}
