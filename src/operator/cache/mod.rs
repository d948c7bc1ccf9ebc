//! What is there. Watches everything that belongs to groups and names the group that needs a look.
//!
//! No object is kept as it came: each becomes the few words that reconciling asks of it, as soon as it arrives.

mod children;
mod expiry;
mod groups;
mod health;
mod leases;
mod pods;
mod streams;
mod table;

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;

pub(in crate::operator) use children::{ChildView, Detail, Kind, controller_of, value_of};
pub(in crate::operator) use groups::{Memory, RawGroup};
pub(in crate::operator) use health::WatchHealth;
pub(in crate::operator) use leases::{LeaseHolder, view_of};
pub(in crate::operator) use streams::triggers;
pub(in crate::operator) use table::Scope;

use crate::group::judge::endpoints::ServicePort;
use crate::group::observed::DeploymentView;
use crate::group::observed::lease::LeaseView;
use crate::group::observed::pod::PodView;
use crate::group::{Desired, Group};
use crate::runtime::clock::Clock;
use crate::runtime::memory;
use groups::Groups;
use leases::Leases;
use pods::Pods;
use table::Table;

/// More than can be under way: requests are answered or given up within seconds.
const DELETED: usize = 1_024;

/// A group that needs a look.
pub(in crate::operator) type GroupRef = ObjectRef<RawGroup>;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum WatchedKind {
    Groups,
    Child(Kind),
    Pods,
    Leases,
}

/// What this operator knows of the cluster. All clones are one.
#[derive(Clone)]
pub(in crate::operator) struct Cache {
    known: Arc<Mutex<Known>>,
    clock: Arc<dyn Clock>,
    candidate_image: Arc<str>,
}

struct Known {
    groups: Groups,
    children: [Table<ChildView>; Kind::ALL.len()],
    pods: Pods,
    leases: Leases,
    /// The uids of the children that were deleted last: an answer that is late brings none of them back.
    deleted: VecDeque<Box<str>>,
    /// What has not been listed yet. Until it is empty, what is not known may be there all the same.
    unlisted: HashSet<(WatchedKind, Scope)>,
}

/// What is there of one group.
pub(in crate::operator) struct GroupState {
    pub(in crate::operator) deployment: Option<DeploymentView>,
    pub(in crate::operator) lease: Option<LeaseView>,
    pub(in crate::operator) pods: Vec<PodView>,
    /// The last pod that the kubelet ended for good, and why.
    pub(in crate::operator) eviction: Option<String>,
}

/// What is there of the leader Service of one group, and what it follows.
pub(in crate::operator) struct LeaderServiceState {
    pub(in crate::operator) ports: Box<[ServicePort]>,
    /// Its EndpointSlice, if that is the group's.
    pub(in crate::operator) slice: Option<ChildView>,
    pub(in crate::operator) lease: Option<LeaseView>,
    pub(in crate::operator) pods: Vec<PodView>,
    /// Since when, since boot, the Lease stands released, if it does.
    pub(in crate::operator) released_at: Option<Duration>,
}

