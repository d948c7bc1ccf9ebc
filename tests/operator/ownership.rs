//! Only the uid of an object's controller shows its owner. The operator never writes an object of another owner.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::crashes::PLURALS;
use crate::support::objects::Direct;
use crate::support::{condition, group, kubectl, namespace, operated, within};

/// No event shows an operator that a foreign object is gone: it checks every ten seconds. In seconds, with some
/// tolerance.
const CHECKED_AGAIN: u64 = 20;

fn rbac(kind: &str) -> Value {
    json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": { "name": "kestrel" } })
}

fn with(mut object: Value, more: Value) -> Value {
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}

/// Returns a foreign object of each kind with the group's name. `owner` is that of the Lease.
fn foreign(plural: &str, owner: &Value) -> (&'static str, Value) {
    let selector = json!({ "matchLabels": { "app": "heron" } });
    let named =
        |version: &str, kind: &str| json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "kestrel" } });
    match plural {
        "deployments" => {
            let pod = json!({
                "metadata": { "labels": { "app": "heron" } },
                "spec": { "containers": [{ "name": "heron", "image": "registry.example/heron:1" }] },
            });
            let spec = json!({ "replicas": 0, "selector": selector, "template": pod });
            ("Deployment", with(named("apps/v1", "Deployment"), json!({ "spec": spec })))
        }
        "serviceaccounts" => ("ServiceAccount", named("v1", "ServiceAccount")),
        "roles" => {
            let rule = json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] });
            ("Role", with(rbac("Role"), json!({ "rules": [rule] })))
        }
        "rolebindings" => {
            let to = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "heron" });
            ("RoleBinding", with(rbac("RoleBinding"), json!({ "roleRef": to })))
        }
        "poddisruptionbudgets" => {
            let spec = json!({ "spec": { "minAvailable": 1, "selector": selector } });
            ("PodDisruptionBudget", with(named("policy/v1", "PodDisruptionBudget"), spec))
        }
        _ => {
            let mut lease = named("coordination.k8s.io/v1", "Lease");
            lease["metadata"]["ownerReferences"] = json!([owner]);
            ("Lease", with(lease, json!({ "spec": { "holderIdentity": "heron", "leaseDurationSeconds": 15 } })))
        }
    }
}

/// Creates a ConfigMap that owns an object, and returns the owner reference.
fn keeper(direct: &Direct, ns: &str, is_controller: bool) -> Value {
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "keeper" } });
    let uid = direct.create(ns, "configmaps", &map)["metadata"]["uid"].clone();
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "keeper", "uid": uid, "controller": is_controller })
}

pub(super) fn version(direct: &Direct, ns: &str, plural: &str) -> Value {
    let found = direct.get(ns, plural, "kestrel").unwrap_or_default();
    json!([found["metadata"]["uid"], found["metadata"]["resourceVersion"]])
}

