//! The pods of a group, listed at the API server: a pod that the cache does not show yet could lead.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ListParams, PartialObjectMeta};
use kube::{Client, ResourceExt};

use crate::api::names::{annotation, label};
use crate::group::Group;
use crate::steps::apply::ApplyError;

/// Returns the metadata of every pod with the group's label, including pods of a former group of that name.
///
/// # Errors
/// [`ApplyError::Request`].
pub(crate) async fn pods_of(client: &Client, group: &Group) -> Result<Vec<PartialObjectMeta<Pod>>, ApplyError> {
    let pods = Api::<Pod>::namespaced(client.clone(), &group.namespace);
    let ours = ListParams::default().labels(&format!("{}={}", label::GROUP, group.name));
    let listed = pods.list_metadata(&ours).await.map_err(|source| ApplyError::Request {
        verb: "list",
        kind: "Pod".to_owned(),
        namespace: group.namespace.clone(),
        name: format!("of group {}", group.name),
        source: Box::new(source),
    })?;
    Ok(listed.items)
}

/// Returns the longest time in seconds that one of `pods` relies on: every candidate waits that long for a recreated
/// Lease.
pub(crate) fn longest_wait(pods: &[PartialObjectMeta<Pod>]) -> i32 {
    let wait = |pod: &PartialObjectMeta<Pod>| pod.annotations().get(annotation::RECREATED_LEASE_SECONDS)?.parse().ok();
    pods.iter().filter_map(wait).max().unwrap_or_default()
}

/// Whether one of `pods` was created before the time `lease`, or in the same second: `creationTimestamp` has whole
/// seconds.
pub(crate) fn any_is_older(pods: &[PartialObjectMeta<Pod>], lease: &Time) -> bool {
    pods.iter().any(|pod| pod.creation_timestamp().is_none_or(|created| created.0 <= lease.0))
}
