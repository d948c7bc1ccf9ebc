//! The groups, as raw JSON.
//!
//! Each is parsed when it is reconciled: one that this operator cannot read then affects only its own status, and does
//! not end the watch of all groups.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::table::{Change, Scope, Table};
use crate::api::names::annotation;
use crate::api::status::NOT_OBSERVED;
use crate::api::{ElectionGroup, ElectionGroupStatus};
use crate::group::judge::proof::ProvenRelease;
use crate::group::judge::step_down::{Refused, StepDown};
use crate::group::observed::program::Watch;
use crate::group::{Group, Invalid};

/// The annotations that carry a request to the operator.
const REQUESTS: [&str; 2] = [annotation::STEP_DOWN_REQUESTED_AT, annotation::UPDATE_CANDIDATE_REQUESTED_AT];

/// A reference to a group that has to be reconciled.
pub(crate) type GroupRef = ObjectRef<RawGroup>;

/// An ElectionGroup as the API server sent it, with only the metadata that the operator needs.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RawGroup {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Option<Box<RawValue>>,
    #[serde(default)]
    status: Option<Box<RawValue>>,
}

impl Resource for RawGroup {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(dynamic: &()) -> Cow<'_, str> {
        ElectionGroup::kind(dynamic)
    }

    fn group(dynamic: &()) -> Cow<'_, str> {
        ElectionGroup::group(dynamic)
    }

    fn version(dynamic: &()) -> Cow<'_, str> {
        ElectionGroup::version(dynamic)
    }

    fn plural(dynamic: &()) -> Cow<'_, str> {
        ElectionGroup::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl RawGroup {
    /// Removes the metadata that is not needed: managed fields and the manifest that kubectl adds are most of an
    /// object.
    pub(crate) fn slim(&mut self) {
        let metadata = std::mem::take(&mut self.metadata);
        let mut annotations = metadata.annotations;
        if let Some(annotations) = &mut annotations {
            annotations.retain(|key, _| REQUESTS.contains(&key.as_str()));
        }
        self.metadata = ObjectMeta {
            annotations,
            deletion_timestamp: metadata.deletion_timestamp,
            generation: metadata.generation,
            name: metadata.name,
            namespace: metadata.namespace,
            resource_version: metadata.resource_version,
            uid: metadata.uid,
            ..ObjectMeta::default()
        };
    }

    /// Parses the group. Returns it, and whether its spec can be read; if not, the group has an empty spec.
    pub(crate) fn read(&self) -> (ElectionGroup, Result<(), Invalid>) {
        let text = self.spec.as_ref().map_or("{}", |spec| spec.get());
        let (spec, readable) = match Group::parse(text) {
            Ok(spec) => (Some(spec), Ok(())),
            Err(invalid) => (serde_json::from_str("{}").ok(), Err(invalid)),
        };
        let mut spec = spec.expect("every field of a spec has a default or may be absent");
        // A status that cannot be read is replaced. The schema's default counts as no status.
        let status = self.status.as_ref().and_then(|status| serde_json::from_str(status.get()).ok());
        let status = status.filter(|status: &ElectionGroupStatus| status.observed_generation != Some(NOT_OBSERVED));
        if readable.is_err() {
            // The election continues under the same Lease while the spec cannot be read.
            spec.election.lease_name = status.as_ref().and_then(|status| status.lease_name.clone());
        }
        (ElectionGroup { metadata: self.metadata.clone(), spec, status }, readable)
    }

    fn version(&self) -> u64 {
        version_of(&self.metadata)
    }

    /// Returns what a change of the group may request of the operator.
    fn requested(&self) -> (Option<&str>, Option<i64>, bool, [Option<&String>; 2]) {
        let Self { metadata, .. } = self;
        let requests = REQUESTS.map(|name| metadata.annotations.as_ref()?.get(name));
        (metadata.uid.as_deref(), metadata.generation, metadata.deletion_timestamp.is_some(), requests)
    }

    fn status_text(&self) -> &str {
        self.status.as_ref().map_or("", |status| status.get())
    }
}

/// Returns the `resourceVersion` as a number, which orders the states of one object; 0 if it is no number.
pub(super) fn version_of(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// What this operator remembers of a group as long as the group exists, besides what the API server stores.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// The number of failed reconciles in a row.
    pub(crate) failures: u32,
    /// When the status was written last, since boot.
    pub(crate) written_at: Option<Duration>,
    /// Whether the last reconcile found a problem that a person has to solve.
    pub(crate) blocked: bool,
    /// The last release of the Lease after its leader was proven dead.
    pub(crate) proven_release: Option<ProvenRelease>,
    /// The hash of the EndpointSlice that was last applied.
    pub(crate) endpoints: Option<u64>,
    /// Whether a write of the status is in flight: its event must trigger no reconcile.
    pub(crate) writing: bool,
    /// The version of the last change of the status that was observed during that write.
    observed_during_write: u64,
    /// The step-down that was last reported, so that it is reported only once.
    pub(crate) reported_step_down: Option<StepDown>,
    /// The request that was refused last, so that it stays refused.
    pub(crate) refused_step_down: Option<Refused>,
    /// The leader's program.
    pub(crate) watch: Option<Watch>,
    /// Whether this operator has reconciled the group: its status has named this operator.
    pub(crate) was_reconciled: bool,
    /// Since when, since boot, the group is left to another operator.
    pub(crate) left_at: Option<Duration>,
    /// Whether the last patch of a pod failed, which was logged.
    pub(crate) has_unmarked_pods: bool,
    /// Whether its leader moves because its pods get another candidate.
    pub(crate) updates_candidate: bool,
}

