//! Whether a step-down is to be carried out now: one that was asked for by annotation, or one that the operator wishes itself.
//! There is one mark at a time, and the annotation goes first.
//!
//! The request is carried to the leader on the Lease, together with the name of the one term that it is meant for. That mark
//! stays, and it is all that an operator has to know: whichever of its steps it dies after, the next one goes on from there, and
//! no second leader steps down for one request. A request that was refused is no mark: for whom it was meant an operator remembers
//! as long as it runs.

use super::successor::{StepDownIntent, standby};
use crate::api::ElectionGroup;
use crate::api::names::{ChangeReason, annotation, event};
use crate::group::observed::lease::{LeaseView, StepDownRequest, is_candidate, term_of};
use crate::group::observed::pod::{PodView, pod_of};
use crate::group::observed::{Facts, Outcome};
use crate::group::spec::group::{Group, GroupMode};
use crate::group::spec::injection;

/// What became of a request. `value` is the group's annotation, `why` a sentence for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StepDown {
    /// There is none, or it was handled before.
    #[default]
    None,
    /// It waits for something that the group's owner decides.
    Pending { value: String, why: String },
    /// Carried out now, it would do harm or nothing. It will be once that has changed.
    Refused { value: String, why: String },
    /// The leader was told, and has not stepped down yet.
    Carried { value: String, why: String },
    /// The leader has stepped down, or there was none.
    Done { value: String, why: String },
    /// The leader was told what the operator itself wants of that term.
    Intended { reason: ChangeReason, of: String, why: String },
}

impl StepDown {
    /// The reason in one word and the sentence, for events and logs; `None` if there is nothing to tell.
    pub fn event(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::None => None,
            Self::Pending { why, .. } => Some(("StepDownPending", why)),
            Self::Refused { why, .. } => Some(("StepDownRefused", why)),
            Self::Carried { why, .. } => Some(("StepDownRequested", why)),
            Self::Done { why, .. } => Some(("StepDownHandled", why)),
            Self::Intended { reason: ChangeReason::Unhealthy, why, .. } => Some((event::LEADER_UNHEALTHY, why)),
            Self::Intended { why, .. } => Some(("StepDownRequested", why)),
        }
    }
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is to be written.
    Rest(StepDown),
    /// Write the mark onto the Lease as it is now, then decide again.
    Mark(StepDownRequest),
    /// The mark is there, and the leader does not know it: evict its pod.
    Evict {
        /// The request.
        value: String,
        /// The pod's name.
        pod: String,
        /// The pod's `metadata.uid`, a precondition.
        uid: Option<String>,
    },
}

/// All that the decision rests on.
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
    /// What became of the children.
    pub outcome: &'a Outcome,
    /// The Lease, if there is one that is the group's.
    pub lease: Option<&'a LeaseView>,
    /// The group's pods.
    pub pods: &'a [PodView],
    /// The revision of what was added to the pods, if it is known.
    pub revision: Option<i32>,
    /// What the operator itself wants.
    pub intent: Option<&'a StepDownIntent>,
    /// The last request that was refused, as far as the operator remembers.
    pub refused: Option<&'a Refused>,
}

/// A request that was refused. It is for whoever led then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The request.
    pub value: String,
    /// The holder that was to step down.
    pub holder: String,
}

impl<'a> Question<'a> {
    /// The question as it stands after the children were applied.
    pub fn of(
        resource: &'a ElectionGroup,
        group: Option<&'a Group>,
        facts: Facts<'a>,
        intent: Option<&'a StepDownIntent>,
    ) -> Self {
        let annotations = resource.metadata.annotations.as_ref();
        let status = resource.status.as_ref();
        let Facts { outcome, lease, pods } = facts;
        Self {
            requested: annotations
                .and_then(|annotations| annotations.get(annotation::STEP_DOWN_REQUESTED_AT))
                .map(String::as_str),
            handled: status.and_then(|status| status.last_handled_step_down_at.as_deref()),
            is_new: status.is_none_or(|status| status.observed_generation.is_none()),
            group,
            outcome,
            lease,
            pods,
            revision: status.and_then(|status| status.injection.as_ref()).map(|injection| injection.revision),
            intent,
            refused: None,
        }
    }

    /// What is to be remembered until the next look, in [`Question::refused`].
    pub fn to_be_remembered(&self) -> Option<Refused> {
        match decide_request(self) {
            Decision::Rest(StepDown::None) => None,
            Decision::Rest(StepDown::Refused { value, .. }) => {
                Some(Refused { value, holder: self.lease?.holder.clone() })
            }
            // It is done only once the status says so.
            _ => self.refused.cloned(),
        }
    }
}

/// What is to be done about the request, if there is one, and else about the operator's own intent.
pub fn decide(question: &Question<'_>) -> Decision {
    let requested = decide_request(question);
    match requested {
        // Refused is what would leave nobody to lead; a intent names who will.
        Decision::Rest(StepDown::None | StepDown::Refused { .. }) => decide_intent(question).unwrap_or(requested),
        _ => requested,
    }
}

