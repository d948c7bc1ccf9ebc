//! A checked group: the meaning of its spec, with defaults applied.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::api::LeaderServiceSpec;

/// A group whose spec obeys every rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// `metadata.name`, also the children's.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.uid`, which every child's owner reference carries.
    pub uid: String,
    /// The number of pods; 0 while suspended.
    pub replicas: i32,
    /// The Lease's name.
    pub lease_name: String,
    /// The election's durations.
    pub timing: GroupTiming,
    /// How the leading container learns that it is the leader.
    pub mode: GroupMode,
    /// The container that leads.
    pub container: String,
    /// The user's pod template as JSON, or the template that `spec.image` stands for.
    pub template: Value,
    /// Whether the template was made from `spec.image`.
    pub from_image: bool,
    /// The ServiceAccount of the pods.
    pub service_account: ServiceAccount,
    /// The Deployment's strategy, if it is set.
    pub strategy: Option<Value>,
    /// The candidate's port, in modes Exec and Sidecar.
    pub http_port: i32,
    /// How long a leader may be unready before it steps down; `None` means without limit.
    pub unhealthy_timeout: Option<Duration>,
    /// How long its program may take to start according to its own probes, where it starts only on the leader.
    pub start_up: Duration,
    /// How long it may take until the kubelet reports that the program became unready, where the kubelet probes it.
    pub until_unready: Duration,
    /// How long the program of a new revision must stay ready before its pods replace those of the former revision.
    pub min_ready: Duration,
    /// The Service that follows the leader, if it is set.
    pub leader_service: Option<LeaderServiceSpec>,
    /// Compute resources of the injected containers, if they are set.
    pub resources: Option<Value>,
    /// `maxUnavailable` of the pods' PodDisruptionBudget: a number or a percentage. `None` with fewer than two pods: a
    /// budget would protect no standby, and would prevent the drain of a single pod's node.
    pub disruption_budget: Option<Value>,
    /// Whether the group is suspended.
    pub suspended: bool,
    /// Whether the group is paused, so that its children are left alone.
    pub paused: bool,
}

/// The election's durations in seconds, checked by the rules of the group's mode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupTiming {
    /// Whole seconds.
    pub lease_duration: i32,
    /// Whole seconds.
    pub renew_deadline: i32,
    /// Whole seconds.
    pub retry_period: i32,
    /// Whole seconds.
    pub renew_interval: i32,
    /// In modes Exec and Sidecar. May be a fraction of a second where the lease duration leaves no more.
    pub stop_grace: Option<Duration>,
}

/// How the leading container learns that it is the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupMode {
    /// The candidate starts and stops the container's command.
    Exec,
    /// A sidecar answers requests from inside the pod.
    Sidecar,
    /// The container elects by itself.
    Native,
}

impl GroupMode {
    /// Whether the pods have our candidate, so that it acts on the annotations of the Lease.
    pub fn has_candidate(self) -> bool {
        self != Self::Native
    }
}

/// The pods' ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceAccount {
    /// Created for the group and named after it, with these annotations.
    Own(BTreeMap<String, String>),
    /// An existing account, which is left alone.
    Existing(String),
}

impl ServiceAccount {
    /// Returns its name, given that of the group.
    pub fn name<'a>(&'a self, group: &'a str) -> &'a str {
        match self {
            Self::Own(_) => group,
            Self::Existing(name) => name,
        }
    }
}
