//! The pods of a group, as observed by the watch.

use jiff::Timestamp;

use crate::protocol::lease::pod_of_holder;

/// A pod of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodView {
    /// Its name.
    pub name: String,
    /// The node it runs on.
    pub node: Option<String>,
    /// Its address.
    pub ip: Option<String>,
    /// Its label `pod-template-hash`, which names its ReplicaSet.
    pub template_hash: Option<String>,
    /// Whether it is Ready and not being deleted.
    pub ready: bool,
    /// Its `metadata.uid`.
    pub uid: Option<String>,
    /// Its `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether all its containers are ready, whatever its readiness gates say.
    pub containers_ready: bool,
    /// Whether a container other than the leading one is not ready.
    pub others_unready: bool,
    /// Its label `k8sensus.dev/revision`.
    pub revision: Option<String>,
    /// Its readiness gate `k8sensus.dev/proven`; `None` if it has none.
    pub proven: Option<bool>,
    /// Its label `k8sensus.dev/role`.
    pub role: Option<String>,
    /// Whether it has the deletion cost of a leader, so that a scale-down removes it last.
    pub has_leader_deletion_cost: bool,
    /// What keeps its containers from running, as reported by the kubelet.
    pub trouble: Option<String>,
    /// What else keeps it from being scheduled, started or ready.
    pub obstacle: Option<Obstacle>,
    /// How a container that has restarted ended before, as reported by the kubelet.
    pub last_end: Option<String>,
    /// How often its containers were restarted.
    pub restarts: i32,
    /// The named TCP ports of its containers.
    pub ports: Vec<(String, i32)>,
    /// Whether its candidate reports the readiness of the program on the Lease: mode Exec.
    pub reports_readiness: bool,
    /// Whether its candidate is too old to support step-downs.
    pub ignores_step_downs: bool,
    /// The image of its candidate program; `None` in mode Native.
    pub candidate_image: Option<String>,
    /// Whether the candidate's own container does not start, as without such an image or such a program in it.
    pub candidate_stuck: bool,
}

/// What keeps a pod from being scheduled, started or ready, beside its containers' own trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The reason and the message of Kubernetes.
    pub what: String,
    /// Whether every pod meets it while it starts. It is then a cause only for a pod that is no longer new.
    pub is_passing: bool,
}

impl Obstacle {
    /// Returns an obstacle that does not pass by itself.
    pub(crate) fn lasting(what: String) -> Self {
        Self { what, is_passing: false }
    }

    /// Returns an obstacle that every pod meets while it starts.
    pub(crate) fn passing(what: String) -> Self {
        Self { what, is_passing: true }
    }
}

/// Returns the pod of a Lease's holder.
pub(crate) fn pod_of<'a>(holder: &str, pods: &'a [PodView]) -> Option<&'a PodView> {
    let name = pod_of_holder(holder);
    pods.iter().find(|pod| pod.name == name)
}
