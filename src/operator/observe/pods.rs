//! The pods of the groups, as the status asks of them.

use std::collections::HashMap;

use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::Value;

use super::children::condition;
use super::table::{Change, Scope, Table};
use crate::api::names::label;
use crate::group::proof::dead_incarnations;
use crate::group::status::PodView;

/// By group: the names of its pods.
type Members = HashMap<Box<str>, Vec<Box<str>>>;

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    group: Box<str>,
    view: PodView,
    /// The incarnations that the kubelet reports dead.
    dead: Box<[String]>,
}

/// All pods of all groups.
#[derive(Default)]
pub(super) struct Pods {
    table: Table<Entry>,
    /// By namespace.
    members: HashMap<Box<str>, Members>,
}

impl Pods {
    pub(super) fn of(&self, namespace: &str, group: &str) -> Vec<PodView> {
        let names = self.members.get(namespace).and_then(|groups| groups.get(group));
        let entries = names.into_iter().flatten().filter_map(|name| self.table.get(namespace, name));
        entries.map(|entry| entry.view.clone()).collect()
    }

    /// What the kubelet's report of a pod proves to be dead.
    pub(super) fn dead_in(&self, namespace: &str, pod: &str) -> Vec<String> {
        self.table.get(namespace, pod).map_or_else(Vec::new, |entry| entry.dead.to_vec())
    }

    /// Takes an event in and returns the groups of which something changed that is asked for, as namespace and name.
    pub(super) fn take(&mut self, scope: &Scope, event: Event<DynamicObject>) -> Vec<(String, String)> {
        let Self { table, members } = self;
        let mut groups = Vec::new();
        let entry = |pod: DynamicObject, _: Option<&Entry>| Some(entry_of(&pod));
        table.take(scope, event, entry, |Change { namespace, name, before, after }| {
            if before == after {
                return;
            }
            let [former, present] = [before, after].map(|entry| entry.map(|entry| &*entry.group));
            if former != present {
                let groups = members.entry(namespace.into()).or_default();
                if let Some(former) = former
                    && let Some(names) = groups.get_mut(former)
                {
                    names.retain(|other| **other != *name);
                    if names.is_empty() {
                        groups.remove(former);
                    }
                }
                if let Some(present) = present {
                    groups.entry(present.into()).or_default().push(name.into());
                }
            }
            groups
                .extend([former, present].into_iter().flatten().map(|group| (namespace.to_owned(), group.to_owned())));
        });
        groups.dedup();
        groups
    }
}

fn entry_of(pod: &DynamicObject) -> Entry {
    Entry {
        group: pod.labels().get(label::GROUP).map_or("", String::as_str).into(),
        view: pod_view(pod),
        dead: dead_incarnations(&pod.uid().unwrap_or_default(), &pod.data).into(),
    }
}

fn pod_view(pod: &DynamicObject) -> PodView {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let status = &pod.data["status"];
    PodView {
        name: pod.name_any(),
        node: text(&pod.data["spec"]["nodeName"]),
        ip: text(&status["podIP"]),
        revision: pod.labels().get("pod-template-hash").cloned(),
        ready: pod.metadata.deletion_timestamp.is_none()
            && condition(&status["conditions"], "Ready").is_some_and(|condition| condition["status"] == "True"),
        uid: pod.uid(),
        terminating: pod.metadata.deletion_timestamp.is_some(),
    }
}
