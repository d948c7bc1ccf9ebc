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
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::{Client, ResourceExt};
use tracing::info;

use crate::cache::Cache;
use crate::campaign::snapshot_of;
use crate::error::Error;
use crate::group::Group;
use crate::runtime::clock::Clock;
use crate::steps::live_pods::{any_is_older, pods_of};
use crate::steps::release::{failed, is_replaceable, leases_of, release_if};

/// Releases the recreated Lease of `group` if every pod that is older than the Lease is gone. Returns the time until
/// the next check.
///
/// The pods are listed after the Lease is read, so that every pod that existed before the Lease and still exists is in
/// the list. Costs no request unless the cache shows a recreated Lease.
///
/// # Errors
/// A request failed. The Lease is as it was, or was released by a write whose response was lost.
pub(crate) async fn release_unawaited(
    client: &Client,
    group: &Group,
    cache: &Cache,
    clock: &dyn Clock,
) -> Result<Option<Duration>, Error> {
    let Some(since) = cache.recreated_at(group).filter(|_| !group.paused) else { return Ok(None) };
    let lease_duration = Duration::from_secs(group.timing.lease_duration.unsigned_abs().into());
    let left = (since + lease_duration).saturating_sub(clock.since_boot());
    if !left.is_zero() {
        return Ok(Some(left));
    }
    let live = leases_of(client, group).get_opt(&group.lease_name).await;
    let live = live.map_err(|source| failed("get", group, source))?;
    let Some(lease) = live.filter(|lease| is_recreated_lease(lease, group)) else { return Ok(None) };
    // The end of a pod triggers another reconcile.
    if is_awaited(&lease, &pods_of(client, group).await?) {
        return Ok(None);
    }
    let is_unchanged = |live: &DynamicObject| live.uid() == lease.uid() && is_recreated_lease(live, group);
    if release_if(client, group, clock, is_unchanged).await?.is_some() {
        info!(
            group = format!("{}/{}", group.namespace, group.name),
            "released lease {}: no pod is left that could have led before it was created again", group.lease_name
        );
    }
    Ok(None)
}

fn is_recreated_lease(lease: &DynamicObject, group: &Group) -> bool {
    is_replaceable(lease, group) && snapshot_of(lease).record.is_recreated()
}

/// Whether one of `pods` may have led under the Lease that `lease` replaces.
fn is_awaited(lease: &DynamicObject, pods: &[PartialObjectMeta<Pod>]) -> bool {
    lease.creation_timestamp().is_none_or(|created| any_is_older(pods, &created))
}
