//! Whether a leader whose program does not work is to hand over to a standby.

use std::time::Duration;

use super::flapping::in_a_row;
use super::successor::{StepDownIntent, standby};
use crate::api::HistoryEntry;
use crate::api::names::ChangeReason;
use crate::group::observed::lease::LeaseView;
use crate::group::observed::pod::PodView;
use crate::group::observed::program::Watch;
use crate::group::spec::group::{Group, GroupMode};

/// The most times that the timeout doubles: from 30 s to 16 minutes.
const MOST_DOUBLINGS: usize = 5;

/// What is to be done about the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// It is to step down.
    pub intent: Option<StepDownIntent>,
    /// When the next look is due, if nothing happens before.
    pub wait: Option<Duration>,
}

/// Whether the leader is to give way, `history` being the status' and `now` the time since boot.
pub fn decide(
    group: &Group,
    lease: Option<&LeaseView>,
    pods: &[PodView],
    history: &[HistoryEntry],
    watch: Option<&Watch>,
    now: Duration,
) -> Decision {
    let rest = Decision::default();
    let Some((lease, watch)) = lease.zip(watch) else { return rest };
    let Some(leader) = pods.iter().find(|pod| pod.name == watch.pod) else { return rest };
    let Some(standby) = standby(leader, pods) else { return rest };
    let intent = |reason, why| {
        let intent =
            StepDownIntent { reason, of: watch.term.clone(), to: Some(standby.name.clone()), why, trial: None };
        Decision { intent: Some(intent), wait: None }
    };
    let holder = &lease.holder;
    if leader.terminating {
        // In mode Exec its candidate hands over when it is told to end; a Native leader was told already.
        return match group.mode {
            GroupMode::Sidecar => intent(
                ChangeReason::Draining,
                format!("{holder} is being deleted: it is to hand over to {} first", standby.name),
            ),
            GroupMode::Exec | GroupMode::Native => rest,
        };
    }
    let Some((timeout, unready)) = group.unhealthy_timeout.zip(watch.unready_for(now)) else { return rest };
    let starting = if watch.is_starting() { group.start_up } else { Duration::ZERO };
    let timeout = timeout_after(timeout, history) + starting;
    if unready < timeout {
        return Decision { intent: None, wait: Some(timeout - unready) };
    }
    let why = format!(
        "the program of leader {holder} has not been ready for {} s: {holder} is to hand over to {}",
        timeout.as_secs(),
        standby.name
    );
    intent(ChangeReason::Unhealthy, leader.trouble.as_ref().map_or(why.clone(), |trouble| format!("{why}; {trouble}")))
}

/// How long the present leader's program may be not ready: `timeout`, doubled for each time in a row that this happened.
fn timeout_after(timeout: Duration, history: &[HistoryEntry]) -> Duration {
    let doublings = in_a_row(history).min(MOST_DOUBLINGS);
    timeout.saturating_mul(1 << doublings)
}
