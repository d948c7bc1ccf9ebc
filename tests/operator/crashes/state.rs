//! The end state of a run, without the fields that differ between runs.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::PLURALS;
use super::play::condition;
use crate::support::objects::Direct;

/// Fields that differ in each run.
const VARYING: [&str; 8] =
    ["lastTransitionTime", "acquireTime", "renewTime", "time", "since", "leaderlessSeconds", "clusterIP", "clusterIPs"];

/// Returns everything in a namespace that an operator writes.
pub(super) fn state(direct: &Direct, ns: &str) -> Value {
    let Some(group) = direct.get(ns, "electiongroups", "kestrel") else { return Value::Null };
    let mut state = json!({ "electiongroup": stripped(&group, true) });
    for plural in PLURALS.into_iter().chain(["services", "endpointslices"]) {
        let list = direct.get(ns, plural, "").unwrap();
        let is_own = |item: &&Value| item["metadata"]["name"] != "default";
        let mut items: Vec<Value> =
            list["items"].as_array().unwrap().iter().filter(is_own).map(|item| stripped(item, false)).collect();
        items.sort_by_key(|item| item["metadata"]["name"].to_string());
        state[plural] = items.into();
    }
    let pods = direct.get(ns, "pods", "").unwrap();
    let pods = pods["items"].as_array().unwrap();
    let mut marks: Vec<String> = pods.iter().map(marks_of).collect();
    marks.sort();
    state["pods"] = json!(marks);
    let mut text = state.to_string();
    for object in pods.iter().chain([&group]) {
        text = text.replace(object["metadata"]["uid"].as_str().unwrap(), "UID");
    }
    // Only the operator that released a Lease on proof knows why the term ended, until the status has the next term.
    let text = ["KubeletReported", "NotObserved"]
        .iter()
        .fold(text, |text, reason| text.replace(&format!("\"{reason}\""), "\"LeaseReleased\""));
    let text = text.replace(ns, "NAMESPACE");
    serde_json::from_str(&with_numbered_pods(&text)).unwrap()
}

/// Returns what the operator has written onto a pod.
fn marks_of(pod: &Value) -> String {
    let metadata = &pod["metadata"];
    let label = |name: &str| metadata["labels"][format!("k8sensus.dev/{name}")].clone();
    let cost = &metadata["annotations"]["controller.kubernetes.io/pod-deletion-cost"];
    json!([label("role"), label("revision"), cost, condition(pod, "k8sensus.dev/proven")]).to_string()
}

/// Replaces the names of pods in `text` by numbers in the order of their appearance.
pub(in crate::operator) fn with_numbered_pods(text: &str) -> String {
    let is_part = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    let names: Vec<&str> = text.split(|letter| !is_part(letter)).filter(|word| is_pod(word)).collect();
    let mut known: Vec<&str> = Vec::new();
    for name in names {
        if !known.contains(&name) {
            known.push(name);
        }
    }
    let number = |text: String, (number, name): (usize, &&str)| text.replace(*name, &format!("POD-{number}"));
    known.iter().enumerate().fold(text.to_owned(), number)
}

/// Whether `word` is the name of a pod of the group: the name of the group, a hash and five letters.
pub(super) fn is_pod(word: &str) -> bool {
    let parts: Vec<&str> = word.split('-').collect();
    matches!(parts[..], ["kestrel", hash, suffix] if hash.len() > 5 && suffix.len() == 5)
}

fn stripped(object: &Value, with_status: bool) -> Value {
    let mut stripped = object.clone();
    let metadata = &object["metadata"];
    let managers = metadata["managedFields"].as_array().cloned().unwrap_or_default();
    let ours = managers.iter().filter(|entry| entry["manager"] == "k8sensus-operator");
    let ours: BTreeSet<String> =
        ours.map(|entry| json!([entry["operation"], entry["subresource"], entry["fieldsV1"]]).to_string()).collect();
    stripped["metadata"] = json!({
        "name": metadata["name"], "labels": metadata["labels"], "annotations": metadata["annotations"],
        "ownerReferences": metadata["ownerReferences"], "ours": ours,
    });
    // A hash of the whole object, which contains the uid of its owner.
    if let Some(hash) = stripped.pointer_mut("/metadata/annotations/k8sensus.dev~1applied-hash") {
        *hash = json!("HASH");
    }
    if !with_status {
        stripped.as_object_mut().unwrap().remove("status");
    }
    without_varying(&mut stripped);
    stripped
}

fn without_varying(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !VARYING.contains(&key.as_str()));
            fields.values_mut().for_each(without_varying);
        }
        Value::Array(items) => items.iter_mut().for_each(without_varying),
        _ => {}
    }
}
