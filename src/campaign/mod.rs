//! Leader election for Rust programs by a `coordination.k8s.io` Lease. The operator and the candidate of this project
//! use it too.
//!
//! ```no_run
//! use k8sensus::campaign::Campaign;
//!
//! # async fn example(config: kube::Config) -> Result<(), Box<dyn std::error::Error>> {
//! let campaign = Campaign::builder("default", "billing").start(&config)?;
//! let work = async {
//!     while let Some(leader) = campaign.lead().await {
//!         tokio::select! {
//!             stop = leader.lost() => eprintln!("leadership lost: {stop:?}"),
//!             () = settle_accounts(leader.token()) => {}
//!         }
//!         leader.end(); // the work has ended: the Lease may be released
//!     }
//! };
//! let goodbye = async {
//!     tokio::signal::ctrl_c().await.ok();
//!     campaign.leave(); // the work ends, the Lease is released, then `lead` returns `None`
//! };
//! tokio::join!(work, goodbye);
//! # Ok(())
//! # }
//! # async fn settle_accounts(fencing_token: &str) {}
//! ```
//!
//! A campaign has three interfaces:
//! - [`Campaign::lead`] returns a [`LeaderGuard`] for each term: for workers.
//! - [`Campaign::run`] calls [`Callbacks`] as client-go does: for code that is ported from there.
//! - [`Campaign::watch`] shows [`Leadership`] to observers, such as request handlers and probes.
//!
//! # Guarantees
//! - Those of [`crate::election`]: [`Term::is_valid`] is true for at most one candidate at a time. Its validity counts
//!   from the *send* of the last acknowledged write, on a clock that advances during suspend (off Linux not always, see
//!   [`SystemClock`]).
//! - The campaign runs on its own thread. A blocked or overloaded executor delays no renewal.
//! - Requests for the Lease use their own client, without the shared retry policy of `kube` (15 tries with up to 1000 s
//!   between them). Each ends at its timeout, and the connection of a request that timed out is not reused.
//! - The Lease is released only if the work has certainly ended: after [`LeaderGuard::end`], or if no guard was taken.
//!   A dropped guard never releases it.
//!
//! # Duties of the caller
//! - Check [`Term::is_valid`] right before each step that must not happen twice, and send [`Term::token`] along.
//! - End the work on [`Term::lost`], by its `kill_at` at the latest, then call [`LeaderGuard::end`]. Work that should
//!   finish after a mere request to stop may go on until [`Term::revoked`].
//! - Await [`Campaign::shutdown`] before the program ends. Otherwise the other candidates wait for the whole lease.
//!
//! The folder `examples` has a worker, a controller, a service, and a database that refuses the writes of a late
//! leader.
//!
//! # Caveats
//! Those of [`crate::election`], above all: a frozen process may wake up late. The campaign needs the verbs `get`,
//! `list`, `watch` and `update` on the Lease, and `create` if it should create the Lease. Without `list` and `watch` it
//! polls.
//!
//! Off Linux the clock is weaker. Where it does not count the time for which the machine is suspended, as on macOS, a
//! leader that wakes up may believe in its term for as long as the term had left. See [`SystemClock`].

#![deny(missing_docs)]

mod answer;
mod builder;
mod callbacks;
mod client;
mod driver;
#[cfg(feature = "clap")]
mod flags;
mod guard;
mod health;
mod lease;
mod lease_watch;
#[cfg_attr(not(feature = "metrics"), path = "no_metrics.rs")]
mod metrics;
mod term;

use std::fmt;

use tokio::sync::{mpsc, watch};

#[doc(hidden)]
pub use answer::{describe, describe_watch_error, is_forbidden};
pub use builder::{Builder, StartError};
pub use callbacks::Callbacks;
pub use client::{Clients, ConnectError};
#[doc(hidden)]
pub use client::{LONGEST_WATCH, leases};
#[cfg(feature = "clap")]
pub use flags::TimingFlags;
pub use guard::LeaderGuard;
pub use health::{Health, Unhealthy};
pub use lease::{apply_record, candidate_version, micro_time, snapshot_of};
pub use metrics::Metrics;
pub use term::{Stop, Term};

pub use crate::election::{InvalidTiming, Loss, Moment, Timing};
pub use crate::protocol::lease::{
    CANDIDATE_VERSION, INCARNATION, PROVEN_REVISION, READY_OF, STEP_DOWN_OF, STEP_DOWN_TO, SUSPENDED,
};
pub use crate::runtime::clock::{Clock, SystemClock};

/// The namespace and the name of a Lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The state of the election as a campaign observes it.
#[derive(Clone, Debug, Default)]
pub struct Leadership {
    /// The last observed holder of the Lease: empty if it has none, `None` before the first observation.
    pub holder: Option<String>,
    /// This candidate's own term, from its start to the end of its work.
    pub term: Option<Term>,
}

impl Leadership {
    /// Whether this candidate may act as the leader now. Reads the clock.
    pub fn is_leader(&self) -> bool {
        self.term.as_ref().is_some_and(Term::is_valid)
    }
}

