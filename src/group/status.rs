//! What was observed becomes the status. The same observations always give the same status, so that writing it
//! triggers nothing.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};

use super::step_down::{Asked, StepDown};
use super::valid::Group;
use crate::api::names::label;
use crate::api::{ConditionType, ElectionGroup, ElectionGroupStatus, InjectionStatus, LeaderStatus, Reason};

/// What became of the children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// They are as desired, or left alone because the group is paused.
    Applied,
    /// The spec breaks a rule; nothing was touched.
    Invalid(String),
    /// An object of a name that is needed is not the group's.
    Conflict(String),
    /// The API server refuses a verb that the operator needs.
    Forbidden(String),
}

/// The Lease as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseView {
    /// `holderIdentity`, empty if none.
    pub holder: String,
    /// `acquireTime`.
    pub acquire_time: Option<MicroTime>,
    /// `leaseTransitions`.
    pub transitions: i32,
    /// Whether, by this operator's own observation, it was not renewed for its duration.
    pub expired: bool,
    /// Which process acquired it, `<podUID>/<container>/<nonce>`, if a candidate of ours wrote that.
    pub incarnation: Option<String>,
    /// The step-down that it carries to its holder, or did to a former one.
    pub asked: Option<Asked>,
}

/// One pod of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// Its name.
    pub name: String,
    /// The node it runs on.
    pub node: Option<String>,
    /// Its address.
    pub ip: Option<String>,
    /// Its ReplicaSet's pod-template-hash.
    pub revision: Option<String>,
    /// Whether it is Ready and not being deleted.
    pub ready: bool,
    /// Its `metadata.uid`.
    pub uid: Option<String>,
    /// Whether it is being deleted.
    pub terminating: bool,
}

/// The Deployment's own status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeploymentView {
    /// Pods that exist.
    pub replicas: i32,
    /// Pods that are Ready.
    pub ready: i32,
    /// Pods of the newest template.
    pub updated: i32,
    /// Whether its controller has seen the last change.
    pub observed: bool,
    /// The message of condition Progressing, if that is False for ProgressDeadlineExceeded.
    pub deadline_exceeded: Option<String>,
}

/// Everything that the status is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// What became of the children.
    pub outcome: Outcome,
    /// The Deployment, if there is one.
    pub deployment: Option<DeploymentView>,
    /// The Lease, if there is one.
    pub lease: Option<LeaseView>,
    /// The group's pods.
    pub pods: Vec<PodView>,
    /// What was injected, if something was.
    pub injection: Option<InjectionStatus>,
    /// What became of a step-down that was asked for.
    pub step_down: StepDown,
}

struct Verdict {
    kind: ConditionType,
    status: bool,
    reason: Reason,
    message: String,
}

/// The status of `group`, whose spec made `valid` unless it is invalid. `now` is used for conditions that change.
pub fn status(group: &ElectionGroup, valid: Option<&Group>, observed: &Observed, now: &Time) -> ElectionGroupStatus {
    let before = group.status.clone().unwrap_or_default();
    let deployment = observed.deployment.clone().unwrap_or_default();
    let leader = leader(observed);
    let lease = observed.lease.as_ref();
    let verdicts = verdicts(group, valid, observed, &deployment, leader);
    // A lost Lease that was made again begins where the status stopped; the status never falls.
    let transitions = lease.map(|lease| lease.transitions).into_iter().chain(before.lease_transitions).max();
    ElectionGroupStatus {
        observed_generation: group.metadata.generation,
        replicas: deployment.replicas,
        ready_replicas: deployment.ready,
        updated_replicas: deployment.updated,
        selector: Some(format!("{}={}", label::GROUP, group.metadata.name.as_deref().unwrap_or_default())),
        lease_name: match lease {
            Some(_) => Some(group.effective_lease_name().to_owned()),
            None => before.lease_name,
        },
        holder_identity: leader.map(|lease| lease.holder.clone()),
        acquire_time: leader.and_then(|lease| lease.acquire_time.clone()),
        lease_transitions: transitions,
        leader: leader.map(|lease| leader_status(lease, &observed.pods)),
        history: before.history,
        conditions: conditions(&before.conditions, verdicts, group.metadata.generation, now),
        injection: observed.injection.clone().or(before.injection),
        last_handled_step_down_at: match &observed.step_down {
            StepDown::Done { value, .. } => Some(value.clone()),
            _ => before.last_handled_step_down_at,
        },
    }
}

/// The Lease, if somebody leads by it.
fn leader(observed: &Observed) -> Option<&LeaseView> {
    observed.lease.as_ref().filter(|lease| !lease.expired && is_candidate(&lease.holder))
}

pub(super) fn is_candidate(holder: &str) -> bool {
    !holder.is_empty() && holder != crate::api::names::RECREATED_HOLDER
}

fn leader_status(lease: &LeaseView, pods: &[PodView]) -> LeaderStatus {
    let pod = pods.iter().find(|pod| pod.name == lease.holder);
    LeaderStatus {
        pod_name: lease.holder.clone(),
        node_name: pod.and_then(|pod| pod.node.clone()),
        pod_ip: pod.and_then(|pod| pod.ip.clone()),
        revision: pod.and_then(|pod| pod.revision.clone()),
    }
}

fn verdicts(
    group: &ElectionGroup,
    valid: Option<&Group>,
    observed: &Observed,
    deployment: &DeploymentView,
    leader: Option<&LeaseView>,
) -> Vec<Verdict> {
    let wanted = valid.map_or(group.spec.replicas, |valid| valid.replicas);
    let suspended = group.spec.suspend;
    let elected = elected(group, observed, wanted, leader);
    let mut verdicts = vec![ready(observed, deployment, wanted, suspended, leader, &elected)];
    verdicts.push(elected);
    verdicts.push(failover_ready(observed, wanted, suspended, leader));
    verdicts.extend(reconciling(observed, deployment, wanted));
    verdicts.extend(stalled(observed, deployment));
    verdicts
}

