//! The choice of a leader's successor, and the operator's own reasons for a step-down.

use crate::api::names::ChangeReason;
use crate::observed::lease::StepDownRequest;
use crate::observed::pod::PodView;
use crate::observed::trial::Trial;

/// Returns the pod that should follow `leader`: a ready pod, preferably on another node and with few restarts. If no
/// pod is ready, a pod of the leader's own revision qualifies whose revision is not proven yet but whose containers are
/// ready.
pub(crate) fn standby<'a>(leader: &PodView, pods: &'a [PodView]) -> Option<&'a PodView> {
    let able = |pod: &&PodView| {
        let waits = pod.proven == Some(false) && pod.containers_ready && pod.revision == leader.revision;
        pod.name != leader.name && !pod.terminating && (pod.ready || waits)
    };
    let standbys = pods.iter().filter(able);
    standbys.min_by_key(|pod| (!pod.ready, pod.node == leader.node, pod.restarts, &pod.name))
}

/// A step-down that the operator itself wants. It is valid only for the reconcile that created it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepDownIntent {
    /// [`ChangeReason::Rollout`], [`ChangeReason::Unhealthy`] or [`ChangeReason::Draining`].
    pub reason: ChangeReason,
    /// The name of the term that must end, as `term_of` returns it.
    pub of: String,
    /// The pod that should follow, if it matters.
    pub to: Option<String>,
    /// The explanation as a sentence, without numbers that change.
    pub why: String,
    /// The trial that it starts, if any. The Lease records it in the same request.
    pub trial: Option<Trial>,
}

impl StepDownIntent {
    /// Returns the trial that `request` starts, if `request` is that of this intent.
    pub fn trial_of(&self, request: &StepDownRequest) -> Option<&Trial> {
        self.trial.as_ref().filter(|_| self.of == request.of && self.reason.as_str() == request.value)
    }
}
