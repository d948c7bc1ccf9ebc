//! What an elector remembers.

use super::event::Purpose;
use super::moment::Moment;
use super::record::{Record, Snapshot};

/// What this candidate does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Standby,
    Leading {
        valid_until: Moment,
    },
    /// Told to stop, still renewing.
    Leaving {
        valid_until: Moment,
    },
    /// Told to stop by `kill_at`; nothing may be written before the work has ended.
    Lost {
        kill_at: Moment,
    },
    Finished,
}

/// What is known of the Lease, and since when its record has been as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Known {
    Nothing,
    Absent { since: Moment, was_seen: bool },
    Lease { snapshot: Snapshot, since: Moment, takeable_at: Moment },
}

/// The request under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flight {
    pub(super) request: u64,
    pub(super) sent: Moment,
    pub(super) write: Option<(Purpose, Record)>,
}

/// Whether leadership is to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Leave {
    Stay,
    StepDown,
    Shutdown,
}
