//! The replicas of the operator elect one that reconciles, by the same campaign as the workloads.

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

use crate::campaign::{self, Builder, LeaderGuard, StartError};
use crate::group::judge::candidate_update::Offer;
use crate::operator::cache::{self, Cache, RawGroup, Scope, WatchHealth};
use crate::operator::context::Context;
use crate::operator::leadership::gate::Gate;
use crate::operator::others::OtherOperators;
use crate::operator::reconcile::{on_error, reconcile};
use crate::operator::report::events::Recorder;
use crate::operator::report::publish::Metrics;
use crate::operator::steps::apply::Applier;
use crate::operator::steps::step_down::StepDowns;
use crate::runtime::admin::{self, Admin};
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::memory;
use crate::runtime::shutdown::Shutdown;

/// How long a watch may be silent: a bookmark's minute, the second by which it may be late, and some for the way.
const LONGEST_SILENCE: Duration = Duration::from_secs(75);

/// What the operator is told at its start.
pub struct Options {
    /// The campaign for the operator's own Lease.
    pub campaign: Builder,
    /// The image that modes Exec and Sidecar take the candidate program from.
    pub candidate_image: String,
    /// The version that the candidate program of that image is expected to state.
    pub candidate_version: String,
    /// Where /healthz, /readyz and /metrics are served.
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
    /// The configuration makes no client.
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
    ready.set("the operator's Lease was not seen yet");

    let campaign = options.campaign.clone().metrics(elections).start(&config)?;
    let me = campaign.identity().to_owned();
    let mut holders = campaign.holders();
    let health = campaign.health();
    let mut run_of_controller: Option<ControllerRun> = None;
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
            stop = told_to_stop(&run_of_controller) => if let Some(run_of_controller) = run_of_controller.take() {
                run_of_controller.end().await;
                watches.forget();
                info!("{me} reconciles no longer ({:?})", stop.loss);
            },
            guard = campaign.lead() => match guard {
                Some(guard) => {
                    info!("{me} reconciles from now on");
                    run_of_controller = Some(ControllerRun::begin(&config, &options, &metrics, &watches, guard)?);
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

async fn told_to_stop(run_of_controller: &Option<ControllerRun>) -> campaign::Stop {
    match run_of_controller {
        Some(run_of_controller) => run_of_controller.guard.lost().await,
        None => std::future::pending().await,
    }
}

/// What runs during one term of this replica's leadership.
struct ControllerRun {
    guard: LeaderGuard,
    gate: Gate,
    controller: JoinHandle<()>,
    /// Writes Events.
    events: JoinHandle<()>,
    /// Alive as long as some reconcile is.
    context: Weak<Context>,
}

impl ControllerRun {
    fn begin(
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
            step_downs: StepDowns::new(client.clone(), recorder.clone(), cache.clone()),
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
        // Everything that asks for a look comes by `triggers`.
        let no_groups = stream::pending::<Result<RawGroup, watcher::Error>>();
        let controller = Controller::for_stream(no_groups, cache.store())
            .with_config(controller::Config::default().concurrency(options.concurrency))
            .reconcile_on(triggers)
            .run(reconcile, on_error, context)
            .for_each(async |result| {
                // The reconciler's own errors are told where they are counted, failing watches where they are noted.
                if let Err(error @ controller::Error::RunnerError(_)) = result {
                    warn!("{error}");
                }
            });
        Ok(Self { guard, gate, controller: tokio::spawn(controller), events, context: weak })
    }

    /// Cuts reconciles off, does not let them finish: a loser must not write on. Returns when none is left.
    async fn end(self) {
        self.gate.close();
        self.controller.abort();
        self.events.abort();
        let _ = self.controller.await;
        let _ = self.events.await;
        // The controller aborts its reconciles without waiting for the one that is just being polled elsewhere.
        while self.context.strong_count() > 0 {
            SystemClock.sleep_until(SystemClock.since_boot() + Duration::from_millis(1)).await;
        }
        self.guard.end();
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

/// Each watch has a connection of its own. An API server sends a bookmark about once a minute where there is no event; a
/// connection that brings neither for longer may be dead, and the watch goes on over another one.
fn for_watches(config: &Config) -> Config {
    let mut config = for_requests(config);
    config.read_timeout = Some(LONGEST_SILENCE);
    config
}
