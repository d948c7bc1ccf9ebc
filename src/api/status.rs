//! The operator's report. Every field may be absent, so that a status of another version can be parsed.
//!
//! Doc comments on fields are the descriptions that `kubectl explain` prints; the schema joins their lines.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The limit of entries in `status.history`.
pub const HISTORY_LIMIT: usize = 10;

/// The `observedGeneration` of a group that no operator has reconciled yet. It is the schema's default.
///
/// Without it such a group would have no status, and tools that judge objects by their conditions alone (kstatus, and
/// so `helm --wait`) consider an object without conditions finished.
pub const NOT_OBSERVED: i64 = -1;

/// What the operator last observed: the leader, the number of pods, and whether a failover would succeed now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ElectionGroupStatus {
    /// The metadata.generation that this status is about. While it is smaller than metadata.generation, the last change
    /// of the spec is not reconciled yet; -1 before the first reconcile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The operator that reconciles this group, by the namespace and name of the Lease through which its replicas
    /// elect. Another operator leaves the group alone while this one holds that Lease. Example:
    /// k8sensus-system/k8sensus-operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,

    /// Number of pods of the group that exist, ready or not.
    pub replicas: i32,

    /// Number of pods that are Ready. Standbys count: a standby is Ready when it could take over.
    pub ready_replicas: i32,

    /// Number of pods that run the newest revision of the pod template.
    pub updated_replicas: i32,

    /// Label selector of the group's pods in string form, as the scale subresource gives it to a
    /// HorizontalPodAutoscaler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// Name of the Lease (coordination.k8s.io/v1, same namespace) through which the pods elect their leader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_name: Option<String>,

    /// The Lease's holderIdentity: the name of the pod that leads. Absent or empty while there is no leader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder_identity: Option<String>,

    /// The Lease's acquireTime: when this holder became the leader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acquire_time: Option<MicroTime>,

    /// How often leadership has changed hands: the Lease's leaseTransitions plus leaseTransitionsOffset. Never falls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_transitions: Option<i32>,

    /// The difference between leaseTransitions and the Lease's own count, which started at 0 again if a client other
    /// than the operator recreated the Lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_transitions_offset: Option<i32>,

    /// The pod that leads. Absent while there is no leader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<LeaderStatus>,

    /// The candidate program of the pod that leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<CandidateStatus>,

    /// Why there is no leader, and since when. Absent while there is a leader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaderless: Option<LeaderlessStatus>,

    /// The last 10 changes of leadership that the operator observed, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub history: Vec<HistoryEntry>,

    /// Ready, LeaderElected and FailoverReady, always; Reconciling, Stalled and CandidateOutdated only while they are
    /// True. Example: kubectl wait --for=condition=Ready electiongroup/billing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,

    /// What the operator adds to the pods. Changes with the pod template, or by the annotation
    /// k8sensus.dev/update-candidate-requested-at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub injection: Option<InjectionStatus>,

    /// The progress of the newest revision of the pod template. In modes Exec and Sidecar a revision must have led well
    /// before its pods replace those of the former one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,

    /// The value of the annotation k8sensus.dev/step-down-requested-at that was last carried out. A step-down is
    /// pending while the annotation has another value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_step_down_at: Option<String>,

    /// Last handled value of the annotation k8sensus.dev/update-candidate-requested-at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_candidate_update_at: Option<String>,
}

/// The candidate program of the pod that leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CandidateStatus {
    /// Image of the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,

    /// Version that the program reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// The pod that leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaderStatus {
    /// Name of the pod.
    pub pod_name: String,

    /// Name of the node it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,

    /// IP address of the pod: where the leader Service sends its traffic.
    #[serde(rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<String>,

    /// Its label pod-template-hash, not the revision of status.rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_template_hash: Option<String>,
}

/// Why there is no leader, and since when.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaderlessStatus {
    /// When the last leader released the Lease, or last renewed it, by its own clock. Absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<MicroTime>,

    /// Why leadership became free, with the reasons of history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One change of leadership.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HistoryEntry {
    /// When the holder acquired the Lease, by its own clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<MicroTime>,

    /// The holder that acquired it: the name of a pod.
    pub holder_identity: String,

    /// Why leadership had become free: Elected (there was no leader before), LeaseReleased, SteppedDown, Rollout,
    /// Unhealthy, Draining, KubeletReported (its container had ended), LeaseExpired, LeaseDeleted, HolderRestarted or
    /// NotObserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,

    /// How long there had been no leader, in seconds: since the former holder's release, or since its last renewal if
    /// the Lease expired. Compares two nodes' clocks. Absent if unknown. Example: 0.012.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaderless_seconds: Option<f64>,

    /// status.leaseTransitions after this change; a gap shows changes that were not observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_transitions: Option<i32>,
}

/// The progress of the newest revision of the pod template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutStatus {
    /// The newest revision of the pod template that has led well; the value of its pods' label k8sensus.dev/revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proven_revision: Option<String>,

    /// The revision that was given leadership and did not lead well. It gets no second trial: change the pod template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_revision: Option<String>,

    /// Why failedRevision failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What the operator adds to the pods of this group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InjectionStatus {
    /// Image of the candidate program that the pods use.
    pub image: String,

    /// Revision of the rules by which the operator adds to the pod template.
    pub revision: i32,

    /// Hash of the pod template for which image and revision were recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_hash: Option<String>,
}
