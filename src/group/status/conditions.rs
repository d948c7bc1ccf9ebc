//! The conditions of the status, with one verdict each.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::candidate;
use super::causes::with_causes;
use super::input::Findings;
use crate::api::{ConditionType, ElectionGroup, Reason};
use crate::observed::lease::{LeaseView, is_candidate};
use crate::observed::pod::{PodView, pod_of};
use crate::observed::{DeploymentView, Facts, Outcome};
use crate::spec::group::Group;

pub(super) struct Verdict {
    kind: ConditionType,
    status: bool,
    reason: Reason,
    message: String,
}

pub(super) fn verdicts(
    group: &ElectionGroup,
    valid: Option<&Group>,
    findings: &Findings,
    deployment: &DeploymentView,
    leader: Option<&LeaseView>,
    flapping: Option<String>,
    now: Timestamp,
) -> Vec<Verdict> {
    let facts = &findings.facts;
    let wanted = valid.map_or(group.spec.replicas, |valid| valid.replicas);
    let suspended = group.spec.suspend;
    let elected = elected(group, facts, wanted, leader, now);
    let mut verdicts = vec![ready(facts, deployment, wanted, suspended, leader, &elected, now)];
    verdicts.push(elected);
    verdicts.push(match flapping.filter(|_| !suspended) {
        Some(message) => {
            let reason = Reason::LeaderFlapping;
            Verdict { kind: ConditionType::FailoverReady, status: false, reason, message }
        }
        None => failover_ready(facts, wanted, suspended, leader, now),
    });
    verdicts.extend(reconciling(findings, deployment, wanted));
    verdicts.extend(stalled(findings, deployment, now));
    let recorded = group.status.as_ref().and_then(|status| status.injection.as_ref());
    let recorded = findings.injection.after(recorded);
    let outdated =
        valid.zip(recorded).and_then(|(valid, recorded)| candidate::outdated(valid, recorded, findings, leader));
    verdicts.extend(outdated.map(|(reason, message)| Verdict {
        kind: ConditionType::CandidateOutdated,
        status: true,
        reason,
        message,
    }));
    verdicts
}

fn ready(
    facts: &Facts,
    deployment: &DeploymentView,
    wanted: i32,
    suspended: bool,
    leader: Option<&LeaseView>,
    elected: &Verdict,
    now: Timestamp,
) -> Verdict {
    let (status, reason, message) = match (&facts.outcome, leader) {
        (Outcome::Invalid(message), _) => (false, Reason::Invalid, message.clone()),
        (Outcome::Conflict(message), _) => (false, Reason::Conflict, message.clone()),
        _ if suspended => (false, Reason::Suspended, "spec.suspend is true".to_owned()),
        (_, None) => (false, Reason::NoLeader, elected.message.clone()),
        (_, Some(_)) if deployment.ready < wanted => {
            let message = format!("{} of {wanted} pods are ready", deployment.ready);
            (false, Reason::InsufficientReplicas, with_causes(message, facts, now))
        }
        (_, Some(lease)) => (true, Reason::LeaderElected, format!("{} leads", lease.holder)),
    };
    Verdict { kind: ConditionType::Ready, status, reason, message }
}

fn elected(group: &ElectionGroup, facts: &Facts, wanted: i32, leader: Option<&LeaseView>, now: Timestamp) -> Verdict {
    let name = format!("{}/{}", group.metadata.namespace.as_deref().unwrap_or_default(), group.effective_lease_name());
    let (status, reason, message) = match (leader, &facts.lease) {
        (Some(lease), _) => (true, Reason::LeaseHeld, format!("{} holds lease {name}", lease.holder)),
        (None, _) if group.spec.suspend => (false, Reason::Suspended, "spec.suspend is true".to_owned()),
        (None, _) if wanted == 0 => (false, Reason::NoCandidates, "spec.replicas is 0".to_owned()),
        (None, None) => (false, Reason::NoCandidates, format!("lease {name} does not exist")),
        (None, Some(lease)) if lease.holder.is_empty() => {
            let message = format!("lease {name} is free; no pod has acquired it yet");
            (false, Reason::LeaseReleased, with_causes(message, facts, now))
        }
        (None, Some(lease)) if !is_candidate(&lease.holder) => {
            let message = format!("lease {name} was recreated; the pods wait until its former holder has stopped");
            (false, Reason::LeaseExpired, message)
        }
        (None, Some(lease)) => {
            let message = format!("lease {name} expired: {} stopped renewing it", lease.holder);
            (false, Reason::LeaseExpired, with_causes(message, facts, now))
        }
    };
    Verdict { kind: ConditionType::LeaderElected, status, reason, message }
}

