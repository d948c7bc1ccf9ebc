//! The watches themselves.

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

/// The longest wait between tries of a watch that fails.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How many objects a page of a list has: whole pages are in memory, several times over while they are read, and an object may
/// have a megabyte and a half.
const PAGE: u32 = 20;

/// Groups that need a look.
pub(in crate::operator) type Trigger = BoxStream<'static, GroupRef>;

type Events<K> = BoxStream<'static, watcher::Result<watcher::Event<K>>>;

/// Starts all watches, which keep `world` up.
pub(in crate::operator) fn triggers(client: &Client, cache: &Cache, scopes: &[Scope], health: &WatchHealth) -> Trigger {
    // The children are compared with what their groups say when they arrive.
    let (groups_known, waiting) = watch::channel(false);
    let groups_known = Arc::new(groups_known);
    let mut streams: Vec<BoxStream<'static, Vec<GroupRef>>> = Vec::new();
    let mut lease_watches = Vec::new();
    for scope in scopes {
        let (own, its_world, known) = (scope.clone(), cache.clone(), groups_known.clone());
        let groups = match &scope.0 {
            Some(namespace) => Api::<RawGroup>::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        // A list of these may not be stale: an old spec would undo what a newer one has done.
        let events = watcher(groups, watcher::Config::default().page_size(PAGE)).boxed();
        streams.push(
            record_health(events, watched("electiongroups", scope), health)
                .map(move |event| {
                    let touched = its_world.take_groups(&own, event);
                    if !*known.borrow() && its_world.knows_all_groups() {
                        known.send_replace(true);
                    }
                    touched
                })
                .boxed(),
        );
        let pods = ApiResource::erase::<Pod>(&());
        let leases = ApiResource::erase::<Lease>(&());
        let children = super::Kind::ALL.map(|kind| (WatchedKind::Child(kind), kind.resource().clone()));
        for (what, resource) in children.into_iter().chain([(WatchedKind::Pods, pods), (WatchedKind::Leases, leases)]) {
            let (own, its_world) = (scope.clone(), cache.clone());
            let ours = watcher::Config::default().labels(label::GROUP).page_size(PAGE);
            // Nor may one of these: who led before would be taken for who leads.
            let events = match what {
                WatchedKind::Leases => {
                    let (api, restart) = (api(client, &resource, scope), Arc::new(Notify::new()));
                    lease_watches.push(LeaseWatch {
                        name: watched(&resource.plural, scope),
                        scope: scope.clone(),
                        restart: restart.clone(),
                        restarted_at: None,
                    });
                    restartable(move || watcher(api.clone(), ours.clone()).boxed(), restart)
                }
                _ => streamed(api(client, &resource, scope), ours),
            };
            let events = record_health(events, watched(&resource.plural, scope), health)
                .map(move |event| its_world.take(what, &own, complete(event, &resource)));
            let mut waiting = waiting.clone();
            let begin = async move { waiting.wait_for(|all| *all).await.map(drop) };
            streams.push(stream::once(begin).map(|_| Vec::new()).chain(events).boxed());
        }
    }
    streams.push(expiries(client, cache, health, lease_watches).boxed());
    stream::select_all(streams).flat_map(stream::iter).boxed()
}

/// The name that the log has for a watch.
fn watched(plural: &str, scope: &Scope) -> String {
    match &scope.0 {
        Some(namespace) => format!("{plural} in namespace {namespace}"),
        None => plural.to_owned(),
    }
}

/// A watch whose list comes object by object, so that a large one is never in memory as a whole; where the server does
/// not do that (Kubernetes 1.33, or without its feature gate WatchList), a usual one.
fn streamed(api: Api<DynamicObject>, config: watcher::Config) -> Events<DynamicObject> {
    let begin = watcher(api.clone(), config.clone().streaming_lists()).boxed();
    stream::unfold((begin, true), move |(mut events, streaming)| {
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

/// A watch that begins again, with a list, at each notification of `restart`.
fn restartable<K: 'static>(begin: impl Fn() -> Events<K> + Send + 'static, restart: Arc<Notify>) -> Events<K> {
    stream::unfold((begin(), begin, restart), async |(mut events, begin, restart)| {
        let event = loop {
            tokio::select! {
                event = events.next() => break event?,
                () = restart.notified() => events = begin(),
            }
        };
        Some((event, (events, begin, restart)))
    })
    .boxed()
}

fn is_unsupported(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.message.contains("sendInitialEvents"),
        _ => false,
    }
}

/// Its events, with failures noted and waited for; the watcher tries again by itself.
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

/// Items of a list come without kind; managed fields are most of an object's weight, and nobody here asks for them.
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
