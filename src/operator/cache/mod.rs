//! The cache of groups and their objects. Its watches trigger a reconcile of the group that a change concerns.
//!
//! No object is kept in full: each is reduced to what a reconcile needs as soon as it arrives.

mod children;
mod expiry;
mod groups;
mod health;
mod known;
mod leases;
mod pods;
mod streams;
mod table;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::reflector::Store;
use kube::runtime::watcher::Event;

pub(crate) use children::{ChildView, Detail, Kind, controller_of, value_of};
pub(crate) use groups::{GroupRef, Memory, RawGroup};
pub(crate) use health::WatchHealth;
pub(crate) use leases::{LeaseHolder, view_of};
pub(crate) use streams::triggers;
pub(crate) use table::Scope;

use crate::group::judge::endpoints::ServicePort;
use crate::group::observed::DeploymentView;
use crate::group::observed::lease::LeaseView;
use crate::group::observed::pod::PodView;
use crate::group::{Desired, Group};
use crate::runtime::clock::Clock;

use groups::Groups;
use known::{Known, WatchedKind};
use leases::Leases;
use pods::Pods;

/// What this operator knows of the cluster. All clones share it.
#[derive(Clone)]
pub(crate) struct Cache {
    known: Arc<Mutex<Known>>,
    clock: Arc<dyn Clock>,
    candidate_image: Arc<str>,
}

/// The observed state of one group.
pub(crate) struct GroupState {
    pub(crate) deployment: Option<DeploymentView>,
    pub(crate) lease: Option<LeaseView>,
    pub(crate) pods: Vec<PodView>,
    /// The last pod that the kubelet ended for good, as by an eviction, and why.
    pub(crate) eviction: Option<String>,
}

/// The observed state of a leader Service, and of what its EndpointSlice depends on.
pub(crate) struct LeaderServiceState {
    pub(crate) ports: Box<[ServicePort]>,
    /// Its EndpointSlice, if the group controls it.
    pub(crate) slice: Option<ChildView>,
    pub(crate) lease: Option<LeaseView>,
    pub(crate) pods: Vec<PodView>,
    /// When the Lease was released, since boot, if it still is.
    pub(crate) released_at: Option<Duration>,
}

