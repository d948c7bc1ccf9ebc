//! The parts of an elector's state.

use super::event::Purpose;
use super::moment::Moment;
use super::record::{Record, Snapshot};

/// The role of this candidate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Standby,
    Leading {
        valid_until: Moment,
    },
    /// The work must stop, the Lease is still renewed.
    Leaving {
        valid_until: Moment,
    },
    /// The work must be dead at `kill_at`. Nothing may be written before it has ended.
    Lost {
        kill_at: Moment,
    },
    Finished,
}

/// The last observation of the Lease, and when its present record was first observed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Known {
    Nothing,
    Absent { since: Moment, was_seen: bool },
    Lease { snapshot: Snapshot, since: Moment, takeable_at: Moment },
}

/// The request in flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flight {
    pub(super) request: u64,
    pub(super) sent: Moment,
    pub(super) write: Option<(Purpose, Record)>,
}

/// Whether leadership must end, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Leave {
    Stay,
    StepDown,
    Shutdown,
}
