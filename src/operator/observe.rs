//! First step: what is there. Watches everything that belongs to groups and names the group that needs a look.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use tracing::warn;

use super::leases::Leases;
use crate::api::ElectionGroup;
use crate::api::names::label;
use crate::runtime::clock::Clock;

/// How often expired Leases are looked for.
const EXPIRY_TICK: Duration = Duration::from_secs(1);

/// A group that needs a look.
pub(super) type Trigger = BoxStream<'static, ObjectRef<ElectionGroup>>;

/// The children's caches. Managed fields are not kept; they are most of an object's weight.
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

/// Which watches fail, and how. Readiness and the log tell.
#[derive(Clone, Default)]
pub(super) struct WatchHealth(Arc<Mutex<HashMap<&'static str, String>>>);

impl WatchHealth {
    /// Why readiness must be false, `None` if all is well.
    pub(super) fn problem(&self) -> Option<String> {
        let failing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut texts: Vec<String> = failing.iter().map(|(what, why)| format!("cannot watch {what}: {why}")).collect();
        texts.sort();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    /// The watches have been stopped: what failed says nothing any more.
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn note<T>(&self, what: &'static str, event: &watcher::Result<watcher::Event<T>>) {
        let mut failing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            // Says only that a list is about to be asked for.
            Ok(watcher::Event::Init) => {}
            Ok(_) => {
                if failing.remove(what).is_some() {
                    tracing::info!("watching {what} again");
                }
            }
            Err(error) => {
                let why = explain(what, error);
                if failing.get(what) != Some(&why) {
                    warn!("cannot watch {what}, will keep trying: {why}");
                }
                failing.insert(what, why);
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
    let group_stream = watcher(Api::<ElectionGroup>::all(client.clone()), watcher::Config::default())
        .modify(|group| group.managed_fields_mut().clear())
        .inspect(move |event| noted.note("electiongroups", event))
        .default_backoff()
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
    let touched = watcher(Api::<DynamicObject>::all_with(client.clone(), &resource), ours())
        .modify(|object| object.managed_fields_mut().clear())
        .inspect(move |event| health.note(what, event))
        .default_backoff()
        .reflect(writer)
        .touched_objects();
    (store, Box::pin(successes(touched).filter_map(async |object| group_of(&object))))
}

fn lease_events(client: &Client, leases: &Leases, health: &WatchHealth) -> Trigger {
    let resource = ApiResource::erase::<Lease>(&());
    let (leases, health) = (leases.clone(), health.clone());
    let events = watcher(Api::<DynamicObject>::all_with(client.clone(), &resource), ours())
        .inspect(move |event| health.note("leases", event))
        .default_backoff();
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
