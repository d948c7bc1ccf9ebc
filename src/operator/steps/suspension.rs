//! Writes onto the Lease that the group is suspended, so that no standby takes over while the pods are being removed.
//!
//! # Flow
//! 1. `spec.suspend` is true, or `spec.replicas` is 0. Before the operator applies the Deployment, it reads the Lease
//!    and writes `k8sensus.dev/suspended` with the Lease's `leaseTransitions` onto it, by a PUT at the version that it
//!    read. It does so only in modes Exec and Sidecar, and only while the Deployment has pods.
//! 2. The operator applies the Deployment with 0 replicas. The kubelet stops the pods.
//! 3. The leader stops its program and releases the Lease, which keeps its `leaseTransitions`. A standby that still
//!    runs waits one lease duration longer than it otherwise would, and usually ends before that.
//! 4. The group is resumed. The operator removes the annotation before it applies the Deployment with pods.
//!
//! # Interruptions
//! - The operator dies after step 1: the next one applies the Deployment, or removes the annotation if the group has
//!   been resumed. Meanwhile the leader continues to lead.
//! - The write of step 1 fails: step 2 follows all the same, and a standby may lead until its own pod ends. The write
//!   is retried after 10 s.
//! - A standby outlives the wait and acquires the Lease: its term has more `leaseTransitions`, so the annotation is
//!   void. The operator writes it again while there are pods.

use std::time::Duration;

use tracing::warn;

use crate::api::ElectionGroup;
use crate::budget::within_budget;
use crate::campaign::snapshot_of;
use crate::context::{Context, RETRY};
use crate::group::Group;
use crate::group::judge::suspension;
use crate::lease::LeaseError;
use crate::name::qualified_name;
use crate::protocol::lease;

/// Writes or removes the annotation. Returns the delay before a failed write is retried; a failure delays no other
/// step.
pub(crate) async fn annotate_suspended(resource: &ElectionGroup, group: &Group, context: &Context) -> Option<Duration> {
    let cache = &context.cache;
    let pods = || cache.group_state(&group.namespace, &group.name, &group.lease_name, &group.uid).pods;
    let suspended = suspension::change(group, cache.is_suspended(group)?, pods)?;
    let term = |lease: &_| suspended.then(|| snapshot_of(lease).record.transitions.to_string());
    let written = within_budget(&*context.clock, context.leases.annotate(group, lease::SUSPENDED, term)).await;
    match written.map_err(LeaseError::from).flatten() {
        Ok(lease) => {
            // The watch may lag behind.
            lease.iter().for_each(|lease| cache.apply_lease_response(lease));
            None
        }
        Err(error) => {
            let group = qualified_name(resource);
            warn!(group, "{error}; the Lease does not show yet whether the group is suspended");
            Some(RETRY)
        }
    }
}
