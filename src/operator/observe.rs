//! First step: what is there. Watches everything that belongs to groups and names the group that needs a look.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, TypeMeta};
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use tracing::warn;

use super::leases::Leases;
use crate::api::ElectionGroup;
use crate::api::names::label;
use crate::runtime::backoff::{WatchBackoff, WatchProgress};
use crate::runtime::clock::Clock;

/// How often expired Leases are looked for.
const EXPIRY_TICK: Duration = Duration::from_secs(1);

/// The longest wait between tries of a watch that fails.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A watch of a known list that has not failed again for so long is established, though it may have nothing to show: longer
/// than the longest wait and the connection's timeout.
const ESTABLISHED_AFTER: Duration = Duration::from_secs(16);

/// A group that needs a look.
pub(super) type Trigger = BoxStream<'static, ObjectRef<ElectionGroup>>;

/// The children's caches.
pub(super) struct Caches {
    pub(super) deployments: Cache,
    pub(super) service_accounts: Cache,
    pub(super) roles: Cache,
    pub(super) role_bindings: Cache,
    pub(super) pods: Store<DynamicObject>,
    pub(super) leases: Leases,
}

/// One kind of child.
pub(super) struct Cache {
    pub(super) resource: ApiResource,
    store: Store<DynamicObject>,
}

impl Cache {
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<DynamicObject>> {
        self.store.get(&ObjectRef::new_with(name, self.resource.clone()).within(namespace))
    }
}

/// Everything that is watched, by the names that the log and RBAC have for it.
const WATCHED: [&str; 7] =
    ["electiongroups", "deployments", "serviceaccounts", "roles", "rolebindings", "pods", "leases"];

/// How each watch goes. Readiness and the log tell.
#[derive(Clone)]
pub(super) struct WatchHealth {
    watches: Arc<Mutex<HashMap<&'static str, Watch>>>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Watch {
    failing: Option<Trouble>,
    listed: bool,
}

struct Trouble {
    why: String,
    /// When silence means that it is over, since boot. `None` if only a list can tell.
    over_at: Option<Duration>,
}

impl WatchHealth {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { watches: Arc::default(), clock }
    }

    /// Why readiness must be false, `None` if all is well.
    pub(super) fn problem(&self) -> Option<String> {
        let (now, watches) = (self.clock.since_boot(), self.lock());
        let mut texts: Vec<String> = watches
            .iter()
            .filter_map(|(what, watch)| Some((what, watch.failing.as_ref()?)))
            .filter(|(_, trouble)| trouble.over_at.is_none_or(|at| now < at))
            .map(|(what, trouble)| format!("cannot watch {what}: {}", trouble.why))
            .collect();
        texts.sort();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    /// Whether each cache has had a whole list. Before that, what is not there may only not be known yet.
    pub(super) fn all_listed(&self) -> bool {
        let watches = self.lock();
        WATCHED.iter().all(|what| watches.get(what).is_some_and(|watch| watch.listed))
    }

    /// The watches have been stopped: what they brought says nothing any more.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<&'static str, Watch>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note<T>(&self, what: &'static str, progress: &WatchProgress, event: &watcher::Result<watcher::Event<T>>) {
        let mut watches = self.lock();
        let watch = watches.entry(what).or_default();
        match event {
            // Says only that a list is about to be asked for.
            Ok(watcher::Event::Init) => {}
            Ok(event) => {
                progress.made();
                watch.listed |= matches!(event, watcher::Event::InitDone);
                if watch.failing.take().is_some() {
                    tracing::info!("watching {what} again");
                }
            }
            Err(error) => {
                let why = explain(what, error);
                if watch.failing.as_ref().is_none_or(|trouble| trouble.why != why) {
                    warn!("cannot watch {what}, will keep trying: {why}");
                }
                // kube goes on from the list that it has, and a watch without events says nothing when it works.
                let goes_on = !matches!(error, watcher::Error::InitialListFailed(_));
                let over_at = goes_on.then(|| self.clock.since_boot() + ESTABLISHED_AFTER);
                watch.failing = Some(Trouble { why, over_at });
            }
        }
    }
}

fn explain(what: &str, error: &watcher::Error) -> String {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        _ => return error.to_string(),
    };
    match status.code {
        404 if what == "electiongroups" => {
            "the CustomResourceDefinition electiongroups.k8sensus.dev is not installed, \
             or serves no v1alpha1: apply crds/ of this version"
                .to_owned()
        }
        _ => format!("{} ({})", status.message, status.code),
    }
}

