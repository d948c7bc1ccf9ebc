//! Whether a Lease may be released because its holder is proved dead. [`crate::observed::proof`] defines the
//! proof.

/// Returns whether the holder of a Lease is proved dead. `incarnation` is the Lease's annotation, `pod_name` the pod
/// that was examined, and `dead` [what that pod proves](crate::observed::proof::dead_incarnations).
///
/// A client that does not know the annotation leaves it in place when it acquires the Lease. The holder is then another
/// pod.
pub fn is_dead(holder: &str, incarnation: Option<&str>, pod_name: &str, dead: &[String]) -> bool {
    let is_proved = |incarnation: &str| dead.iter().any(|dead| dead == incarnation);
    !holder.is_empty() && holder == pod_name && incarnation.is_some_and(is_proved)
}

/// The release of a Lease whose leader was proved dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvenRelease {
    /// `leaseTransitions` of the Lease at that time. The next term has one more.
    pub transitions: i32,
}

impl ProvenRelease {
    /// Whether a Lease with `transitions` is still free by this release, or in the first term after it.
    pub fn leads_to(self, transitions: i32) -> bool {
        transitions == self.transitions || transitions == self.transitions.saturating_add(1)
    }
}
