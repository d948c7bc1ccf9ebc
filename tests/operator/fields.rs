//! The operator keeps every field that it sets on a child, and changes no other.

use std::thread;
use std::time::{Duration, Instant};

use k8sensus_api::ElectionGroup;
use k8sensus_group::{Desired, Group};
use serde_json::{Map, Value, json};

use super::crashes::{ANYWHERE, PLURALS};
use super::ownership::{version, wait_for_own_children};
use crate::support::http_proxy::operator_for;
use crate::support::objects::Direct;
use crate::support::{audit_position, group, namespace, operated, shared, within, writes_since};

const SOON: Duration = Duration::from_secs(20);

/// Fields that identify the items of a list: an item with another value is another, foreign item.
const KEYS: [&str; 6] = ["name", "mountPath", "topologyKey", "whenUnsatisfiable", "containerPort", "protocol"];

/// Lists that are one value: no other client may add to them.
const WHOLE_LISTS: [&str; 8] =
    ["rules", "subjects", "verbs", "resources", "apiGroups", "resourceNames", "command", "args"];

/// An operation of a JSON patch, and its field.
type Edit = (String, Value);

/// Collects every way to change or remove one thing that `wanted` has.
fn edits(wanted: &Value, path: &str, key: &str, edits_of: &mut Vec<Vec<Edit>>) {
    let operation = |op: &str, value: Option<Value>| {
        let mut operation = json!({ "op": op, "path": path });
        operation.as_object_mut().unwrap().extend(value.map(|value| ("value".to_owned(), value)));
        (format!("{op} {path}"), json!([operation]))
    };
    match wanted {
        Value::Object(fields) => {
            for (name, field) in fields {
                edits(field, &format!("{path}/{}", name.replace('~', "~0").replace('/', "~1")), name, edits_of);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                edits(item, &format!("{path}/{index}"), "", edits_of);
            }
        }
        _ if KEYS.contains(&key) => {}
        value => {
            let others = match value {
                Value::String(text) => {
                    let words = ["Unconfined", "IfHealthyBudget", "IfNotPresent", "Recreate", "77Mi", "77%", "User"];
                    let mut others = vec![json!(format!("{text}x")), json!(7)];
                    others.extend(words.iter().filter(|word| *word != text).map(|word| json!(word)));
                    others
                }
                Value::Number(number) => vec![json!(number.as_i64().unwrap() + 1)],
                Value::Bool(flag) => vec![json!(!flag)],
                _ => Vec::new(),
            };
            edits_of.push(others.into_iter().map(|other| operation("replace", Some(other))).collect());
        }
    }
    if !path.is_empty() {
        edits_of.push(vec![operation("remove", None)]);
    }
}

/// Whether `live` has everything in `wanted`. Other clients may have added to most lists.
fn has_all(live: &Value, wanted: &Value, key: &str) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| has_all(live.get(key).unwrap_or(&Value::Null), wanted, key))
        }
        (Value::Array(live), Value::Array(wanted)) if WHOLE_LISTS.contains(&key) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| has_all(live, wanted, ""))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            wanted.iter().all(|wanted| live.iter().any(|live| has_all(live, wanted, "")))
        }
        (Value::Null, Value::Array(wanted)) => wanted.is_empty(),
        (Value::Null, Value::Object(wanted)) => wanted.is_empty(),
        _ => live == wanted,
    }
}

