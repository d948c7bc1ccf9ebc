//! What is shown of a group, computed from its objects. Pure: the time is an input.

mod advice;
mod cost;
mod lease;
mod pods;
mod state;
mod summary;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use serde::Serialize;

pub use advice::{Attention, last_about_step_down};
pub use cost::{cost_of_handover, leaderless};
pub use lease::{LeasePicture, Validity, seconds_between};
pub use pods::{PodPicture, PodState, Role};
pub use state::State;
pub use summary::{Summary, summaries};

use crate::api::names::annotation;
use crate::api::{CandidateStatus, ElectionGroup, HistoryEntry, LeaderlessStatus, Mode, RolloutStatus};
use crate::protocol::lease::pod_of_holder;

/// A part that may be unreadable; then it is the reason why.
pub type Part<T> = Result<T, String>;

/// The objects of a group.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The group.
    pub group: ElectionGroup,
    /// Its Lease, if it exists.
    pub lease: Part<Option<Lease>>,
    /// Its pods.
    pub pods: Part<Vec<Pod>>,
    /// The Events about it, the newest last.
    pub events: Part<Vec<Event>>,
    /// The Lease of the operator that reconciles it, if it may be read.
    pub operator_lease: Option<Lease>,
    /// When they were read, by this machine's clock.
    pub now: Timestamp,
}

/// A group as it is shown.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Picture {
    /// The group's namespace.
    pub namespace: String,
    /// The group's name.
    pub name: String,
    /// `spec.candidate.mode`.
    pub mode: Mode,
    /// The state in one word.
    pub state: State,
    /// The pod that leads, by the Lease if it is readable, else by the status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<Leader>,
    /// Why there is no leader, and since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaderless: Option<LeaderlessStatus>,
    /// The Lease, if it exists and is readable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeasePicture>,
    /// Whether `spec.paused` is true.
    pub paused: bool,
    /// Wanted pods.
    pub replicas: i32,
    /// Pods that are Ready.
    pub ready_replicas: i32,
    /// Pods of the newest revision.
    pub updated_replicas: i32,
    /// `status.candidate`: the leader's candidate program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<CandidateStatus>,
    /// `status.rollout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// The message of condition Reconciling: the work under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Requests by annotation that are not handled yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<Pending>,
    /// The pods, the leader first.
    pub pods: Vec<PodPicture>,
    /// Conditions that need action.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attention: Vec<Attention>,
    /// `status.history`.
    pub history: Vec<HistoryEntry>,
    /// What makes this picture incomplete or uncertain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// When the objects were read, by this machine's clock.
    pub observed_at: Timestamp,
}

/// The pod that leads.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Leader {
    /// The Lease's `holderIdentity`.
    pub holder_identity: String,
    /// Its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its address.
    #[serde(rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<String>,
    /// When it acquired the Lease, by its own clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// `status.leaseTransitions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transitions: Option<i32>,
}

/// A request by annotation that is not handled yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// What was requested.
    pub request: &'static str,
    /// The value of the annotation.
    pub value: String,
    /// What it waits for, by the operator's last Event or condition about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Returns the picture of a group.
pub fn picture(facts: &Facts) -> Picture {
    let Facts { group, now, .. } = facts;
    let status = group.status.clone().unwrap_or_default();
    let lease = facts.lease.as_ref().ok().and_then(Option::as_ref).map(|lease| LeasePicture::of(lease, *now));
    let leader = leader(facts, lease.as_ref());
    let holder = leader.as_ref().map(|leader| leader.holder_identity.as_str());
    let pods = facts.pods.as_deref().unwrap_or_default();
    Picture {
        namespace: group.metadata.namespace.clone().unwrap_or_default(),
        name: group.metadata.name.clone().unwrap_or_default(),
        mode: group.spec.candidate.mode,
        state: State::of(group, lease.as_ref()),
        leaderless: status.leaderless.clone().filter(|_| leader.is_none()),
        paused: group.spec.paused,
        replicas: group.spec.replicas,
        ready_replicas: status.ready_replicas,
        updated_replicas: status.updated_replicas,
        candidate: status.candidate.clone(),
        rollout: status.rollout.clone().filter(|rollout| *rollout != RolloutStatus::default()),
        progress: advice::progress(&status),
        pending: pending(facts),
        pods: pods::pictures(pods, holder, *now),
        attention: advice::attention(group),
        notes: notes(facts, leader.as_ref()),
        history: status.history,
        observed_at: *now,
        leader,
        lease,
    }
}