#[derive(Clone, Copy, Debug)]
enum Command {
    WorkEnded {
        term: u64,
    },
    ShowReady {
        term: u64,
        ready: bool,
    },
    /// The guard was dropped without an end: work may still run.
    Abandon,
    StepDown,
    ReadyToLead(bool),
    Leave,
}

/// A candidate that takes part in an election.
///
/// Dropping it has the effect of [`leave`](Campaign::leave). While a [`LeaderGuard`] is still in use, the Lease is
/// renewed until that guard has ended.
#[derive(Debug)]
pub struct Campaign {
    lease: LeaseName,
    identity: String,
    lease_duration: std::time::Duration,
    recreation_wait: std::time::Duration,
    commands: mpsc::UnboundedSender<Command>,
    leadership: watch::Receiver<Leadership>,
}

impl Campaign {
    /// Returns a builder of a campaign for the Lease `name` in `namespace`.
    pub fn builder(namespace: impl Into<String>, name: impl Into<String>) -> Builder {
        Builder::new(LeaseName { namespace: namespace.into(), name: name.into() })
    }

    /// Returns the name of the campaign's Lease.
    pub fn lease(&self) -> &LeaseName {
        &self.lease
    }

    /// Returns the candidate's identity.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Waits for this candidate's next term. Returns `None` once the campaign is over: after
    /// [`leave`](Campaign::leave), or after a guard was dropped without [`LeaderGuard::end`]. Cancel safe.
    ///
    /// Each term is returned once, and no further term starts while its guard is in use. Another task may call
    /// [`leave`](Campaign::leave) meanwhile.
    pub async fn lead(&self) -> Option<LeaderGuard> {
        let mut leadership = self.leadership.clone();
        loop {
            let term = leadership.borrow_and_update().term.clone();
            if let Some(term) = term
                && term.take()
            {
                return Some(LeaderGuard::new(term, self.commands.clone()));
            }
            leadership.changed().await.ok()?;
        }
    }

    /// Returns a receiver of the leadership, for observers only: work belongs under the guard of
    /// [`lead`](Campaign::lead). The sender is dropped once the campaign is over.
    pub fn watch(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Returns the holders of the Lease, starting with the present one.
    pub fn holders(&self) -> Holders {
        let mut leadership = self.leadership.clone();
        leadership.mark_changed();
        Holders { leadership, last: None }
    }

    /// Returns a health check for a liveness probe.
    pub fn health(&self) -> Health {
        Health {
            lease: self.lease.clone(),
            lease_duration: self.lease_duration,
            recreation_wait: self.recreation_wait,
            leadership: self.leadership.clone(),
        }
    }

    /// Asks the work to stop, then releases the Lease and abstains until another candidate leads, for at most one lease
    /// duration. Has no effect on a standby.
    pub fn step_down(&self) {
        self.command(Command::StepDown);
    }

    /// Sets whether this candidate is ready to lead. If it is not, it acquires no Lease, and the other candidates do
    /// not wait for it. A leader that becomes unready asks its work to stop, then releases the Lease.
    pub fn set_ready_to_lead(&self, is_ready: bool) {
        self.command(Command::ReadyToLead(is_ready));
    }

    /// Asks the work to stop, releases the Lease once it has ended, and leaves the election.
    pub fn leave(&self) {
        self.command(Command::Leave);
    }

    /// [Leaves](Campaign::leave) and waits until the Lease is released: at most until the work under a guard has ended,
    /// plus 1.5 s of retries. Then the program may end. [`lead`](Campaign::lead) and [`run`](Campaign::run) wait for
    /// the same before they report the end of the campaign.
    pub async fn shutdown(mut self) {
        self.leave();
        while self.leadership.changed().await.is_ok() {}
    }

    fn command(&self, command: Command) {
        // Fails only after the end of the campaign: nothing is left to do.
        let _ = self.commands.send(command);
    }
}

impl Drop for Campaign {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The changes of a Lease's holder. Of several quick changes only the last may be reported.
#[derive(Clone, Debug)]
pub struct Holders {
    leadership: watch::Receiver<Leadership>,
    last: Option<String>,
}

impl Holders {
    /// Waits for the next holder, empty if the Lease has none. Returns `None` once the campaign is over. Cancel safe.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            self.leadership.changed().await.ok()?;
            let holder = self.leadership.borrow_and_update().holder.clone();
            if holder.is_some() && holder != self.last {
                self.last.clone_from(&holder);
                return holder;
            }
        }
    }
}

/// Returns a unique name of this process: `<podUID>/<container>/<nonce>`.
///
/// # Panics
/// If the system returns no random bytes.
pub fn incarnation(pod_uid: &str, container: &str) -> String {
    let nonce = getrandom::u64().expect("Linux has had getrandom since 3.17, and other systems have the like");
    format!("{pod_uid}/{container}/{nonce:016x}")
}