impl Cache {
    /// Returns an empty cache, which triggers nothing until everything in `scopes` has been listed.
    pub(crate) fn new(scopes: &[Scope], clock: Arc<dyn Clock>, candidate_image: &str) -> Self {
        let kinds = [WatchedKind::Groups, WatchedKind::Pods, WatchedKind::Leases]
            .into_iter()
            .chain(Kind::ALL.map(WatchedKind::Child));
        let unlisted = kinds.flat_map(|kind| scopes.iter().map(move |scope| (kind, scope.clone()))).collect();
        let known = Known {
            groups: Groups::new(),
            children: Default::default(),
            pods: Pods::default(),
            leases: Leases::default(),
            deleted: VecDeque::new(),
            unlisted,
        };
        Self { known: Arc::new(Mutex::new(known)), clock, candidate_image: candidate_image.into() }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the store of groups for the controller.
    pub(crate) fn store(&self) -> Store<RawGroup> {
        self.lock().groups.store()
    }

    /// Returns what is known of a child.
    pub(crate) fn child(&self, kind: Kind, namespace: &str, name: &str) -> Option<ChildView> {
        self.lock().children[kind as usize].get(namespace, name).cloned()
    }

    /// Whether the group's Lease is known, and has its owner reference and labels.
    pub(crate) fn has_lease(&self, group: &Group) -> bool {
        self.lock().leases.is_marked(&group.namespace, &group.lease_name, &group.uid, &group.name)
    }

    /// Returns the holder of the group's Lease.
    pub(crate) fn lease_holder(&self, group: &Group) -> Option<LeaseHolder> {
        let known = self.lock();
        let (holder, incarnation, transitions) =
            known.leases.holder_of(&group.namespace, &group.lease_name, &group.uid)?;
        let dead = known.pods.dead_in(&group.namespace, &holder);
        Some(LeaseHolder { holder, incarnation, transitions, dead })
    }

    /// Whether the group's Lease shows that the group is suspended; `None` if there is no Lease.
    pub(crate) fn is_suspended(&self, group: &Group) -> Option<bool> {
        self.lock().leases.is_suspended(&group.namespace, &group.lease_name, &group.uid)
    }

    /// Returns when the group's Lease was released, since boot, if it still is.
    pub(crate) fn released_at(&self, group: &Group) -> Option<Duration> {
        self.lock().leases.released_at(&group.namespace, &group.lease_name, &group.uid)
    }

    /// Returns when the group's Lease was recreated, since boot, if no candidate has acquired it since.
    pub(crate) fn recreated_at(&self, group: &Group) -> Option<Duration> {
        self.lock().leases.recreated_at(&group.namespace, &group.lease_name, &group.uid)
    }

    /// Returns the state of the group of that uid. Objects that another owner controls are not part of it.
    pub(crate) fn group_state(&self, namespace: &str, name: &str, lease_name: &str, uid: &str) -> GroupState {
        let known = self.lock();
        let deployment = known.children[Kind::Deployment as usize].get(namespace, name);
        GroupState {
            deployment: deployment.filter(|child| child.is_controlled_by(uid)).and_then(|child| match &child.detail {
                Detail::Deployment(view) => Some(DeploymentView::clone(view)),
                _ => None,
            }),
            lease: known.leases.of(namespace, lease_name, uid),
            pods: known.pods.of(namespace, name),
            eviction: known.pods.eviction_of(namespace, name),
        }
    }

    /// Returns the state of the leader Service of the group of that uid; `None` if it has none.
    pub(crate) fn leader_service_state(
        &self,
        namespace: &str,
        name: &str,
        lease_name: &str,
        uid: &str,
    ) -> Option<LeaderServiceState> {
        let known = self.lock();
        let own = |kind: Kind| {
            let child = known.children[kind as usize].get(namespace, &kind.name_of(name));
            child.filter(|child| child.is_controlled_by(uid))
        };
        let Detail::Ports(ports) = &own(Kind::Service)?.detail else { return None };
        Some(LeaderServiceState {
            ports: ports.clone(),
            slice: own(Kind::EndpointSlice).cloned(),
            lease: known.leases.of(namespace, lease_name, uid),
            pods: known.pods.of(namespace, name),
            released_at: known.leases.released_at(namespace, lease_name, uid),
        })
    }

    /// Expects the group's EndpointSlice to become `wanted`: the event that shows this triggers no reconcile.
    pub(crate) fn expect_endpoints(&self, namespace: &str, name: &str, wanted: &serde_json::Value) {
        let hash = children::hash_of(wanted);
        self.remember(namespace, name, |memory| memory.endpoints = Some(hash));
    }

    /// Changes the memory of a group. Returns `None` if the group is gone.
    pub(crate) fn remember<T>(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Memory) -> T) -> Option<T> {
        self.lock().groups.memory(namespace, name).map(change)
    }

    /// Counts a group among those that replace their candidate, unless `most` others do. Returns whether it counts.
    pub(crate) fn begin_candidate_update(&self, namespace: &str, name: &str, most: usize) -> bool {
        self.lock().groups.begin_candidate_update(namespace, name, most)
    }

    /// Starts a write of that group's status: until [`apply_group_response`](Self::apply_group_response), or until
    /// `writing` is reset, a change of the status triggers no reconcile.
    pub(crate) fn begin_write(&self, namespace: &str, name: &str) {
        self.lock().groups.begin_write(namespace, name);
    }

    /// Applies the response to a write of the group's status. Returns whether it has to be reconciled again.
    pub(crate) fn apply_group_response(&self, group: RawGroup) -> bool {
        self.lock().groups.apply_response(group)
    }

    /// Applies a response that shows a child, which matches `wanted`.
    pub(crate) fn apply_child_response(&self, kind: Kind, object: &DynamicObject, wanted: &serde_json::Value) {
        let known = &mut *self.lock();
        let table = &mut known.children[kind as usize];
        let (namespace, name) = (object.metadata.namespace.as_deref().unwrap_or_default(), names(object));
        let before = table.get(namespace, name);
        let is_deleted = known.deleted.iter().any(|uid| Some(&**uid) == object.metadata.uid.as_deref());
        if is_deleted || before.is_some_and(|before| before.is_of_later(object)) {
            return;
        }
        let view = ChildView::of(kind, object).matching(wanted);
        table.insert(namespace, name, view);
    }

    /// Applies the response to a patch of a pod. Returns whether it shows a change by another client.
    pub(crate) fn apply_pod_response(&self, pod: &DynamicObject) -> bool {
        self.lock().pods.apply_response(pod)
    }

    /// Applies a response that shows a Lease of a group.
    pub(crate) fn apply_lease_response(&self, lease: &DynamicObject) {
        self.lock().leases.apply_response(lease, self.clock.since_boot());
    }

