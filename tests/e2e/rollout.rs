//! New revisions, drains and scale-downs: leadership moves once, and never to a program that does not work.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::images::{BUSYBOX, load};
use super::{holder, node, ready};
use crate::support::{apply, condition, get, group, kubectl, namespace, within};

/// A program that says which version it is, and ends when it is told to.
const WORKER: &str =
    "echo working as $VERSION; trap 'echo stopping; exit 0' TERM; while :; do sleep 0.2 & wait $!; done";

/// A group whose program is `script`, of version `version`; `container` and `spec` are added.
fn worker(mode: &str, version: &str, script: &str, container: Value, spec: Value) -> Value {
    let mut app = json!({
        "name": "app", "image": BUSYBOX, "command": ["/bin/sh", "-c", script], "env": [{ "name": "VERSION", "value": version }],
    });
    app.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    let mut group = group(
        "kestrel",
        json!({
            "candidate": { "mode": mode, "unhealthyTimeoutSeconds": 8 },
            "minReadySeconds": 2,
            "template": { "spec": { "containers": [app] } },
        }),
    );
    let fields = group["spec"].as_object_mut().unwrap();
    fields.retain(|field, _| !["image", "command"].contains(&field.as_str()));
    fields.extend(spec.as_object().unwrap().clone());
    group
}

fn status(ns: &str) -> Value {
    get(node(), ns, "electiongroup/kestrel").unwrap()["status"].clone()
}

/// The version of the pod that leads.
fn leading_version(ns: &str) -> Option<String> {
    let holder = status(ns)["holderIdentity"].as_str()?.to_owned();
    let pod = get(node(), ns, &format!("pod/{holder}"))?;
    let containers = pod["spec"]["containers"].as_array()?.iter().find(|one| one["name"] == "app")?.clone();
    let version = containers["env"].as_array()?.iter().find(|one| one["name"] == "VERSION")?;
    version["value"].as_str().map(str::to_owned)
}

fn rolled_out(ns: &str, version: &str, replicas: i64) -> Value {
    within(120, &format!("{replicas} pods of {version} and no others"), || {
        let group = get(node(), ns, "electiongroup/kestrel")?;
        let status = &group["status"];
        let all = ["replicas", "updatedReplicas", "readyReplicas"].iter().all(|field| status[field] == replicas);
        let at_rest = condition(&group, "Reconciling").is_empty() && condition(&group, "Ready").starts_with("True");
        (all && at_rest && leading_version(ns).as_deref() == Some(version)).then_some(group)
    })
}

#[test]
fn a_rollout_of_five_moves_the_leader_once() {
    load(BUSYBOX);
    for mode in ["Exec", "Sidecar"] {
        let ns = namespace(node(), "rollout");
        let group = |version| worker(mode, version, WORKER, json!({}), json!({ "replicas": 5 }));
        apply(node(), &ns, &group("one")).unwrap();
        let before = rolled_out(&ns, "one", 5)["status"]["leaseTransitions"].as_i64().unwrap();
        let start = Instant::now();
        for (round, version) in (1..).zip(["two", "three"]) {
            apply(node(), &ns, &group(version)).unwrap();
            let after = rolled_out(&ns, version, 5);
            let moves = after["status"]["leaseTransitions"].as_i64().unwrap() - before;
            println!("{mode}: {moves} leader moves in {round} rollouts of 5, {:.1} s", start.elapsed().as_secs_f64());
            assert_eq!(moves, round, "{}", after["status"]);
            assert_eq!(after["status"]["history"][0]["reason"], "Rollout");
        }
        kubectl(node(), &["delete", "-n", &ns, "electiongroup/kestrel", "--wait=false"]);
    }
}

#[test]
fn in_mode_exec_a_broken_revision_never_replaces_the_working_leader() {
    broken_revisions("Exec");
}

#[test]
fn in_mode_sidecar_a_broken_revision_never_replaces_the_working_leader() {
    broken_revisions("Sidecar");
}