/// Edits every field that the operator sets on one child. Returns how many edits were reverted, and the edits that the
/// server refused.
fn walk(direct: &Direct, ns: &str, plural: &str, wanted: &Value) -> (usize, Vec<String>) {
    let mut all = Vec::new();
    let mut part = Map::new();
    for (field, value) in wanted.as_object().unwrap() {
        match field.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                let metadata = value.as_object().unwrap().iter();
                let ours = metadata.filter(|(name, _)| ["labels", "annotations"].contains(&name.as_str()));
                part.insert("metadata".to_owned(), ours.map(|(name, value)| (name.clone(), value.clone())).collect());
            }
            _ => drop(part.insert(field.clone(), value.clone())),
        }
    }
    edits(&Value::Object(part), "", "", &mut all);
    let (mut undone, mut refused) = (0, Vec::new());
    for ways in all {
        let Some((edit, _)) = ways.iter().find(|(_, patch)| direct.patch(ns, plural, "kestrel", patch).is_ok()) else {
            refused.push(ways.last().map_or_else(String::new, |(edit, _)| edit.clone()));
            continue;
        };
        let start = Instant::now();
        while !direct.get(ns, plural, "kestrel").is_some_and(|live| has_all(&live, wanted, "")) {
            let live = || direct.get(ns, plural, "kestrel").unwrap_or_default();
            assert!(start.elapsed() < Duration::from_secs(15), "{plural}: not undone: {edit}: {:#}", live());
            thread::sleep(Duration::from_millis(10));
        }
        undone += 1;
    }
    (undone, refused)
}

/// Returns a spec that sets many of the fields that a user may set.
fn rich() -> Value {
    let mut rich = group(
        "kestrel",
        json!({
            "serviceAccount": { "annotations": { "example.com/role": "kestrel" } },
            "podDisruptionBudget": { "maxUnavailable": 1 },
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 2, "maxUnavailable": "30%" } },
            "template": {
                "metadata": { "labels": { "team": "money" }, "annotations": { "example.com/scrape": "true" } },
                "spec": {
                    "nodeSelector": { "disk": "fast" },
                    "priorityClassName": "system-cluster-critical",
                    "terminationGracePeriodSeconds": 45,
                    "tolerations": [{ "key": "spot", "operator": "Exists", "effect": "NoSchedule" }],
                    "securityContext": { "fsGroup": 2000, "runAsNonRoot": true },
                    "containers": [{
                        "name": "app", "image": "registry.example/kestrel:1", "command": ["/kestrel"], "args": ["--loud"],
                        "env": [{ "name": "QUEUE", "value": "orders" }],
                        "ports": [{ "name": "http", "containerPort": 8080 }],
                        "imagePullPolicy": "Always", "securityContext": { "allowPrivilegeEscalation": false },
                        "resources": { "requests": { "cpu": "250m", "memory": "64Mi" }, "limits": { "memory": "128Mi" } },
                        "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                    }],
                    "volumes": [{ "name": "data", "emptyDir": { "sizeLimit": "1Gi" } }],
                },
            },
        }),
    );
    rich["spec"].as_object_mut().unwrap().retain(|key, _| key != "image" && key != "command");
    rich
}

fn desired(direct: &Direct, ns: &str) -> Desired {
    let group: ElectionGroup = serde_json::from_value(direct.get(ns, "electiongroups", "kestrel").unwrap()).unwrap();
    let recorded = group.status.as_ref().and_then(|status| status.injection.as_ref());
    Desired::of(&Group::check(&group).unwrap(), recorded, "localhost/k8sensus:dev")
}

#[test]
fn every_changed_field_of_the_operator_is_restored() {
    let (cluster, direct) = (operated(), Direct::to(operated()));
    type Child = fn(Desired) -> Value;
    let walks: [(&str, Child); 5] = [
        ("deployments", |desired| desired.deployment),
        ("serviceaccounts", |desired| desired.service_account.unwrap()),
        ("roles", |desired| desired.role),
        ("rolebindings", |desired| desired.role_binding),
        ("poddisruptionbudgets", |desired| desired.disruption_budget.unwrap()),
    ];
    let mut refused = Vec::new();
    thread::scope(|scope| {
        let walks = walks.map(|(plural, of)| {
            let direct = &direct;
            scope.spawn(move || {
                let ns = namespace(cluster, &format!("walked-{plural}"));
                direct.create(&ns, "electiongroups", &rich());
                wait_for_own_children(direct, &ns, 20);
                // Otherwise each edit would start a rollout. The operator does not set that field.
                direct.merge(&ns, "deployments", "kestrel", &json!({ "spec": { "paused": true } }));
                let start = Instant::now();
                let (undone, refused) = walk(direct, &ns, plural, &of(desired(direct, &ns)));
                println!("{plural}: {undone} edits undone in {:?}, {} refused", start.elapsed(), refused.len());
                assert_eq!(direct.get(&ns, "deployments", "kestrel").unwrap()["spec"]["paused"], true);
                (plural, undone, refused)
            })
        });
        for walk in walks {
            let (plural, undone, of_it) = walk.join().unwrap();
            let least = if plural == "deployments" { 150 } else { 10 };
            assert!(undone >= least, "{plural}: only {undone} edits were possible, refused: {of_it:#?}");
            refused.extend(of_it.into_iter().map(|edit| format!("{plural}: {edit}")));
        }
    });
    println!("refused: {refused:#?}");
}

