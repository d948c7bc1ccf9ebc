//! The meaning of an `ElectionGroup`, without IO. Each folder imports only those before it:
//!
//! 1. [`spec`]: what the user wrote, checked.
//! 2. [`desired`]: the objects that the cluster should have, built.
//! 3. [`observed`]: facts about the cluster, not judged yet.
//! 4. [`judge`]: what to do: rollout, step-down, unhealthy leader, EndpointSlice, suspension.
//! 5. [`status`]: what is reported, built from [`Findings`]: the facts, and what was decided and done about them.
//! 6. [`events`]: what is reported about the change from one status to the next.

use {k8sensus_api as api, k8sensus_election as election, k8sensus_protocol as protocol};

pub mod desired;
pub mod events;
pub mod judge;
pub mod observed;
pub mod spec;
pub mod status;

pub use desired::Desired;
pub use spec::group::Group;
pub use spec::invalid::Invalid;
pub use spec::prepare;
pub use status::Findings;
