use std::ops::Add;
use std::time::Duration;

/// A point in time since boot, on a monotonic clock that includes suspended time (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// Returns the moment `elapsed` after boot.
    pub const fn since_boot(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// Returns the time from boot to this moment.
    pub const fn elapsed_since_boot(self) -> Duration {
        self.0
    }

    /// Returns the time from `earlier` to `self`, zero if `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, rhs: Duration) -> Moment {
        Moment(self.0.saturating_add(rhs))
    }
}

/// A wall-clock time in microseconds since 1970, the resolution of Kubernetes' `MicroTime`.
///
/// Written to the Lease for people to read. No decision depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub i64);

impl WallTime {
    const SECOND: i64 = 1_000_000;

    /// Returns this time, or one second after `last` if both fall into the same second.
    ///
    /// client-go compares records at a resolution of one second (`metav1.Time` in its `LeaderElectionRecord`). It would
    /// miss a renewal within the same second as the previous one.
    pub(super) fn in_another_second_than(self, last: Option<WallTime>) -> WallTime {
        match last {
            Some(last) if self.0.div_euclid(Self::SECOND) == last.0.div_euclid(Self::SECOND) => {
                WallTime(last.0.saturating_add(Self::SECOND))
            }
            _ => self,
        }
    }
}

/// One reading of both clocks, taken when an event is passed to the elector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The clock for deadlines.
    pub moment: Moment,
    /// The time that is written to the Lease.
    pub wall: WallTime,
}
