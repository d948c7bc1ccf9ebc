//! Whether leadership moves from pod to pod because the programs of all leaders fail.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::HistoryEntry;
use crate::api::names::ChangeReason;
use crate::observed::pod::{PodView, pod_of};

/// The number of leader failures within [`FLAPPING_TIME`] from which leadership is flapping.
const FLAPPING: usize = 3;

/// See [`FLAPPING`].
const FLAPPING_TIME: Duration = Duration::from_secs(120);

/// Returns why leadership is flapping, or `None` if it is not. `unready` is whether the program of the current leader
/// is not ready. Requested handovers and deletions of pods do not count as failures.
pub fn flapping(history: &[HistoryEntry], pods: &[PodView], unready: bool, now: Timestamp) -> Option<String> {
    let failures = recent_failures(history, pods, now).len();
    let row = in_a_row(history);
    let what = if failures >= FLAPPING {
        format!("{failures} leaders failed within {} s", FLAPPING_TIME.as_secs())
    } else if row >= FLAPPING && unready {
        format!("{row} leaders in a row were not ready in time, and the current one is not ready")
    } else {
        return None;
    };
    let troubles: Vec<String> = pods.iter().filter_map(trouble_of).collect();
    Some(if troubles.is_empty() { what } else { format!("{what}; {}", troubles.join("; ")) })
}

/// Returns how long it takes until the oldest recent failure no longer counts, while enough of them count to be
/// flapping.
pub fn flapping_wait(history: &[HistoryEntry], pods: &[PodView], now: Timestamp) -> Option<Duration> {
    let recent = recent_failures(history, pods, now);
    let oldest = recent.last().filter(|_| recent.len() >= FLAPPING)?;
    let age = Duration::try_from(now.duration_since(*oldest)).unwrap_or_default();
    // Conditions have a resolution of one second.
    Some(FLAPPING_TIME.saturating_sub(age) + Duration::from_secs(1))
}

/// Returns the times of recent leader failures, newest first.
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
            // A leader whose container ends releases the Lease, too.
            ChangeReason::LeaseReleased => former.is_some_and(has_failed),
            _ => false,
        };
        entry.time.as_ref().map(|time| time.0).filter(|time| failed && is_recent(*time))
    });
    ends.collect()
}

/// Returns what keeps a pod from running, with its name.
fn trouble_of(pod: &PodView) -> Option<String> {
    pod.trouble.as_ref().map(|trouble| format!("pod {}: {trouble}", pod.name))
}

/// Whether containers of a pod that is not being deleted have ended.
pub(crate) fn has_failed(pod: &PodView) -> bool {
    !pod.terminating && (pod.trouble.is_some() || pod.restarts > 0)
}

pub(crate) fn reason_of(entry: &HistoryEntry) -> Option<ChangeReason> {
    entry.reason.as_deref().and_then(ChangeReason::parse)
}

/// Returns how many of the newest leadership changes in a row were caused by an unready program.
pub(super) fn in_a_row(history: &[HistoryEntry]) -> usize {
    history.iter().take_while(|entry| reason_of(entry) == Some(ChangeReason::Unhealthy)).count()
}
