//! Events, derived from the difference between two statuses.
//!
//! The text of an Event contains no numbers that change, so that Kubernetes shows one Event with a count when the same
//! thing happens to the same pod again. The numbers are in the status. [`series`] merges the Events.

pub mod series;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

pub use self::series::{About, Series, Write};
use super::judge::other_operator::OtherOperator;
use super::judge::step_down::StepDown;
use super::observed::Facts;
use super::observed::pod::pod_of;
use crate::api::names::{ChangeReason, event};
use crate::api::{ConditionType, ElectionGroupStatus, HistoryEntry, InjectionStatus, LeaderlessStatus, Reason};
use crate::protocol::lease::RECREATED_HOLDER;

/// The limit of the API server for a note, in bytes.
const LONGEST_NOTE: usize = 1024;

/// Something that happened to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The text. Events with the same text are merged.
    pub words: Words,
    /// Identifies the occurrence among several with the same text: the same occurrence is not counted twice.
    pub occurrence: String,
    /// Whether it continues from the former status, rather than starts now.
    pub goes_on: bool,
}

/// The text of an Event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Words {
    /// Whether its type is Warning.
    pub warning: bool,
    /// The reason, one of [`event`] or of condition Stalled.
    pub reason: String,
    /// The action of the operator.
    pub action: &'static str,
    /// The explanation as a sentence, at most 1024 bytes.
    pub note: String,
    /// The pod that it concerns, besides the group.
    pub pod: Option<String>,
}

const ELECT: &str = "Elect";
const RECONCILE: &str = "Reconcile";
const STEP_DOWN: &str = "StepDown";
const ROLL_OUT: &str = "RollOut";

/// Returns the Events between two statuses of one group, in the order in which they happened. `facts` is what
/// `after` was built from.
pub fn between(before: &ElectionGroupStatus, after: &ElectionGroupStatus, facts: &Facts) -> Vec<Event> {
    let mut events = Vec::new();
    let newest = after.history.first();
    let elected = newest.filter(|newest| before.history.first() != Some(*newest));
    let (was_led, is_led) = (before.holder_identity.is_some(), after.holder_identity.is_some());
    if let (true, Some(last)) = (was_led, before.history.first()) {
        match elected {
            Some(next) => events.extend(replaced(last, next)),
            None if !is_led => events.extend(ended(last, after.leaderless.as_ref())),
            None => {}
        }
    }
    if let Some(next) = elected {
        let note = format!("{} leads: {}", next.holder_identity, why_free(reason_of(next.reason.as_deref())));
        events.push(of_term(next, false, event::LEADER_ELECTED, note));
        if !is_led {
            events.extend(ended(next, after.leaderless.as_ref()));
        }
    } else if let (false, true, Some(last)) = (was_led, is_led, newest.filter(|_| before.leaderless.is_some())) {
        let note = format!("{} leads again: it renewed the Lease before another pod acquired it", last.holder_identity);
        events.push(of_term(last, false, event::LEADER_RECOVERED, note));
    }
    events.extend(recreated(before, after, facts));
    events.extend(proven(before, after, facts));
    events.extend(flapping(before, after));
    events.extend(stalled(before, after));
    events
}

/// Returns the Event of a step-down, if there is something to report.
pub fn of_step_down(step_down: &StepDown) -> Option<Event> {
    let (reason, why) = step_down.event()?;
    let value = match step_down {
        StepDown::None => return None,
        StepDown::Pending { value, .. }
        | StepDown::Refused { value, .. }
        | StepDown::Carried { value, .. }
        | StepDown::Done { value, .. }
        | StepDown::Intended { of: value, .. } => value,
    };
    let warning = match step_down {
        StepDown::Intended { reason, .. } => *reason == ChangeReason::Unhealthy,
        _ => matches!(step_down, StepDown::Pending { .. } | StepDown::Refused { .. }),
    };
    Some(Event {
        words: Words {
            warning,
            reason: reason.to_owned(),
            action: STEP_DOWN,
            note: shortened(why.to_owned()),
            pod: None,
        },
        occurrence: value.clone(),
        goes_on: false,
    })
}

