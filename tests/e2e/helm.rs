//! A user's chart that contains a group: `helm --wait` waits until the group is ready. And `helm test` of our own chart.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{SYSTEM, namespace, node, sample};
use crate::support::{condition, get, kubectl};

/// Writes a chart whose only object is `group`.
fn chart(group: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("templates")).unwrap();
    write(folder.path(), group);
    folder
}

fn write(folder: &Path, group: &Value) {
    let metadata = json!({ "apiVersion": "v2", "name": "birds", "version": "0.1.0" });
    std::fs::write(folder.join("Chart.yaml"), metadata.to_string()).unwrap();
    std::fs::write(folder.join("templates/group.yaml"), group.to_string()).unwrap();
}

fn helm(ns: &str, verb: &str, chart: &Path, timeout: &str) -> Output {
    let mut helm: Command = node().helm().unwrap();
    helm.args([verb, "birds"]).arg(chart).args(["--namespace", ns, "--wait", "--timeout", timeout]).output().unwrap()
}

fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn group(ns: &str) -> Value {
    get(node(), ns, "electiongroup/kestrel").unwrap()
}

#[test]
fn helm_wait_covers_leader_and_pods_after_each_change() {
    let ns = namespace("helm");
    let mut wanted = sample("kestrel", json!({}));
    let chart = chart(&wanted);
    succeeds(&helm(&ns, "install", chart.path(), "90s"));
    let installed = group(&ns);
    assert_eq!(condition(&installed, "Ready"), "True/LeaderElected");
    assert_eq!(installed["status"]["readyReplicas"], 2);

    wanted["spec"]["replicas"] = json!(3);
    write(chart.path(), &wanted);
    succeeds(&helm(&ns, "upgrade", chart.path(), "90s"));
    assert_eq!(group(&ns)["status"]["readyReplicas"], 3);

    // A new template: Helm waits until the last pod of the former template is gone.
    wanted["spec"]["candidate"] = json!({ "resources": { "requests": { "cpu": "1m" } } });
    write(chart.path(), &wanted);
    let former = group(&ns)["status"]["leader"]["podTemplateHash"].clone();
    succeeds(&helm(&ns, "upgrade", chart.path(), "120s"));
    let upgraded = group(&ns);
    assert_eq!(condition(&upgraded, "Ready"), "True/LeaderElected");
    let pods = get(node(), &ns, "pods").unwrap();
    let pods = pods["items"].as_array().unwrap();
    let current = pods.iter().filter(|pod| {
        pod["metadata"]["deletionTimestamp"].is_null() && pod["metadata"]["labels"]["pod-template-hash"] != former
    });
    assert_eq!(current.count(), 3, "some pods are not of the newest revision: {pods:?}");
}

#[test]
fn helm_wait_fails_if_the_pods_never_become_ready() {
    let ns = namespace("helm-never");
    let chart = chart(&sample("kestrel", json!({ "image": "localhost/no-such-image:1" })));
    let output = helm(&ns, "install", chart.path(), "8s");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "helm calls it installed: {}", String::from_utf8_lossy(&output.stdout));
    assert!(error.contains("kestrel") && error.contains("InProgress"), "{error}");
}

#[test]
fn helm_wait_fails_immediately_for_a_stalled_group() {
    let ns = namespace("helm-stalled");
    let chart = chart(&sample("kestrel", crate::support::unusable()));
    let start = Instant::now();
    let output = helm(&ns, "install", chart.path(), "120s");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "helm calls it installed: {}", String::from_utf8_lossy(&output.stdout));
    assert!(error.contains("Failed") && error.contains("leaderService"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(30), "after {:?}: {error}", start.elapsed());
}

#[test]
fn helm_test_succeeds_while_an_operator_leads_and_leaves_nothing() {
    let mut helm = node().helm().unwrap();
    let output =
        helm.args(["test", "k8sensus", "--namespace", SYSTEM, "--logs", "--timeout", "150s"]).output().unwrap();
    succeeds(&output);
    let logs = String::from_utf8_lossy(&output.stdout);
    assert!(logs.contains("holder k8sensus-operator-"), "{logs}");
    let of_test = ["--namespace", SYSTEM, "--selector=app.kubernetes.io/component=test", "--output=name"];
    let left = kubectl(node(), &[&["get", "pods,serviceaccounts,roles,rolebindings"][..], &of_test].concat());
    assert!(left.is_empty(), "{left}");
}
