//! Whether a leader whose program is not ready must hand over to a standby.

use std::time::Duration;

use super::flapping::in_a_row;
use super::successor::{StepDownIntent, standby};
use crate::api::HistoryEntry;
use crate::api::names::ChangeReason;
use crate::observed::lease::LeaseView;
use crate::observed::pod::PodView;
use crate::observed::program::Watch;
use crate::spec::group::{Group, GroupMode};

/// The limit of doublings of the timeout: from 30 s to 16 minutes.
const MOST_DOUBLINGS: usize = 5;

/// The decision about the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The step-down of the leader, if it must step down.
    pub intent: Option<StepDownIntent>,
    /// When to reconcile again, if nothing changes before.
    pub wait: Option<Duration>,
}

/// Decides whether the leader must hand over. `history` is that of the status, `now` the time since boot.
pub fn decide(
    group: &Group,
    lease: Option<&LeaseView>,
    pods: &[PodView],
    history: &[HistoryEntry],
    watch: Option<&Watch>,
    now: Duration,
) -> Decision {
    let nothing = Decision::default();
    let Some((lease, watch)) = lease.zip(watch) else { return nothing };
    let Some(leader) = pods.iter().find(|pod| pod.name == watch.pod) else { return nothing };
    let Some(standby) = standby(leader, pods) else { return nothing };
    let intent = |reason, why| {
        let intent =
            StepDownIntent { reason, of: watch.term.clone(), to: Some(standby.name.clone()), why, trial: None };
        Decision { intent: Some(intent), wait: None }
    };
    let holder = &lease.holder;
    if leader.terminating {
        // In mode Exec the candidate hands over on SIGTERM; a Native program gets that signal itself.
        return match group.mode {
            GroupMode::Sidecar => intent(
                ChangeReason::Draining,
                format!("{holder} is being deleted: it must hand over to {} first", standby.name),
            ),
            GroupMode::Exec | GroupMode::Native => nothing,
        };
    }
    let Some((timeout, unready)) = group.unhealthy_timeout.zip(watch.unready_for(now)) else { return nothing };
    let starting = if watch.is_starting() { group.start_up } else { Duration::ZERO };
    let timeout = timeout_after(timeout, history) + starting;
    if unready < timeout {
        return Decision { intent: None, wait: Some(timeout - unready) };
    }
    let why = format!(
        "the program of leader {holder} has not been ready for {} s: {holder} must hand over to {}",
        timeout.as_secs(),
        standby.name
    );
    intent(ChangeReason::Unhealthy, leader.trouble.as_ref().map_or(why.clone(), |trouble| format!("{why}; {trouble}")))
}

/// Returns how long the program of the current leader may be unready: `timeout`, doubled for each consecutive step-down
/// for that reason.
fn timeout_after(timeout: Duration, history: &[HistoryEntry]) -> Duration {
    let doublings = in_a_row(history).min(MOST_DOUBLINGS);
    timeout.saturating_mul(1 << doublings)
}
