//! What the cache holds, behind its lock.

use std::collections::{HashSet, VecDeque};

use kube::api::DynamicObject;
use kube::runtime::watcher::Event;

use super::children::{ChildView, Kind};
use super::groups::{GroupRef, Groups};
use super::leases::Leases;
use super::pods::Pods;
use super::table::{Scope, Table};
use crate::runtime::memory;

/// How many deleted children are remembered: more than there can be requests in flight, which last a few seconds.
const DELETED: usize = 1_024;

/// A kind of watched objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum WatchedKind {
    Groups,
    Child(Kind),
    Pods,
    Leases,
}

pub(super) struct Known {
    pub(super) groups: Groups,
    pub(super) children: [Table<ChildView>; Kind::ALL.len()],
    pub(super) pods: Pods,
    pub(super) leases: Leases,
    /// The uids of the children that were deleted last: a late response must not bring one back.
    pub(super) deleted: VecDeque<Box<str>>,
    /// What has not been listed yet. Until it is empty, an object that is not known may exist.
    pub(super) unlisted: HashSet<(WatchedKind, Scope)>,
}

impl Known {
    /// Returns the groups to reconcile after an event: none before everything is listed, then all of them.
    pub(super) fn groups_to_reconcile(
        &mut self,
        watched: WatchedKind,
        scope: &Scope,
        listed: bool,
        touched: Vec<GroupRef>,
    ) -> Vec<GroupRef> {
        if listed && self.unlisted.remove(&(watched, scope.clone())) && self.unlisted.is_empty() {
            let groups = self.groups.open();
            // The lists held whole objects in memory.
            memory::give_back();
            return groups;
        }
        if self.unlisted.is_empty() { self.known_only(touched) } else { Vec::new() }
    }

    /// Removes groups that do not exist: a label may have any value.
    pub(super) fn known_only(&mut self, mut groups: Vec<GroupRef>) -> Vec<GroupRef> {
        groups.retain(|group| {
            let namespace = group.namespace.as_deref().unwrap_or_default();
            self.groups.memory(namespace, &group.name).is_some()
        });
        groups
    }

    /// Applies an event of a child; `view` is that of the event's object. Returns the groups of the child, as namespace
    /// and name.
    pub(super) fn apply_child_event(
        &mut self,
        kind: Kind,
        scope: &Scope,
        event: Event<DynamicObject>,
        view: Option<ChildView>,
    ) -> Vec<(String, String)> {
        let Self { children, groups, deleted, .. } = self;
        let mut touched = Vec::new();
        children[kind as usize].apply_event(
            scope,
            event,
            |object, before| {
                if before.is_some_and(|before| before.is_newer_than(&object)) {
                    return None;
                }
                view.clone().map(|view| view.with_match_of(before))
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
                    (_, Some(after)) if expected.flatten().is_some_and(|hash| after.has_hash(hash)) => true,
                    (Some(before), Some(after)) => before.has_same_state_as(after),
                    _ => false,
                };
                if !same {
                    // An object in conflict with a child has another label, or none.
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
