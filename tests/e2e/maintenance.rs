//! Maintenance of a running group: evicting its pods, suspending it, pausing it, recreating its pods.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use super::{holder, logs, namespace, node, ready, sample};
use crate::support::{apply, condition, get, kubectl, within};

const GROUP: &str = "electiongroup/kestrel";

fn patch(ns: &str, spec: Value) {
    let patch = json!({ "spec": spec }).to_string();
    kubectl(node(), &["patch", "-n", ns, GROUP, "--type=merge", "-p", &patch]);
}

/// Returns all pods, including those that are being deleted.
fn pods(ns: &str) -> Vec<Value> {
    get(node(), ns, "pods").map(|list| list["items"].as_array().unwrap().clone()).unwrap_or_default()
}

fn names(ns: &str) -> Vec<String> {
    let pods = pods(ns);
    let alive = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    alive.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Evicts a pod as `kubectl drain` does; returns the API server's message if it refuses.
pub(super) fn evict(ns: &str, pod: &str) -> Result<(), String> {
    let eviction =
        json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": pod, "namespace": ns } });
    let path = format!("/api/v1/namespaces/{ns}/pods/{pod}/eviction");
    let mut command = node().kubectl();
    command.args(["create", "--raw", &path, "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(eviction.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn evictions_go_one_pod_at_a_time_and_hand_over_leadership() {
    let ns = namespace("evicted");
    apply(node(), &ns, &sample("kestrel", json!({ "replicas": 3 }))).unwrap();
    let leader = holder(&ready(&ns, "kestrel", &[]));
    let wait_for_budget = || {
        within(60, "the budget to allow an eviction", || {
            (get(node(), &ns, "pdb/kestrel")?["status"]["disruptionsAllowed"] == 1).then_some(())
        });
    };
    wait_for_budget();
    let standbys: Vec<String> = names(&ns).into_iter().filter(|pod| *pod != leader).collect();
    evict(&ns, &leader).unwrap();
    let refused = evict(&ns, &standbys[0]).expect_err("the budget of one was spent on the leader");
    assert!(refused.contains("disruption budget"), "{refused}");
    // Any standby may lead: the replacement may be up before the kubelet signals the evicted pod.
    let group = ready(&ns, "kestrel", &[&leader]);
    let second = holder(&group);
    let gap = group["status"]["history"][0]["leaderlessSeconds"].as_f64();
    assert!(gap.is_some_and(|gap| gap < 2.0), "no leader for {gap:?} s: {}", group["status"]);
    wait_for_budget();
    let standby = names(&ns).into_iter().find(|pod| *pod != second).unwrap();
    evict(&ns, &standby).unwrap();
    wait_for_budget();
    let group = ready(&ns, "kestrel", &[]);
    assert_eq!(holder(&group), second, "a standby's eviction moved the leader");
    assert_eq!(group["status"]["leaseTransitions"], 2);
}

#[test]
fn suspended_group_has_no_pods_and_resumes_with_a_higher_token() {
    let ns = namespace("suspended");
    apply(node(), &ns, &sample("kestrel", json!({}))).unwrap();
    ready(&ns, "kestrel", &[]);
    patch(&ns, json!({ "suspend": true }));
    // All of them: a pod without its SIGTERM could lead as soon as the group resumes.
    within(60, "the pods to end", || pods(&ns).is_empty().then_some(()));
    within(30, "the status to show the suspension", || {
        let group = get(node(), &ns, GROUP)?;
        let is_suspended = ["Ready", "LeaderElected"].iter().all(|kind| condition(&group, kind) == "False/Suspended");
        (is_suspended && group["status"]["replicas"] == 0 && group["status"]["holderIdentity"].is_null()).then_some(())
    });
    let lease = within(30, "the Lease to be released", || {
        get(node(), &ns, "lease/kestrel").filter(|lease| lease["spec"]["holderIdentity"] == "")
    });
    assert_eq!(lease["spec"]["leaseTransitions"], 1);
    patch(&ns, json!({ "suspend": false }));
    let group = ready(&ns, "kestrel", &[]);
    assert_eq!(group["status"]["leaseTransitions"], 2);
    assert_eq!(group["status"]["readyReplicas"], 2);
}

#[test]
fn paused_group_keeps_its_pods_and_updates_its_status() {
    let ns = namespace("paused");
    apply(node(), &ns, &sample("kestrel", json!({}))).unwrap();
    let first = holder(&ready(&ns, "kestrel", &[]));
    patch(&ns, json!({ "paused": true, "replicas": 3 }));
    within(30, "the operator to observe the change", || {
        let group = get(node(), &ns, GROUP)?;
        (group["status"]["observedGeneration"] == group["metadata"]["generation"]).then_some(())
    });
    kubectl(node(), &["delete", "-n", &ns, "pod", &first, "--wait=false"]);
    within(60, "the status to name the successor", || {
        let status = get(node(), &ns, GROUP)?["status"].clone();
        (status["leaseTransitions"] == 2 && status["holderIdentity"] != first && status["readyReplicas"] == 2)
            .then_some(())
    });
    assert_eq!(get(node(), &ns, "deployment/kestrel").unwrap()["spec"]["replicas"], 2);
    patch(&ns, json!({ "paused": false }));
    within(60, "the third pod", || (get(node(), &ns, GROUP)?["status"]["readyReplicas"] == 3).then_some(()));
}

#[test]
fn recreate_ends_the_old_pods_before_starting_new_ones() {
    let ns = namespace("recreated");
    apply(node(), &ns, &sample("kestrel", json!({ "strategy": { "type": "Recreate" } }))).unwrap();
    let first = holder(&ready(&ns, "kestrel", &[]));
    let former = names(&ns);
    patch(&ns, json!({ "candidate": { "resources": { "requests": { "cpu": "1m" } } } }));
    within(60, "the new pods", || {
        let now = names(&ns);
        let old = now.iter().filter(|pod| former.contains(pod)).count();
        assert!(old == 0 || old == now.len(), "old and new pods at the same time: {now:?}");
        (old == 0 && now.len() == 2).then_some(())
    });
    let group = ready(&ns, "kestrel", &[&first]);
    assert!(!former.contains(&holder(&group)));
    // Or 3: a standby without its SIGTERM may lead for a moment.
    assert!(group["status"]["leaseTransitions"].as_i64() >= Some(2));
    assert!(logs(&ns, &holder(&group)).contains("k8sensus is running sample task."));
}
