//! A line of the list.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde::Serialize;

use super::Part;
use super::lease::{LeasePicture, Validity, seconds_between};
use super::state::{State, condition};
use crate::api::names::ConditionType;
use crate::api::{ElectionGroup, Mode};
use crate::protocol::lease::pod_of_holder;

/// A group as it is listed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The group's namespace.
    pub namespace: String,
    /// The group's name.
    pub name: String,
    /// The state in one word.
    pub state: State,
    /// The reason of the condition that explains the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The pod that leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Seconds for which it has led.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub led_seconds: Option<f64>,
    /// Wanted pods.
    pub replicas: i32,
    /// Pods that are Ready.
    pub ready_replicas: i32,
    /// Whether the Lease is valid, if it is readable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validity: Option<Validity>,
    /// `status.leaseTransitions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transitions: Option<i32>,
    /// `spec.candidate.mode`.
    pub mode: Mode,
    /// The leader's node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The Lease's name.
    pub lease_name: String,
    /// Whether `spec.paused` is true.
    pub paused: bool,
}

/// Returns the lines of the list, in the order of the groups.
pub fn summaries(groups: &[ElectionGroup], leases: &Part<Vec<Lease>>, now: Timestamp) -> Vec<Summary> {
    let key = |lease: &Lease| (lease.metadata.namespace.clone(), lease.metadata.name.clone());
    let known = leases.as_deref().unwrap_or_default().iter();
    let leases: BTreeMap<_, _> = known.map(|lease| (key(lease), LeasePicture::of(lease, now))).collect();
    let lease_of = |group: &ElectionGroup| {
        leases.get(&(group.metadata.namespace.clone(), Some(group.effective_lease_name().to_owned())))
    };
    groups.iter().map(|group| summary(group, lease_of(group), now)).collect()
}

fn summary(group: &ElectionGroup, lease: Option<&LeasePicture>, now: Timestamp) -> Summary {
    let status = group.status.clone().unwrap_or_default();
    let leader = match lease {
        Some(lease) => lease.leader().map(str::to_owned),
        None => status.holder_identity.clone().filter(|holder| !holder.is_empty()),
    };
    let since = lease.map_or_else(|| status.acquire_time.as_ref().map(|time| time.0), |lease| lease.acquire_time);
    let state = State::of(group, lease);
    let cause = match state {
        State::Stalled => Some((ConditionType::Stalled, "True")),
        State::Leaderless => Some((ConditionType::LeaderElected, "False")),
        State::Changing => Some((ConditionType::Reconciling, "True")),
        State::NoFailover => Some((ConditionType::FailoverReady, "False")),
        State::NotReconciled | State::Suspended | State::Led => None,
    };
    let cause = cause.and_then(|(kind, bad)| condition(&status, kind).filter(|condition| condition.status == bad));
    let known = status.leader.as_ref().filter(|known| leader.as_deref().map(pod_of_holder) == Some(&known.pod_name));
    Summary {
        namespace: group.metadata.namespace.clone().unwrap_or_default(),
        name: group.metadata.name.clone().unwrap_or_default(),
        state,
        reason: cause.map(|condition| condition.reason.clone()),
        led_seconds: since.filter(|_| leader.is_some()).map(|since| seconds_between(since, now)),
        replicas: group.spec.replicas,
        ready_replicas: status.ready_replicas,
        validity: lease.map(|lease| lease.validity),
        transitions: status.lease_transitions,
        mode: group.spec.candidate.mode,
        node: known.and_then(|known| known.node_name.clone()),
        lease_name: group.effective_lease_name().to_owned(),
        paused: group.spec.paused,
        leader,
    }
}
