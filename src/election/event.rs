use std::time::Duration;

use super::moment::Moment;
use super::record::{Record, Snapshot, Version};

/// What is known of the Lease from one look.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sight {
    /// It exists.
    Lease(Snapshot),
    /// It does not exist; the version at which it was deleted, if that is known.
    Absent { deleted_at: Option<Version> },
}

/// Why a request brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// 409: the Lease is not at the version that was expected, or exists already.
    Conflict,
    /// 404 in answer to a write.
    NotFound,
    /// The server refused, or said that it cannot serve now. Nothing was written.
    Refused { retry_after: Option<Duration> },
    /// No answer, a broken one, or too late: nobody knows whether the write took place.
    Unknown,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The watch showed the Lease.
    Watched(Sight),
    /// The watch is not permitted: standbys must poll.
    WatchForbidden,
    /// The answer to [`Action::Read`].
    Read { request: u64, result: Result<Sight, Failure> },
    /// The answer to [`Action::Write`]; `Ok` carries the version that the write got.
    Written { request: u64, result: Result<Version, Failure> },
    /// A timer fired. Harmless at any time.
    Tick,
    /// What a renewal carries besides the record has changed: renew at once, if there is something to renew.
    Renew,
    /// Give leadership up, and abstain until another leads, for a lease duration at most.
    StepDown,
    /// Whether this candidate's program could work. One that could not takes no Lease, and gives leadership up as by
    /// [`StepDown`](Event::StepDown).
    ReadyToLead(bool),
    /// Give leadership up and take part no more.
    Shutdown,
    /// The work that [`Action::Lead`] began with this number has ended and nothing of it is left.
    WorkEnded { term: u64 },
}

/// Why a write is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The Lease does not exist: create it, held by this candidate.
    Create,
    /// Take the Lease over.
    Acquire,
    /// Extend it.
    Renew,
    /// Give it up.
    Release,
}

/// Why the work must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// A step-down or a shutdown was asked for. The Lease is renewed until the work has ended.
    Requested,
    /// No renewal was acknowledged within the renew deadline, or nobody renews any more.
    DeadlinePassed,
    /// The Lease was deleted. Nobody can acquire it before it was made again and its wait has passed, so the work may end in good
    /// order. Comes without an end at first; [`Loss::DeadlinePassed`] follows if the work takes too long.
    LeaseDeleted,
    /// The Lease has another holder, or none, or is gone where candidates may create it.
    Deposed,
}

/// What is to be done. Requests carry a number that their answer must repeat; one is under way at a time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Get the Lease, not from a cache. Answer [`Failure::Unknown`] after `timeout`.
    Read { request: u64, timeout: Duration },
    /// PUT `record` if the Lease is at version `expected`, POST it for [`Purpose::Create`]. Other fields, labels and
    /// annotations stay as they are; the incarnation annotation becomes `incarnation`.
    Write {
        request: u64,
        purpose: Purpose,
        expected: Option<Version>,
        record: Record,
        incarnation: Option<String>,
        timeout: Duration,
    },
    /// This candidate leads: begin the work. It is valid until `valid_until`. `term` counts this elector's terms.
    Lead { term: u64, token: Version, transitions: i32, valid_until: Moment },
    /// From now on leadership is valid until `valid_until`, a moment that may be later or earlier than the last one.
    Valid { valid_until: Moment },
    /// End the work, then report [`Event::WorkEnded`]. What still lives at `kill_at` must be killed; with `None` the
    /// work may take the time that it needs. May be repeated with an earlier end.
    Stop { loss: Loss, kill_at: Option<Moment> },
    /// Send [`Event::Tick`] at this moment, instead of at any moment named before.
    Wake { at: Moment },
    /// The candidate has left the election; nothing is held or under way.
    Finish,
}
