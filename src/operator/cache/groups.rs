//! The groups themselves, as raw JSON.
//!
//! Each is parsed when it is looked at: one that this operator cannot read is a matter of its own status then, and not
//! the end of the watch that brings all the others.

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

/// The annotations that request something of the operator.
const REQUESTS: [&str; 2] = [annotation::STEP_DOWN_REQUESTED_AT, annotation::UPDATE_CANDIDATE_REQUESTED_AT];

/// An ElectionGroup as it came, but for what nobody here asks of its metadata.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::operator) struct RawGroup {
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
    /// Without what is not needed: managed fields and the manifest that kubectl leaves behind are most of an object.
    pub(in crate::operator) fn slim(&mut self) {
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

    /// The group in full, and whether its spec can be read; if not, an empty one stands in for it.
    pub(in crate::operator) fn read(&self) -> (ElectionGroup, Result<(), Invalid>) {
        let text = self.spec.as_ref().map_or("{}", |spec| spec.get());
        let (spec, readable) = match Group::parse(text) {
            Ok(spec) => (Some(spec), Ok(())),
            Err(invalid) => (serde_json::from_str("{}").ok(), Err(invalid)),
        };
        let mut spec = spec.expect("every field of a spec has a default or may be absent");
        // A status that is not ours to read is written anew, and the schema's default is none.
        let status = self.status.as_ref().and_then(|status| serde_json::from_str(status.get()).ok());
        let status = status.filter(|status: &ElectionGroupStatus| status.observed_generation != Some(NOT_OBSERVED));
        if readable.is_err() {
            // The Lease goes on, whatever the spec says of it.
            spec.election.lease_name = status.as_ref().and_then(|status| status.lease_name.clone());
        }
        (ElectionGroup { metadata: self.metadata.clone(), spec, status }, readable)
    }

    fn version(&self) -> u64 {
        version_of(&self.metadata)
    }

    fn asked(&self) -> (Option<&str>, Option<i64>, bool, [Option<&String>; 2]) {
        let Self { metadata, .. } = self;
        let requests = REQUESTS.map(|name| metadata.annotations.as_ref()?.get(name));
        (metadata.uid.as_deref(), metadata.generation, metadata.deletion_timestamp.is_some(), requests)
    }

    fn status_text(&self) -> &str {
        self.status.as_ref().map_or("", |status| status.get())
    }
}

