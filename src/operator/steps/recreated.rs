//! Releases a Lease that was recreated after its deletion, once no pod is left that could have led under the former
//! Lease.
//!
//! Every candidate waits for the full duration of a recreated Lease, because the leader of the deleted Lease may still
//! be stopping its program. If that leader is alive, it acquires the recreated Lease itself when its program has ended.
//! If its pod is gone, the group would have no leader for the whole wait.
//!
//! A candidate that runs in no pod of the group relies on the group's lease duration, so the release waits for that in
//! any case.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DynamicObject, PartialObjectMeta};
use tracing::info;

use crate::campaign::snapshot_of;
use crate::context::Context;
use crate::error::Error;
use crate::group::Group;
use crate::steps::live_pods::{any_is_older, pods_of};
use crate::steps::release::{ReleaseError, release_if};

/// Releases the recreated Lease of `group` if every pod that is older than the Lease is gone. Returns the time until
/// the next check.
///
/// The pods are listed after the Lease is read, so that every pod that existed before the Lease and still exists is in
/// the list. Costs no request unless the cache shows a recreated Lease.
///
/// # Errors
/// A request failed. The Lease is as it was, or was released by a write whose response was lost.
pub(crate) async fn release_unawaited(group: &Group, context: &Context) -> Result<Option<Duration>, Error> {
    let Some(since) = context.cache.recreated_at(group).filter(|_| !group.paused) else { return Ok(None) };
    let lease_duration = Duration::from_secs(group.timing.lease_duration.unsigned_abs().into());
    let left = (since + lease_duration).saturating_sub(context.clock.since_boot());
    if !left.is_zero() {
        return Ok(Some(left));
    }
    let live = context.leases.read(group).await.map_err(ReleaseError::from)?;
    let Some(lease) = live.filter(is_recreated_lease) else { return Ok(None) };
    // The end of a pod triggers another reconcile.
    if is_awaited(&lease, &pods_of(&context.client, group).await?) {
        return Ok(None);
    }
    let is_unchanged = |live: &DynamicObject| live.uid() == lease.uid() && is_recreated_lease(live);
    if release_if(&context.leases, group, &*context.clock, is_unchanged).await?.is_some() {
        info!(
            group = format!("{}/{}", group.namespace, group.name),
            "released lease {}: no pod is left that could have led before it was created again", group.lease_name
        );
    }
    Ok(None)
}

fn is_recreated_lease(lease: &DynamicObject) -> bool {
    snapshot_of(lease).record.is_recreated()
}

/// Whether one of `pods` may have led under the Lease that `lease` replaces.
fn is_awaited(lease: &DynamicObject, pods: &[PartialObjectMeta<Pod>]) -> bool {
    lease.creation_timestamp().is_none_or(|created| any_is_older(pods, &created))
}
