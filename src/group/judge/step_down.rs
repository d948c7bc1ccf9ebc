//! Whether to carry out a step-down now: one that was requested by the group's annotation, or one that the operator
//! itself wants. The annotation takes precedence.
//!
//! 1. The operator writes the request onto the Lease, together with the name of the one term that must end.
//! 2. The leader's candidate stops and releases the Lease. In mode Native the operator evicts the leader's pod.
//! 3. The status records the value of the annotation as handled.
//!
//! The Lease has at most one request. It stays there, and an operator that restarts after any of these steps continues
//! from it, so that one request never makes a second leader step down. A refused request is not written onto the Lease:
//! the operator keeps the holder that it was meant for in memory only.

use super::successor::{StepDownIntent, standby};
use crate::api::ElectionGroup;
use crate::api::names::{ChangeReason, annotation, event};
use crate::observed::lease::{LeaseView, StepDownRequest, is_candidate, term_of};
use crate::observed::pod::{PodView, pod_of};
use crate::observed::{Facts, Outcome};
use crate::spec::group::{Group, GroupMode};
use crate::spec::injection;

/// The outcome of a request. `value` is the group's annotation, `why` an explanation as a sentence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StepDown {
    /// There is no request, or it was handled before.
    #[default]
    None,
    /// The request waits until the group's owner changes something.
    Pending { value: String, why: String },
    /// The step-down would do harm or nothing now. It is carried out once that has changed.
    Refused { value: String, why: String },
    /// The leader has the request, and has not stepped down yet.
    Carried { value: String, why: String },
    /// The leader has stepped down, or there was no leader.
    Done { value: String, why: String },
    /// The leader has a request of the operator itself.
    Intended { reason: ChangeReason, of: String, why: String },
}

impl StepDown {
    /// Returns the reason and the note of the Event, which are also logged; `None` if there is nothing to report.
    pub fn event(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::None => None,
            Self::Pending { why, .. } => Some((event::STEP_DOWN_PENDING, why)),
            Self::Refused { why, .. } => Some((event::STEP_DOWN_REFUSED, why)),
            Self::Carried { why, .. } => Some((event::STEP_DOWN_REQUESTED, why)),
            Self::Done { why, .. } => Some((event::STEP_DOWN_HANDLED, why)),
            Self::Intended { reason: ChangeReason::Unhealthy, why, .. } => Some((event::LEADER_UNHEALTHY, why)),
            Self::Intended { why, .. } => Some((event::STEP_DOWN_REQUESTED, why)),
        }
    }
}

/// The next action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Write nothing.
    Rest(StepDown),
    /// Write this request onto the Lease, then decide again.
    Mark(StepDownRequest),
    /// Evict the leader's pod: the Lease has the request, but a Native leader does not read it.
    Evict {
        /// The request.
        value: String,
        /// The pod's name.
        pod: String,
        /// The pod's `metadata.uid`, a precondition.
        uid: Option<String>,
    },
}

/// The inputs of the decision.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The group's annotation.
    pub requested: Option<&'a str>,
    /// `status.lastHandledStepDownAt`.
    pub handled: Option<&'a str>,
    /// Whether no status was written yet.
    pub is_new: bool,
    /// The group's spec, `None` if it is invalid.
    pub group: Option<&'a Group>,
    /// The result of applying the children.
    pub outcome: &'a Outcome,
    /// The group's Lease, if there is one.
    pub lease: Option<&'a LeaseView>,
    /// The group's pods.
    pub pods: &'a [PodView],
    /// The injection revision of the pods, if it is known.
    pub revision: Option<i32>,
    /// The step-down that the operator itself wants.
    pub intent: Option<&'a StepDownIntent>,
    /// The last refused request that the operator has in memory.
    pub refused: Option<&'a Refused>,
}

/// A refused request. It applies only to the leader of that time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The request.
    pub value: String,
    /// The holder that it was meant for.
    pub holder: String,
}

