//! The suspension of a group. All pods are deleted, and no standby may take over only because the leader's pod is
//! deleted first.

use crate::observed::pod::PodView;
use crate::spec::group::Group;

/// Returns whether the Lease must carry the annotation `k8sensus.dev/suspended`, or `None` if no change is needed.
/// `is_suspended` is whether the Lease has the annotation now.
///
/// The annotation is set only while a pod of the group's ReplicaSets exists. A pod that belongs to the group by its
/// label alone stays, and may lead. In mode Native the annotation is never set: programs that elect by themselves
/// ignore it, and client-go before kubernetes pull request 132849 fails to release a Lease that was changed since its
/// last renewal.
pub fn change(group: &Group, is_suspended: bool, pods: impl FnOnce() -> Vec<PodView>) -> Option<bool> {
    let suspended = group.replicas == 0;
    if is_suspended == suspended {
        return None;
    }
    let is_needed = !suspended || group.mode.has_candidate() && pods().iter().any(|pod| pod.template_hash.is_some());
    is_needed.then_some(suspended)
}
