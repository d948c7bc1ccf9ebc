use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use super::client::{Clients, ConnectError};
use super::driver::Driver;
use super::{Campaign, Leadership, LeaseName, Metrics, incarnation};
use crate::election::{Candidate, Elector, InvalidCandidate, Timing};
use crate::protocol::environment;
use crate::runtime::clock::{Clock, SystemClock};

/// The settings of a campaign, created by [`Campaign::builder`].
#[derive(Clone)]
pub struct Builder {
    lease: LeaseName,
    identity: String,
    incarnation: Option<String>,
    revision: Option<String>,
    dead_predecessors: Option<String>,
    timing: Timing,
    create_lease: bool,
    is_ready: bool,
    candidate_version: Option<String>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

/// The reason why a campaign could not be started. An unreachable API server is no such reason: the campaign keeps
/// trying.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The Lease's name or namespace is empty.
    #[error("expected the namespace and the name of a Lease, found {0:?}")]
    Lease(LeaseName),
    /// The identity or the incarnation is empty.
    #[error("{0}: set POD_NAME from the downward API's metadata.name, or name the candidate with Builder::identity")]
    Identity(#[from] InvalidCandidate),
    /// The configuration is invalid (bad certificates, an unreadable key).
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The kernel refused the campaign's thread or the resources of its runtime.
    #[error("cannot start the campaign's thread: {0}")]
    Thread(#[from] io::Error),
}

impl Builder {
    pub(super) fn new(lease: LeaseName) -> Self {
        Self {
            lease,
            identity: own_name(),
            incarnation: None,
            revision: None,
            dead_predecessors: None,
            timing: Timing::default(),
            create_lease: true,
            is_ready: true,
            candidate_version: None,
            clock: Arc::new(SystemClock),
            metrics: Metrics::default(),
        }
    }

    /// Sets the candidate's `holderIdentity`. By default the environment variable `POD_NAME`, else the host's name.
    pub fn identity(mut self, identity: impl Into<String>) -> Self {
        self.identity = identity.into();
        self
    }

    /// Sets the unique name of this process, see [`incarnation`]. By default `$POD_UID/-/<nonce>`, with a new nonce for
    /// each campaign.
    pub fn incarnation(mut self, incarnation: impl Into<String>) -> Self {
        self.incarnation = Some(incarnation.into());
        self
    }

    /// Sets the revision of this candidate's program. While the Lease names another proven revision
    /// ([`PROVEN_REVISION`](super::PROVEN_REVISION)), this candidate waits 1 s longer before it acquires the Lease.
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = Some(revision.into());
        self
    }

    /// Declares that every other process of this identity whose incarnation starts with `prefix` is dead with all of
    /// its work, as long as this campaign lasts. A Lease that such a process holds is acquired at once.
    ///
    /// A prefix that matches a living process causes two leaders. In a container, a lock can prove it: every process
    /// that campaigns under the prefix must hold the lock, and its work must hold it too, as with `k8sensus exec`.
    pub fn dead_predecessors(mut self, prefix: impl Into<String>) -> Self {
        self.dead_predecessors = Some(prefix.into());
        self
    }

    /// Sets the durations; by default 15 s, 10 s and 2 s, as with client-go. All candidates must use the same ones.
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Sets whether to create a missing Lease, which needs the verb `create`. True by default.
    ///
    /// With `true`, a leader whose Lease is deleted stops at once, because another candidate may create the Lease at
    /// once. With `false`, it stops gracefully within [`Timing::recreation_wait`]. Then the program that recreates the
    /// Lease must make all candidates wait for that time, as the operator does.
    pub fn create_lease(mut self, create: bool) -> Self {
        self.create_lease = create;
        self
    }

    /// Sets whether this candidate is ready to lead from the start; true by default. Otherwise it acquires no Lease
    /// before [`Campaign::set_ready_to_lead`].
    pub fn ready_to_lead(mut self, is_ready: bool) -> Self {
        self.is_ready = is_ready;
        self
    }

    /// Writes `version` to the Lease with each acquisition and renewal
    /// ([`CANDIDATE_VERSION`](super::CANDIDATE_VERSION)), as the candidate program does for the operator. By default no
    /// version is written.
    pub fn candidate_version(mut self, version: impl Into<String>) -> Self {
        self.candidate_version = Some(version.into());
        self
    }

    /// Sets the clock for deadlines; by default [`SystemClock`].
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the metrics to update.
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Returns the name of the campaign's Lease.
    pub fn lease(&self) -> &LeaseName {
        &self.lease
    }

    /// Returns the candidate's identity.
    pub fn holder_identity(&self) -> &str {
        &self.identity
    }

    /// Returns the candidate's incarnation, if it was set.
    pub fn holder_incarnation(&self) -> Option<&str> {
        self.incarnation.as_deref()
    }

    /// Starts the campaign on its own thread, so that a blocked or overloaded executor delays no renewal. If the
    /// process has no rustls provider yet, it installs ring.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(self, config: &kube::Config) -> Result<Campaign, StartError> {
        let runtime = Background(Some(tokio::runtime::Builder::new_current_thread().enable_all().build()?));
        let (campaign, driver) = {
            // Clients spawn their workers on the runtime that creates them.
            let _inside = runtime.get().enter();
            self.clone().split(Clients::connect(config, &self.timing)?)?
        };
        std::thread::Builder::new().name("campaign".to_owned()).spawn(move || {
            let runtime = runtime;
            runtime.get().block_on(driver);
        })?;
        Ok(campaign)
    }

