//! Which pod is to follow a leader, and why one is to step down.

use crate::api::names::ChangeReason;
use crate::group::observed::lease::StepDownRequest;
use crate::group::observed::pod::PodView;
use crate::group::observed::trial::Trial;

/// Who is to follow: a ready pod, rather one on another node and one that has seen no trouble. Where none is ready, one of the
/// leader's own revision that only waits for its proof.
pub(in crate::group) fn standby<'a>(leader: &PodView, pods: &'a [PodView]) -> Option<&'a PodView> {
    let able = |pod: &&PodView| {
        let waits = pod.proven == Some(false) && pod.containers_ready && pod.template == leader.template;
        pod.name != leader.name && !pod.terminating && (pod.ready || waits)
    };
    let standbys = pods.iter().filter(able);
    standbys.min_by_key(|pod| (!pod.ready, pod.node == leader.node, pod.restarts, &pod.name))
}

/// A step-down that the operator itself wants. It lasts no longer than the look that it was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepDownIntent {
    /// [`ChangeReason::Rollout`], [`ChangeReason::Unhealthy`] or [`ChangeReason::Draining`].
    pub reason: ChangeReason,
    /// The name of the term that is to end, as `term_of` has it.
    pub of: String,
    /// The pod that is to follow, if it matters.
    pub to: Option<String>,
    /// A sentence for people, without numbers that change.
    pub why: String,
    /// The trial that it starts, if it does. The Lease is to record it in the same request.
    pub trial: Option<Trial>,
}

impl StepDownIntent {
    /// The trial that `asked` starts, if it is what this intent asks for.
    pub fn trial_of(&self, asked: &StepDownRequest) -> Option<&Trial> {
        self.trial.as_ref().filter(|_| self.of == asked.of && self.reason.as_str() == asked.value)
    }
}