impl<'a> Question<'a> {
    /// Returns the question after the children were applied.
    pub fn of(
        resource: &'a ElectionGroup,
        group: Option<&'a Group>,
        facts: &'a Facts,
        intent: Option<&'a StepDownIntent>,
    ) -> Self {
        let annotations = resource.metadata.annotations.as_ref();
        let status = resource.status.as_ref();
        Self {
            requested: annotations
                .and_then(|annotations| annotations.get(annotation::STEP_DOWN_REQUESTED_AT))
                .map(String::as_str),
            handled: status.and_then(|status| status.last_handled_step_down_at.as_deref()),
            is_new: status.is_none_or(|status| status.observed_generation.is_none()),
            group,
            outcome: &facts.outcome,
            lease: facts.lease.as_ref(),
            pods: &facts.pods,
            revision: status.and_then(|status| status.injection.as_ref()).map(|injection| injection.revision),
            intent,
            refused: None,
        }
    }

    /// Returns [`Question::refused`] for the next reconcile.
    pub fn to_be_remembered(&self) -> Option<Refused> {
        match decide_request(self) {
            Decision::Rest(StepDown::None) => None,
            Decision::Rest(StepDown::Refused { value, .. }) => {
                Some(Refused { value, holder: self.lease?.holder.clone() })
            }
            // The request is handled only once the status records that.
            _ => self.refused.cloned(),
        }
    }
}

/// Decides about the request by annotation, and without one about the operator's own intent.
pub fn decide(question: &Question<'_>) -> Decision {
    let requested = decide_request(question);
    match requested {
        // A request is refused where no standby is ready. The operator's intent names its successor.
        Decision::Rest(StepDown::None | StepDown::Refused { .. }) => decide_intent(question).unwrap_or(requested),
        _ => requested,
    }
}

fn decide_request(question: &Question<'_>) -> Decision {
    let Question { requested, handled, is_new, group, outcome, lease, pods, refused, .. } = *question;
    let Some(value) = requested.filter(|value| !value.is_empty() && Some(*value) != handled) else {
        return Decision::Rest(StepDown::None);
    };
    let value = value.to_owned();
    if is_new {
        // A manifest that was restored or copied makes no leader step down.
        let why =
            "the annotation was set before the group was first reconciled: no leader is asked to step down".to_owned();
        return Decision::Rest(StepDown::Done { value, why });
    }
    let (Some(group), Outcome::Applied) = (group, outcome) else {
        let why = format!("the group is not applied: {}", message_of(outcome));
        return Decision::Rest(StepDown::Pending { value, why });
    };
    let on_lease = lease.and_then(|lease| lease.step_down_request.as_ref()).filter(|on_lease| on_lease.value == value);
    let Some(lease) = lease.filter(|lease| !lease.expired && is_candidate(&lease.holder)) else {
        let why = match on_lease {
            Some(_) => "the leader that was asked to step down is no longer the leader".to_owned(),
            None => "there is no leader that could step down".to_owned(),
        };
        return Decision::Rest(StepDown::Done { value, why });
    };
    let holder = &lease.holder;
    let pod = pod_of(holder, pods);
    let name = format!("lease {}/{}", group.namespace, group.lease_name);
    let term = term_of(group.mode, lease, pods);
    if let Some(on_lease) = on_lease
        && term.as_ref() != Some(&on_lease.of)
    {
        let why = format!("the leader that was asked to step down is no longer the leader: {holder} is");
        return Decision::Rest(StepDown::Done { value, why });
    }
    // A pending request never applies to a later leader, such as the first leader of the next revision.
    if let Some(Refused { holder: former, .. }) =
        refused.filter(|refused| on_lease.is_none() && refused.value == value && refused.holder != *holder)
    {
        let why = format!("{former}, which could not step down at that time, is no longer the leader: {holder} is");
        return Decision::Rest(StepDown::Done { value, why });
    }
    if on_lease.is_some() && (group.mode.has_candidate() || pod.is_none_or(|pod| pod.terminating)) {
        let why = format!("{holder} was asked to stop its work and to release {name}");
        return Decision::Rest(StepDown::Carried { value, why });
    }
    if group.paused || group.suspended {
        let field = if group.paused { "paused" } else { "suspend" };
        let why = format!("spec.{field} is true: {holder} is not asked to step down until it is false");
        return Decision::Rest(StepDown::Pending { value, why });
    }
    if let Some(why) = refusal(question, group, lease, term.is_some(), pod) {
        return Decision::Rest(StepDown::Refused { value, why });
    }
    match (on_lease, pod, term) {
        (None, _, Some(of)) => {
            // A successor that was requested for this very term is kept.
            let former = lease.step_down_request.as_ref().filter(|former| former.of == of);
            let to = former.and_then(|former| former.to.clone());
            Decision::Mark(StepDownRequest { value, of, to })
        }
        (_, Some(pod), _) => Decision::Evict { value, pod: pod.name.clone(), uid: pod.uid.clone() },
        // Refused above.
        (_, None, _) => Decision::Rest(StepDown::None),
    }
}