fn decide_request(question: &Question<'_>) -> Decision {
    let Question { requested, handled, is_new, group, outcome, lease, pods, revision, refused, .. } = *question;
    let Some(value) = requested.filter(|value| !value.is_empty() && Some(*value) != handled) else {
        return Decision::Rest(StepDown::None);
    };
    let value = value.to_owned();
    if is_new {
        // A manifest that was restored, or made from a copy, deposes nobody.
        let why =
            "the annotation was there before the group was first looked at: nobody is asked to step down".to_owned();
        return Decision::Rest(StepDown::Done { value, why });
    }
    let (Some(group), Outcome::Applied) = (group, outcome) else {
        let why = format!("the group is not applied: {}", message_of(outcome));
        return Decision::Rest(StepDown::Pending { value, why });
    };
    let asked = lease.and_then(|lease| lease.step_down_request.as_ref()).filter(|asked| asked.value == value);
    let Some(lease) = lease.filter(|lease| !lease.expired && is_candidate(&lease.holder)) else {
        let why = match asked {
            Some(_) => "the leader that was asked leads no more".to_owned(),
            None => "nobody leads: there is nobody to step down".to_owned(),
        };
        return Decision::Rest(StepDown::Done { value, why });
    };
    let holder = &lease.holder;
    let pod = pod_of(holder, pods);
    let name = format!("lease {}/{}", group.namespace, group.lease_name);
    let term = term_of(group.mode, lease, pods);
    if let Some(asked) = asked
        && term.as_ref() != Some(&asked.of)
    {
        let why = format!("the leader that was asked leads no more: {holder} does");
        return Decision::Rest(StepDown::Done { value, why });
    }
    // An open request hits nobody else later, such as the first leader of the next revision.
    if let Some(Refused { holder: former, .. }) =
        refused.filter(|refused| asked.is_none() && refused.value == value && refused.holder != *holder)
    {
        let why = format!("{former}, which could not step down at that time, leads no more: {holder} does");
        return Decision::Rest(StepDown::Done { value, why });
    }
    if asked.is_some() && (group.mode.has_candidate() || pod.is_none_or(|pod| pod.terminating)) {
        let why = format!("{holder} was told to stop its work and to release {name}");
        return Decision::Rest(StepDown::Carried { value, why });
    }
    if group.paused || group.suspended {
        let field = if group.paused { "paused" } else { "suspend" };
        let why = format!("spec.{field} is true: {holder} is not asked to step down until it is false");
        return Decision::Rest(StepDown::Pending { value, why });
    }
    let refused = |why| Decision::Rest(StepDown::Refused { value: value.clone(), why });
    match (group.mode, &term, pod) {
        (GroupMode::Exec | GroupMode::Sidecar, None, _) => {
            return refused(format!(
                "{holder} holds {name}, but not as a candidate of this group (expected its annotation k8sensus.dev/incarnation, \
                 found {}): it cannot be asked, end it by hand",
                lease.incarnation.as_deref().unwrap_or("none")
            ));
        }
        (GroupMode::Exec | GroupMode::Sidecar, ..) if ignores_step_downs(revision, pod) => {
            return refused(format!(
                "{holder} runs a candidate from before there were step-downs: change the pod template once, or delete the pod"
            ));
        }
        (GroupMode::Native, _, None) => {
            return refused(format!(
                "{holder} holds {name}, and no pod of this group has that name: it cannot be evicted, end it by hand"
            ));
        }
        _ => {}
    }
    let is_followed = match pod {
        Some(pod) => standby(pod, pods).is_some(),
        None => pods.iter().any(|other| other.ready),
    };
    if !is_followed {
        return refused(format!(
            "no standby is ready to follow {holder} on {name}; as soon as one is, {holder} is asked to step down"
        ));
    }
    match (asked, pod, term) {
        (None, _, Some(of)) => {
            // Who was to follow that very term still is.
            let to = lease.step_down_request.as_ref().filter(|asked| asked.of == of).and_then(|asked| asked.to.clone());
            Decision::Mark(StepDownRequest { value, of, to })
        }
        (_, Some(pod), _) => Decision::Evict { value, pod: pod.name.clone(), uid: pod.uid.clone() },
        // Both were refused above.
        (_, None, _) => Decision::Rest(StepDown::None),
    }
}

/// `None` if there is no intent, or it is out of date, or its time has not come.
fn decide_intent(question: &Question<'_>) -> Option<Decision> {
    let Question { group, outcome, lease, pods, revision, intent, .. } = *question;
    let (intent, group) = (intent?, group?);
    let lease = lease.filter(|lease| !lease.expired && is_candidate(&lease.holder))?;
    let too_old = group.mode.has_candidate() && ignores_step_downs(revision, pod_of(&lease.holder, pods));
    if *outcome != Outcome::Applied || group.paused || group.suspended || too_old {
        return None;
    }
    let StepDownIntent { reason, of, to, why, .. } = intent.clone();
    if term_of(group.mode, lease, pods).as_ref() != Some(&of) {
        return None;
    }
    if lease.step_down_request.as_ref().is_none_or(|asked| asked.of != of) {
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

/// Whether the leader's candidate is from before there were step-downs: by its pod, which may be older than what the group's
/// pods get by now.
fn ignores_step_downs(revision: Option<i32>, pod: Option<&PodView>) -> bool {
    revision.is_some_and(|revision| revision < injection::STEP_DOWN) || pod.is_some_and(|pod| pod.ignores_step_downs)
}

fn message_of(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Invalid(message) | Outcome::Conflict(message) | Outcome::Forbidden(message) => message,
        Outcome::Applied => "its spec is invalid",
    }
}
