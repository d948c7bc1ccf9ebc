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

/// What a campaign needs to know. Made by [`Campaign::builder`].
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

/// Why a campaign could not be started. An API server that cannot be reached is no such reason: the campaign keeps trying.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The Lease's name or namespace is empty.
    #[error("expected the namespace and the name of a Lease, found {0:?}")]
    Lease(LeaseName),
    /// There is no identity.
    #[error("{0}: set POD_NAME from the downward API's metadata.name, or name the candidate with Builder::identity")]
    Identity(#[from] InvalidCandidate),
    /// The configuration makes no client (bad certificates, an unreadable key).
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The kernel refused the campaign's thread, or what its runtime waits with.
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

    /// The `holderIdentity` to campaign with. By default the environment variable `POD_NAME`, else the host's name.
    pub fn identity(mut self, identity: impl Into<String>) -> Self {
        self.identity = identity.into();
        self
    }

    /// What tells this process from all others that were or will be, see [`incarnation`]. By default
    /// `$POD_UID/-/<nonce>`, with a nonce of its own for each campaign.
    pub fn incarnation(mut self, incarnation: impl Into<String>) -> Self {
        self.incarnation = Some(incarnation.into());
        self
    }

    /// The revision of the program that is to lead. While the Lease names another one as proved
    /// ([`PROVEN_REVISION`](super::PROVEN_REVISION)), this candidate holds back for 1 s before it takes a Lease that is free.
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = Some(revision.into());
        self
    }

    /// Every process of this identity whose incarnation begins with `prefix`, but for this one, is dead with all of its work, and
    /// will be while this campaign lasts: its Lease is taken at once.
    ///
    /// A prefix that is true of a living process makes two leaders. What proves it in a container is a lock that the work holds,
    /// too, and that whoever campaigns under the prefix has to have, as `k8sensus exec` does it.
    pub fn dead_predecessors(mut self, prefix: impl Into<String>) -> Self {
        self.dead_predecessors = Some(prefix.into());
        self
    }

    /// The durations; by default 15 s, 10 s and 2 s, as client-go's users have them. All candidates must use the same.
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Whether to create the Lease where there is none, which needs the verb `create`. True by default.
    ///
    /// With `false` the program that creates the Lease must let all candidates wait for [`Timing::recreation_wait`] where a leader of a
    /// deleted Lease may still work, as the operator does: a leader whose Lease is deleted stops in good order within that time.
    /// With `true` it stops at once, since another candidate may create the Lease at once.
    pub fn create_lease(mut self, create: bool) -> Self {
        self.create_lease = create;
        self
    }

    /// Whether this candidate is ready to lead from the start; true by default. Otherwise it takes no Lease before
    /// [`Campaign::set_ready_to_lead`].
    pub fn ready_to_lead(mut self, is_ready: bool) -> Self {
        self.is_ready = is_ready;
        self
    }

    /// States `version` in the Lease with each claim ([`CANDIDATE_VERSION`](super::CANDIDATE_VERSION)), as the candidate program
    /// does for the operator. By default nothing is stated.
    pub fn candidate_version(mut self, version: impl Into<String>) -> Self {
        self.candidate_version = Some(version.into());
        self
    }

    /// What deadlines are read from; by default `CLOCK_BOOTTIME`.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Counts into these metrics.
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// The Lease that it is for.
    pub fn lease(&self) -> &LeaseName {
        &self.lease
    }

    /// Who is to campaign.
    pub fn holder_identity(&self) -> &str {
        &self.identity
    }

    /// As which incarnation, if one was set.
    pub fn holder_incarnation(&self) -> Option<&str> {
        self.incarnation.as_deref()
    }

    /// Starts to campaign, on a thread of its own: an executor that is blocked or overloaded starves no renewal. Where the process
    /// has no rustls provider yet, ring becomes that.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(self, config: &kube::Config) -> Result<Campaign, StartError> {
        let runtime = Background(Some(tokio::runtime::Builder::new_current_thread().enable_all().build()?));
        let (campaign, driver) = {
            // Clients spawn their workers where they are made.
            let _inside = runtime.get().enter();
            self.clone().split(Clients::connect(config, &self.timing)?)?
        };
        std::thread::Builder::new().name("campaign".to_owned()).spawn(move || {
            let runtime = runtime;
            runtime.get().block_on(driver);
        })?;
        Ok(campaign)
    }

    /// The campaign and what drives it, to be polled on a tokio runtime of the caller's: for tests and simulations, with
    /// `clients` that may speak to anything. Leadership is safe but late where that runtime is blocked.
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
        let (leadership, shown) = watch::channel(Leadership::default());
        let campaign = Campaign {
            lease: self.lease.clone(),
            identity: self.identity,
            lease_duration: self.timing.lease_duration(),
            recreation_wait: self.timing.recreation_wait(),
            commands,
            leadership: shown,
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

/// A runtime whose drop waits for nothing: the caller may be asynchronous, and a watch may hang in a read that nobody wants
/// any more.
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
    std::env::var(environment::POD_NAME)
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

fn own_incarnation() -> String {
    incarnation(std::env::var(environment::POD_UID).as_deref().unwrap_or("-"), "-")
}

/// Candidates differ in their incarnation, so their orders of takeover differ.
fn seed_of(incarnation: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    incarnation.hash(&mut hasher);
    hasher.finish()
}
