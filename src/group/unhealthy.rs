//! Whether a leader whose program does not work is to give way to a standby, and whether leadership goes from pod to pod since
//! none of them works.
//!
//! How long a leader's program has been ready, or not, is what one operator has watched itself: after its restart all times
//! count anew, so that a leader gets more time and never less.

use std::time::Duration;

use jiff::Timestamp;

use super::status::{LeaseView, PodView, is_candidate};
use super::step_down::{Wish, pod_of, term_of};
use super::valid::{Group, GroupMode};
use crate::api::HistoryEntry;
use crate::api::names::ChangeReason;

/// The most times that the timeout doubles: from 30 s to 16 minutes.
const MOST_DOUBLINGS: usize = 5;
/// So many failures of leaders within [`FLAPPING_TIME`] are no accident.
const FLAPPING: usize = 3;
/// See [`FLAPPING`].
const FLAPPING_TIME: Duration = Duration::from_secs(120);

/// The leader's program, as it was watched since its term was first seen. Times are since boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The name of the term.
    pub term: String,
    /// The leader's pod.
    pub pod: String,
    /// When the term was first seen.
    pub began: Duration,
    /// Whether its program is ready; `None` if nobody tells, as with pods from before there was a way to.
    pub ready: Option<bool>,
    /// Since when `ready` is as it is.
    pub since: Duration,
    /// How often the pod's containers had been restarted when the term was first seen.
    pub first_restarts: i32,
    /// How often by now. A restart is a break of readiness, however short; what is not ready stays that.
    pub restarts: i32,
}

impl Watch {
    /// What is known after a look at `now`, `former` being what was known before. `None` if no pod of the group leads.
    pub fn look(
        former: Option<&Self>,
        mode: GroupMode,
        lease: Option<&LeaseView>,
        pods: &[PodView],
        now: Duration,
    ) -> Option<Self> {
        let lease = lease.filter(|lease| !lease.expired && is_candidate(&lease.holder))?;
        let pod = pod_of(&lease.holder, pods)?;
        let term = term_of(mode, lease, pods)?;
        // A Native leader does not know that it was asked, and leads on if its eviction was refused.
        let is_asked = mode.has_candidate() && lease.asked.as_ref().is_some_and(|asked| asked.of == term);
        let is_stopping = pod.terminating || is_asked;
        // A candidate without the gate is from before it could tell.
        let is_mute = pod.proven.is_none() && !pod.tells_ready && (mode.has_candidate() || pod.deaf);
        let ready = (!is_stopping && !is_mute).then(|| pod.program_is_ready(lease));
        let former = former.filter(|former| former.term == term);
        Some(Self {
            began: former.map_or(now, |former| former.began),
            since: former
                .filter(|former| former.ready == ready && (ready != Some(true) || former.restarts == pod.restarts))
                .map_or(now, |former| former.since),
            first_restarts: former.map_or(pod.restarts, |former| former.first_restarts),
            restarts: pod.restarts,
            pod: pod.name.clone(),
            term,
            ready,
        })
    }

    /// Whether the program has never been ready in this term, as far as was seen.
    pub fn is_starting(&self) -> bool {
        self.ready == Some(false) && self.since == self.began
    }

    /// For how long the program has been ready without a break; `None` if it is not.
    pub fn ready_for(&self, now: Duration) -> Option<Duration> {
        (self.ready == Some(true)).then(|| now.saturating_sub(self.since))
    }

    /// For how long the program has not been ready; `None` if it is, or nobody tells.
    pub fn unready_for(&self, now: Duration) -> Option<Duration> {
        (self.ready == Some(false)).then(|| now.saturating_sub(self.since))
    }
}

/// What is to be done about the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// It is to step down.
    pub wish: Option<Wish>,
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
    let wish = |reason, why| {
        let wish = Wish { reason, of: watch.term.clone(), to: Some(standby.name.clone()), why, trial: None };
        Decision { wish: Some(wish), wait: None }
    };
    let holder = &lease.holder;
    if leader.terminating {
        // In mode Exec its candidate hands over when it is told to end; a Native leader was told already.
        return match group.mode {
            GroupMode::Sidecar => wish(
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
        return Decision { wish: None, wait: Some(timeout - unready) };
    }
    let why = format!(
        "the program of leader {holder} has not been ready for {} s: {holder} is to hand over to {}",
        timeout.as_secs(),
        standby.name
    );
    wish(ChangeReason::Unhealthy, leader.trouble.as_ref().map_or(why.clone(), |trouble| format!("{why}; {trouble}")))
}

/// How long the present leader's program may be not ready: `timeout`, doubled for each time in a row that this happened.
fn timeout_after(timeout: Duration, history: &[HistoryEntry]) -> Duration {
    let doublings = in_a_row(history).min(MOST_DOUBLINGS);
    timeout.saturating_mul(1 << doublings)
}

/// How many of the newest changes of leadership were for a program that was not ready.
fn in_a_row(history: &[HistoryEntry]) -> usize {
    history.iter().take_while(|entry| reason_of(entry) == Some(ChangeReason::Unhealthy)).count()
}

/// Who is to follow: a ready pod, rather one on another node and one that has seen no trouble. Where none is ready, one of the
/// leader's own revision that only waits for its proof.
pub(super) fn standby<'a>(leader: &PodView, pods: &'a [PodView]) -> Option<&'a PodView> {
    let able = |pod: &&PodView| {
        let waits = pod.proven == Some(false) && pod.containers_ready && pod.template == leader.template;
        pod.name != leader.name && !pod.terminating && (pod.ready || waits)
    };
    let standbys = pods.iter().filter(able);
    standbys.min_by_key(|pod| (!pod.ready, pod.node == leader.node, pod.restarts, &pod.name))
}

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
    let troubles: Vec<String> = pods.iter().filter_map(told).collect();
    Some(if troubles.is_empty() { what } else { format!("{what}; {}", troubles.join("; ")) })
}

/// In how long fewer failures than are told now will be recent.
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
            // Whoever is told to end releases, too.
            ChangeReason::LeaseReleased => former.is_some_and(has_failed),
            _ => false,
        };
        entry.time.as_ref().map(|time| time.0).filter(|time| failed && is_recent(*time))
    });
    ends.collect()
}

/// Whether containers of a pod that is to stay have ended.
pub(super) fn has_failed(pod: &PodView) -> bool {
    !pod.terminating && (pod.trouble.is_some() || pod.restarts > 0)
}

pub(super) fn reason_of(entry: &HistoryEntry) -> Option<ChangeReason> {
    entry.reason.as_deref().and_then(ChangeReason::parse)
}

/// What keeps a pod from running, with its name.
fn told(pod: &PodView) -> Option<String> {
    pod.trouble.as_ref().map(|trouble| format!("pod {}: {trouble}", pod.name))
}
