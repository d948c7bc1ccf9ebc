//! The readiness of the leader's program over time.
//!
//! These are one operator's own observations. After its restart all times count from zero, so that a leader gets more
//! time, never less.

use std::time::Duration;

use super::lease::{LeaseView, is_candidate, term_of};
use super::pod::{PodView, pod_of};
use crate::spec::group::GroupMode;

/// The observations of the leader's program since its term was first observed. Times are since boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The name of the term.
    pub term: String,
    /// The leader's pod.
    pub pod: String,
    /// When the term was first observed.
    pub began: Duration,
    /// Whether its program is ready; `None` if that is unknown, as with pods whose candidate is too old to report it.
    pub ready: Option<bool>,
    /// Since when `ready` has its value.
    pub since: Duration,
    /// How often the pod's containers had been restarted when the term was first observed.
    pub first_restarts: i32,
    /// How often they have been restarted by now. A restart interrupts readiness, however short it is; an unready
    /// program stays unready.
    pub restarts: i32,
}

impl Watch {
    /// Returns the observations at the time `now`, which continue `former`. `None` if no pod of the group leads.
    pub fn observe(
        former: Option<&Self>,
        mode: GroupMode,
        lease: Option<&LeaseView>,
        pods: &[PodView],
        now: Duration,
    ) -> Option<Self> {
        let lease = lease.filter(|lease| !lease.expired && is_candidate(&lease.holder))?;
        let pod = pod_of(&lease.holder, pods)?;
        let term = term_of(mode, lease, pods)?;
        // A Native leader does not know of the request, and goes on leading if its eviction was refused.
        let request = lease.step_down_request.as_ref().filter(|_| mode.has_candidate());
        let is_stopping = pod.terminating || request.is_some_and(|request| request.of == term);
        // A candidate in a pod without the gate is too old to report readiness.
        let readiness_unknown =
            pod.proven.is_none() && !pod.reports_readiness && (mode.has_candidate() || pod.ignores_step_downs);
        let ready = (!is_stopping && !readiness_unknown).then(|| pod.program_is_ready(lease));
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

    /// Whether the program has never been observed ready in this term.
    pub fn is_starting(&self) -> bool {
        self.ready == Some(false) && self.since == self.began
    }

    /// Returns how long the program has been ready without interruption; `None` if it is not ready.
    pub fn ready_for(&self, now: Duration) -> Option<Duration> {
        (self.ready == Some(true)).then(|| now.saturating_sub(self.since))
    }

    /// Returns how long the program has not been ready; `None` if it is ready, or if that is unknown.
    pub fn unready_for(&self, now: Duration) -> Option<Duration> {
        (self.ready == Some(false)).then(|| now.saturating_sub(self.since))
    }
}

impl PodView {
    /// Whether the program of this pod, which holds `lease`, is ready. The pod decides how, because it may have another
    /// mode than its group has by now.
    pub(crate) fn program_is_ready(&self, lease: &LeaseView) -> bool {
        match (self.reports_readiness, self.proven) {
            // Standbys are Ready to the kubelet, too, so the candidate's report for this very term counts. For the
            // other containers the kubelet's report means the same on the leader as on a standby.
            (true, _) => lease.ready && !self.others_unready,
            // The readiness gate concerns the revision.
            (false, Some(_)) => self.containers_ready,
            (false, None) => self.ready,
        }
    }
}