/// Returns the leader by the Lease, which is newer than the status; without a readable Lease by the status.
fn leader(facts: &Facts, lease: Option<&LeasePicture>) -> Option<Leader> {
    let status = facts.group.status.as_ref();
    let by_status = || status.and_then(|status| status.holder_identity.clone()).filter(|holder| !holder.is_empty());
    let holder = match (&facts.lease, lease) {
        (Err(_), _) => by_status()?,
        (Ok(_), lease) => lease.and_then(LeasePicture::leader).map(str::to_owned)?,
    };
    let pods = facts.pods.as_deref().unwrap_or_default();
    let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(pod_of_holder(&holder)));
    let known =
        status.and_then(|status| status.leader.as_ref()).filter(|leader| leader.pod_name == pod_of_holder(&holder));
    let node = pod.and_then(|pod| pod.spec.as_ref()?.node_name.clone());
    let pod_ip = pod.and_then(|pod| pod.status.as_ref()?.pod_ip.clone());
    let since = lease.and_then(|lease| lease.acquire_time);
    let offset = status.and_then(|status| status.lease_transitions_offset).unwrap_or(0);
    let transitions = lease.and_then(|lease| lease.transitions).map(|own| own.saturating_add(offset));
    Some(Leader {
        node: node.or_else(|| known.and_then(|leader| leader.node_name.clone())),
        pod_ip: pod_ip.or_else(|| known.and_then(|leader| leader.pod_ip.clone())),
        since: since.or_else(|| status.and_then(|status| status.acquire_time.as_ref()).map(|time| time.0)),
        transitions: transitions.or_else(|| status.and_then(|status| status.lease_transitions)),
        holder_identity: holder,
    })
}

fn pending(facts: &Facts) -> Vec<Pending> {
    let annotations = facts.group.metadata.annotations.as_ref();
    let status = facts.group.status.as_ref();
    let requested = |key: &str, handled: Option<&String>| {
        let value = annotations.and_then(|annotations| annotations.get(key))?;
        (!value.is_empty() && Some(value) != handled).then(|| value.clone())
    };
    let step_down =
        requested(annotation::STEP_DOWN_REQUESTED_AT, status.and_then(|it| it.last_handled_step_down_at.as_ref()));
    let update = requested(
        annotation::UPDATE_CANDIDATE_REQUESTED_AT,
        status.and_then(|it| it.last_handled_candidate_update_at.as_ref()),
    );
    let step_down = step_down.map(|value| Pending {
        request: "step-down",
        value,
        why: facts.events.as_ref().ok().and_then(|events| last_about_step_down(events)).map(|(_, why)| why.to_owned()),
    });
    let update = update.map(|value| Pending {
        request: "candidate update",
        value,
        why: status.and_then(advice::update_pending),
    });
    step_down.into_iter().chain(update).collect()
}

fn notes(facts: &Facts, leader: Option<&Leader>) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    notes.extend(facts.lease.as_ref().err().map(|why| format!("the Lease is not shown: {why}")));
    notes.extend(facts.pods.as_ref().err().map(|why| format!("the pods are not shown: {why}")));
    let generation = facts.group.metadata.generation.unwrap_or_default();
    let status = facts.group.status.as_ref();
    let observed = status.and_then(|status| status.observed_generation).unwrap_or(crate::api::status::NOT_OBSERVED);
    if observed < 0 {
        notes.push("no operator has reconciled this group yet: is the operator running?".to_owned());
    } else if observed < generation {
        notes.push("the operator has not reconciled the last change of the spec yet".to_owned());
    }
    if let (Some(status), Ok(_)) = (status, &facts.lease) {
        let by_status = status.holder_identity.as_deref().filter(|holder| !holder.is_empty());
        let by_lease = leader.map(|leader| leader.holder_identity.as_str());
        match (by_status, by_lease) {
            (Some(old), Some(new)) if old != new => notes.push(format!(
                "the status still names {old} as the leader: the operator has not reported {new} yet, so conditions and \
                 changes below are older"
            )),
            (None, Some(new)) => notes.push(format!(
                "the operator has not reported {new} as the leader yet, so conditions and changes below are older"
            )),
            _ => {}
        }
    }
    let operator = status.and_then(|status| status.operator.as_deref()).unwrap_or_default();
    let away = facts.operator_lease.as_ref().map(|lease| LeasePicture::of(lease, facts.now).validity);
    if let Some(Validity::Expired { .. } | Validity::Free) = away {
        notes.push(format!(
            "the operator {operator} does not run: elections continue, but conditions and changes below may be out of date"
        ));
    }
    notes
}
