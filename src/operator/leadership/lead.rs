//! The election among the replicas of the operator, by the same campaign as the workloads use. The leader reconciles.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use kube::Config;
use kube::client::ClientBuilder;
use kube::runtime::{Controller, controller, watcher};
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::cache::{self, Cache, RawGroup, Scope, WatchHealth};
use crate::campaign::{self, Builder, LeaderGuard, StartError};
use crate::context::Context;
use crate::group::judge::candidate_update::Offer;
use crate::leadership::gate::Gate;
use crate::lease::LeaseWriter;
use crate::others::OtherOperators;
use crate::reconcile::{on_error, reconcile};
use crate::report::events::Recorder;
use crate::report::publish::Metrics;
use crate::runtime::admin::{self, Admin};
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::memory;
use crate::runtime::shutdown::Shutdown;
use crate::steps::apply::Applier;

/// How long a watch may be silent: the minute between bookmarks, the second by which one may be late, and some time for
/// its transfer.
const LONGEST_SILENCE: Duration = Duration::from_secs(75);

/// The settings of an operator.
pub struct Options {
    /// The campaign for the operator's own Lease.
    pub campaign: Builder,
    /// The image that contains the candidate program of modes Exec and Sidecar.
    pub candidate_image: String,
    /// The version that the candidate program of that image should state.
    pub candidate_version: String,
    /// The address that serves /healthz, /readyz and /metrics.
    pub listen: SocketAddr,
    /// The namespaces whose groups are reconciled; none means all.
    pub namespaces: Vec<String>,
    /// How many groups are reconciled at a time, 1 to 65535.
    pub concurrency: u16,
}

impl Options {
    fn scopes(&self) -> Vec<Scope> {
        if self.namespaces.is_empty() {
            return vec![Scope(None)];
        }
        self.namespaces.iter().cloned().map(|namespace| Scope(Some(namespace))).collect()
    }
}

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The campaign cannot be started.
    #[error(transparent)]
    Campaign(#[from] StartError),
    /// The configuration is invalid for a client.
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
    crate::group::prepare();
    memory::give_back();
    let mut registry = Registry::default();
    let metrics = Metrics::default();
    metrics.register(&mut registry);
    let elections = campaign::Metrics::default();
    elections.register(&mut registry);
    let watches = WatchHealth::new(Arc::new(SystemClock));
    let admin = Admin::bind(options.listen, registry)?;
    let ready = admin.readiness();
    ready.set("the operator's Lease has not been observed yet");

    let campaign = options.campaign.clone().metrics(elections).start(&config)?;
    let me = campaign.identity().to_owned();
    let mut holders = campaign.holders();
    let health = campaign.health();
    let mut controller_run: Option<ControllerRun> = None;
    let _serving = {
        let (ready, watches) = (ready.clone(), watches.clone());
        admin.serve(
            move || health.check().err().map(|problem| problem.to_string()),
            move || ready.problem().or_else(|| watches.problem()),
        )?
    };
    loop {
        tokio::select! {
            biased;
            signal = shutdown.requested() => {
                info!("{signal}: stopping");
                campaign.leave();
            }
            stop = leadership_lost(&controller_run) => if let Some(controller_run) = controller_run.take() {
                controller_run.end().await;
                watches.forget();
                info!("{me} stopped reconciling ({:?})", stop.loss);
            },
            guard = campaign.lead() => match guard {
                Some(guard) => {
                    info!("{me} acquired the operator Lease: starting to reconcile");
                    controller_run = Some(ControllerRun::start(&config, &options, &metrics, &watches, guard)?);
                }
                None => break,
            },
            Some(holder) = holders.next() => {
                ready.clear();
                if !holder.is_empty() && holder != me {
                    info!("standing by: {holder} reconciles");
                }
            }
        }
    }
    Ok(())
}

/// Waits until the leadership of the run is lost.
async fn leadership_lost(controller_run: &Option<ControllerRun>) -> campaign::Stop {
    match controller_run {
        Some(controller_run) => controller_run.guard.lost().await,
        None => std::future::pending().await,
    }
}

/// The tasks of one term of this replica's leadership.
struct ControllerRun {
    guard: LeaderGuard,
    gate: Gate,
    controller: JoinHandle<()>,
    /// The task that writes Events.
    events: JoinHandle<()>,
    /// Upgradable while a reconcile runs.
    context: Weak<Context>,
}

impl ControllerRun {
    /// Starts the watches, the controller and the recorder of Events.
    fn start(
        config: &Config,
        options: &Options,
        metrics: &Metrics,
        health: &WatchHealth,
        guard: LeaderGuard,
    ) -> Result<Self, kube::Error> {
        let gate = Gate::open(guard.term().clone());
        let client = ClientBuilder::try_from(for_requests(config))?.with_layer(&gate).build();
        let watching = kube::Client::try_from(for_watches(config))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        health.forget();
        let scopes = options.scopes();
        let cache = Cache::new(&scopes, clock.clone(), &options.candidate_image);
        let triggers = cache::triggers(&watching, &cache, &scopes, health);
        let (recorder, events) = Recorder::start(client.clone(), clock.clone(), options.campaign.holder_identity());
        let context = Arc::new(Context {
            applier: Applier::new(client.clone(), cache.clone()),
            leases: LeaseWriter::new(client.clone()),
            client,
            clock,
            cache: cache.clone(),
            offer: Offer::new(&options.candidate_image, &options.candidate_version),
            operator: options.campaign.lease().to_string(),
            others: OtherOperators::default(),
            metrics: metrics.clone(),
            events: recorder,
        });
        let weak = Arc::downgrade(&context);
        // Every reconcile is requested by `triggers`.
        let no_groups = stream::pending::<Result<RawGroup, watcher::Error>>();
        let controller = Controller::for_stream(no_groups, cache.store())
            .with_config(controller::Config::default().concurrency(options.concurrency))
            .reconcile_on(triggers)
            .run(reconcile, on_error, context)
            .for_each(async |result| {
                // Errors of a reconcile are logged by `on_error`, those of a watch by `WatchHealth`.
                if let Err(error @ controller::Error::RunnerError(_)) = result {
                    warn!("{error}");
                }
            });
        Ok(Self { guard, gate, controller: tokio::spawn(controller), events, context: weak })
    }

    /// Aborts the reconciles instead of letting them finish: a replica that lost its leadership must not write. Returns
    /// when none is left.
    async fn end(self) {
        self.gate.close();
        self.controller.abort();
        self.events.abort();
        let _ = self.controller.await;
        let _ = self.events.await;
        // The controller aborts its reconciles, but does not wait for one that another thread is polling.
        while self.context.strong_count() > 0 {
            SystemClock.sleep_until(SystemClock.since_boot() + Duration::from_millis(1)).await;
        }
        self.guard.end();
    }
}

/// Returns the configuration for requests. Each is sent once and ends in time: the reconciler has its own backoff, and
/// no retry may outlive the leadership.
fn for_requests(config: &Config) -> Config {
    let mut config = config.clone();
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(Duration::from_secs(30));
    config.reset_reader_on_write = true;
    config
}

/// Returns the configuration for watches. An API server sends a bookmark about once a minute if there is no event. A
/// connection that brings neither for longer may be dead, so the watch continues over another one. Each watch has its
/// own connection.
fn for_watches(config: &Config) -> Config {
    let mut config = for_requests(config);
    config.read_timeout = Some(LONGEST_SILENCE);
    config
}