fn failover_ready(facts: &Facts, wanted: i32, suspended: bool, leader: Option<&LeaseView>, now: Timestamp) -> Verdict {
    let leader = leader.and_then(|lease| pod_of(&lease.holder, &facts.pods));
    let others = facts.pods.iter().filter(|pod| leader.is_none_or(|leader| leader.name != pod.name));
    let standbys: Vec<&PodView> = others.filter(|pod| pod.ready).collect();
    let node = leader.and_then(|pod| pod.node.as_deref());
    let (status, reason, message) = if suspended {
        (false, Reason::SingleReplica, "spec.suspend is true: there is no standby".to_owned())
    } else if wanted < 2 {
        (false, Reason::SingleReplica, format!("spec.replicas is {wanted}: there is no standby"))
    } else if standbys.is_empty() {
        (false, Reason::NoReadyStandby, with_causes("no standby is ready".to_owned(), facts, now))
    } else if node.is_some() && standbys.iter().all(|pod| pod.node.as_deref() == node) {
        let message = format!("all ready standbys are on the leader's node {}", node.unwrap_or_default());
        (false, Reason::StandbysOnSameNode, message)
    } else {
        (true, Reason::StandbyReady, format!("{} ready", counted(standbys.len(), "standby", "standbys")))
    };
    Verdict { kind: ConditionType::FailoverReady, status, reason, message }
}

/// Returns condition Reconciling only while there is work to do, as kstatus expects of an abnormal-true condition.
fn reconciling(findings: &Findings, deployment: &DeploymentView, wanted: i32) -> Option<Verdict> {
    let stalled = deployment.deadline_exceeded.is_some() || failed_revision(findings).is_some();
    let facts = &findings.facts;
    if facts.outcome != Outcome::Applied || facts.deployment.is_none() || stalled {
        return None;
    }
    let with_waiting = |message: String| match &findings.judgement.waiting {
        Some(waiting) => format!("{message}; {waiting}"),
        None => message,
    };
    let former = deployment.replicas.saturating_sub(deployment.updated);
    let (reason, message) = if !deployment.observed || (former > 0 && deployment.updated < wanted) {
        let message = format!("{} of {wanted} pods are of the newest revision", deployment.updated);
        (Reason::RollingOut, with_waiting(message))
    } else if former > 0 && wanted > 0 {
        // All wanted pods of the new revision may exist, but not be Ready yet.
        (Reason::RollingOut, with_waiting(existing(former, " of a former revision")))
    } else if deployment.replicas != wanted {
        (Reason::Scaling, format!("{}, {wanted} are wanted", existing(deployment.replicas, "")))
    } else {
        // All pods are of the new revision, which is not proven yet. Without wanted pods it cannot be proven.
        (Reason::RollingOut, findings.judgement.waiting.clone().filter(|_| wanted > 0)?)
    };
    Some(Verdict { kind: ConditionType::Reconciling, status: true, reason, message })
}

fn stalled(findings: &Findings, deployment: &DeploymentView, now: Timestamp) -> Option<Verdict> {
    let (reason, message) = match &findings.facts.outcome {
        Outcome::Invalid(message) => (Reason::Invalid, message.clone()),
        Outcome::Conflict(message) => (Reason::Conflict, message.clone()),
        Outcome::Forbidden(message) => (Reason::Forbidden, message.clone()),
        Outcome::Applied => match (failed_revision(findings), &deployment.deadline_exceeded) {
            (Some(message), _) => (Reason::RevisionFailed, message),
            (None, Some(message)) => {
                (Reason::ProgressDeadlineExceeded, with_causes(message.clone(), &findings.facts, now))
            }
            (None, None) => return None,
        },
    };
    Some(Verdict { kind: ConditionType::Stalled, status: true, reason, message })
}

/// Returns the message about the newest revision if its trial failed.
fn failed_revision(findings: &Findings) -> Option<String> {
    let rollout = findings.judgement.rollout.as_ref()?;
    let failed = rollout.failed_revision.as_deref()?;
    let why = rollout.message.as_deref().unwrap_or("it did not lead well");
    Some(format!(
        "revision {failed} of the pod template failed: {why}; change spec.template or spec.image, or undo the change"
    ))
}

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {} {}", if number == 1 { one } else { many }, if number == 1 { "is" } else { "are" })
}

fn existing(pods: i32, which: &str) -> String {
    if pods == 1 { format!("1 pod{which} exists") } else { format!("{pods} pods{which} exist") }
}

/// Returns `verdicts` as conditions. `lastTransitionTime` changes only with the status of a condition, not with its
/// reason.
pub(super) fn conditions(
    before: &[Condition],
    verdicts: Vec<Verdict>,
    generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    let conditions = verdicts.into_iter().map(|verdict| {
        let status = if verdict.status { "True" } else { "False" };
        let since = before
            .iter()
            .find(|condition| condition.type_ == verdict.kind.as_str() && condition.status == status)
            .map_or(now, |condition| &condition.last_transition_time);
        Condition {
            type_: verdict.kind.as_str().to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.as_str().to_owned(),
            message: verdict.message,
            observed_generation: generation,
            last_transition_time: since.clone(),
        }
    });
    conditions.collect()
}
