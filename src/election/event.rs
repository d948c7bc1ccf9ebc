use std::time::Duration;

use super::moment::Moment;
use super::record::{Record, Snapshot, Version};

/// One observation of the Lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sight {
    /// It exists.
    Lease(Snapshot),
    /// It does not exist. `deleted_at` is the version of its deletion, if known.
    Absent { deleted_at: Option<Version> },
}

/// The reason why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// 409: the Lease is not at the expected version, or exists already.
    Conflict,
    /// 404 in answer to a write.
    NotFound,
    /// The server refused the request, or cannot serve it now. Nothing was written.
    Refused { retry_after: Option<Duration> },
    /// The answer is missing, broken or late: the write may or may not have happened.
    Unknown,
}

/// An input of the election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The watch reported the Lease.
    Watched(Sight),
    /// The watch is not permitted: standbys must poll.
    WatchForbidden,
    /// The answer to [`Action::Read`].
    Read { request: u64, result: Result<Sight, Failure> },
    /// The answer to [`Action::Write`]; `Ok` carries the version of the written Lease.
    Written { request: u64, result: Result<Version, Failure> },
    /// A timer fired. Harmless at any time.
    Tick,
    /// The annotations that a renewal writes have changed: a leader renews at once.
    Renew,
    /// Ends leadership, then abstains until another candidate leads, for at most one lease duration.
    StepDown,
    /// Whether this candidate's program is ready to lead. If not, the candidate acquires no Lease, and a leader steps
    /// down as with [`StepDown`](Event::StepDown).
    ReadyToLead(bool),
    /// Ends leadership and leaves the election.
    Shutdown,
    /// The work that [`Action::Lead`] started under this number has ended completely.
    WorkEnded { term: u64 },
}

/// The purpose of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Create the Lease with this candidate as its holder.
    Create,
    /// Take over the existing Lease.
    Acquire,
    /// Extend it.
    Renew,
    /// Release it.
    Release,
}

/// The reason why the work must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// A step-down or a shutdown was requested. The Lease is renewed until the work has ended.
    Requested,
    /// No renewal was acknowledged within the renew deadline, or the renewing task has ended.
    DeadlinePassed,
    /// The Lease was deleted. No candidate can acquire it before it is recreated and its duration has passed, so the
    /// work may end gracefully. At first there is no deadline; [`Loss::DeadlinePassed`] follows if the work takes too
    /// long.
    LeaseDeleted,
    /// The Lease has another holder or none, or was deleted where candidates may create it.
    Deposed,
}

/// An output of the election. Requests carry a number that their answer must repeat; only one is in flight at a time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Get the Lease, not from a cache. Answer [`Failure::Unknown`] after `timeout`.
    Read { request: u64, timeout: Duration },
    /// PUT `record` if the Lease is at version `expected`; POST it for [`Purpose::Create`]. The incarnation annotation
    /// becomes `incarnation`. Other fields, labels and annotations are preserved.
    Write {
        request: u64,
        purpose: Purpose,
        expected: Option<Version>,
        record: Record,
        incarnation: Option<String>,
        timeout: Duration,
    },
    /// This candidate leads until `valid_until`: start the work. `term` counts this elector's terms.
    Lead { term: u64, token: Version, transitions: i32, valid_until: Moment },
    /// Leadership is now valid until `valid_until`, which may be later or earlier than before.
    Valid { valid_until: Moment },
    /// Stop the work, then report [`Event::WorkEnded`]. Kill at `kill_at` whatever still runs; with `None` the work may
    /// take the time that it needs. May be repeated with an earlier `kill_at`.
    Stop { loss: Loss, kill_at: Option<Moment> },
    /// Send [`Event::Tick`] at this moment. Replaces any earlier request for a tick.
    Wake { at: Moment },
    /// The candidate has left the election. It holds nothing, and no request is in flight.
    Finish,
}
