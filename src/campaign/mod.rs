//! Drives an [`Elector`] against a `coordination.k8s.io` Lease. Operator and candidate lead
//! through this very code.
//!
//! [`start`] spawns the driver. It tells by [`Notice`]s when to begin and when to end the work; the owner answers through
//! the [`Handle`].
//!
//! # Guarantees
//! Those of [`crate::election`]. In addition: every request to the Lease goes over a client of its own, without the
//! shared retry policy of `kube` (15 tries with up to 1000 s between them), and ends at its timeout; the connection of a request
//! that timed out is not used again.
//!
//! # What the owner must do
//! - On [`Notice::Lead`] begin the work; while in doubt, ask [`Term::is_valid`] right before each step that must not happen twice.
//! - On [`Notice::Stop`] end it, by `kill_at` at the latest, then call [`Handle::work_ended`]. Not before nothing of
//!   it is left: that call releases the Lease.
//! - At the program's end call [`Handle::shutdown`] and wait for [`Notice::Finished`]. A driver whose handles are all
//!   dropped renews no more and lets the Lease expire, since nobody could say whether work still runs.

mod client;
mod driver;
mod flags;
mod lease;
mod metrics;
mod term;

use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::election::{Candidate, Elector, Loss, Moment, Timing};
use crate::runtime::clock::Clock;

pub(crate) use client::LONGEST_WATCH;
pub use client::{ConnectError, told};
pub use flags::TimingFlags;
pub use lease::{INCARNATION, apply_record, micro_time, snapshot_of};
pub use metrics::Metrics;
pub use term::Term;

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

/// Everything that a campaign needs to know.
#[derive(Clone)]
pub struct Options {
    /// The Lease to campaign for.
    pub lease: LeaseName,
    /// Who campaigns.
    pub candidate: Candidate,
    /// The durations, checked.
    pub timing: Timing,
    /// Whether to create the Lease if there is none. Needs the verb `create`.
    pub may_create: bool,
    /// What deadlines are read from.
    pub clock: Arc<dyn Clock>,
    /// Counts, if wanted.
    pub metrics: Metrics,
}

/// What the owner of a campaign is told, in this order of time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// Begin the work.
    Lead(Term),
    /// End the work, then call [`Handle::work_ended`]. May be repeated with an earlier end.
    Stop {
        /// Why.
        loss: Loss,
        /// When what still lives must be killed; `None` if the work may take its time.
        kill_at: Option<Moment>,
    },
    /// The Lease shows this holder now, empty if there is none.
    Holder(String),
    /// The campaign is over; the Lease is released, or left to expire if that was not possible.
    Finished,
}

#[derive(Clone, Copy, Debug)]
enum Command {
    WorkEnded { term: u64 },
    StepDown,
    Shutdown,
}

/// How the owner of a campaign speaks to its driver. All calls return at once.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::UnboundedSender<Command>);

impl Handle {
    /// The work of `term` has ended and nothing of it is left: the Lease may be released. Said of a former term it
    /// changes nothing.
    pub fn work_ended(&self, term: &Term) {
        self.send(Command::WorkEnded { term: term.number() });
    }

    /// Give leadership up and abstain for a lease duration.
    pub fn step_down(&self) {
        self.send(Command::StepDown);
    }

    /// Give leadership up and leave the election. [`Notice::Finished`] follows once the work has ended.
    pub fn shutdown(&self) {
        self.send(Command::Shutdown);
    }

    fn send(&self, command: Command) {
        // A driver that has finished has nothing left to do.
        let _ = self.0.send(command);
    }
}

/// Spawns the campaign on the current tokio runtime.
///
/// # Errors
/// [`ConnectError`] if `config` does not make a client (bad certificates, unreadable key). An API server that cannot be
/// reached is no error: the campaign keeps trying.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn start(
    config: &kube::Config,
    options: Options,
) -> Result<(Handle, mpsc::UnboundedReceiver<Notice>), ConnectError> {
    let clients = client::Clients::connect(config, &options.timing)?;
    let (commands, inbox) = mpsc::unbounded_channel();
    let (outbox, notices) = mpsc::unbounded_channel();
    let seed = seed_of(&options.candidate);
    let elector = Elector::new(options.candidate.clone(), options.timing, options.may_create, seed);
    tokio::spawn(driver::Driver::new(clients, options, elector, inbox, outbox).run());
    Ok((Handle(commands), notices))
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

/// Candidates differ in their incarnation, so their orders of takeover differ.
fn seed_of(candidate: &Candidate) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    candidate.incarnation().hash(&mut hasher);
    hasher.finish()
}