#[test]
fn foreign_additions_survive_a_restart() {
    let (cluster, direct) = (shared(), Direct::to(shared()));
    let ns = namespace(cluster, "added");
    let lease = format!("{ns}-operator");
    let operator = || {
        let operator = operator_for(&ns, &lease, cluster.kubeconfig(), ANYWHERE);
        operator.wait_for("starting to reconcile", SOON);
        operator
    };
    let first = operator();
    direct.create(&ns, "electiongroups", &rich());
    wait_for_own_children(&direct, &ns, 20);
    let container = "/spec/template/spec/containers/0";
    let sidecar = json!({ "name": "sidecar", "image": "registry.example/sidecar:1" });
    let added = [
        json!({ "op": "add", "path": "/spec/paused", "value": true }),
        json!({ "op": "add", "path": "/spec/template/spec/containers/-", "value": sidecar }),
        json!({ "op": "add", "path": "/spec/template/spec/hostAliases", "value": [{ "ip": "10.0.0.1", "hostnames": ["x"] }] }),
        json!({ "op": "add", "path": format!("{container}/env/-"), "value": { "name": "COLOUR", "value": "red" } }),
        json!({ "op": "add", "path": format!("{container}/workingDir"), "value": "/tmp" }),
    ];
    direct.patch(&ns, "deployments", "kestrel", &json!(added)).unwrap();
    let pulls = json!({ "imagePullSecrets": [{ "name": "registry" }], "automountServiceAccountToken": true });
    direct.merge(&ns, "serviceaccounts", "kestrel", &pulls);
    let minimal =
        json!({ "metadata": { "labels": { "colour": "red" }, "annotations": { "example.com/colour": "red" } } });
    for plural in PLURALS {
        direct.merge(&ns, plural, "kestrel", &minimal);
    }
    // The Deployment controller writes its status.
    thread::sleep(Duration::from_secs(2));
    let versions = || PLURALS.map(|plural| version(&direct, &ns, plural));
    let (before, start) = (versions(), audit_position(cluster));
    thread::sleep(Duration::from_secs(3));
    assert_eq!(versions(), before);
    drop(first);
    direct.delete("default", "leases", &lease);
    let _second = operator();
    direct.merge(&ns, "electiongroups", "kestrel", &json!({ "metadata": { "labels": { "colour": "blue" } } }));
    thread::sleep(Duration::from_secs(3));
    assert_eq!(versions(), before);
    let writes = writes_since(cluster, start, |event| {
        let object = &event["objectRef"];
        object["namespace"] == ns.as_str() && PLURALS.iter().any(|plural| object["resource"] == *plural)
    });
    assert_eq!(writes, Vec::<String>::new());
    let deployment = direct.get(&ns, "deployments", "kestrel").unwrap();
    assert_eq!(deployment["spec"]["template"]["spec"]["containers"][1]["name"], "sidecar", "{deployment}");
    assert_eq!(deployment["metadata"]["labels"]["colour"], "red");
    // The operator's fields are still restored.
    direct.merge(&ns, "deployments", "kestrel", &json!({ "spec": { "replicas": 5 } }));
    within(10, "the replicas", || (direct.get(&ns, "deployments", "kestrel")?["spec"]["replicas"] == 2).then_some(()));
    let deployment = direct.get(&ns, "deployments", "kestrel").unwrap();
    assert_eq!(deployment["spec"]["template"]["spec"]["containers"][1]["name"], "sidecar", "{deployment}");
}
