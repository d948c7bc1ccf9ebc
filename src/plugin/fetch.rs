//! Reads of groups and of the objects around them.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};

use crate::api::ElectionGroup;
use crate::api::names::{KIND, label};
use crate::connect::{Cluster, now};
use crate::failure::{Access, Failure};
use crate::picture::{Facts, Part};

const GROUPS: &str = "electiongroups";

fn access(verb: &'static str, resource: &'static str, namespace: &str) -> Access {
    Access { verb, resource, namespace: Some(namespace.to_owned()) }
}

/// Returns the API of the command's namespace, or of all, with the namespace.
fn scope<K>(cluster: &Cluster, all: bool) -> (Api<K>, Option<String>)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    if all {
        (Api::all(cluster.client.clone()), None)
    } else {
        (Api::namespaced(cluster.client.clone(), &cluster.namespace), Some(cluster.namespace.clone()))
    }
}

/// Returns the group of that name in the command's namespace.
///
/// # Errors
/// [`Failure::NoGroup`] with names near it, if there is none.
pub async fn group(cluster: &Cluster, name: &str) -> Result<ElectionGroup, Failure> {
    let groups: Api<ElectionGroup> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    match cluster.find(access("get", GROUPS, &cluster.namespace), groups.get(name)).await? {
        Some(group) => Ok(group),
        None => Err(missing(cluster, name).await),
    }
}

/// Returns the groups of the command's namespace, or of all, sorted by namespace and name.
pub async fn groups(cluster: &Cluster, all: bool) -> Result<Vec<ElectionGroup>, Failure> {
    let (groups, namespace) = scope::<ElectionGroup>(cluster, all);
    let access = Access { verb: "list", resource: GROUPS, namespace };
    let mut found = cluster.send(access, groups.list(&ListParams::default())).await?.items;
    if found.is_empty() && !all {
        has_namespace(cluster).await?;
    }
    found.sort_by_key(|group| (group.namespace(), group.name_any()));
    Ok(found)
}

/// Returns the Leases of the groups in the command's namespace, or in all.
pub async fn leases(cluster: &Cluster, all: bool) -> Part<Vec<Lease>> {
    let (leases, namespace) = scope::<Lease>(cluster, all);
    let access = Access { verb: "list", resource: "leases", namespace };
    let listed = cluster.send(access, leases.list(&ListParams::default().labels(label::GROUP))).await;
    listed.map(|list| list.items).map_err(|failure| failure.to_string())
}

/// Returns the group and everything that its status shows. Parts that cannot be read do not hide the others.
pub async fn facts(cluster: &Cluster, name: &str) -> Result<Facts, Failure> {
    // The Lease usually has the group's name, so all reads start at once.
    let (group, pods, lease, events) =
        futures::join!(group(cluster, name), pods(cluster, name), lease(cluster, name), events(cluster, name));
    let group = group?;
    let lease = match group.effective_lease_name() {
        other if other != name => self::lease(cluster, other).await,
        _ => lease,
    };
    let operator = group.status.as_ref().and_then(|status| status.operator.clone());
    let operator_lease = match &operator {
        Some(operator) => self::operator_lease(cluster, operator).await,
        None => None,
    };
    Ok(Facts {
        lease: lease.map_err(|failure| failure.to_string()),
        pods: pods.map_err(|failure| failure.to_string()),
        events: events.map_err(|failure| failure.to_string()),
        operator_lease,
        group,
        now: now(),
    })
}

/// Returns the Lease of that name, `None` if there is none.
pub async fn lease(cluster: &Cluster, name: &str) -> Result<Option<Lease>, Failure> {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    cluster.find(access("get", "leases", &cluster.namespace), leases.get(name)).await
}

async fn pods(cluster: &Cluster, group: &str) -> Result<Vec<Pod>, Failure> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let selected = ListParams::default().labels(&format!("{}={group}", label::GROUP));
    Ok(cluster.send(access("list", "pods", &cluster.namespace), pods.list(&selected)).await?.items)
}

