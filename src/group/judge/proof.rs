//! Whether a Lease may be released because its holder is proved dead. What proves that: [`crate::group::observed::proof`].

/// Whether a Lease that `holder` holds as `incarnation` is held by nobody alive, given its holder's pod by name and by
/// [what it proves](crate::group::observed::proof::dead_incarnations).
///
/// A Lease keeps its annotation when a candidate that knows none takes it: then the holder is another pod.
pub fn is_dead(holder: &str, incarnation: Option<&str>, pod_name: &str, dead: &[String]) -> bool {
    !holder.is_empty() && holder == pod_name && incarnation.is_some_and(|one| dead.iter().any(|other| other == one))
}

/// That a Lease was released because its leader was proved dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvenRelease {
    /// Its `leaseTransitions` at that time; the next term has one more.
    pub transitions: i32,
}

impl ProvenRelease {
    /// Whether a Lease that now says `transitions` is free by this release, or held since it.
    pub fn leads_to(self, transitions: i32) -> bool {
        transitions == self.transitions || transitions == self.transitions.saturating_add(1)
    }
}