/// Returns the Event of a group that operator `own` leaves to operator `other` (`left`) or takes over from it. `state`
/// is that of `other`.
pub fn of_other_operator(other: &str, own: &str, state: OtherOperator, left: bool) -> Event {
    let advice = "let one of them serve other namespaces (the chart's value namespaces), or uninstall it";
    let note = match (left, state) {
        (true, _) => {
            format!("operator {other} reconciles this group, so operator {own} leaves it alone: {advice}")
        }
        (false, OtherOperator::Gone) => {
            format!("operator {own} takes over this group from operator {other}, which does not run")
        }
        (false, _) => format!(
            "operator {own} takes over this group from operator {other}, which may still run, because its Lease cannot be \
             read: {advice}"
        ),
    };
    Event {
        words: Words {
            warning: left || state != OtherOperator::Gone,
            reason: event::OTHER_OPERATOR.to_owned(),
            action: RECONCILE,
            note: shortened(note),
            pod: None,
        },
        occurrence: format!("{other} {own} {left}"),
        goes_on: false,
    }
}

/// Returns the Event of pods that get the candidate of `injection`.
pub fn of_candidate_update(injection: &InjectionStatus) -> Event {
    let InjectionStatus { image, revision, .. } = injection;
    Event {
        words: Words {
            warning: false,
            reason: event::CANDIDATE_UPDATED.to_owned(),
            action: RECONCILE,
            note: shortened(format!("the pods get candidate image {image}, by injection revision {revision}")),
            pod: None,
        },
        occurrence: format!("{image} {revision}"),
        goes_on: false,
    }
}

/// Returns the Event of a term whose successor leads already. A mere release is reported by the successor's own Event.
fn replaced(last: &HistoryEntry, next: &HistoryEntry) -> Option<Event> {
    let reason = reason_of(next.reason.as_deref());
    let is_reported =
        !matches!(reason, ChangeReason::LeaseReleased | ChangeReason::NotObserved | ChangeReason::Elected);
    is_reported.then(|| end(last, reason))
}

fn ended(last: &HistoryEntry, leaderless: Option<&LeaderlessStatus>) -> Option<Event> {
    leaderless.map(|leaderless| end(last, reason_of(leaderless.reason.as_deref())))
}

fn end(last: &HistoryEntry, reason: ChangeReason) -> Event {
    let holder = &last.holder_identity;
    let (warning, event, why) = match reason {
        ChangeReason::SteppedDown => {
            return of_term(last, false, event::STEPPED_DOWN, format!("{holder} stepped down as requested"));
        }
        ChangeReason::Rollout => (false, event::STEPPED_DOWN, "it handed over to a pod of another revision"),
        ChangeReason::Unhealthy => (true, event::STEPPED_DOWN, "its program was not ready for too long"),
        ChangeReason::Draining => (false, event::STEPPED_DOWN, "its pod is being deleted"),
        ChangeReason::LeaseReleased => (false, event::LEADER_RELEASED, "it released the Lease"),
        ChangeReason::KubeletReported => (true, event::LEADER_LOST, "the kubelet reported the end of its container"),
        ChangeReason::LeaseExpired => (true, event::LEADER_LOST, "it did not renew the Lease in time"),
        ChangeReason::LeaseDeleted => (true, event::LEADER_LOST, "the Lease was deleted"),
        ChangeReason::HolderRestarted => (true, event::LEADER_LOST, "its container restarted"),
        ChangeReason::NotObserved | ChangeReason::Elected => (true, event::LEADER_LOST, "the cause was not observed"),
    };
    of_term(last, warning, event, format!("{holder} is no longer the leader: {why}"))
}

fn why_free(reason: ChangeReason) -> &'static str {
    match reason {
        ChangeReason::Elected => "it is the first leader",
        ChangeReason::LeaseReleased => "its predecessor released the Lease",
        ChangeReason::SteppedDown => "its predecessor stepped down as requested",
        ChangeReason::Rollout => "its predecessor handed over to another revision",
        ChangeReason::Unhealthy => "its predecessor's program was not ready for too long",
        ChangeReason::Draining => "its predecessor's pod is being deleted",
        ChangeReason::KubeletReported => "the kubelet reported the end of its predecessor's container",
        ChangeReason::LeaseExpired => "its predecessor did not renew the Lease in time",
        ChangeReason::LeaseDeleted => "the Lease had been deleted",
        ChangeReason::HolderRestarted => "its container restarted",
        ChangeReason::NotObserved => "how its predecessor's term ended was not observed",
    }
}

fn reason_of(text: Option<&str>) -> ChangeReason {
    text.and_then(ChangeReason::parse).unwrap_or(ChangeReason::NotObserved)
}

