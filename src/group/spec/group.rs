//! A checked group: what its spec means, with defaults applied.

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
    /// Pods asked for; 0 while suspended.
    pub replicas: i32,
    /// The Lease's name.
    pub lease_name: String,
    /// The election's durations.
    pub timing: GroupTiming,
    /// How the leading container learns that it leads.
    pub mode: GroupMode,
    /// The container that leads.
    pub container: String,
    /// The user's pod template as JSON, the shortcut written out.
    pub template: Value,
    /// Whether the template was written out from `spec.image`.
    pub from_image: bool,
    /// Whose rights the pods have.
    pub service_account: ServiceAccount,
    /// The Deployment's strategy, if one is asked for.
    pub strategy: Option<Value>,
    /// The candidate's port, in modes Exec and Sidecar.
    pub http_port: i32,
    /// How long a leader may be not Ready before it steps down; `None` means for ever.
    pub unhealthy_timeout: Option<Duration>,
    /// How long its program may take to start up by its own probes, where it starts only on the leader.
    pub start_up: Duration,
    /// How long its program may have stopped to be ready until the kubelet says so, where it is the kubelet that asks.
    pub until_unready: Duration,
    /// How long a new revision must have led well before it replaces the former one.
    pub min_ready: Duration,
    /// The Service that follows the leader, if asked for.
    pub leader_service: Option<LeaderServiceSpec>,
    /// Compute resources of what is injected, if asked for.
    pub resources: Option<Value>,
    /// `maxUnavailable` of the pods' PodDisruptionBudget: a number or a percentage. `None` with fewer than two pods: a
    /// budget would protect no standby, and keep the node of a single pod from being drained.
    pub disruption_budget: Option<Value>,
    /// Whether the group is suspended.
    pub suspended: bool,
    /// Whether the children are to be left alone.
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
    /// In modes Exec and Sidecar; may be a fraction where the lease leaves less than a second.
    pub stop_grace: Option<Duration>,
}

/// How the leading container learns that it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupMode {
    /// The candidate starts and stops the container's command.
    Exec,
    /// A sidecar tells whoever asks in the pod.
    Sidecar,
    /// The container elects by itself.
    Native,
}

impl GroupMode {
    /// Whether the candidate is ours, so that it heeds what the Lease says to it.
    pub fn has_candidate(self) -> bool {
        self != Self::Native
    }
}

/// The pods' ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceAccount {
    /// Named like the group and made for it, with these annotations.
    Own(BTreeMap<String, String>),
    /// Exists already and is left alone.
    Existing(String),
}

impl ServiceAccount {
    /// Its name, given the group's.
    pub fn name<'a>(&'a self, group: &'a str) -> &'a str {
        match self {
            Self::Own(_) => group,
            Self::Existing(name) => name,
        }
    }
}