    /// Returns the campaign and its driver, a future to be polled on a tokio runtime of the caller. For tests and
    /// simulations with arbitrary `clients`. On a blocked runtime leadership stays safe, but reacts late.
    ///
    /// # Errors
    /// [`StartError::Lease`] and [`StartError::Identity`].
    pub fn split(self, clients: Clients) -> Result<(Campaign, impl Future<Output = ()> + Send + 'static), StartError> {
        if self.lease.name.is_empty() || self.lease.namespace.is_empty() {
            return Err(StartError::Lease(self.lease));
        }
        let incarnation = self.incarnation.unwrap_or_else(own_incarnation);
        let seed = seed_of(&incarnation);
        let mut candidate = Candidate::new(self.identity.clone(), incarnation)?;
        if let Some(revision) = self.revision {
            candidate = candidate.with_revision(revision);
        }
        if let Some(prefix) = self.dead_predecessors {
            candidate = candidate.with_dead_predecessors(prefix);
        }
        if !self.is_ready {
            candidate = candidate.not_ready();
        }
        let (commands, inbox) = mpsc::unbounded_channel();
        let (leadership, receiver) = watch::channel(Leadership::default());
        let campaign = Campaign {
            lease: self.lease.clone(),
            identity: self.identity,
            lease_duration: self.timing.lease_duration(),
            recreation_wait: self.timing.recreation_wait(),
            commands,
            leadership: receiver,
        };
        let elector = Elector::new(candidate, self.timing, self.create_lease, seed);
        let driver = Driver::new(
            clients,
            self.lease,
            self.timing,
            self.clock,
            self.metrics,
            self.candidate_version,
            elector,
            inbox,
            leadership,
        );
        Ok((campaign, driver.run()))
    }
}

/// A runtime whose drop does not block: the caller may be asynchronous, and the watch may hang in a read.
struct Background(Option<Runtime>);

impl Background {
    fn get(&self) -> &Runtime {
        self.0.as_ref().unwrap_or_else(|| unreachable!("only the drop takes it"))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn own_name() -> String {
    std::env::var(environment::POD_NAME).ok().filter(|name| !name.is_empty()).unwrap_or_else(host_name)
}

/// Returns the host's name, or nothing if it is unknown: then the campaign does not start without an identity.
fn host_name() -> String {
    hostname::get().unwrap_or_default().to_string_lossy().into_owned()
}

fn own_incarnation() -> String {
    incarnation(std::env::var(environment::POD_UID).as_deref().unwrap_or("-"), "-")
}

/// Returns a seed that differs between candidates, so that their random delays before a takeover differ.
fn seed_of(incarnation: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    incarnation.hash(&mut hasher);
    hasher.finish()
}