/// Starts all watches. The first stream are the groups themselves.
pub(super) fn watch(
    client: &Client,
    clock: Arc<dyn Clock>,
    health: &WatchHealth,
) -> (Caches, Store<ElectionGroup>, BoxStream<'static, watcher::Result<ElectionGroup>>, Trigger) {
    let (groups, writer) = store();
    let noted = health.clone();
    let (backoff, progress) = WatchBackoff::up_to(LONGEST_WAIT);
    let group_stream = watcher(Api::<ElectionGroup>::all(client.clone()), watcher::Config::default())
        .modify(|group| group.managed_fields_mut().clear())
        .inspect(move |event| noted.note("electiongroups", &progress, event))
        .backoff(backoff)
        .reflect(writer)
        .applied_objects()
        .boxed();
    let mut triggers = Vec::new();
    let mut cache = |what: &'static str, resource: ApiResource| {
        let (store, touched) = children(client, what, resource.clone(), health);
        triggers.push(touched);
        Cache { resource, store }
    };
    let deployments = cache("deployments", ApiResource::erase::<Deployment>(&()));
    let service_accounts = cache("serviceaccounts", ApiResource::erase::<ServiceAccount>(&()));
    let roles = cache("roles", ApiResource::erase::<Role>(&()));
    let role_bindings = cache("rolebindings", ApiResource::erase::<RoleBinding>(&()));
    let pods = cache("pods", ApiResource::erase::<Pod>(&())).store;
    let leases = Leases::new(clock.clone());
    triggers.push(lease_events(client, &leases, health));
    triggers.push(expiries(&leases, clock));
    let caches = Caches { deployments, service_accounts, roles, role_bindings, pods, leases };
    (caches, groups, group_stream, stream::select_all(triggers).boxed())
}

/// Items of a list come without kind; managed fields are most of an object's weight, and nobody here asks for them.
fn complete(object: &mut DynamicObject, resource: &ApiResource) {
    let ApiResource { api_version, kind, .. } = resource.clone();
    object.types = Some(TypeMeta { api_version, kind });
    object.managed_fields_mut().clear();
}

fn ours() -> watcher::Config {
    watcher::Config::default().labels(label::GROUP)
}

fn children(
    client: &Client,
    what: &'static str,
    resource: ApiResource,
    health: &WatchHealth,
) -> (Store<DynamicObject>, Trigger) {
    let writer = kube::runtime::reflector::store::Writer::new(resource.clone());
    let store = writer.as_reader();
    let health = health.clone();
    let (backoff, progress) = WatchBackoff::up_to(LONGEST_WAIT);
    let touched = watcher(Api::<DynamicObject>::all_with(client.clone(), &resource), ours())
        .modify(move |object| complete(object, &resource))
        .inspect(move |event| health.note(what, &progress, event))
        .backoff(backoff)
        .reflect(writer)
        .touched_objects();
    (store, Box::pin(successes(touched).filter_map(async |object| group_of(&object))))
}

fn lease_events(client: &Client, leases: &Leases, health: &WatchHealth) -> Trigger {
    let resource = ApiResource::erase::<Lease>(&());
    let (leases, health) = (leases.clone(), health.clone());
    let (backoff, progress) = WatchBackoff::up_to(LONGEST_WAIT);
    let events = watcher(Api::<DynamicObject>::all_with(client.clone(), &resource), ours())
        .modify(move |object| complete(object, &resource))
        .inspect(move |event| health.note("leases", &progress, event))
        .backoff(backoff);
    successes(events).flat_map(move |event| stream::iter(leases.take(event))).boxed()
}

fn expiries(leases: &Leases, clock: Arc<dyn Clock>) -> Trigger {
    let leases = leases.clone();
    let ticks = stream::unfold(clock, async |clock| {
        clock.sleep_until(clock.since_boot() + EXPIRY_TICK).await;
        Some(((), clock))
    });
    ticks.flat_map(move |()| stream::iter(leases.expire())).boxed()
}

/// Failures were noted already; the watcher tries again by itself.
fn successes<T>(events: impl Stream<Item = watcher::Result<T>>) -> impl Stream<Item = T> {
    events.filter_map(async |event| event.ok())
}

fn group_of(object: &DynamicObject) -> Option<ObjectRef<ElectionGroup>> {
    let name = object.labels().get(label::GROUP)?;
    Some(ObjectRef::new(name).within(object.meta().namespace.as_deref()?))
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Shows the seconds that the test says.
    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn since_boot(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }

        fn wall_micros(&self) -> i64 {
            0
        }

        fn sleep_until(&self, _: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(std::future::pending())
        }
    }

    fn error() -> kube::Error {
        kube::Error::LinesCodecMaxLineLengthExceeded
    }

    fn problem_after(event: watcher::Result<watcher::Event<()>>, seconds: u64) -> Option<String> {
        let clock = Arc::new(Hand::default());
        let health = WatchHealth::new(clock.clone());
        health.note("pods", &WatchProgress::default(), &Ok(watcher::Event::<()>::InitDone));
        health.note("pods", &WatchProgress::default(), &event);
        clock.0.store(seconds, Ordering::Relaxed);
        health.problem()
    }

    #[test]
    fn a_watch_that_could_not_start_and_is_silent_since_has_started() {
        let refused = || Err(watcher::Error::WatchStartFailed(error()));
        assert!(problem_after(refused(), 15).is_some_and(|problem| problem.starts_with("cannot watch pods: ")));
        assert_eq!(problem_after(refused(), 16), None);
    }

    #[test]
    fn a_list_that_failed_is_a_problem_until_one_comes() {
        assert!(problem_after(Err(watcher::Error::InitialListFailed(error())), 1_000).is_some());
        assert_eq!(problem_after(Ok(watcher::Event::Apply(())), 0), None);
    }
}
