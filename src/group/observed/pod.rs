//! The pods of a group, as their watch shows them.

use jiff::Timestamp;

/// One pod of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodView {
    /// Its name.
    pub name: String,
    /// The node it runs on.
    pub node: Option<String>,
    /// Its address.
    pub ip: Option<String>,
    /// Its ReplicaSet's pod-template-hash.
    pub revision: Option<String>,
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
    /// Whether a container beside the one that leads is not ready.
    pub others_unready: bool,
    /// Its label `k8sensus.dev/revision`.
    pub template: Option<String>,
    /// Its readiness gate `k8sensus.dev/proven`; `None` if it has none.
    pub proven: Option<bool>,
    /// Its label `k8sensus.dev/role`.
    pub role: Option<String>,
    /// Whether it is marked as the last to be removed when the group is scaled down.
    pub has_leader_deletion_cost: bool,
    /// What keeps its containers from running, in the kubelet's words.
    pub trouble: Option<String>,
    /// What else keeps it from being scheduled, started or ready.
    pub obstacle: Option<Obstacle>,
    /// How a container ended that has been started again since, in the kubelet's words.
    pub last_end: Option<String>,
    /// How often its containers were restarted.
    pub restarts: i32,
    /// The named TCP ports of its containers.
    pub ports: Vec<(String, i32)>,
    /// Whether its candidate tells on the Lease whether the program is ready: mode Exec.
    pub reports_readiness: bool,
    /// Whether its candidate is from before there were step-downs, so that it heeds none.
    pub ignores_step_downs: bool,
    /// The image of its candidate program; `None` in mode Native.
    pub candidate_image: Option<String>,
    /// Whether the candidate's own container does not start: no such image, no such program in it.
    pub candidate_stuck: bool,
}

/// What keeps a pod from being scheduled, started or ready, beside its containers' own trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The reason and the message of Kubernetes.
    pub what: String,
    /// Whether every pod meets it on its way: then it explains something only of a pod that is no longer new.
    pub is_passing: bool,
}

impl Obstacle {
    /// One that does not pass by itself.
    pub(in crate::group) fn lasting(what: String) -> Self {
        Self { what, is_passing: false }
    }

    /// One that every pod meets on its way.
    pub(in crate::group) fn passing(what: String) -> Self {
        Self { what, is_passing: true }
    }
}

/// The pod that holds the Lease. controller-runtime campaigns as `<pod>_<uuid>`, and no pod's name has an underscore.
pub(in crate::group) fn pod_of<'a>(holder: &str, pods: &'a [PodView]) -> Option<&'a PodView> {
    let name = holder.split_once('_').map_or(holder, |(name, _)| name);
    pods.iter().find(|pod| pod.name == name)
}
