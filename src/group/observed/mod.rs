//! Facts about a group, judged by nobody yet.

pub mod lease;
pub mod pod;
pub mod program;
pub mod proof;
pub mod trial;
pub mod trouble;

use self::lease::LeaseView;
use self::pod::PodView;

/// What is known of a group once its children were applied.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What became of the children.
    pub outcome: &'a Outcome,
    /// The Lease, if there is one that is the group's.
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
    /// Whether its controller has seen the last change.
    pub observed: bool,
    /// The message of condition Progressing, if that is False for ProgressDeadlineExceeded.
    pub deadline_exceeded: Option<String>,
    /// Why its pods cannot be created: reason and message of condition ReplicaFailure, if that is True.
    pub replica_failure: Option<String>,
}

/// What became of the children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// They are as desired, or left alone because the group is paused.
    #[default]
    Applied,
    /// The spec breaks a rule; nothing was touched.
    Invalid(String),
    /// An object of a name that is needed is not the group's.
    Conflict(String),
    /// The API server refuses a verb that the operator needs.
    Forbidden(String),
}
