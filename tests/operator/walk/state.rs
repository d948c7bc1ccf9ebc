//! The state after a walk, without what differs from a fresh install: times, identities, and memories of the past.

use serde_json::{Map, Value, json};

use crate::operator::crashes::PLURALS;
use crate::operator::crashes::play::condition;
use crate::operator::crashes::state::with_numbered_pods;
use crate::support::objects::Direct;

/// Fields that the server chooses, or that depend on time.
const CHOSEN: [&str; 5] = ["clusterIP", "clusterIPs", "nodePort", "healthCheckNodePort", "lastTransitionTime"];

/// Fields of the status that depend on the past or on the operator.
const PAST: [&str; 9] = [
    "history",
    "leaseTransitions",
    "leaseTransitionsOffset",
    "acquireTime",
    "leaderless",
    "observedGeneration",
    "operator",
    "lastHandledStepDownAt",
    "lastHandledCandidateUpdateAt",
];

/// Returns the state of the group, and of everything in its namespace that an operator writes.
pub fn state(direct: &Direct, ns: &str, group: &Value, pods: &[Value]) -> Value {
    let mut state = json!({ "status": status(group) });
    for plural in PLURALS.into_iter().chain(["services", "endpointslices"]) {
        let list = direct.get(ns, plural, "").unwrap();
        let is_own = |item: &&Value| item["metadata"]["name"] != "default";
        let items = list["items"].as_array().unwrap().iter().filter(is_own);
        let named = |item: &Value| (item["metadata"]["name"].as_str().unwrap().to_owned(), child(item, plural));
        state[plural] = items.map(named).collect::<Map<String, Value>>().into();
    }
    let mut marks: Vec<String> = pods.iter().map(marks_of).collect();
    marks.sort();
    state["pods"] = json!(marks);
    let mut text = state.to_string();
    for object in pods.iter().chain([group]) {
        text = text.replace(object["metadata"]["uid"].as_str().unwrap(), "UID");
    }
    serde_json::from_str(&with_numbered_pods(&text.replace(ns, "NAMESPACE"))).unwrap()
}

/// Whether the group is settled: it is as its spec requires, and has a leader if it has pods.
pub fn is_settled(group: &Value) -> bool {
    let (spec, status) = (&group["spec"], &group["status"]);
    let wanted = if spec["suspend"] == true { 0 } else { spec["replicas"].as_i64().unwrap_or_default() };
    let counts = ["replicas", "readyReplicas", "updatedReplicas"];
    let observed = status["observedGeneration"] == group["metadata"]["generation"];
    let elected = if wanted > 0 { "True" } else { "False" };
    observed
        && counts.iter().all(|count| status[count] == wanted)
        && condition(group, "LeaderElected") == elected
        && ["Reconciling", "Stalled"].iter().all(|kind| condition(group, kind).is_empty())
}

fn status(group: &Value) -> Value {
    let mut status = group["status"].clone();
    let Some(fields) = status.as_object_mut() else { return Value::Null };
    fields.retain(|field, _| !PAST.contains(&field.as_str()));
    let mut conditions = Map::new();
    for condition in fields.remove("conditions").unwrap_or_default().as_array_mut().into_iter().flatten() {
        condition["observedGeneration"] = json!(condition["observedGeneration"] == group["metadata"]["generation"]);
        without_chosen(condition);
        conditions.insert(condition["type"].as_str().unwrap().to_owned(), condition.take());
    }
    fields.insert("conditions".into(), conditions.into());
    if status["replicas"] == 0 {
        // The proven revision stays in the status; without pods none can be proven.
        status["rollout"].take();
    }
    status
}

fn child(object: &Value, plural: &str) -> Value {
    let mut child = object.clone();
    let metadata = &object["metadata"];
    let mut annotations = metadata["annotations"].as_object().cloned().unwrap_or_default();
    // A hash of the whole object, which contains the uid of its owner; and a number of the Deployment controller.
    for key in ["k8sensus.dev/applied-hash", "deployment.kubernetes.io/revision"] {
        annotations.remove(key);
    }
    if plural == "leases" {
        // All other annotations belong to the candidates, or concern a term.
        annotations.clear();
        child["spec"] = Value::Null;
    }
    child["metadata"] = json!({
        "labels": metadata["labels"], "annotations": annotations, "ownerReferences": metadata["ownerReferences"],
        "finalizers": metadata["finalizers"], "deletionTimestamp": metadata["deletionTimestamp"],
    });
    child.as_object_mut().unwrap().remove("status");
    without_chosen(&mut child);
    child
}

fn without_chosen(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(key, field)| match CHOSEN.contains(&key.as_str()) {
            true => *field = json!("CHOSEN"),
            false => without_chosen(field),
        }),
        Value::Array(items) => items.iter_mut().for_each(without_chosen),
        _ => {}
    }
}

/// Returns what the operator and the Deployment controller wrote onto a pod.
fn marks_of(pod: &Value) -> String {
    let (labels, annotations) = (&pod["metadata"]["labels"], &pod["metadata"]["annotations"]);
    let cost = &annotations["controller.kubernetes.io/pod-deletion-cost"];
    json!([labels, cost, condition(pod, "k8sensus.dev/proven"), condition(pod, "Ready")]).to_string()
}

/// Returns the differences of two states, one line each.
pub fn differences(walked: &Value, fresh: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(walked, fresh, "", &mut found);
    found
}

fn compare(walked: &Value, fresh: &Value, path: &str, found: &mut Vec<String>) {
    match (walked, fresh) {
        (Value::Object(one), Value::Object(other)) => {
            let mut keys: Vec<&String> = one.keys().chain(other.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                compare(&walked[key], &fresh[key], &format!("{path}/{key}"), found);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            one.iter()
                .zip(other)
                .enumerate()
                .for_each(|(at, (one, other))| compare(one, other, &format!("{path}/{at}"), found));
        }
        _ if walked != fresh => found.push(format!("{path}: walked {walked}, fresh {fresh}")),
        _ => {}
    }
}
