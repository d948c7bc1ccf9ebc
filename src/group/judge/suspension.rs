//! A group that is to have no pods: no standby is to lead because the leader's pod was told to end a moment before its own.

use crate::group::observed::pod::PodView;
use crate::group::spec::group::Group;

/// Whether the Lease, of which `is_suspended` tells whether it does, is to say that nobody is to follow its term; `None` if it is right as
/// it stands.
///
/// Where no pod is about to be taken away there is nobody to be told; one that is the group's by its label alone stays, and may
/// lead. Programs that elect by themselves would not heed it, and client-go of before kubernetes pull request 132849 fails to
/// release a Lease that was changed since its last renewal.
pub fn change(group: &Group, is_suspended: bool, pods: impl FnOnce() -> Vec<PodView>) -> Option<bool> {
    let suspended = group.replicas == 0;
    if is_suspended == suspended {
        return None;
    }
    let is_needed = !suspended || group.mode.has_candidate() && pods().iter().any(|pod| pod.revision.is_some());
    is_needed.then_some(suspended)
}