fn broken_revisions(mode: &str) {
    load(BUSYBOX);
    // By which mode it is led to at all: beside a sidecar a program that cannot run is seen to on a standby already.
    let cases = [
        ("ends at once", "exit 3", json!({}), ["Exec", "Sidecar"].as_slice()),
        ("ends soon", "sleep 1; exit 4", json!({}), &["Exec", "Sidecar"]),
        (
            "never ready",
            WORKER,
            json!({ "readinessProbe": { "exec": { "command": ["false"] }, "periodSeconds": 1 } }),
            &["Exec"],
        ),
        ("no such program", "", json!({ "command": ["/no/such/program"] }), &["Exec"]),
        ("no such image", WORKER, json!({ "image": "localhost/nobody/has:this" }), &[]),
    ];
    for (what, script, container, led_to) in &cases {
        let ns = namespace(node(), "broken");
        apply(node(), &ns, &worker(mode, "good", WORKER, json!({}), json!({}))).unwrap();
        let before = rolled_out(&ns, "good", 2);
        apply(node(), &ns, &worker(mode, "bad", script, container.clone(), json!({}))).unwrap();
        let told = within(90, &format!("{mode}: a verdict on a revision: {what}"), || {
            let group = get(node(), &ns, "electiongroup/kestrel")?;
            let failed = condition(&group, "Stalled") == "True/RevisionFailed";
            let waits = condition(&group, "Reconciling").starts_with("True")
                && group["status"]["conditions"].to_string().contains("waits for a pod of it");
            (if led_to.contains(&mode) { failed } else { waits }).then_some(group)
        });
        println!("{mode}, {what}: {}", told["status"]["conditions"]);
        // And it stays so.
        let until = Instant::now() + Duration::from_secs(8);
        within(30, "the former revision to lead", || (leading_version(&ns)? == "good").then_some(()));
        while Instant::now() < until {
            if let Some(version) = leading_version(&ns) {
                assert_eq!(version, "good", "{mode}, {what}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let after = status(&ns);
        let moves =
            after["leaseTransitions"].as_i64().unwrap() - before["status"]["leaseTransitions"].as_i64().unwrap();
        println!("{mode}, {what}: {moves} leader moves");
        assert_eq!(moves, if led_to.contains(&mode) { 2 } else { 0 }, "{after}");
        // The mend is rolled out.
        apply(node(), &ns, &worker(mode, "mended", WORKER, json!({}), json!({}))).unwrap();
        rolled_out(&ns, "mended", 2);
        kubectl(node(), &["delete", "-n", &ns, "electiongroup/kestrel", "--wait=false"]);
    }
}

#[test]
fn a_drain_hands_over_before_the_pod_goes() {
    load(BUSYBOX);
    for mode in ["Exec", "Sidecar"] {
        let ns = namespace(node(), "drain");
        let slow = "trap 'sleep 3; exit 0' TERM; while :; do sleep 0.2 & wait $!; done";
        apply(node(), &ns, &worker(mode, "one", slow, json!({}), json!({ "replicas": 3 }))).unwrap();
        let leader = holder(&rolled_out(&ns, "one", 3));
        let path = format!("/api/v1/namespaces/{ns}/pods/{leader}/eviction");
        let eviction =
            json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": leader, "namespace": ns } });
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), eviction.to_string()).unwrap();
        kubectl(node(), &["create", "--raw", &path, "-f", file.path().to_str().unwrap()]);
        within(60, "a successor", || {
            let lease = get(node(), &ns, "lease/kestrel")?;
            let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
            (!holder.is_empty() && holder != leader).then_some(())
        });
        let old = get(node(), &ns, &format!("pod/{leader}"));
        assert!(old.is_some(), "{mode}: the pod is gone, and only then was there a successor");
        let group = ready(&ns, "kestrel", &[&leader]);
        let reason = if mode == "Exec" { "LeaseReleased" } else { "Draining" };
        assert_eq!(group["status"]["history"][0]["reason"], reason);
        kubectl(node(), &["delete", "-n", &ns, "electiongroup/kestrel", "--wait=false"]);
    }
}

#[test]
fn a_scale_down_keeps_the_leader() {
    load(BUSYBOX);
    let ns = namespace(node(), "down");
    apply(node(), &ns, &worker("Exec", "one", WORKER, json!({}), json!({ "replicas": 4 }))).unwrap();
    let mut leader = holder(&rolled_out(&ns, "one", 4));
    for round in 0..3 {
        kubectl(node(), &["scale", "-n", &ns, "electiongroup/kestrel", "--replicas=1"]);
        assert_eq!(holder(&rolled_out(&ns, "one", 1)), leader, "round {round}");
        kubectl(node(), &["scale", "-n", &ns, "electiongroup/kestrel", "--replicas=4"]);
        assert_eq!(holder(&rolled_out(&ns, "one", 4)), leader, "round {round}");
        // Another leader, so that it is not merely the oldest pod that stays.
        let at = format!("k8sensus.dev/step-down-requested-at=round-{round}");
        kubectl(node(), &["annotate", "--overwrite", "-n", &ns, "electiongroup/kestrel", &at]);
        ready(&ns, "kestrel", &[&leader]);
        leader = holder(&rolled_out(&ns, "one", 4));
    }
}
