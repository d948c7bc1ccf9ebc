//! A group that is to have no pods: no standby is to lead because the leader's pod was told to end a moment before its own.

use super::status::{LeaseView, PodView};
use super::valid::Group;

/// Whether the Lease is to say that nobody is to follow its term; `None` if it is right as it stands.
///
/// Where no pod is about to be taken away there is nobody to be told; one that is the group's by its label alone stays, and may
/// lead. Programs that elect by themselves would not heed it, and client-go of before kubernetes pull request 132849 fails to
/// release a Lease that was changed since its last renewal.
pub fn word(group: &Group, lease: &LeaseView, pods: &[PodView]) -> Option<bool> {
    let leaves = |pod: &PodView| pod.revision.is_some();
    let suspended = group.replicas == 0;
    let is_needed = !suspended || group.mode.has_candidate() && pods.iter().any(leaves);
    (is_needed && lease.suspended != suspended).then_some(suspended)
}