fn of_term(term: &HistoryEntry, warning: bool, reason: &str, note: String) -> Event {
    Event {
        words: Words {
            warning,
            reason: reason.to_owned(),
            action: ELECT,
            note: shortened(note),
            pod: Some(term.holder_identity.clone()),
        },
        occurrence: format!("{:?} {:?}", term.lease_transitions, term.time),
        goes_on: false,
    }
}

/// Returns the Event of a Lease that the operator has recreated since the former status was written.
fn recreated(before: &ElectionGroupStatus, after: &ElectionGroupStatus, facts: &Facts) -> Option<Event> {
    let lease = facts.lease.as_ref().filter(|lease| lease.holder == RECREATED_HOLDER)?;
    let message =
        |status: &ElectionGroupStatus| condition(status, ConditionType::LeaderElected).map(|it| it.message.clone());
    if message(before) == message(after) {
        return None;
    }
    let name = after.lease_name.as_deref().unwrap_or_default();
    let note =
        format!("Lease {name} was missing and was recreated; no pod leads until a former leader must have stopped");
    Some(Event {
        words: Words { warning: true, reason: event::LEASE_RECREATED.to_owned(), action: ELECT, note, pod: None },
        occurrence: format!("{:?}", lease.renew_time),
        goes_on: false,
    })
}

/// Returns the Event of a revision that has led well, or that follows a leader with which there is no trial. The first
/// revision of a group is proven by definition and has no Event.
fn proven(before: &ElectionGroupStatus, after: &ElectionGroupStatus, facts: &Facts) -> Option<Event> {
    let [then, now] = [before, after].map(|status| status.rollout.as_ref()?.proven_revision.as_deref());
    let (_, revision) = then.zip(now).filter(|(then, now)| then != now)?;
    let pod = after.holder_identity.clone();
    let name = pod.as_deref().unwrap_or("its leader");
    let leader = pod.as_deref().and_then(|holder| pod_of(holder, &facts.pods));
    let note = if leader.is_some_and(|leader| leader.revision.as_deref() == Some(revision)) {
        format!("revision {revision} of the pod template has led well in {name}: the rest of the pods follow")
    } else {
        format!(
            "revision {revision} of the pod template is rolled out without a trial: {name} cannot be asked to hand over"
        )
    };
    Some(Event {
        words: Words {
            warning: false,
            reason: event::REVISION_PROVEN.to_owned(),
            action: ROLL_OUT,
            note: shortened(note),
            pod,
        },
        occurrence: format!("{:?}", after.observed_generation),
        goes_on: false,
    })
}

/// Returns the Event of leadership that starts to flap.
fn flapping(before: &ElectionGroupStatus, after: &ElectionGroupStatus) -> Option<Event> {
    let flapping = |status| {
        condition(status, ConditionType::FailoverReady).filter(|it| it.reason == Reason::LeaderFlapping.as_str())
    };
    let now = flapping(after).filter(|_| flapping(before).is_none())?;
    let newest = after.history.first();
    Some(Event {
        words: Words {
            warning: true,
            reason: event::LEADER_FLAPPING.to_owned(),
            action: ELECT,
            note: shortened(format!("leadership goes from pod to pod: {}", now.message)),
            pod: None,
        },
        occurrence: format!("{:?}", newest.map(|newest| (newest.lease_transitions, &newest.time))),
        goes_on: false,
    })
}

fn stalled(before: &ElectionGroupStatus, after: &ElectionGroupStatus) -> Option<Event> {
    let now = condition(after, ConditionType::Stalled)?;
    let then = condition(before, ConditionType::Stalled).map(|then| (&then.reason, &then.message));
    let goes_on = then == Some((&now.reason, &now.message));
    Some(Event {
        words: Words {
            warning: true,
            reason: now.reason.clone(),
            action: RECONCILE,
            note: shortened(now.message.clone()),
            pod: None,
        },
        occurrence: format!("{} {then:?}", now.last_transition_time.0),
        goes_on,
    })
}

fn condition(status: &ElectionGroupStatus, kind: ConditionType) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

fn shortened(mut note: String) -> String {
    const MARK: &str = " ...";
    if note.len() > LONGEST_NOTE {
        note.truncate(note.floor_char_boundary(LONGEST_NOTE - MARK.len()));
        note.push_str(MARK);
    }
    note
}
