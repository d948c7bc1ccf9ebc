use std::ops::Add;
use std::time::Duration;

/// A point on a monotonic clock that counts suspended time too (`CLOCK_BOOTTIME`), as the time since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// The moment `elapsed` after boot.
    pub const fn since_boot(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// The time from boot to this moment.
    pub const fn elapsed_since_boot(self) -> Duration {
        self.0
    }

    /// The time from `earlier` to `self`, zero if `earlier` is later.
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

/// Wall-clock time in microseconds since 1970, the resolution of Kubernetes' `MicroTime`.
///
/// Written into the Lease for people to read; no decision rests on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub i64);

impl WallTime {
    const SECOND: i64 = 1_000_000;

    /// This time, or one second after `last` if both fall into the same second.
    ///
    /// client-go compares records at a resolution of one second (`metav1.Time` in its `LeaderElectionRecord`): a
    /// renewal within the second of the last one would look to it like no renewal.
    pub(super) fn in_another_second_than(self, last: Option<WallTime>) -> WallTime {
        match last {
            Some(last) if self.0.div_euclid(Self::SECOND) == last.0.div_euclid(Self::SECOND) => {
                WallTime(last.0.saturating_add(Self::SECOND))
            }
            _ => self,
        }
    }
}

/// One reading of both clocks, taken when an event is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What deadlines are computed from.
    pub moment: Moment,
    /// What is written into the Lease for people.
    pub wall: WallTime,
}