/// All groups. The store that the controller reads is closed until [`Groups::open`].
pub(super) struct Groups {
    writer: Writer<RawGroup>,
    store: Store<RawGroup>,
    known: Table<Memory>,
    /// The groups that were listed before the store is open.
    waiting: Option<HashMap<GroupRef, RawGroup>>,
}

impl Groups {
    pub(super) fn new() -> Self {
        let writer = Writer::new(());
        Self { store: writer.as_reader(), writer, known: Table::default(), waiting: Some(HashMap::new()) }
    }

    pub(super) fn store(&self) -> Store<RawGroup> {
        self.store.clone()
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<RawGroup>> {
        let key = ObjectRef::new(name).within(namespace);
        match &self.waiting {
            Some(waiting) => waiting.get(&key).cloned().map(Arc::new),
            None => self.store.get(&key),
        }
    }

    pub(super) fn memory(&mut self, namespace: &str, name: &str) -> Option<&mut Memory> {
        self.known.get_mut(namespace, name)
    }

    /// Counts that group among those that replace their candidate, unless `most` others do. Returns whether it counts.
    pub(super) fn begin_candidate_update(&mut self, namespace: &str, name: &str, most: usize) -> bool {
        let others = self.known.iter_mut().filter(|(_, _, memory)| memory.updates_candidate).take(most).count();
        let Some(memory) = self.memory(namespace, name) else { return false };
        memory.updates_candidate |= others < most;
        memory.updates_candidate
    }

    /// Returns the hash of that group's EndpointSlice as it was last applied.
    pub(super) fn endpoints_of(&self, namespace: &str, name: &str) -> Option<u64> {
        self.known.get(namespace, name)?.endpoints
    }

    /// Applies an event. Returns the groups to reconcile.
    pub(super) fn apply_event(&mut self, scope: &Scope, event: Event<RawGroup>) -> Vec<GroupRef> {
        let mut groups = Vec::new();
        let arrived = match &event {
            Event::InitApply(group) | Event::Apply(group) => Some(group.clone()),
            _ => None,
        };
        if let Some(group) = arrived {
            let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
            if self.memory(&namespace, &name).is_none() {
                // Also while its list is incomplete: the group is reconciled from now on.
                self.known.insert(&namespace, &name, Memory::default());
            }
            groups.extend(self.arrive(group));
        }
        if matches!(event, Event::InitDone) {
            self.known.refresh_listing(scope);
        }
        let entry = |_, before: Option<&Memory>| Some(before.cloned().unwrap_or_default());
        let mut gone = Vec::new();
        self.known.apply_event(scope, event, entry, |Change { namespace, name, after, .. }| {
            if after.is_none() {
                gone.push(ObjectRef::<RawGroup>::new(name).within(namespace));
            }
        });
        gone.iter().for_each(|key| self.forget(key));
        groups
    }

    /// Stores `group` if it is newer than the known state. Returns it if it has to be reconciled.
    fn arrive(&mut self, group: RawGroup) -> Option<GroupRef> {
        let key = ObjectRef::from(&group);
        let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
        let before = self.get(&namespace, &name);
        if let Some(before) = &before
            && before.metadata.uid == group.metadata.uid
            && before.version() >= group.version()
            && group.version() > 0
        {
            return None;
        }
        let request_changed = before.as_ref().map(|before| before.requested()) != Some(group.requested());
        let status_changed = before.as_ref().map(|before| before.status_text()) != Some(group.status_text());
        let version = group.version();
        let own_write = self.memory(&namespace, &name).filter(|memory| memory.writing).is_some_and(|memory| {
            memory.observed_during_write = if status_changed { version } else { memory.observed_during_write };
            true
        });
        match &mut self.waiting {
            Some(waiting) => {
                waiting.insert(key.clone(), group);
            }
            None => self.writer.apply_watcher_event(&Event::Apply(group)),
        }
        (request_changed || status_changed && !own_write).then_some(key)
    }

    /// Starts a write of that group's status.
    pub(super) fn begin_write(&mut self, namespace: &str, name: &str) {
        if let Some(memory) = self.memory(namespace, name) {
            (memory.writing, memory.observed_during_write) = (true, 0);
        }
    }

    /// Applies the response to a write of this operator and ends the write. Ignores the response if the group is gone
    /// or was recreated. Returns whether the group has another spec or request than was known, or another status than
    /// was written.
    pub(super) fn apply_response(&mut self, mut group: RawGroup) -> bool {
        group.slim();
        let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
        let version = group.version();
        let known = self.get(&namespace, &name);
        let mut changed = false;
        if let Some(known) = known.filter(|known| known.metadata.uid == group.metadata.uid) {
            changed = known.requested() != group.requested() && known.version() < version;
            let _ = self.arrive(group);
        }
        let memory = self.memory(&namespace, &name);
        let overwritten = memory.is_some_and(|memory| {
            memory.writing = false;
            memory.observed_during_write > version
        });
        changed || overwritten
    }

    fn forget(&mut self, key: &GroupRef) {
        let group = match &mut self.waiting {
            Some(waiting) => waiting.remove(key).map(Arc::new),
            None => self.store.get(key),
        };
        if let Some(group) = group.filter(|_| self.waiting.is_none()) {
            self.writer.apply_watcher_event(&Event::Delete(Arc::unwrap_or_clone(group)));
        }
    }

    /// Opens the store, once everything is listed. Returns all groups.
    pub(super) fn open(&mut self) -> Vec<GroupRef> {
        let waiting = self.waiting.take().unwrap_or_default();
        self.writer.apply_watcher_event(&Event::Init);
        let mut keys = Vec::with_capacity(waiting.len());
        for (key, group) in waiting {
            self.writer.apply_watcher_event(&Event::InitApply(group));
            keys.push(key);
        }
        self.writer.apply_watcher_event(&Event::InitDone);
        keys
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group(uid: &str, version: &str) -> RawGroup {
        let metadata = json!({ "name": "billing", "namespace": "shop", "uid": uid, "resourceVersion": version });
        serde_json::from_value(json!({ "metadata": metadata, "spec": {} })).unwrap()
    }

    fn feed(groups: &mut Groups, events: Vec<Event<RawGroup>>) -> usize {
        events.into_iter().map(|event| groups.apply_event(&Scope(None), event).len()).sum()
    }

    fn opened() -> Groups {
        let mut groups = Groups::new();
        feed(&mut groups, vec![Event::Init, Event::InitDone]);
        groups.open();
        groups
    }

    #[test]
    fn group_of_a_later_list_is_known_when_it_is_returned() {
        let mut groups = opened();
        assert_eq!(feed(&mut groups, vec![Event::Init, Event::InitApply(group("a", "7"))]), 1);
        assert!(groups.memory("shop", "billing").is_some());
        assert_eq!(feed(&mut groups, vec![Event::InitDone, Event::Init, Event::InitDone]), 0);
        assert!(groups.memory("shop", "billing").is_none() && groups.get("shop", "billing").is_none());
    }

    #[test]
    fn memory_changed_during_a_list_survives_its_end() {
        let mut groups = opened();
        feed(&mut groups, vec![Event::Apply(group("a", "7")), Event::Init, Event::InitApply(group("a", "7"))]);
        groups.memory("shop", "billing").unwrap().failures = 3;
        feed(&mut groups, vec![Event::InitDone]);
        assert_eq!(groups.memory("shop", "billing").unwrap().failures, 3);
    }

    #[test]
    fn foreign_status_change_during_a_write_triggers_if_it_is_newer() {
        let with_status = |version: &str, holder: &str| {
            let metadata = json!({ "name": "billing", "namespace": "shop", "uid": "a", "resourceVersion": version });
            let status = json!({ "holderIdentity": holder });
            serde_json::from_value(json!({ "metadata": metadata, "spec": {}, "status": status })).unwrap()
        };
        // What the watch shows during the write, in order of arrival, and the response.
        for (shown, response, triggers) in [
            (vec![("8", "otter")], ("8", "otter"), false),
            (vec![], ("8", "otter"), false),
            (vec![("8", "heron"), ("9", "otter")], ("9", "otter"), false),
            (vec![("8", "otter"), ("9", "heron")], ("8", "otter"), true),
            (vec![("9", "heron")], ("8", "otter"), true),
        ] {
            let mut groups = opened();
            feed(&mut groups, vec![Event::Apply(with_status("7", ""))]);
            groups.begin_write("shop", "billing");
            for (version, holder) in &shown {
                assert_eq!(feed(&mut groups, vec![Event::Apply(with_status(version, holder))]), 0, "{shown:?}");
            }
            assert_eq!(groups.apply_response(with_status(response.0, response.1)), triggers, "{shown:?} {response:?}");
            assert_eq!(feed(&mut groups, vec![Event::Apply(with_status("10", "siskin"))]), 1, "after the write");
        }
    }

    #[test]
    fn late_response_does_not_restore_a_deleted_group() {
        let mut groups = opened();
        let known = |groups: &Groups| groups.get("shop", "billing").map(|group| group.metadata.clone());
        feed(&mut groups, vec![Event::Apply(group("a", "7")), Event::Delete(group("a", "8"))]);
        groups.apply_response(group("a", "9"));
        assert_eq!(known(&groups), None);
        feed(&mut groups, vec![Event::Apply(group("b", "10"))]);
        groups.apply_response(group("a", "9"));
        assert_eq!(known(&groups).unwrap().uid.as_deref(), Some("b"));
        groups.apply_response(group("b", "11"));
        assert_eq!(known(&groups).unwrap().resource_version.as_deref(), Some("11"));
    }
}