    /// Returns the duration of the group's deleted Lease; 0 if none was deleted.
    pub(crate) fn lost_lease_seconds(&self, group: &Group) -> i32 {
        self.lock().leases.lost_seconds(&group.namespace, &group.lease_name)
    }

    /// Whether a pod of the group is being deleted.
    pub(crate) fn has_terminating_pods(&self, namespace: &str, group: &str) -> bool {
        self.lock().pods.of(namespace, group).iter().any(|pod| pod.terminating)
    }

    /// Applies an event of the groups' watch. Returns the groups to reconcile.
    fn apply_group_event(&self, scope: &Scope, mut event: Event<RawGroup>) -> Vec<GroupRef> {
        if let Event::Apply(group) | Event::InitApply(group) | Event::Delete(group) = &mut event {
            group.slim();
        }
        let listed = matches!(event, Event::InitDone);
        let mut known = self.lock();
        let touched = known.groups.apply_event(scope, event);
        known.groups_to_reconcile(WatchedKind::Groups, scope, listed, touched)
    }

    /// Applies an event of another watch. Returns the groups to reconcile.
    fn apply_event(&self, watched: WatchedKind, scope: &Scope, event: Event<DynamicObject>) -> Vec<GroupRef> {
        let listed = matches!(event, Event::InitDone);
        let child = match (&event, watched) {
            (Event::Apply(object) | Event::InitApply(object), WatchedKind::Child(kind)) => {
                Some(self.view_of_child(kind, object))
            }
            _ => None,
        };
        let mut known = self.lock();
        let named = match watched {
            WatchedKind::Groups => Vec::new(),
            WatchedKind::Child(kind) => known.apply_child_event(kind, scope, event, child),
            WatchedKind::Pods => known.pods.apply_event(scope, event),
            WatchedKind::Leases => known.leases.apply_event(scope, event, self.clock.since_boot()),
        };
        let touched = named.into_iter().map(|(namespace, name)| GroupRef::new(&name).within(&namespace)).collect();
        known.groups_to_reconcile(watched, scope, listed, touched)
    }

    /// Returns the view of `object`, compared with what its group desires unless that was done before. The comparison
    /// does not lock the cache: a large spec takes some time.
    fn view_of_child(&self, kind: Kind, object: &DynamicObject) -> ChildView {
        let view = ChildView::of(kind, object);
        let (namespace, name) = (object.metadata.namespace.as_deref().unwrap_or_default(), names(object));
        let (view, group) = {
            let known = self.lock();
            let view = view.with_match_of(known.children[kind as usize].get(namespace, name));
            (view, known.groups.get(namespace, kind.group_of(name)))
        };
        let Some(group) = group.filter(|_| !view.is_compared()) else { return view };
        let (group, _) = group.read();
        let recorded = group.status.as_ref().and_then(|status| status.injection.as_ref());
        match Group::check(&group) {
            Ok(valid) => view.compared(kind, object, &Desired::of(&valid, recorded, &self.candidate_image)),
            Err(_) => view,
        }
    }

    fn knows_all_groups(&self) -> bool {
        !self.lock().unlisted.iter().any(|(kind, _)| *kind == WatchedKind::Groups)
    }

    /// Returns the Leases that seem to have expired and must be read, except those in the scopes `unseen`.
    fn due_leases(&self, unseen: &[&Scope]) -> Vec<(String, String)> {
        self.lock().leases.due(self.clock.since_boot(), unseen)
    }

    /// Applies the result of that read. Returns the groups to reconcile, and whether it shows a change that the watch
    /// has not shown.
    fn confirm_expiry(&self, namespace: &str, name: &str, live: Option<&DynamicObject>) -> (Vec<GroupRef>, bool) {
        let mut known = self.lock();
        let (groups, is_unseen) = known.leases.confirm(namespace, name, live, self.clock.since_boot());
        let groups = groups.into_iter().map(|(namespace, name)| GroupRef::new(&name).within(&namespace)).collect();
        (known.known_only(groups), is_unseen)
    }
}

fn names(object: &DynamicObject) -> &str {
    object.metadata.name.as_deref().unwrap_or_default()
}

/// Returns the API for all objects in `scope`.
fn api(client: &Client, resource: &ApiResource, scope: &Scope) -> kube::Api<DynamicObject> {
    match &scope.0 {
        Some(namespace) => kube::Api::namespaced_with(client.clone(), namespace, resource),
        None => kube::Api::all_with(client.clone(), resource),
    }
}
