//! The streams of the watches.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::TypeMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource};
use tokio::sync::{Notify, watch};

use super::expiry::{LeaseWatch, expiries};
use super::{Cache, GroupRef, RawGroup, Scope, WatchHealth, WatchedKind, api};
use crate::api::names::label;
use crate::runtime::backoff::WatchBackoff;

/// The longest backoff of a failing watch.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How many objects a page of a list has. A page is in memory as a whole, several times while it is parsed, and an
/// object may have 1.5 MB.
const PAGE: u32 = 20;

/// The stream of groups to reconcile.
pub(crate) type Trigger = BoxStream<'static, GroupRef>;

type Events<K> = BoxStream<'static, watcher::Result<watcher::Event<K>>>;

/// Starts all watches, which update `cache`. Returns the groups to reconcile.
pub(crate) fn triggers(client: &Client, cache: &Cache, scopes: &[Scope], health: &WatchHealth) -> Trigger {
    // Children are compared with their groups as they arrive, so their watches start after the list of groups.
    let (groups_known, waiting) = watch::channel(false);
    let groups_known = Arc::new(groups_known);
    let mut streams: Vec<BoxStream<'static, Vec<GroupRef>>> = Vec::new();
    let mut lease_watches = Vec::new();
    for scope in scopes {
        let (own, its_cache, known) = (scope.clone(), cache.clone(), groups_known.clone());
        let groups = match &scope.0 {
            Some(namespace) => Api::<RawGroup>::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        // This list must not be stale: an old spec would undo what a newer one has done.
        let events = watcher(groups, watcher::Config::default().page_size(PAGE)).boxed();
        streams.push(
            record_health(events, watch_name("electiongroups", scope), health)
                .map(move |event| {
                    let touched = its_cache.apply_group_event(&own, event);
                    if !*known.borrow() && its_cache.knows_all_groups() {
                        known.send_replace(true);
                    }
                    touched
                })
                .boxed(),
        );
        let pods = ApiResource::erase::<Pod>(&());
        let leases = ApiResource::erase::<Lease>(&());
        let children = super::Kind::ALL.map(|kind| (WatchedKind::Child(kind), kind.resource().clone()));
        let others = [(WatchedKind::Pods, pods), (WatchedKind::Leases, leases)];
        for (watched, resource) in children.into_iter().chain(others) {
            let (own, its_cache) = (scope.clone(), cache.clone());
            let ours = watcher::Config::default().labels(label::GROUP).page_size(PAGE);
            // Nor must this one: a former leader would count as the present one.
            let events = match watched {
                WatchedKind::Leases => {
                    let (api, restart) = (api(client, &resource, scope), Arc::new(Notify::new()));
                    lease_watches.push(LeaseWatch {
                        name: watch_name(&resource.plural, scope),
                        scope: scope.clone(),
                        restart: restart.clone(),
                        restarted_at: None,
                    });
                    restartable(move || watcher(api.clone(), ours.clone()).boxed(), restart)
                }
                _ => streamed(api(client, &resource, scope), ours),
            };
            let events = record_health(events, watch_name(&resource.plural, scope), health)
                .map(move |event| its_cache.apply_event(watched, &own, complete(event, &resource)));
            let mut waiting = waiting.clone();
            let started = async move { waiting.wait_for(|all| *all).await.map(drop) };
            streams.push(stream::once(started).map(|_| Vec::new()).chain(events).boxed());
        }
    }
    streams.push(expiries(client, cache, health, lease_watches).boxed());
    stream::select_all(streams).flat_map(stream::iter).boxed()
}

/// Returns the name of a watch in the log.
fn watch_name(plural: &str, scope: &Scope) -> String {
    match &scope.0 {
        Some(namespace) => format!("{plural} in namespace {namespace}"),
        None => plural.to_owned(),
    }
}

/// Returns a watch whose list arrives object by object, so that a large list is never in memory as a whole. Where the
/// server does not support that (Kubernetes 1.33, or without its feature gate WatchList), returns a usual watch.
fn streamed(api: Api<DynamicObject>, config: watcher::Config) -> Events<DynamicObject> {
    let first = watcher(api.clone(), config.clone().streaming_lists()).boxed();
    stream::unfold((first, true), move |(mut events, streaming)| {
        let (api, config) = (api.clone(), config.clone());
        async move {
            let event = events.next().await?;
            if streaming && event.as_ref().is_err_and(is_unsupported) {
                let mut usual = watcher(api, config).boxed();
                let event = usual.next().await?;
                return Some((event, (usual, false)));
            }
            Some((event, (events, streaming)))
        }
    })
    .boxed()
}

/// Returns a watch that restarts with a list at each notification of `restart`.
fn restartable<K: 'static>(start: impl Fn() -> Events<K> + Send + 'static, restart: Arc<Notify>) -> Events<K> {
    stream::unfold((start(), start, restart), async |(mut events, start, restart)| {
        let event = loop {
            tokio::select! {
                event = events.next() => break event?,
                () = restart.notified() => events = start(),
            }
        };
        Some((event, (events, start, restart)))
    })
    .boxed()
}

fn is_unsupported(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.message.contains("sendInitialEvents"),
        _ => false,
    }
}

/// Returns the events of a watch. Failures are recorded and delayed by a backoff; the watcher retries by itself.
fn record_health<K>(
    events: Events<K>,
    what: String,
    health: &WatchHealth,
) -> impl Stream<Item = watcher::Event<K>> + Send + use<K>
where
    K: Resource + Clone + Send + 'static,
{
    let health = health.clone();
    let (backoff, progress) = WatchBackoff::up_to(LONGEST_WAIT);
    events
        .inspect(move |event| health.note(&what, &progress, event))
        .backoff(backoff)
        .filter_map(async |event| event.ok())
}

/// Adds the kind, which items of a list lack, and removes the managed fields, which are most of an object's size.
fn complete(mut event: watcher::Event<DynamicObject>, resource: &ApiResource) -> watcher::Event<DynamicObject> {
    if let watcher::Event::Apply(object) | watcher::Event::InitApply(object) | watcher::Event::Delete(object) =
        &mut event
    {
        let ApiResource { api_version, kind, .. } = resource.clone();
        object.types = Some(TypeMeta { api_version, kind });
        object.metadata.managed_fields = None;
    }
    event
}
