//! The replicas of the operator elect one that reconciles, by the same campaign as the workloads.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

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
    let mut reign: Option<Reign> = None;
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
                reign = Some(Reign::begin(&config, &options, &metrics, &health, term)?);
            }
            Some(Notice::Stop { loss, .. }) => {
                if let Some(reign) = reign.take() {
                    let term = reign.end(&*options.campaign.clock).await;
                    handle.work_ended(&term);
                    health.forget();
                    info!("{me} reconciles no longer ({loss:?})");
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

/// What runs during one term of this replica's leadership.
struct Reign {
    term: Term,
    gate: Gate,
    controller: JoinHandle<()>,
    /// Alive as long as some reconcile is.
    context: Weak<Context>,
}

impl Reign {
    fn begin(
        config: &Config,
        options: &Options,
        metrics: &Metrics,
        health: &WatchHealth,
        term: Term,
    ) -> Result<Self, kube::Error> {
        let gate = Gate::open(term.clone());
        let client = ClientBuilder::try_from(for_requests(config))?.with_layer(&gate).build();
        let watching = kube::Client::try_from(for_watches(config))?;
        let clock = options.campaign.clock.clone();
        health.forget();
        let (caches, groups, group_stream, triggers) = observe::watch(&watching, clock.clone(), health);
        let context = Arc::new(Context {
            applier: Applier::new(client.clone()),
            client,
            clock,
            caches,
            health: health.clone(),
            candidate_image: options.candidate_image.clone(),
            metrics: metrics.clone(),
            failures: Mutex::new(HashMap::new()),
        });
        let weak = Arc::downgrade(&context);
        let controller = Controller::for_stream(group_stream, groups)
            .with_config(controller::Config::default().concurrency(options.concurrency))
            .reconcile_on(triggers)
            .run(reconcile, on_error, context)
            .for_each(async |result| {
                // The reconciler's own errors are told where they are counted, failing watches where they are noted.
                if let Err(error @ controller::Error::RunnerError(_)) = result {
                    warn!("{error}");
                }
            });
        Ok(Self { term, gate, controller: tokio::spawn(controller), context: weak })
    }

    /// Cuts reconciles off, does not let them finish: a loser must not write on. Returns when none is left.
    async fn end(self, clock: &dyn Clock) -> Term {
        self.gate.close();
        self.controller.abort();
        let _ = self.controller.await;
        // The controller aborts its reconciles without waiting for the one that is just being polled elsewhere.
        while self.context.strong_count() > 0 {
            clock.sleep_until(clock.since_boot() + Duration::from_millis(1)).await;
        }
        self.term
    }
}

/// Requests are tried once and end in time: the reconciler has its own backoff, and no retry may outlive the leadership.
fn for_requests(config: &Config) -> Config {
    let mut config = config.clone();
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(Duration::from_secs(30));
    config.reset_reader_on_write = true;
    config
}

/// Watches have connections of their own and may be silent for as long as the server lets them.
fn for_watches(config: &Config) -> Config {
    let mut config = for_requests(config);
    config.read_timeout = Some(campaign::LONGEST_WATCH);
    config
}
