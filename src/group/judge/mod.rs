//! Decisions, made from facts alone. Most have the same shape: a `Question` with all inputs, and a function `decide`.
//!
//! [`judge`] makes those about the leader and the newest revision, once the children are applied.

pub mod candidate_update;
pub mod endpoints;
pub mod flapping;
pub mod other_operator;
pub mod proof;
pub mod rollout;
pub mod step_down;
pub mod successor;
pub mod suspension;
pub mod unhealthy;

use std::time::Duration;

use self::rollout::{AnnotationChange, TargetRevision};
use self::successor::StepDownIntent;
use crate::api::{ElectionGroupStatus, RolloutStatus};
use crate::observed::program::Watch;
use crate::observed::{Facts, Outcome};
use crate::spec::group::Group;

/// The inputs of [`judge`].
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The group's spec, `None` if it is invalid.
    pub group: Option<&'a Group>,
    /// The status as stored by the API server.
    pub status: Option<&'a ElectionGroupStatus>,
    /// The revision that the Deployment should have.
    pub target: &'a TargetRevision,
    /// The facts after the children were applied.
    pub facts: &'a Facts,
    /// The leader's program.
    pub watch: Option<&'a Watch>,
    /// The time since boot.
    pub now: Duration,
}

/// What follows from the facts about a group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgement {
    /// The progress of the newest revision.
    pub rollout: Option<RolloutStatus>,
    /// What the rollout waits for, as a sentence without numbers that change.
    pub waiting: Option<String>,
    /// Whether there is a leader whose program is not ready.
    pub unready: bool,
    /// The step-down that the operator intends.
    pub intent: Option<StepDownIntent>,
    /// The change of the Lease's annotation `k8sensus.dev/proven-revision`.
    pub proven_revision: AnnotationChange,
    /// When to reconcile again, if nothing changes before.
    pub wait: Option<Duration>,
}

/// Judges the leader's program and the newest revision of the pod template. A group that is not applied keeps its
/// rollout and has no intent.
pub fn judge(question: &Question<'_>) -> Judgement {
    let Question { group, status, target, facts, watch, now } = *question;
    let before = status.and_then(|status| status.rollout.as_ref());
    let Some(group) = group.filter(|_| facts.outcome == Outcome::Applied) else {
        return Judgement { rollout: before.cloned(), ..Judgement::default() };
    };
    let (lease, pods) = (facts.lease.as_ref(), facts.pods.as_slice());
    let mut judgement = match target {
        TargetRevision::Unknown => Judgement { rollout: before.cloned(), ..Judgement::default() },
        TargetRevision::None => Judgement::default(),
        TargetRevision::Revision(wanted) => {
            let question = rollout::Question { group, wanted, status, lease, pods, watch, now };
            let rollout::Decision { status, intent, waiting, wait } = rollout::decide(&question);
            Judgement { rollout: Some(status), intent, waiting, wait, ..Judgement::default() }
        }
    };
    let history = status.map(|status| status.history.as_slice()).unwrap_or_default();
    let unhealthy = unhealthy::decide(group, lease, pods, history, watch, now);
    // After a failed trial the step-down back is decided once the status has the failure.
    let failed = |rollout: Option<&RolloutStatus>| rollout.and_then(|rollout| rollout.failed_revision.clone());
    let has_just_failed =
        failed(judgement.rollout.as_ref()).is_some_and(|failed_now| failed(before) != Some(failed_now));
    judgement.intent = judgement.intent.or(unhealthy.intent.filter(|_| !has_just_failed));
    judgement.wait = [judgement.wait, unhealthy.wait].into_iter().flatten().min();
    judgement.unready = watch.is_some_and(|watch| watch.ready == Some(false));
    if let (Some(status), Some(lease), false) = (status, lease, group.paused) {
        judgement.proven_revision = rollout::preferred(lease, pods, rollout::proven_in(status));
    }
    judgement
}
