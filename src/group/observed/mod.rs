//! Facts about a group, not judged yet.

pub mod lease;
pub mod pod;
pub mod program;
pub mod proof;
pub mod trial;
pub mod trouble;

use self::lease::LeaseView;
use self::pod::PodView;

/// The facts about a group after its children were applied.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The result of applying the children.
    pub outcome: &'a Outcome,
    /// The group's Lease, if there is one.
    pub lease: Option<&'a LeaseView>,
    /// The group's pods.
    pub pods: &'a [PodView],
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
