//! The leader's program: since when it is ready, or not.
//!
//! This is what one operator has watched itself: after its restart all times count from zero, so that a leader gets more time and
//! never less.

use std::time::Duration;

use super::lease::{LeaseView, is_candidate, term_of};
use super::pod::{PodView, pod_of};
use crate::group::spec::group::GroupMode;

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
        // A Native leader does not know that it was asked, and leads on if its eviction was refused.
        let is_asked = mode.has_candidate() && lease.step_down_request.as_ref().is_some_and(|asked| asked.of == term);
        let is_stopping = pod.terminating || is_asked;
        // A candidate without the gate is from before it could tell.
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

impl PodView {
    /// Whether the program of this pod, which holds `lease`, is ready. By the pod: it may be of another mode than its group is
    /// by now.
    pub(in crate::group) fn program_is_ready(&self, lease: &LeaseView) -> bool {
        match (self.reports_readiness, self.proven) {
            // Its standbys are Ready to the kubelet too: what counts is the candidate's word for this very term. The kubelet's
            // for the other containers is the same on a standby.
            (true, _) => lease.ready && !self.others_unready,
            // Its readiness gate speaks of the revision.
            (false, Some(_)) => self.containers_ready,
            (false, None) => self.ready,
        }
    }
}