fn ready(
    observed: &Observed,
    deployment: &DeploymentView,
    wanted: i32,
    suspended: bool,
    leader: Option<&LeaseView>,
    elected: &Verdict,
) -> Verdict {
    let (status, reason, message) = match (&observed.outcome, leader) {
        (Outcome::Invalid(message), _) => (false, Reason::Invalid, message.clone()),
        (Outcome::Conflict(message), _) => (false, Reason::Conflict, message.clone()),
        _ if suspended => (false, Reason::Suspended, "spec.suspend is true".to_owned()),
        (_, None) => (false, Reason::NoLeader, elected.message.clone()),
        (_, Some(_)) if deployment.ready < wanted => {
            let message = format!("{} of {wanted} pods are ready", deployment.ready);
            (false, Reason::InsufficientReplicas, message)
        }
        (_, Some(lease)) => (true, Reason::LeaderElected, format!("{} leads", lease.holder)),
    };
    Verdict { kind: ConditionType::Ready, status, reason, message }
}

fn elected(group: &ElectionGroup, observed: &Observed, wanted: i32, leader: Option<&LeaseView>) -> Verdict {
    let name = format!("{}/{}", group.metadata.namespace.as_deref().unwrap_or_default(), group.effective_lease_name());
    let (status, reason, message) = match (leader, &observed.lease) {
        (Some(lease), _) => (true, Reason::LeaseHeld, format!("{} holds lease {name}", lease.holder)),
        (None, _) if group.spec.suspend => (false, Reason::Suspended, "spec.suspend is true".to_owned()),
        (None, _) if wanted == 0 => (false, Reason::NoCandidates, "spec.replicas is 0".to_owned()),
        (None, None) => (false, Reason::NoCandidates, format!("lease {name} does not exist")),
        (None, Some(lease)) if lease.holder.is_empty() => {
            (false, Reason::LeaseReleased, format!("lease {name} is free; no pod has taken it yet"))
        }
        (None, Some(lease)) if !is_candidate(&lease.holder) => {
            let message =
                format!("lease {name} was lost and made again; the pods wait until its former holder has stopped");
            (false, Reason::LeaseExpired, message)
        }
        (None, Some(lease)) => {
            (false, Reason::LeaseExpired, format!("{} held lease {name} and renews it no more", lease.holder))
        }
    };
    Verdict { kind: ConditionType::LeaderElected, status, reason, message }
}

fn failover_ready(observed: &Observed, wanted: i32, suspended: bool, leader: Option<&LeaseView>) -> Verdict {
    let standbys: Vec<&PodView> =
        observed.pods.iter().filter(|pod| pod.ready && leader.is_none_or(|lease| lease.holder != pod.name)).collect();
    let node = leader
        .and_then(|lease| observed.pods.iter().find(|pod| pod.name == lease.holder))
        .and_then(|pod| pod.node.as_deref());
    let (status, reason, message) = if suspended {
        (false, Reason::SingleReplica, "spec.suspend is true: there is no standby".to_owned())
    } else if wanted < 2 {
        (false, Reason::SingleReplica, format!("spec.replicas is {wanted}: there is no standby"))
    } else if standbys.is_empty() {
        (false, Reason::NoReadyStandby, "no standby is ready".to_owned())
    } else if node.is_some() && standbys.iter().all(|pod| pod.node.as_deref() == node) {
        let message = format!("all ready standbys are on the leader's node {}", node.unwrap_or_default());
        (false, Reason::StandbysOnSameNode, message)
    } else {
        (true, Reason::StandbyReady, format!("{} ready", counted(standbys.len(), "standby", "standbys")))
    };
    Verdict { kind: ConditionType::FailoverReady, status, reason, message }
}

/// Only while there is something to do, as kstatus expects of a condition that is abnormal when true.
fn reconciling(observed: &Observed, deployment: &DeploymentView, wanted: i32) -> Option<Verdict> {
    if observed.outcome != Outcome::Applied || observed.deployment.is_none() || deployment.deadline_exceeded.is_some() {
        return None;
    }
    let (reason, message) = if !deployment.observed || deployment.updated < deployment.replicas.min(wanted) {
        let message = format!("{} of {wanted} pods are of the newest revision", deployment.updated);
        (Reason::RollingOut, message)
    } else if deployment.replicas != wanted {
        (Reason::Scaling, format!("{}, {wanted} are asked for", existing(deployment.replicas)))
    } else {
        return None;
    };
    Some(Verdict { kind: ConditionType::Reconciling, status: true, reason, message })
}

fn stalled(observed: &Observed, deployment: &DeploymentView) -> Option<Verdict> {
    let (reason, message) = match &observed.outcome {
        Outcome::Invalid(message) => (Reason::Invalid, message.clone()),
        Outcome::Conflict(message) => (Reason::Conflict, message.clone()),
        Outcome::Forbidden(message) => (Reason::Forbidden, message.clone()),
        Outcome::Applied => (Reason::ProgressDeadlineExceeded, deployment.deadline_exceeded.clone()?),
    };
    Some(Verdict { kind: ConditionType::Stalled, status: true, reason, message })
}

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {} {}", if number == 1 { one } else { many }, if number == 1 { "is" } else { "are" })
}

fn existing(pods: i32) -> String {
    if pods == 1 { "1 pod exists".to_owned() } else { format!("{pods} pods exist") }
}

fn conditions(before: &[Condition], verdicts: Vec<Verdict>, generation: Option<i64>, now: &Time) -> Vec<Condition> {
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
