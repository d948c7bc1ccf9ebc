//! Conditions that need action, and what to do about each.

use k8s_openapi::api::events::v1::Event;
use serde::Serialize;

use super::state::condition;
use crate::api::names::{ConditionType, Reason};
use crate::api::{ElectionGroup, ElectionGroupStatus};

/// A condition that needs action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attention {
    /// Its type.
    pub condition: String,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// Returns the conditions that need action, the most urgent first.
pub fn attention(group: &ElectionGroup) -> Vec<Attention> {
    let status = group.status.clone().unwrap_or_default();
    let name = group.metadata.name.as_deref().unwrap_or_default();
    let namespace = group.metadata.namespace.as_deref().unwrap_or_default();
    // LeaderElected repeats what Ready says.
    let kinds =
        [(ConditionType::Stalled, "True"), (ConditionType::Ready, "False"), (ConditionType::FailoverReady, "False")];
    let kinds = kinds.into_iter().chain([(ConditionType::CandidateOutdated, "True")]);
    let mut found: Vec<Attention> = Vec::new();
    for (kind, bad) in kinds {
        let Some(condition) = condition(&status, kind).filter(|condition| condition.status == bad) else { continue };
        let is_intended = [Reason::Suspended, Reason::SingleReplica, Reason::UpdatePending]
            .iter()
            .any(|reason| reason.as_str() == condition.reason);
        if is_intended || found.iter().any(|other| other.message == condition.message) {
            continue;
        }
        let advice = advice(&condition.reason, namespace, name);
        found.push(Attention {
            condition: condition.type_.clone(),
            reason: condition.reason.clone(),
            message: without_repeated_cause(&condition.message, &found),
            advice: advice.filter(|advice| found.iter().all(|other| other.advice.as_ref() != Some(advice))),
        });
    }
    found
}

/// Returns the message without its cause, such as a pod's problem, if a message before it has the same cause.
fn without_repeated_cause(message: &str, before: &[Attention]) -> String {
    match message.split_once("; ") {
        Some((what, cause)) if before.iter().any(|other| other.message.ends_with(cause)) => what.to_owned(),
        _ => message.to_owned(),
    }
}

/// Returns what to do about a condition of that reason. The messages of some conditions say it already.
fn advice(reason: &str, namespace: &str, name: &str) -> Option<String> {
    let is = |known: Reason| known.as_str() == reason;
    let pods = format!("kubectl describe pods -n {namespace} -l {}={name}", crate::api::names::label::GROUP);
    if is(Reason::Invalid) {
        Some(format!("correct the spec: kubectl edit electiongroup/{name} -n {namespace}"))
    } else if is(Reason::Conflict) {
        Some("rename or delete the object that is in the way, or give the group another name".to_owned())
    } else if is(Reason::Forbidden) {
        Some("grant the operator the missing permission; its chart has them all".to_owned())
    } else if is(Reason::NoLeader) || is(Reason::InsufficientReplicas) || is(Reason::NoReadyStandby) {
        Some(format!("see what keeps the pods from being ready: {pods}"))
    } else if is(Reason::ProgressDeadlineExceeded) {
        Some(format!("see why the new pods do not start, or undo the change of the pod template: {pods}"))
    } else if is(Reason::StandbysOnSameNode) {
        Some("spread the pods over nodes, by topologySpreadConstraints or anti-affinity in spec.template".to_owned())
    } else if is(Reason::LeaderFlapping) {
        Some(format!("see why the program fails on every pod: kubectl k8sensus logs --leader {name} -n {namespace}"))
    } else if is(Reason::ImageDiffers) || is(Reason::InjectionOlder) || is(Reason::VersionDiffers) {
        let key = crate::api::names::annotation::UPDATE_CANDIDATE_REQUESTED_AT;
        let group = format!("kubectl annotate electiongroup/{name} -n {namespace}");
        Some(format!(
            "no hurry; to update the candidates, at the cost of one rollout: {group} {key}=$(date +%s) --overwrite"
        ))
    } else {
        None
    }
}

/// Returns the message of condition Reconciling: the work under way.
pub fn progress(status: &ElectionGroupStatus) -> Option<String> {
    let found = condition(status, ConditionType::Reconciling).filter(|condition| condition.status == "True")?;
    Some(format!("{} ({})", found.message, found.reason))
}

/// Returns what a requested update of the candidate waits for.
pub fn update_pending(status: &ElectionGroupStatus) -> Option<String> {
    let found = condition(status, ConditionType::CandidateOutdated)?;
    (found.reason == Reason::UpdatePending.as_str()).then(|| found.message.clone())
}

/// Returns the operator's last Event about a step-down, with its note.
pub fn last_about_step_down(events: &[Event]) -> Option<(&Event, &str)> {
    use crate::api::names::event::{STEP_DOWN_HANDLED, STEP_DOWN_PENDING, STEP_DOWN_REFUSED, STEP_DOWN_REQUESTED};
    let reasons = [STEP_DOWN_PENDING, STEP_DOWN_REFUSED, STEP_DOWN_REQUESTED, STEP_DOWN_HANDLED];
    let last =
        events.iter().rev().find(|event| reasons.iter().any(|reason| event.reason.as_deref() == Some(reason)))?;
    Some((last, last.note.as_deref()?))
}