/// Returns the Events about the group of that name, the newest last.
pub async fn events(cluster: &Cluster, group: &str) -> Result<Vec<Event>, Failure> {
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let selected = ListParams::default().fields(&format!("regarding.kind={KIND},regarding.name={group}"));
    let access = access("list", "events.events.k8s.io", &cluster.namespace);
    let mut found = cluster.send(access, events.list(&selected)).await?.items;
    found.sort_by_key(last_seen);
    Ok(found)
}

/// Returns when the Event last happened.
pub fn last_seen(event: &Event) -> Option<jiff::Timestamp> {
    let series = event.series.as_ref().map(|series| series.last_observed_time.0);
    series.or(event.event_time.as_ref().map(|time| time.0))
}

/// Returns the Lease of the operator that reconciles the group, by `namespace/name`. Users of a group often may not
/// read it, and then nothing is known about the operator.
async fn operator_lease(cluster: &Cluster, operator: &str) -> Option<Lease> {
    let (namespace, name) = operator.split_once('/')?;
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), namespace);
    cluster.find(access("get", "leases", namespace), leases.get(name)).await.ok().flatten()
}

/// Checks that the command's namespace exists, as far as the user may know.
async fn has_namespace(cluster: &Cluster) -> Result<(), Failure> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let access = Access { verb: "get", resource: "namespaces", namespace: None };
    match cluster.find(access, namespaces.get_metadata(&cluster.namespace)).await {
        Ok(None) => Err(Failure::NoNamespace(cluster.namespace.clone())),
        _ => Ok(()),
    }
}

/// Returns the failure of a group that does not exist, with names near it in this namespace, or its own in another.
async fn missing(cluster: &Cluster, name: &str) -> Failure {
    let here = match groups(cluster, false).await {
        Err(failure @ Failure::NoNamespace(_)) => return failure,
        found => found.unwrap_or_default(),
    };
    let names: Vec<String> = here.iter().map(ResourceExt::name_any).collect();
    let elsewhere = match near(name, &names).is_empty() {
        true => groups(cluster, true).await.unwrap_or_default(),
        false => Vec::new(),
    };
    let elsewhere = elsewhere.iter().filter(|group| group.name_any() == name).filter_map(ResourceExt::namespace);
    let hint = hint(name, &names, &elsewhere.collect::<Vec<_>>());
    Failure::NoGroup { namespace: cluster.namespace.clone(), name: name.to_owned(), hint }
}

fn hint(name: &str, here: &[String], elsewhere: &[String]) -> String {
    let near = near(name, here);
    if !near.is_empty() {
        return format!("did you mean {}?", near.join(" or "));
    }
    if !elsewhere.is_empty() {
        return format!("there is one in namespace {}: choose it with --namespace", elsewhere.join(" and in "));
    }
    match here {
        [] => "that namespace has no group; `list -A` shows those of all namespaces".to_owned(),
        few if few.len() <= 5 => format!("that namespace has {}", few.join(", ")),
        many => format!("that namespace has {} others; `list` shows them", many.len()),
    }
}

/// Returns at most three names that may be a misspelling's, the nearest first.
fn near(name: &str, known: &[String]) -> Vec<String> {
    let mut scored: Vec<(f64, &String)> =
        known.iter().map(|other| (strsim::jaro_winkler(name, other), other)).collect();
    scored.retain(|(score, _)| *score > 0.8);
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(3).map(|(_, name)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn misspelled_name_is_corrected() {
        let here = names(&["billing", "billing-test", "kestrel"]);
        assert_eq!(hint("biling", &here, &[]), "did you mean billing or billing-test?");
    }

    #[test]
    fn group_of_another_namespace_is_found() {
        let text = hint("kestrel", &names(&["owl"]), &names(&["aviary"]));
        assert_eq!(text, "there is one in namespace aviary: choose it with --namespace");
    }

    #[test]
    fn other_groups_are_listed_if_they_are_few() {
        assert_eq!(hint("kestrel", &names(&["owl", "wren"]), &[]), "that namespace has owl, wren");
        let many: Vec<String> = (0..9).map(|number| format!("x{number}")).collect();
        assert_eq!(hint("kestrel", &many, &[]), "that namespace has 9 others; `list` shows them");
        assert!(hint("kestrel", &[], &[]).contains("has no group"));
    }
}