fn in_conflict(direct: &Direct, ns: &str, words: &[&str]) {
    let message = within(CHECKED_AGAIN, &format!("the conflict in {ns}: {words:?}"), || {
        let group = direct.get(ns, "electiongroups", "kestrel")?;
        let stalled = condition(&group, "Stalled") == "True/Conflict" && condition(&group, "Ready") == "False/Conflict";
        let message = group["status"]["conditions"][0]["message"].as_str()?.to_owned();
        (stalled && message.contains(words[0])).then_some(message)
    });
    for word in words.iter().chain(&["delete or rename it, or rename the group"]) {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

/// Waits until the present group controls all children.
pub(super) fn wait_for_own_children(direct: &Direct, ns: &str, seconds: u64) {
    within(seconds, &format!("all children of the group in {ns}"), || {
        let group = direct.get(ns, "electiongroups", "kestrel")?;
        let owned = |plural: &&str| {
            let child = direct.get(ns, plural, "kestrel").unwrap_or_default();
            let owners = child["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            let ours = |owner: &&Value| owner["uid"] == group["metadata"]["uid"];
            let ours: Vec<&Value> = owners.iter().filter(ours).collect();
            child["metadata"]["deletionTimestamp"].is_null() && ours.len() == 1 && ours[0]["controller"] == true
        };
        (PLURALS.iter().all(owned) && condition(&group, "Stalled").is_empty()).then_some(())
    });
}

#[test]
fn foreign_object_of_any_kind_is_a_conflict_until_it_is_deleted() {
    let (cluster, direct) = (operated(), Direct::to(operated()));
    let cases: Vec<_> = PLURALS
        .iter()
        .map(|plural| {
            let ns = namespace(cluster, &format!("foreign-{plural}"));
            let owner = if *plural == "leases" { keeper(&direct, &ns, true) } else { Value::Null };
            let (kind, object) = foreign(plural, &owner);
            direct.create(&ns, plural, &object);
            (ns, *plural, kind)
        })
        .collect();
    let versions = || cases.iter().map(|(ns, plural, _)| version(&direct, ns, plural)).collect::<Vec<Value>>();
    let (mut before, mut since) = (versions(), Instant::now());
    within(40, "their own controllers to write their status", || {
        let unseen = cases.iter().filter(|(_, plural, _)| ["deployments", "poddisruptionbudgets"].contains(plural));
        let mut unseen = unseen.filter_map(|(ns, plural, _)| direct.get(ns, plural, "kestrel"));
        let is_unseen = unseen.any(|found| found["status"]["observedGeneration"].is_null());
        let now = versions();
        if is_unseen || now != before {
            (before, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_secs(3)).then_some(())
    });
    for (ns, ..) in &cases {
        direct.create(ns, "electiongroups", &group("kestrel", json!({})));
    }
    for (ns, plural, kind) in &cases {
        let what = format!("{kind} {ns}/kestrel exists and is not this group's");
        let whose = if *plural == "leases" { "controlled by ConfigMap keeper, uid " } else { "it has no controller" };
        in_conflict(&direct, ns, &[&what, whose]);
    }
    thread::sleep(Duration::from_secs(1));
    for ((ns, plural, _), before) in cases.iter().zip(&before) {
        assert_eq!(version(&direct, ns, plural), *before, "foreign {plural}");
        direct.delete(ns, plural, "kestrel");
    }
    for (ns, ..) in &cases {
        wait_for_own_children(&direct, ns, CHECKED_AGAIN);
    }
}

#[test]
fn children_of_a_former_group_do_not_belong_to_its_successor() {
    let (cluster, direct) = (operated(), Direct::to(operated()));
    let ns = namespace(cluster, "orphaned");
    let former = direct.create(&ns, "electiongroups", &group("kestrel", json!({})));
    wait_for_own_children(&direct, &ns, 20);
    kubectl(cluster, &["delete", "-n", &ns, "electiongroup/kestrel", "--cascade=orphan", "--wait=false"]);
    within(90, "the end of the group", || direct.get(&ns, "electiongroups", "kestrel").is_none().then_some(()));
    for plural in PLURALS {
        let orphan = direct.get(&ns, plural, "kestrel").unwrap();
        assert!(orphan["metadata"]["ownerReferences"].is_null(), "{orphan}");
    }
    let in_turn = [
        ("serviceaccounts", "ServiceAccount"),
        ("roles", "Role"),
        ("rolebindings", "RoleBinding"),
        ("deployments", "Deployment"),
        ("poddisruptionbudgets", "PodDisruptionBudget"),
    ];
    let before: Vec<Value> = in_turn.iter().map(|(plural, _)| version(&direct, &ns, plural)).collect();
    let made = direct.create(&ns, "electiongroups", &group("kestrel", json!({})));
    assert_ne!(made["metadata"]["uid"], former["metadata"]["uid"]);
    for ((plural, kind), before) in in_turn.iter().zip(&before) {
        in_conflict(&direct, &ns, &[&format!("{kind} {ns}/kestrel exists"), "it has no controller"]);
        if !["deployments", "poddisruptionbudgets"].contains(plural) {
            // The controllers of those two continue to write their status.
            assert_eq!(version(&direct, &ns, plural), *before, "{plural} of the former group");
        }
        direct.delete(&ns, plural, "kestrel");
    }
    wait_for_own_children(&direct, &ns, CHECKED_AGAIN);
}

#[test]
fn only_the_group_as_controller_counts_as_owner() {
    let (cluster, direct) = (operated(), Direct::to(operated()));
    let prepared = |name: &str, plural: &'static str, owners: &dyn Fn(&str, &Value) -> Vec<Value>| {
        let ns = namespace(cluster, name);
        let made = direct.create(&ns, "electiongroups", &group("kestrel", json!({ "paused": true })));
        let mut object = foreign(plural, &Value::Null).1;
        object["metadata"]["ownerReferences"] = json!(owners(&ns, &made["metadata"]["uid"]));
        // The finalizer keeps the garbage collector from ending the test early.
        object["metadata"]["finalizers"] = json!(["example.com/kept"]);
        direct.create(&ns, plural, &object);
        direct.merge(&ns, "electiongroups", "kestrel", &json!({ "spec": { "paused": false } }));
        ns
    };
    let ours = |uid: &Value, is_controller: bool| {
        json!({
            "apiVersion": "k8sensus.dev/v1alpha1", "kind": "ElectionGroup", "name": "kestrel",
            "uid": uid, "controller": is_controller,
        })
    };
    let forged = json!("11111111-2222-4333-8444-555555555555");
    let stranger = |_: &str, _: &Value| vec![ours(&forged, true)];
    let bystander = |_: &str, uid: &Value| vec![ours(uid, false)];
    let second = |ns: &str, uid: &Value| vec![ours(uid, false), keeper(&direct, ns, true)];
    let first = |ns: &str, uid: &Value| vec![keeper(&direct, ns, false), ours(uid, true)];

    let by_stranger = format!("controlled by ElectionGroup kestrel, uid {}", forged.as_str().unwrap());
    let conflicts = [
        (prepared("forged-uid", "roles", &stranger), "roles", "Role", by_stranger.as_str()),
        (prepared("forged-bystander", "roles", &bystander), "roles", "Role", "it has no controller"),
        (prepared("forged-second", "roles", &second), "roles", "Role", "controlled by ConfigMap keeper, uid "),
        (prepared("forged-lease", "leases", &stranger), "leases", "Lease", by_stranger.as_str()),
        (prepared("forged-held", "leases", &second), "leases", "Lease", "controlled by ConfigMap keeper, uid "),
    ];
    let owned = prepared("forged-owned", "roles", &first);
    let adopted = prepared("forged-adopted", "leases", &bystander);

    for (ns, plural, kind, whose) in &conflicts {
        in_conflict(&direct, ns, &[&format!("{kind} {ns}/kestrel exists and is not this group's"), whose]);
        let found = direct.get(ns, plural, "kestrel").unwrap();
        let by = found["metadata"]["managedFields"].to_string();
        assert!(!by.contains("k8sensus-operator") && found["metadata"]["labels"].is_null(), "{found}");
    }
    within(10, "the rules that are ours", || {
        let rules = direct.get(&owned, "roles", "kestrel")?["rules"].clone();
        (rules[0]["resources"] == json!(["leases"])).then_some(())
    });
    let owners_of =
        |ns: &str, plural: &str| direct.get(ns, plural, "kestrel").unwrap()["metadata"]["ownerReferences"].clone();
    assert_eq!(owners_of(&owned, "roles").as_array().unwrap().len(), 2);
    wait_for_own_children(&direct, &adopted, 20);
    assert_eq!(owners_of(&adopted, "leases").as_array().unwrap().len(), 1);
    assert_eq!(direct.get(&adopted, "leases", "kestrel").unwrap()["spec"]["holderIdentity"], "heron");

    for (ns, plural, ..) in &conflicts {
        direct.delete(ns, plural, "kestrel");
        direct.merge(ns, plural, "kestrel", &json!({ "metadata": { "finalizers": null } }));
    }
    for (ns, ..) in &conflicts {
        wait_for_own_children(&direct, ns, CHECKED_AGAIN);
    }
}

#[test]
fn recreated_group_gets_its_own_children() {
    let (cluster, direct) = (operated(), Direct::to(operated()));
    let ns = namespace(cluster, "again");
    let make = || direct.create(&ns, "electiongroups", &group("kestrel", json!({})));
    make();
    // Each time at another step of the reconcile.
    for pause in [0, 5, 20, 40, 80, 160, 320] {
        thread::sleep(Duration::from_millis(pause));
        direct.delete(&ns, "electiongroups", "kestrel");
        make();
    }
    // The garbage collector may need some time.
    wait_for_own_children(&direct, &ns, 90);
    thread::sleep(Duration::from_secs(3));
    wait_for_own_children(&direct, &ns, 1);
}
