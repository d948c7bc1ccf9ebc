//! The pods of the groups, reduced to what a reconcile needs.

use std::collections::{HashMap, HashSet};

use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::Value;

use super::children::condition;
use super::groups::version_of;
use super::table::{Change, Scope, Table};
use crate::api::names::annotation::{LEADER_DELETION_COST, POD_DELETION_COST};
use crate::api::names::{PROVEN_GATE, label};
use crate::group::observed::pod::PodView;
use crate::group::observed::proof::dead_incarnations;
use crate::group::observed::trouble::{container_trouble, eviction, is_stuck, last_end, obstacle};
use crate::protocol::environment;
use crate::protocol::pod::{INSTALLER, PROGRAM, SIDECAR};

/// The variable that candidates of mode Exec have since they report on the Lease whether their program is ready.
const SINCE_READINESS_REPORTS: &str = environment::LOCK_PATH;
/// The variable that candidates of mode Exec have since they follow step-down requests.
const SINCE_STEP_DOWNS: &str = environment::TERMINATION_MESSAGE_PATH;

/// The names of the pods of each group.
type Members = HashMap<Box<str>, Vec<Box<str>>>;

#[derive(Clone, Debug)]
struct Entry {
    group: Box<str>,
    view: PodView,
    /// Whether its phase is Failed or Succeeded. Until it is deleted it exists, but is no longer a pod of its group.
    has_finished: bool,
    /// Why the kubelet ended it for good, if it did.
    eviction: Option<Box<str>>,
    /// The incarnations that its status proves dead.
    dead: Box<[String]>,
    /// `resourceVersion`, 0 if it is no number.
    version: u64,
}

impl Entry {
    /// Whether `pod` is an earlier state of this pod.
    fn is_later_than(&self, pod: &DynamicObject) -> bool {
        let version = version_of(&pod.metadata);
        self.view.uid == pod.uid() && version > 0 && version < self.version
    }

    /// Returns the group that it is a pod of, empty if none.
    fn member_of(&self) -> &str {
        if self.has_finished { "" } else { &self.group }
    }

    fn has_same_state_as(&self, other: &Self) -> bool {
        let Self { group, has_finished, eviction, view, dead, .. } = self;
        let state = (group, has_finished, eviction, view, dead);
        state == (&other.group, &other.has_finished, &other.eviction, &other.view, &other.dead)
    }
}

/// All pods of all groups.
#[derive(Default)]
pub(super) struct Pods {
    table: Table<Entry>,
    /// By namespace.
    members: HashMap<Box<str>, Members>,
    /// By namespace and group: the last pod that the kubelet ended for good.
    evicted: HashMap<(Box<str>, Box<str>), Box<str>>,
}

impl Pods {
    pub(super) fn of(&self, namespace: &str, group: &str) -> Vec<PodView> {
        let names = self.members.get(namespace).and_then(|groups| groups.get(group));
        let entries = names.into_iter().flatten().filter_map(|name| self.table.get(namespace, name));
        entries.map(|entry| entry.view.clone()).collect()
    }

    /// Returns the last pod of a group that the kubelet ended for good and that still exists, and why.
    pub(super) fn eviction_of(&self, namespace: &str, group: &str) -> Option<String> {
        let pod = self.evicted.get(&(namespace.into(), group.into()))?;
        let entry = self.table.get(namespace, pod)?;
        Some(format!("pod {pod}: {}", entry.eviction.as_deref()?))
    }

    /// Returns the incarnations that the pod's status proves dead.
    pub(super) fn dead_in(&self, namespace: &str, pod: &str) -> Vec<String> {
        self.table.get(namespace, pod).map_or_else(Vec::new, |entry| entry.dead.to_vec())
    }

    /// Applies the response to a patch of a pod by this operator, so that the event of that patch triggers nothing.
    /// Ignores the response if the pod is gone or was recreated, or if the watch was faster. Returns whether the
    /// response shows a change by another client: then no event triggers the reconcile.
    pub(super) fn apply_response(&mut self, pod: &DynamicObject) -> bool {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let Some(known) = self.table.get_mut(&namespace, &name) else { return false };
        let after = entry_of(pod);
        // A change of the group is left to the watch.
        if known.view.uid != after.view.uid || known.member_of() != after.member_of() || known.is_later_than(pod) {
            return false;
        }
        // The patch itself must trigger nothing.
        known.view.role.clone_from(&after.view.role);
        (known.view.has_leader_deletion_cost, known.view.proven) =
            (after.view.has_leader_deletion_cost, after.view.proven);
        let is_changed_elsewhere = !known.has_same_state_as(&after);
        *known = after;
        is_changed_elsewhere
    }

