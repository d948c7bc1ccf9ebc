//! The annotations that candidates and the operator write on a `coordination.k8s.io` Lease.
//!
//! Each annotation concerns one term, or names it, so that a stale annotation changes nothing.

/// The process that acquired the Lease: `<podUID>/<container>/<nonce>`. Written by the candidate.
pub const INCARNATION: &str = "k8sensus.dev/incarnation";

/// The one term whose leader is asked to step down: [`term_name`]. It stays on the Lease; neither a successor nor a
/// later term of the same process acts on it. In mode Native the second part is the `holderIdentity`. Written by the
/// operator.
pub const STEP_DOWN_OF: &str = "k8sensus.dev/step-down-of";

/// The pod that should lead after the term that [`STEP_DOWN_OF`] names: its name, which is its identity in the
/// election. Other candidates hold back for 1 s. Both annotations are written in one request. A successor of another
/// term is ignored, and removed with the candidate's next write. Written by the operator.
pub const STEP_DOWN_TO: &str = "k8sensus.dev/step-down-to";

/// The revision of the pod template that has been proven. Candidates of another revision hold back for 1 s before they
/// acquire a Lease that is released or expired, unless [`STEP_DOWN_TO`] names them. Written by the operator.
pub const PROVEN_REVISION: &str = "k8sensus.dev/proven-revision";

/// The trial of a revision that leadership was last handed over for, as JSON. It outlives the trial. Written by the
/// operator.
pub const TRIAL: &str = "k8sensus.dev/trial";

/// The `leaseTransitions` of the last term before the group is suspended: the operator is about to remove all pods. A
/// candidate that still takes part waits one lease duration longer, and voids the annotation by acquiring the Lease.
/// Written by the operator.
pub const SUSPENDED: &str = "k8sensus.dev/suspended";

/// The term whose program is ready: [`term_name`]. Absent, or of another term than the Lease shows: not ready. Written
/// by the candidate.
pub const READY_OF: &str = "k8sensus.dev/ready-of";

/// The version of the holder's candidate program: `<version> <term>`. It counts for that term only, since other clients
/// leave the annotation of a former holder in place. Written by the candidate.
pub const CANDIDATE_VERSION: &str = "k8sensus.dev/candidate-version";

/// The `holderIdentity` of a Lease that the operator recreated after its deletion. No candidate has this name, so every
/// candidate waits for the record's full duration.
pub const RECREATED_HOLDER: &str = "k8sensus.dev/recreated";

/// Returns the name of a term: `<leaseTransitions>/<incarnation>`.
///
/// A process that acquires the Lease again does so with more transitions, unless the Lease was still its own: the new
/// term then has the name of the lost one.
pub fn term_name(transitions: i32, incarnation: &str) -> String {
    format!("{transitions}/{incarnation}")
}

/// Returns the name of a holder's pod. controller-runtime uses `<pod>_<uuid>` as its identity, and pod names have no
/// underscore.
pub fn pod_of_holder(holder: &str) -> &str {
    holder.split_once('_').map_or(holder, |(name, _)| name)
}