impl Cache {
    /// One that knows nothing, and waits for everything in each of `scopes`.
    pub(in crate::operator) fn new(scopes: &[Scope], clock: Arc<dyn Clock>, candidate_image: &str) -> Self {
        let whats = [WatchedKind::Groups, WatchedKind::Pods, WatchedKind::Leases]
            .into_iter()
            .chain(Kind::ALL.map(WatchedKind::Child));
        let unlisted = whats.flat_map(|what| scopes.iter().map(move |scope| (what, scope.clone()))).collect();
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

    /// The groups as the controller reads them.
    pub(in crate::operator) fn store(&self) -> Store<RawGroup> {
        self.lock().groups.store()
    }

    /// What is known of a child of that name.
    pub(in crate::operator) fn child(&self, kind: Kind, namespace: &str, name: &str) -> Option<ChildView> {
        self.lock().children[kind as usize].get(namespace, name).cloned()
    }

    /// Whether the group's Lease is known and marked as the group's.
    pub(in crate::operator) fn has_lease(&self, group: &Group) -> bool {
        self.lock().leases.is_marked(&group.namespace, &group.lease_name, &group.uid, &group.name)
    }

    /// Who holds the group's Lease.
    pub(in crate::operator) fn held(&self, group: &Group) -> Option<LeaseHolder> {
        let known = self.lock();
        let (holder, incarnation, transitions) =
            known.leases.holder_of(&group.namespace, &group.lease_name, &group.uid)?;
        let dead = known.pods.dead_in(&group.namespace, &holder);
        Some(LeaseHolder { holder, incarnation, transitions, dead })
    }

    /// Whether the group's Lease says that nobody is to follow its term; `None` if there is none.
    pub(in crate::operator) fn is_suspended(&self, group: &Group) -> Option<bool> {
        self.lock().leases.is_suspended(&group.namespace, &group.lease_name, &group.uid)
    }

    /// Since when, since boot, the group's Lease stands released, if it does.
    pub(in crate::operator) fn released_at(&self, group: &Group) -> Option<Duration> {
        self.lock().leases.released_at(&group.namespace, &group.lease_name, &group.uid)
    }

    /// Since when, since boot, the group's Lease stands as it was created again after a deletion, if it does.
    pub(in crate::operator) fn recreated_at(&self, group: &Group) -> Option<Duration> {
        self.lock().leases.recreated_at(&group.namespace, &group.lease_name, &group.uid)
    }

    /// What is there of the group of that uid; what stands in a conflict says nothing of it.
    pub(in crate::operator) fn group_state(
        &self,
        namespace: &str,
        name: &str,
        lease_name: &str,
        uid: &str,
    ) -> GroupState {
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

    /// What is there of the leader Service of the group of that uid; `None` if it has none.
    pub(in crate::operator) fn served(
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

    /// The group's EndpointSlice is about to be as `wanted`: what shows it so is no news.
    pub(in crate::operator) fn expect_endpoints(&self, namespace: &str, name: &str, wanted: &serde_json::Value) {
        let mark = children::mark_of(wanted);
        self.remember(namespace, name, |memory| memory.endpoints = Some(mark));
    }

    /// Changes what is remembered of a group, if it is there.
    pub(in crate::operator) fn remember<T>(
        &self,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Memory) -> T,
    ) -> Option<T> {
        self.lock().groups.memory(namespace, name).map(change)
    }

    /// Counts a group among those that replace their candidate, unless as many as `most` others do. Returns whether it is.
    pub(in crate::operator) fn begin_candidate_update(&self, namespace: &str, name: &str, most: usize) -> bool {
        self.lock().groups.begin_candidate_update(namespace, name, most)
    }

    /// A write of that group's status begins: until [`apply_group_response`](Self::apply_group_response), or until `writing` is taken back, a change
    /// of it is no news.
    pub(in crate::operator) fn begin_write(&self, namespace: &str, name: &str) {
        self.lock().groups.begin_write(namespace, name);
    }

    /// The API server has answered to a write of the group's status. Returns whether the group asks for something else by now.
    pub(in crate::operator) fn apply_group_response(&self, group: RawGroup) -> bool {
        self.lock().groups.took(group)
    }

    /// The API server has shown a child, which is as `wanted`.
    pub(in crate::operator) fn apply_child_response(
        &self,
        kind: Kind,
        object: &DynamicObject,
        wanted: &serde_json::Value,
    ) {
        let known = &mut *self.lock();
        let table = &mut known.children[kind as usize];
        let (namespace, name) = (object.metadata.namespace.as_deref().unwrap_or_default(), names(object));
        let before = table.get(namespace, name);
        let gone = known.deleted.iter().any(|uid| Some(&**uid) == object.metadata.uid.as_deref());
        if gone || before.is_some_and(|before| before.is_of_later(object)) {
            return;
        }
        let view = ChildView::of(kind, object).fitting(wanted);
        table.insert(namespace, name, view);
    }

    /// The API server has answered to a mark on a pod. Returns whether that is the first to show what others wrote.
    pub(in crate::operator) fn apply_pod_response(&self, pod: &DynamicObject) -> bool {
        self.lock().pods.took(pod)
    }

    /// The API server has shown a Lease of a group.
    pub(in crate::operator) fn apply_lease_response(&self, lease: &DynamicObject) {
        self.lock().leases.took(lease, self.clock.since_boot());
    }

    /// For how long the holder of the group's Lease could rely on it when it was last seen; 0 if it was not lost.
    pub(in crate::operator) fn lost_lease_seconds(&self, group: &Group) -> i32 {
        self.lock().leases.lost_seconds(&group.namespace, &group.lease_name)
    }

    /// Whether a pod of the group is being deleted and still there.
    pub(in crate::operator) fn has_ending_pods(&self, namespace: &str, group: &str) -> bool {
        self.lock().pods.of(namespace, group).iter().any(|pod| pod.terminating)
    }

    /// Takes an event of the groups' watch in.
    fn take_groups(&self, scope: &Scope, mut event: Event<RawGroup>) -> Vec<GroupRef> {
        if let Event::Apply(group) | Event::InitApply(group) | Event::Delete(group) = &mut event {
            group.slim();
        }
        let listed = matches!(event, Event::InitDone);
        let mut known = self.lock();
        let touched = known.groups.take(scope, event);
        known.after(WatchedKind::Groups, scope, listed, touched)
    }

    /// Takes an event of another watch in.
    fn take(&self, what: WatchedKind, scope: &Scope, event: Event<DynamicObject>) -> Vec<GroupRef> {
        let listed = matches!(event, Event::InitDone);
        let child = match (&event, what) {
            (Event::Apply(object) | Event::InitApply(object), WatchedKind::Child(kind)) => {
                Some(self.view_of_child(kind, object))
            }
            _ => None,
        };
        let mut known = self.lock();
        let named = match what {
            WatchedKind::Groups => Vec::new(),
            WatchedKind::Child(kind) => known.apply_child_event(kind, scope, event, child),
            WatchedKind::Pods => known.pods.take(scope, event),
            WatchedKind::Leases => known.leases.take(scope, event, self.clock.since_boot()),
        };
        let touched = named.into_iter().map(|(namespace, name)| GroupRef::new(&name).within(&namespace)).collect();
        known.after(what, scope, listed, touched)
    }

    /// What is known of `object`, compared with what its group desires unless that was done before. The cache is not locked
    /// meanwhile: a large spec takes its time.
    fn view_of_child(&self, kind: Kind, object: &DynamicObject) -> ChildView {
        let view = ChildView::of(kind, object);
        let (namespace, name) = (object.metadata.namespace.as_deref().unwrap_or_default(), names(object));
        let (view, group) = {
            let known = self.lock();
            let view = view.after(known.children[kind as usize].get(namespace, name));
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
        !self.lock().unlisted.iter().any(|(what, _)| *what == WatchedKind::Groups)
    }

    /// Returns the Leases that must be read because their time has run out as far as the watch has shown; none of those in
    /// `unseen`.
    fn due_leases(&self, unseen: &[&Scope]) -> Vec<(String, String)> {
        self.lock().leases.due(self.clock.since_boot(), unseen)
    }

    /// Takes in what the read of such a Lease has shown. Returns the groups that need a reconcile, and whether the watch has not
    /// shown the same.
    fn confirm_expiry(&self, namespace: &str, name: &str, live: Option<&DynamicObject>) -> (Vec<GroupRef>, bool) {
        let mut known = self.lock();
        let (groups, is_news) = known.leases.confirm(namespace, name, live, self.clock.since_boot());
        let groups = groups.into_iter().map(|(namespace, name)| GroupRef::new(&name).within(&namespace)).collect();
        (known.known_only(groups), is_news)
    }
}

impl Known {
    /// The groups that need a look after an event: none before everything is listed, all of them then.
    fn after(&mut self, what: WatchedKind, scope: &Scope, listed: bool, touched: Vec<GroupRef>) -> Vec<GroupRef> {
        if listed && self.unlisted.remove(&(what, scope.clone())) && self.unlisted.is_empty() {
            let groups = self.groups.open();
            // Lists come as whole objects.
            memory::give_back();
            return groups;
        }
        if self.unlisted.is_empty() { self.known_only(touched) } else { Vec::new() }
    }

    /// A label may name a group that does not exist.
    fn known_only(&mut self, mut groups: Vec<GroupRef>) -> Vec<GroupRef> {
        groups.retain(|group| {
            let namespace = group.namespace.as_deref().unwrap_or_default();
            self.groups.memory(namespace, &group.name).is_some()
        });
        groups
    }

    /// `view` is of the object that the event brings, if it brings one.
    fn apply_child_event(
        &mut self,
        kind: Kind,
        scope: &Scope,
        event: Event<DynamicObject>,
        view: Option<ChildView>,
    ) -> Vec<(String, String)> {
        let Self { children, groups, deleted, .. } = self;
        let mut touched = Vec::new();
        children[kind as usize].take(
            scope,
            event,
            |object, before| {
                if before.is_some_and(|before| before.is_newer_than(&object)) {
                    return None;
                }
                view.clone().map(|view| view.after(before))
            },
            |change| {
                if let (Some(before), None) = (change.before, change.after) {
                    deleted.push_back(before.uid.clone());
                    if deleted.len() > DELETED {
                        deleted.pop_front();
                    }
                }
                let group = kind.group_of(change.name);
                let expected = (kind == Kind::EndpointSlice).then(|| groups.endpoints_of(change.namespace, group));
                let same = match (change.before, change.after) {
                    (_, Some(after)) if expected.flatten().is_some_and(|mark| after.is_as_marked(mark)) => true,
                    (Some(before), Some(after)) => before.tells_the_same_as(after),
                    _ => false,
                };
                if !same {
                    // What stands in a conflict has another label, or none.
                    let labels = [change.before, change.after].into_iter().flatten();
                    let mut names: Vec<&str> = labels.filter_map(|child| child.group.as_deref()).collect();
                    names.push(group);
                    names.dedup();
                    touched.extend(names.into_iter().map(|name| (change.namespace.to_owned(), name.to_owned())));
                }
            },
        );
        touched
    }
}

fn names(object: &DynamicObject) -> &str {
    object.metadata.name.as_deref().unwrap_or_default()
}

/// Where everything of `scope` is asked for.
fn api(client: &Client, resource: &ApiResource, scope: &Scope) -> kube::Api<DynamicObject> {
    match &scope.0 {
        Some(namespace) => kube::Api::namespaced_with(client.clone(), namespace, resource),
        None => kube::Api::all_with(client.clone(), resource),
    }
}
