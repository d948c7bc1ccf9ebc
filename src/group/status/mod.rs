//! The status of a group, built from the former status, [`Findings`] and the time, and from nothing else. Equal
//! inputs give an equal status, so that writing it triggers nothing.
//!
//! The status keeps what the Lease does not: the former leaders, why leadership became free, and how often it changed
//! hands over all Leases of the group.

mod candidate;
mod causes;
mod conditions;
mod history;
mod input;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use self::causes::starting_wait;
use self::conditions::{conditions, verdicts};
use self::history::Past;
pub use self::input::{Findings, InjectionRecord};
use super::judge::flapping::flapping;
use super::judge::step_down::StepDown;
use super::observed::lease::LeaseView;
use super::observed::pod::{PodView, pod_of};
use super::spec::group::Group;
use crate::api::names::label;
use crate::api::{CandidateStatus, ElectionGroup, ElectionGroupStatus, LeaderStatus};

/// Returns the status of `group`. `valid` is its checked spec, `None` if that is invalid. `now` is used for conditions
/// that change and for how long ago leadership changed hands.
pub fn status(group: &ElectionGroup, valid: Option<&Group>, findings: &Findings, now: &Time) -> ElectionGroupStatus {
    let before = group.status.clone().unwrap_or_default();
    let Findings { facts, judgement, step_down, injection, operator, offer: _, update } = findings;
    let deployment = facts.deployment.clone().unwrap_or_default();
    let lease = facts.lease.as_ref();
    let leader = leading(&before, lease);
    let past = Past::of(&before, facts, leader.is_some());
    let flapping = flapping(&past.history, &facts.pods, judgement.unready, now.0);
    let verdicts = verdicts(group, valid, findings, &deployment, leader, flapping, now.0);
    ElectionGroupStatus {
        observed_generation: group.metadata.generation,
        operator: operator.clone().or(before.operator),
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
        lease_transitions: past.transitions,
        lease_transitions_offset: past.offset,
        leader: leader.map(|lease| leader_status(lease, &facts.pods)),
        candidate: leader.and_then(|lease| candidate_status(lease, &facts.pods)),
        leaderless: past.leaderless,
        history: past.history,
        conditions: conditions(&before.conditions, verdicts, group.metadata.generation, now),
        injection: injection.after(before.injection.as_ref()).cloned(),
        rollout: judgement.rollout.clone(),
        last_handled_step_down_at: match step_down {
            StepDown::Done { value, .. } => Some(value.clone()),
            _ => before.last_handled_step_down_at,
        },
        last_handled_candidate_update_at: update.handled().or(before.last_handled_candidate_update_at),
    }
}

/// Returns `lease` if a candidate holds it and it is valid, according to the Lease itself and to the former status.
pub fn leading<'a>(before: &ElectionGroupStatus, lease: Option<&'a LeaseView>) -> Option<&'a LeaseView> {
    lease.filter(|lease| lease.is_held() && !lease.expired && !history::was_expired(before, lease))
}

fn leader_status(lease: &LeaseView, pods: &[PodView]) -> LeaderStatus {
    let pod = pod_of(&lease.holder, pods);
    LeaderStatus {
        pod_name: pod.map_or(&lease.holder, |pod| &pod.name).clone(),
        node_name: pod.and_then(|pod| pod.node.clone()),
        pod_ip: pod.and_then(|pod| pod.ip.clone()),
        pod_template_hash: pod.and_then(|pod| pod.template_hash.clone()),
    }
}

fn candidate_status(lease: &LeaseView, pods: &[PodView]) -> Option<CandidateStatus> {
    let image = pod_of(&lease.holder, pods).and_then(|pod| pod.candidate_image.clone());
    let version = lease.candidate_version.clone();
    (image.is_some() || version.is_some()).then_some(CandidateStatus { image, version })
}
