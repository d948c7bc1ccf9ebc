//! Ownership of a group where several operators run.
//!
//! Each operator writes into `status.operator` the namespace and name of the Lease through which its replicas elect. An
//! operator that finds another name there leaves the group alone while that other operator holds its Lease, and takes
//! the group over afterwards. So an operator that was moved or renamed takes over its groups automatically.

use std::time::Duration;

use crate::election::{Record, WallTime};

/// How long an operator leaves a group to another operator whose Lease it cannot read.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The state of another operator, judged by its Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherOperator {
    /// One of its replicas holds the Lease.
    Running,
    /// The Lease does not exist, or no replica holds it.
    Gone,
    /// The Lease cannot be read: an operator that is limited to some namespaces has no permission in others.
    Unknown,
}

impl OtherOperator {
    /// Returns the state of the operator with the Lease `record` (`None` if it does not exist) at the time `now` by
    /// this machine's clock.
    ///
    /// The clocks of nodes differ: a Lease counts as held for twice its duration.
    pub fn with_lease(record: Option<&Record>, now: WallTime) -> Self {
        let Some(record) = record.filter(|record| !record.holder.is_empty()) else { return Self::Gone };
        let Some(renewed) = record.renew_time else { return Self::Gone };
        let micros = i64::from(record.duration_seconds.max(1)) * 2_000_000;
        if now.0.saturating_sub(renewed.0) <= micros { Self::Running } else { Self::Gone }
    }
}

/// Whether a group whose status names another operator is left to that operator.
///
/// `was_own` is whether this operator reconciled the group before, and `left_for` how long it has left the group alone.
/// Of two operators that cannot read each other's Lease, the one that started later reconciles. The other one tries
/// again after [`PATIENCE`].
pub fn is_left(other: OtherOperator, was_own: bool, left_for: Option<Duration>) -> bool {
    match other {
        OtherOperator::Running => true,
        OtherOperator::Gone => false,
        OtherOperator::Unknown => was_own && left_for.is_none_or(|time| time < PATIENCE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallTime = WallTime(1_000_000_000);

    fn lease(holder: &str, seconds_ago: i64) -> Record {
        Record {
            holder: holder.to_owned(),
            duration_seconds: 15,
            acquire_time: None,
            renew_time: Some(WallTime(NOW.0 - seconds_ago * 1_000_000)),
            transitions: 1,
        }
    }

    #[test]
    fn operator_runs_while_its_lease_is_held_and_renewed() {
        let of = |record: Option<Record>| OtherOperator::with_lease(record.as_ref(), NOW);
        assert_eq!(of(Some(lease("keeper", 14))), OtherOperator::Running);
        assert_eq!(of(Some(lease("keeper", 29))), OtherOperator::Running, "clocks differ");
        assert_eq!(of(Some(lease("keeper", -3600))), OtherOperator::Running, "clocks differ");
        assert_eq!(of(Some(lease("keeper", 31))), OtherOperator::Gone);
        assert_eq!(of(Some(lease("", 1))), OtherOperator::Gone, "it released the Lease");
        assert_eq!(of(None), OtherOperator::Gone);
    }

    #[test]
    fn group_is_left_to_a_running_operator_and_to_an_unknown_one_for_a_time() {
        use OtherOperator::{Gone, Running, Unknown};
        for was_own in [false, true] {
            assert!(is_left(Running, was_own, Some(PATIENCE * 100)));
            assert!(!is_left(Gone, was_own, None));
        }
        assert!(!is_left(Unknown, false, None));
        assert!(is_left(Unknown, true, None));
        assert!(is_left(Unknown, true, Some(PATIENCE / 2)));
        assert!(!is_left(Unknown, true, Some(PATIENCE)));
    }
}