/// Returns why `lease`'s holder, which runs in `pod`, is not asked to step down now. `has_term`: whether the operator can
/// name its term.
fn refusal(
    question: &Question<'_>,
    group: &Group,
    lease: &LeaseView,
    has_term: bool,
    pod: Option<&PodView>,
) -> Option<String> {
    let (holder, pods) = (&lease.holder, question.pods);
    let name = format!("lease {}/{}", group.namespace, group.lease_name);
    match (group.mode, has_term, pod) {
        (GroupMode::Exec | GroupMode::Sidecar, false, _) => {
            return Some(format!(
                "{holder} holds {name}, but not as a candidate of this group (expected its annotation k8sensus.dev/incarnation, \
                 found {}): it cannot be asked to step down; stop it by hand",
                lease.incarnation.as_deref().unwrap_or("none")
            ));
        }
        (GroupMode::Exec | GroupMode::Sidecar, ..) if ignores_step_downs(question.revision, pod) => {
            return Some(format!(
                "{holder} runs a candidate that does not support step-downs: change the pod template once, or delete the pod"
            ));
        }
        (GroupMode::Native, _, None) => {
            return Some(format!(
                "{holder} holds {name}, and no pod of this group has that name: it cannot be evicted; stop it by hand"
            ));
        }
        _ => {}
    }
    let has_standby = match pod {
        Some(pod) => standby(pod, pods).is_some(),
        None => pods.iter().any(|other| other.ready),
    };
    (!has_standby).then(|| {
        format!(
            "no standby is ready to follow {holder} on {name}; {holder} is asked to step down as soon as one is ready"
        )
    })
}

/// Returns `None` if there is no intent, or it is out of date, or it cannot be carried out now.
fn decide_intent(question: &Question<'_>) -> Option<Decision> {
    let Question { group, outcome, lease, pods, revision, intent, .. } = *question;
    let (intent, group) = (intent?, group?);
    let lease = lease.filter(|lease| !lease.expired && is_candidate(&lease.holder))?;
    let is_too_old = group.mode.has_candidate() && ignores_step_downs(revision, pod_of(&lease.holder, pods));
    if *outcome != Outcome::Applied || group.paused || group.suspended || is_too_old {
        return None;
    }
    let StepDownIntent { reason, of, to, why, .. } = intent.clone();
    if term_of(group.mode, lease, pods).as_ref() != Some(&of) {
        return None;
    }
    if lease.step_down_request.as_ref().is_none_or(|request| request.of != of) {
        return Some(Decision::Mark(StepDownRequest { value: reason.as_str().to_owned(), of, to }));
    }
    match pod_of(&lease.holder, pods).filter(|pod| !group.mode.has_candidate() && !pod.terminating) {
        Some(pod) => {
            let value = reason.as_str().to_owned();
            Some(Decision::Evict { value, pod: pod.name.clone(), uid: pod.uid.clone() })
        }
        None => Some(Decision::Rest(StepDown::Intended { reason, of, why })),
    }
}

/// Whether the leader's candidate does not support step-downs. The leader's pod may have an older injection revision
/// than the group's newest pods.
fn ignores_step_downs(revision: Option<i32>, pod: Option<&PodView>) -> bool {
    revision.is_some_and(|revision| revision < injection::STEP_DOWN) || pod.is_some_and(|pod| pod.ignores_step_downs)
}

fn message_of(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Invalid(message) | Outcome::Conflict(message) | Outcome::Forbidden(message) => message,
        Outcome::Applied => "its spec is invalid",
    }
}
