//! Whether leadership goes from pod to pod because none of their programs works.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::HistoryEntry;
use crate::api::names::ChangeReason;
use crate::group::observed::pod::{PodView, pod_of};

/// So many failures of leaders within [`FLAPPING_TIME`] are no accident.
const FLAPPING: usize = 3;

/// See [`FLAPPING`].
const FLAPPING_TIME: Duration = Duration::from_secs(120);

/// Why leadership goes from pod to pod, if it does. `unready` says that the present leader's program is not ready. Handovers
/// for which somebody asked do not count, nor the ends of pods.
pub fn flapping(history: &[HistoryEntry], pods: &[PodView], unready: bool, now: Timestamp) -> Option<String> {
    let failures = recent_failures(history, pods, now).len();
    let row = in_a_row(history);
    let what = if failures >= FLAPPING {
        format!("{failures} leaders failed within {} s", FLAPPING_TIME.as_secs())
    } else if row >= FLAPPING && unready {
        format!("{row} leaders in a row were not ready in time, and the present one is not")
    } else {
        return None;
    };
    let troubles: Vec<String> = pods.iter().filter_map(trouble_of).collect();
    Some(if troubles.is_empty() { what } else { format!("{what}; {}", troubles.join("; ")) })
}

/// In how long fewer failures than are trouble_of now will be recent.
pub fn flapping_wait(history: &[HistoryEntry], pods: &[PodView], now: Timestamp) -> Option<Duration> {
    let recent = recent_failures(history, pods, now);
    let oldest = recent.last().filter(|_| recent.len() >= FLAPPING)?;
    let age = Duration::try_from(now.duration_since(*oldest)).unwrap_or_default();
    // Conditions know whole seconds.
    Some(FLAPPING_TIME.saturating_sub(age) + Duration::from_secs(1))
}

/// When leaders failed, newest first.
fn recent_failures(history: &[HistoryEntry], pods: &[PodView], now: Timestamp) -> Vec<Timestamp> {
    let is_recent = |time: Timestamp| {
        // A candidate's clock may be ahead.
        Duration::try_from(now.duration_since(time)).map_or(true, |age| age <= FLAPPING_TIME)
    };
    let ends = history.iter().enumerate().filter_map(|(index, entry)| {
        let former = history.get(index + 1).and_then(|former| pod_of(&former.holder_identity, pods));
        let failed = match reason_of(entry)? {
            ChangeReason::Unhealthy
            | ChangeReason::KubeletReported
            | ChangeReason::LeaseExpired
            | ChangeReason::HolderRestarted => true,
            // Whoever is trouble_of to end releases, too.
            ChangeReason::LeaseReleased => former.is_some_and(has_failed),
            _ => false,
        };
        entry.time.as_ref().map(|time| time.0).filter(|time| failed && is_recent(*time))
    });
    ends.collect()
}

/// What keeps a pod from running, with its name.
fn trouble_of(pod: &PodView) -> Option<String> {
    pod.trouble.as_ref().map(|trouble| format!("pod {}: {trouble}", pod.name))
}

/// Whether containers of a pod that is to stay have ended.
pub(in crate::group) fn has_failed(pod: &PodView) -> bool {
    !pod.terminating && (pod.trouble.is_some() || pod.restarts > 0)
}

pub(in crate::group) fn reason_of(entry: &HistoryEntry) -> Option<ChangeReason> {
    entry.reason.as_deref().and_then(ChangeReason::parse)
}

/// How many of the newest changes of leadership were for a program that was not ready.
pub(super) fn in_a_row(history: &[HistoryEntry]) -> usize {
    history.iter().take_while(|entry| reason_of(entry) == Some(ChangeReason::Unhealthy)).count()
}
