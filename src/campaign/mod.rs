//! Campaigns for a `coordination.k8s.io` Lease: the leader election that a Rust program adds to itself. Operator and
//! candidate of this project lead through this very code.
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
//!         leader.end(); // nothing of the work is left: the Lease may be released
//!     }
//! };
//! let goodbye = async {
//!     tokio::signal::ctrl_c().await.ok();
//!     campaign.leave(); // the work ends, the Lease is released, and then `lead` says `None`
//! };
//! tokio::join!(work, goodbye);
//! # Ok(())
//! # }
//! # async fn settle_accounts(fencing_token: &str) {}
//! ```
//!
//! There are three ways to take part, of one campaign:
//! - [`Campaign::lead`] hands out a [`LeaderGuard`] for each term: for workers.
//! - [`Campaign::run`] calls [`Callbacks`] as client-go does: for who comes from there.
//! - [`Campaign::watch`] shows [`Leadership`] to whoever only looks: for handlers of requests and probes.
//!
//! # Guarantees
//! - Those of [`crate::election`]: at most one candidate's [`Term::is_valid`] at a time, counted from the *send* of the last
//!   acknowledged write on a clock that goes on in suspend.
//! - The campaign has a thread of its own. An executor that is blocked or overloaded starves no renewal.
//! - Every request to the Lease goes over a client of its own, without the shared retry policy of `kube` (15 tries with up to
//!   1000 s between them), and ends at its timeout; the connection of a request that timed out is not used again.
//! - The Lease is released only when the work is known to have ended: after [`LeaderGuard::end`], or where no guard was
//!   taken. Never by a silent drop.
//!
//! # What the owner must do
//! - Ask [`Term::is_valid`] right before each step that must not happen twice, and send [`Term::token`] along.
//! - End the work on [`Term::lost`], by its `kill_at` at the latest, then call [`LeaderGuard::end`]. Work that is to be
//!   finished when somebody merely asks for an end waits for [`Term::revoked`] too.
//! - Await [`Campaign::shutdown`] before the program ends, or the others wait for the whole lease.
//!
//! The folder `examples` has a worker, a controller, a service, and writes that a database refuses to a late leader.
//!
//! # Caveats
//! Those of [`crate::election`]: a frozen process wakes up late. The API server must allow `get`, `list`, `watch` and
//! `update` on the Lease, and `create` where the campaign is to create it; without `list` and `watch` it polls.

#![deny(missing_docs)]

mod answer;
mod builder;
mod callbacks;
mod client;
mod driver;
mod flags;
mod guard;
mod health;
mod lease;
mod lookout;
mod metrics;
mod term;

use std::fmt;

use tokio::sync::{mpsc, watch};

pub(crate) use answer::{describe, describe_watch_error, is_forbidden};
pub use builder::{Builder, StartError};
pub use callbacks::Callbacks;
pub use client::{Clients, ConnectError};
pub(crate) use client::{LONGEST_WATCH, leases};
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

/// Where the Lease is.
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

/// What a campaign shows of the election.
#[derive(Clone, Debug, Default)]
pub struct Leadership {
    /// The Lease's holder as it was seen last: empty if there is none, `None` as long as nothing was seen.
    pub holder: Option<String>,
    /// This candidate's own term, from its begin to the end of its work.
    pub term: Option<Term>,
}

impl Leadership {
    /// Whether this candidate may act as the leader now; reads the clock.
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
    /// Work may still run, but nobody will say when it has ended.
    Abandon,
    StepDown,
    ReadyToLead(bool),
    Leave,
}

/// A candidate that takes part in an election.
///
/// To drop it is to [`leave`](Campaign::leave): where a [`LeaderGuard`] is still out the Lease is renewed until that has
/// ended.
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
    /// A campaign for the Lease `name` in `namespace`.
    pub fn builder(namespace: impl Into<String>, name: impl Into<String>) -> Builder {
        Builder::new(LeaseName { namespace: namespace.into(), name: name.into() })
    }

    /// The Lease that this campaign is for.
    pub fn lease(&self) -> &LeaseName {
        &self.lease
    }

    /// Who campaigns.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Waits for this candidate's next term. `None` once the campaign is over: after [`leave`](Campaign::leave), or when a
    /// guard was dropped without [`LeaderGuard::end`]. Cancel safe.
    ///
    /// Each term is handed out once; while its guard is out there is no other. Somebody else may [`leave`](Campaign::leave)
    /// meanwhile.
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

    /// Shows leadership to whoever only looks: work belongs under the guard of [`lead`](Campaign::lead). Its sender is gone
    /// once the campaign is over.
    pub fn watch(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// The holders that the Lease shows, from the present one on.
    pub fn holders(&self) -> Holders {
        let mut leadership = self.leadership.clone();
        leadership.mark_changed();
        Holders { leadership, last: None }
    }

    /// For a liveness probe.
    pub fn health(&self) -> Health {
        Health {
            lease: self.lease.clone(),
            lease_duration: self.lease_duration,
            recreation_wait: self.recreation_wait,
            leadership: self.leadership.clone(),
        }
    }

    /// Gives leadership up, once the work has ended, and abstains until another leads, for a lease duration at most. Of no effect on a
    /// standby.
    pub fn step_down(&self) {
        self.command(Command::StepDown);
    }

    /// Says whether the work of this candidate could be done here. One that is not ready takes no Lease; if it leads, it gives
    /// leadership up, once the work has ended. The others do not wait for it.
    pub fn set_ready_to_lead(&self, is_ready: bool) {
        self.command(Command::ReadyToLead(is_ready));
    }

    /// Gives leadership up, once the work has ended, and leaves the election.
    pub fn leave(&self) {
        self.command(Command::Leave);
    }

    /// [Leaves](Campaign::leave) and waits until the Lease is released: at most the time that the work under a guard takes to end,
    /// plus 1.5 s of tries. Then the program may end. [`lead`](Campaign::lead) and [`run`](Campaign::run) have waited for the
    /// same when they say that the campaign is over.
    pub async fn shutdown(mut self) {
        self.leave();
        while self.leadership.changed().await.is_ok() {}
    }

    fn command(&self, command: Command) {
        // A campaign that is over has nothing left to do.
        let _ = self.commands.send(command);
    }
}

impl Drop for Campaign {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The changes of a Lease's holder. Of changes in quick succession only the last may be shown.
#[derive(Clone, Debug)]
pub struct Holders {
    leadership: watch::Receiver<Leadership>,
    last: Option<String>,
}

impl Holders {
    /// Waits for the next holder, empty if the Lease has none. `None` once the campaign is over. Cancel safe.
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

/// A name for this process that no other has: `<podUID>/<container>/<nonce>`.
///
/// # Panics
/// If the kernel gives no random bytes.
pub fn incarnation(pod_uid: &str, container: &str) -> String {
    let mut nonce = [0; 8];
    rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())
        .expect("Linux has had getrandom since 3.17");
    format!("{pod_uid}/{container}/{:016x}", u64::from_ne_bytes(nonce))
}