    /// Applies an event. Returns the groups to reconcile, as namespace and name.
    pub(super) fn apply_event(&mut self, scope: &Scope, event: Event<DynamicObject>) -> Vec<(String, String)> {
        let Self { table, members, evicted } = self;
        let mut groups = Vec::new();
        let entry = |pod: DynamicObject, before: Option<&Entry>| {
            // The watch may lag behind a response.
            (!before.is_some_and(|before| before.is_later_than(&pod))).then(|| entry_of(&pod))
        };
        table.apply_event(scope, event, entry, |Change { namespace, name, before, after }| {
            if before.zip(after).is_some_and(|(before, after)| before.has_same_state_as(after)) {
                return;
            }
            let was_evicted = |entry: &&Entry| entry.eviction.is_some();
            let key = |entry: &Entry| (namespace.into(), entry.group.clone());
            match (before.filter(was_evicted), after.filter(was_evicted)) {
                (None, Some(entry)) => drop(evicted.insert(key(entry), name.into())),
                (Some(entry), None) if evicted.get(&key(entry)).is_some_and(|last| **last == *name) => {
                    evicted.remove(&key(entry));
                    groups.push((namespace.to_owned(), entry.group.clone().into()));
                }
                _ => {}
            }
            let [former, present] = [before, after].map(|entry| entry.map(Entry::member_of));
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
        has_finished: matches!(pod.data["status"]["phase"].as_str(), Some("Failed" | "Succeeded")),
        eviction: eviction(&pod.data).map(Into::into),
        view: pod_view(pod),
        dead: dead_incarnations(&pod.uid().unwrap_or_default(), &pod.data).into(),
        version: version_of(&pod.metadata),
    }
}

fn pod_view(pod: &DynamicObject) -> PodView {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let status = &pod.data["status"];
    let is_true = |kind: &str| condition(&status["conditions"], kind).is_some_and(|one| one["status"] == "True");
    let gated = items(&pod.data["spec"]["readinessGates"]).iter().any(|gate| gate["conditionType"] == PROVEN_GATE);
    let statuses = || ["initContainerStatuses", "containerStatuses"].into_iter().flat_map(|kind| items(&status[kind]));
    let containers = || items(&pod.data["spec"]["containers"]).iter();
    let has_setting = |name: &str| containers().any(|one| has_variable(one, name));
    let is_candidates = |one: &Value| one["name"] == INSTALLER || one["name"] == SIDECAR;
    let candidate = items(&pod.data["spec"]["initContainers"]).iter().find(|one| is_candidates(one));
    let runs_candidate = containers().any(|one| one["command"][0] == PROGRAM);
    PodView {
        name: pod.name_any(),
        node: text(&pod.data["spec"]["nodeName"]),
        ip: text(&status["podIP"]),
        template_hash: pod.labels().get("pod-template-hash").cloned(),
        ready: pod.metadata.deletion_timestamp.is_none() && is_true("Ready"),
        uid: pod.uid(),
        created: pod.creation_timestamp().map(|time| time.0),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        containers_ready: pod.metadata.deletion_timestamp.is_none() && is_true("ContainersReady"),
        others_unready: others_unready(&pod.data),
        revision: pod.labels().get(label::REVISION).cloned(),
        proven: gated.then(|| is_true(PROVEN_GATE)),
        role: pod.labels().get(label::ROLE).cloned(),
        has_leader_deletion_cost: pod
            .annotations()
            .get(POD_DELETION_COST)
            .is_some_and(|cost| cost == LEADER_DELETION_COST),
        trouble: container_trouble(&pod.data),
        obstacle: obstacle(&pod.data),
        last_end: last_end(&pod.data),
        restarts: statuses().filter_map(|one| one["restartCount"].as_i64()).sum::<i64>().try_into().unwrap_or(i32::MAX),
        ports: named_ports(&pod.data["spec"]),
        reports_readiness: has_setting(SINCE_READINESS_REPORTS),
        ignores_step_downs: runs_candidate && !has_setting(SINCE_STEP_DOWNS),
        candidate_image: candidate.and_then(|one| text(&one["image"])),
        candidate_stuck: statuses().any(|one| is_candidates(one) && is_stuck(one)),
    }
}

/// Whether a container that the candidate does not supervise is not ready, by the kubelet's report.
fn others_unready(pod: &Value) -> bool {
    let mut others = items(&pod["spec"]["containers"]).iter().filter(|one| !has_variable(one, SINCE_READINESS_REPORTS));
    // Of the init containers only the sidecars count.
    let mut sidecars = items(&pod["spec"]["initContainers"]).iter().filter(|one| one["restartPolicy"] == "Always");
    // Any pod may carry the label, also one with thousands of containers.
    let unready = |kind: &str| -> HashSet<&str> {
        let statuses = items(&pod["status"][kind]).iter().filter(|status| status["ready"] == false);
        statuses.filter_map(|status| status["name"].as_str()).collect()
    };
    let is_in = |names: &HashSet<&str>, one: &Value| one["name"].as_str().is_some_and(|name| names.contains(name));
    let [containers, init] = ["containerStatuses", "initContainerStatuses"].map(unready);
    others.any(|one| is_in(&containers, one)) || sidecars.any(|one| is_in(&init, one))
}

fn has_variable(container: &Value, name: &str) -> bool {
    items(&container["env"]).iter().any(|variable| variable["name"] == name)
}

fn named_ports(spec: &Value) -> Vec<(String, i32)> {
    let containers = ["initContainers", "containers"].into_iter().flat_map(|kind| items(&spec[kind]));
    let ports = containers.flat_map(|container| items(&container["ports"]));
    let tcp = ports.filter(|port| port["protocol"].is_null() || port["protocol"] == "TCP");
    let named = tcp.filter_map(|port| {
        Some((port["name"].as_str()?.to_owned(), i32::try_from(port["containerPort"].as_i64()?).ok()?))
    });
    named.collect()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(version: u32, uid: &str, role: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": {
                "name": "billing-1", "namespace": "default", "uid": uid, "resourceVersion": version.to_string(),
                "labels": { label::GROUP: "billing", label::ROLE: role },
            },
        }))
        .unwrap()
    }

    fn role(pods: &Pods) -> Option<String> {
        pods.of("default", "billing")[0].role.clone()
    }

    #[test]
    fn own_patch_is_known_at_once_and_its_event_triggers_nothing() {
        let (mut pods, scope) = (Pods::default(), Scope(None));
        assert_eq!(pods.apply_event(&scope, Event::Apply(pod(3, "a", "standby"))).len(), 1);
        assert!(!pods.apply_response(&pod(5, "a", "leader")));
        assert_eq!(role(&pods).as_deref(), Some("leader"));
        assert!(pods.apply_event(&scope, Event::Apply(pod(4, "a", "standby"))).is_empty(), "an earlier state");
        assert_eq!(role(&pods).as_deref(), Some("leader"));
        assert!(pods.apply_event(&scope, Event::Apply(pod(5, "a", "leader"))).is_empty(), "its own event");
        assert_eq!(pods.apply_event(&scope, Event::Apply(pod(6, "a", "standby"))).len(), 1);
        // A late response, and one for a former pod.
        assert!(!pods.apply_response(&pod(5, "a", "leader")));
        assert_eq!(role(&pods).as_deref(), Some("standby"));
        pods.apply_event(&scope, Event::Apply(pod(9, "b", "standby")));
        assert!(!pods.apply_response(&pod(10, "a", "leader")));
        assert_eq!(role(&pods).as_deref(), Some("standby"));
    }

    #[test]
    fn foreign_change_that_a_response_shows_is_reported() {
        let (mut pods, scope) = (Pods::default(), Scope(None));
        pods.apply_event(&scope, Event::Apply(pod(3, "a", "standby")));
        let mut marked = pod(5, "a", "leader");
        marked.data = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
        assert!(pods.apply_response(&marked));
        assert!(pods.apply_event(&scope, Event::Apply(marked)).is_empty(), "the event repeats it");
    }
}