/// Versions of one object can be compared; 0 for what is not a number.
pub(super) fn version_of(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// What this operator remembers of a group for as long as it exists, beside what the API server keeps.
#[derive(Clone, Debug, Default)]
pub(in crate::operator) struct Memory {
    /// Tries in a row that failed.
    pub(in crate::operator) failures: u32,
    /// When the status was written last, since boot.
    pub(in crate::operator) written_at: Option<Duration>,
    /// The last look found something in the way that others must clear.
    pub(in crate::operator) blocked: bool,
    /// The last release of the Lease after its leader was proved dead.
    pub(in crate::operator) freed: Option<ProvenRelease>,
    /// The EndpointSlice as it was last asked to be: a mark of it.
    pub(in crate::operator) endpoints: Option<u64>,
    /// A write of the status is under way: what comes of it is known already.
    pub(in crate::operator) writing: bool,
    /// The version of the last change of the status that came meanwhile, and was taken for what comes of it.
    came_meanwhile: u64,
    /// The step-down that was last reported, so that nothing is reported with every reconcile.
    pub(in crate::operator) reported_step_down: Option<StepDown>,
    /// The request that was refused last, so that it stays refused.
    pub(in crate::operator) refused_step_down: Option<Refused>,
    /// The leader's program.
    pub(in crate::operator) watch: Option<Watch>,
    /// This operator has reconciled it: its status has named this operator.
    pub(in crate::operator) was_own: bool,
    /// Since when, since boot, it is left alone, for another operator reconciles it.
    pub(in crate::operator) left_at: Option<Duration>,
    /// The last try to label the pods or to open their gates failed: that was said.
    pub(in crate::operator) has_unmarked_pods: bool,
    /// Its leader moves because its pods get another candidate.
    pub(in crate::operator) updates_candidate: bool,
}

/// All groups. The store that the controller reads is closed until [`Groups::open`].
pub(super) struct Groups {
    writer: Writer<RawGroup>,
    store: Store<RawGroup>,
    known: Table<Memory>,
    /// Until the store is open.
    waiting: Option<HashMap<ObjectRef<RawGroup>, RawGroup>>,
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

    /// Counts that group among those that replace their candidate, unless as many as `most` others do. Returns whether it is.
    pub(super) fn begin_candidate_update(&mut self, namespace: &str, name: &str, most: usize) -> bool {
        let others = self.known.iter_mut().filter(|(_, _, memory)| memory.updates_candidate).take(most).count();
        let Some(memory) = self.memory(namespace, name) else { return false };
        memory.updates_candidate |= others < most;
        memory.updates_candidate
    }

    /// The EndpointSlice of that group as it was last asked to be.
    pub(super) fn endpoints_of(&self, namespace: &str, name: &str) -> Option<u64> {
        self.known.get(namespace, name)?.endpoints
    }

    /// Takes an event in and returns the groups that need a look.
    pub(super) fn take(&mut self, scope: &Scope, event: Event<RawGroup>) -> Vec<ObjectRef<RawGroup>> {
        let mut groups = Vec::new();
        let arrived = match &event {
            Event::InitApply(group) | Event::Apply(group) => Some(group.clone()),
            _ => None,
        };
        if let Some(group) = arrived {
            let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
            if self.memory(&namespace, &name).is_none() {
                // Also while the list that it came with is not whole: it is looked at from now on.
                self.known.insert(&namespace, &name, Memory::default());
            }
            groups.extend(self.arrive(group));
        }
        if matches!(event, Event::InitDone) {
            self.known.refresh_listing(scope);
        }
        let entry = |_, before: Option<&Memory>| Some(before.cloned().unwrap_or_default());
        let mut gone = Vec::new();
        self.known.take(scope, event, entry, |Change { namespace, name, after, .. }| {
            if after.is_none() {
                gone.push(ObjectRef::<RawGroup>::new(name).within(namespace));
            }
        });
        gone.iter().for_each(|key| self.forget(key));
        groups
    }

    /// A newer state of a group than the one that is known. Returns it if it needs a look.
    fn arrive(&mut self, group: RawGroup) -> Option<ObjectRef<RawGroup>> {
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
        let asked = before.as_ref().map(|before| before.asked()) != Some(group.asked());
        let told = before.as_ref().map(|before| before.status_text()) != Some(group.status_text());
        let version = group.version();
        let own_write = self.memory(&namespace, &name).filter(|memory| memory.writing).is_some_and(|memory| {
            memory.came_meanwhile = if told { version } else { memory.came_meanwhile };
            true
        });
        match &mut self.waiting {
            Some(waiting) => {
                waiting.insert(key.clone(), group);
            }
            None => self.writer.apply_watcher_event(&Event::Apply(group)),
        }
        (asked || told && !own_write).then_some(key)
    }

    /// A write of that group's status begins.
    pub(super) fn begin_write(&mut self, namespace: &str, name: &str) {
        if let Some(memory) = self.memory(namespace, name) {
            (memory.writing, memory.came_meanwhile) = (true, 0);
        }
    }

    /// What the API server answered to a write of this operator, which ends with it; nothing if the group is gone by now, or
    /// another one. Returns whether the group asks for something else than what was known, or has another status by now than
    /// what was written.
    pub(super) fn took(&mut self, mut group: RawGroup) -> bool {
        group.slim();
        let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
        let version = group.version();
        let known = self.get(&namespace, &name);
        let mut changed = false;
        if let Some(known) = known.filter(|known| known.metadata.uid == group.metadata.uid) {
            changed = known.asked() != group.asked() && known.version() < version;
            let _ = self.arrive(group);
        }
        let memory = self.memory(&namespace, &name);
        let overwritten = memory.is_some_and(|memory| {
            memory.writing = false;
            memory.came_meanwhile > version
        });
        changed || overwritten
    }

    fn forget(&mut self, key: &ObjectRef<RawGroup>) {
        let group = match &mut self.waiting {
            Some(waiting) => waiting.remove(key).map(Arc::new),
            None => self.store.get(key),
        };
        if let Some(group) = group.filter(|_| self.waiting.is_none()) {
            self.writer.apply_watcher_event(&Event::Delete(Arc::unwrap_or_clone(group)));
        }
    }

    /// Everything was listed: the groups may be looked at from now on. Returns all of them.
    pub(super) fn open(&mut self) -> Vec<ObjectRef<RawGroup>> {
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
        events.into_iter().map(|event| groups.take(&Scope(None), event).len()).sum()
    }

    fn opened() -> Groups {
        let mut groups = Groups::new();
        feed(&mut groups, vec![Event::Init, Event::InitDone]);
        groups.open();
        groups
    }

    #[test]
    fn a_group_that_comes_with_a_later_list_is_known_when_it_is_named() {
        let mut groups = opened();
        assert_eq!(feed(&mut groups, vec![Event::Init, Event::InitApply(group("a", "7"))]), 1);
        assert!(groups.memory("shop", "billing").is_some());
        assert_eq!(feed(&mut groups, vec![Event::InitDone, Event::Init, Event::InitDone]), 0);
        assert!(groups.memory("shop", "billing").is_none() && groups.get("shop", "billing").is_none());
    }

    #[test]
    fn what_is_remembered_during_a_list_is_not_forgotten_with_its_end() {
        let mut groups = opened();
        feed(&mut groups, vec![Event::Apply(group("a", "7")), Event::Init, Event::InitApply(group("a", "7"))]);
        groups.memory("shop", "billing").unwrap().failures = 3;
        feed(&mut groups, vec![Event::InitDone]);
        assert_eq!(groups.memory("shop", "billing").unwrap().failures, 3);
    }

    #[test]
    fn a_change_of_the_status_by_others_during_a_write_is_news_if_it_came_after_the_write() {
        let with_status = |version: &str, holder: &str| {
            let metadata = json!({ "name": "billing", "namespace": "shop", "uid": "a", "resourceVersion": version });
            let status = json!({ "holderIdentity": holder });
            serde_json::from_value(json!({ "metadata": metadata, "spec": {}, "status": status })).unwrap()
        };
        // In the order of arrival: what the watch shows during the write, and the answer.
        for (shown, answer, is_news) in [
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
            assert_eq!(groups.took(with_status(answer.0, answer.1)), is_news, "{shown:?} {answer:?}");
            assert_eq!(feed(&mut groups, vec![Event::Apply(with_status("10", "siskin"))]), 1, "after the write");
        }
    }

    #[test]
    fn the_answer_to_a_write_brings_no_former_group_back() {
        let mut groups = opened();
        let known = |groups: &Groups| groups.get("shop", "billing").map(|group| group.metadata.clone());
        feed(&mut groups, vec![Event::Apply(group("a", "7")), Event::Delete(group("a", "8"))]);
        groups.took(group("a", "9"));
        assert_eq!(known(&groups), None);
        feed(&mut groups, vec![Event::Apply(group("b", "10"))]);
        groups.took(group("a", "9"));
        assert_eq!(known(&groups).unwrap().uid.as_deref(), Some("b"));
        groups.took(group("b", "11"));
        assert_eq!(known(&groups).unwrap().resource_version.as_deref(), Some("11"));
    }
}
