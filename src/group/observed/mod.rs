//! Facts about a group, not judged yet.

pub mod lease;
pub mod pod;
pub mod program;
pub mod proof;
pub mod trial;
pub mod trouble;

use self::lease::LeaseView;
use self::pod::PodView;
use crate::api::ElectionGroupStatus;
use crate::api::names::ChangeReason;

/// The facts about a group after its children were applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The result of applying the children.
    pub outcome: Outcome,
    /// The Deployment, if there is one.
    pub deployment: Option<DeploymentView>,
    /// The Lease, if there is one.
    pub lease: Option<LeaseView>,
    /// The group's pods.
    pub pods: Vec<PodView>,
    /// The newest pod that the kubelet ended by itself and that is not garbage-collected yet, and why it was ended.
    pub eviction: Option<String>,
    /// Why the last term ended, if the operator caused that. Applies only to the holder that it names.
    pub ended: Option<EndedBy>,
}

/// Why the term of `holder` ended, where the operator knows more than the Lease shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedBy {
    /// The holder whose term ended.
    pub holder: String,
    /// Such as [`ChangeReason::SteppedDown`] or [`ChangeReason::KubeletReported`].
    pub reason: ChangeReason,
}

impl EndedBy {
    /// Returns `reason` for the newest term in `before`, if the Lease counted that term as `transitions`.
    pub fn of_term(before: &ElectionGroupStatus, transitions: i32, reason: ChangeReason) -> Option<Self> {
        let last = before.history.first()?;
        let counted = transitions.saturating_add(before.lease_transitions_offset.unwrap_or_default());
        (last.lease_transitions == Some(counted)).then(|| Self { holder: last.holder_identity.clone(), reason })
    }
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
    /// Whether its controller has observed the last change.
    pub observed: bool,
    /// The message of condition Progressing, if that is False for ProgressDeadlineExceeded.
    pub deadline_exceeded: Option<String>,
    /// Why its pods cannot be created: reason and message of condition ReplicaFailure, if that is True.
    pub replica_failure: Option<String>,
}

/// The result of applying the children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// The children are as desired, or left alone because the group is paused.
    #[default]
    Applied,
    /// The spec breaks a rule. Nothing was changed.
    Invalid(String),
    /// An object with a required name does not belong to the group.
    Conflict(String),
    /// The API server denies the operator a permission that it needs.
    Forbidden(String),
}
