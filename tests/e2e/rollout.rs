//! Rollouts, drains and scale-downs: leadership moves once, and never to a program that does not work.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::images::{BUSYBOX, load};
use super::{holder, namespace, node, ready};
use crate::support::{apply, condition, get, group, kubectl, within};

/// A program that prints its version, polls whether it leads, and ends on SIGTERM.
const WORKER: &str = "echo working as $VERSION; trap 'echo stopping; exit 0' TERM; \
                      while :; do wget -qO /dev/null http://localhost:4040/; sleep 0.2 & wait $!; done";

/// Returns a group whose program is `script`, of version `version`; `container` and `spec` are added.
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
    // With the default lease: a rollout must move the leader once, also on a busy machine.
    fields.retain(|field, _| !["image", "command", "election"].contains(&field.as_str()));
    fields.extend(spec.as_object().unwrap().clone());
    group
}

fn group_of(ns: &str) -> Value {
    get(node(), ns, "electiongroup/kestrel").unwrap()
}

/// Returns the version of a pod.
fn version(pod: &Value) -> Option<&str> {
    let app = pod["spec"]["containers"].as_array()?.iter().find(|container| container["name"] == "app")?;
    app["env"].as_array()?.iter().find(|variable| variable["name"] == "VERSION")?["value"].as_str()
}

/// Returns the version of the leader that the status of `group` names.
fn leading_version(ns: &str, group: &Value) -> Option<String> {
    let holder = group["status"]["holderIdentity"].as_str()?;
    version(&get(node(), ns, &format!("pod/{holder}"))?).map(str::to_owned)
}

fn transitions(group: &Value) -> i64 {
    group["status"]["leaseTransitions"].as_i64().unwrap()
}

fn rolled_out(ns: &str, version: &str, replicas: i64) -> Value {
    within(120, &format!("{replicas} pods of {version} and no others"), || {
        let group = get(node(), ns, "electiongroup/kestrel")?;
        let status = &group["status"];
        let all = ["replicas", "updatedReplicas", "readyReplicas"].iter().all(|field| status[field] == replicas);
        let is_settled = condition(&group, "Reconciling").is_empty() && condition(&group, "Ready").starts_with("True");
        (all && is_settled && leading_version(ns, &group).as_deref() == Some(version)).then_some(group)
    })
}

#[test]
fn rollout_of_five_pods_moves_the_leader_once() {
    load(BUSYBOX);
    for mode in ["Exec", "Sidecar"] {
        let ns = namespace("rollout");
        let group = |version| worker(mode, version, WORKER, json!({}), json!({ "replicas": 5 }));
        apply(node(), &ns, &group("one")).unwrap();
        let before = transitions(&rolled_out(&ns, "one", 5));
        let start = Instant::now();
        for (round, version) in (1..).zip(["two", "three"]) {
            apply(node(), &ns, &group(version)).unwrap();
            let after = rolled_out(&ns, version, 5);
            let moves = transitions(&after) - before;
            println!("{mode}: {moves} leader moves in {round} rollouts of 5, {:.1} s", start.elapsed().as_secs_f64());
            assert_eq!(moves, round, "{}", after["status"]);
            assert_eq!(after["status"]["history"][0]["reason"], "Rollout");
        }
    }
}

#[test]
fn broken_exec_revision_never_replaces_a_working_leader() {
    broken_revisions("Exec");
}

#[test]
fn broken_sidecar_revision_never_replaces_a_working_leader() {
    broken_revisions("Sidecar");
}

/// A revision that does not work, and the expected outcome in one mode.
struct Broken {
    what: &'static str,
    script: &'static str,
    container: Value,
    /// A fragment of the container's status as the kubelet reports it.
    kubelet: &'static str,
    /// The possible fragments of condition Stalled if the revision may lead, in vain.
    led: &'static [&'static str],
    /// The fragment of condition Reconciling if the leader may stay.
    waits: Option<&'static str>,
}

/// Returns the broken revisions. With a sidecar a program runs on standbys, too: a program that cannot run shows there
/// already and never leads.
fn revisions_in(mode: &str) -> [Broken; 5] {
    // A short term may start and end between two reconciles.
    const ENDED: &[&str] =
        &["led and its program ended", "was asked to lead, and its program ended", "ended while it led"];
    let beside = mode == "Sidecar";
    let broken = |what, script, kubelet| Broken { what, script, container: json!({}), kubelet, led: &[], waits: None };
    let never = json!({ "readinessProbe": { "exec": { "command": ["false"] }, "periodSeconds": 1 } });
    let waits = "waits for one of its pods to become ready to lead";
    [
        // The kubelet may never have observed the program running: then the revision never leads.
        Broken { led: ENDED, waits: beside.then_some("code 3"), ..broken("ends at once", "exit 3", "\"exitCode\":3") },
        Broken {
            led: ENDED,
            ..broken("ends soon", "wget -qO /dev/null http://localhost:4040/; sleep 1; exit 4", "\"exitCode\":4")
        },
        Broken {
            container: never,
            led: if beside { &[] } else { &["not ready"] },
            waits: beside.then_some(waits),
            // In mode Exec a standby has its own probe and is ready.
            ..broken("never ready", WORKER, if beside { "\"ready\":false" } else { "\"restartCount\":0" })
        },
        Broken {
            container: json!({ "command": ["/no/such/program"] }),
            led: if beside { &[] } else { ENDED },
            waits: beside.then_some("/no/such/program"),
            ..broken("no such program", "", "/no/such/program")
        },
        Broken {
            container: json!({ "image": "localhost/nobody/has:this" }),
            waits: Some("ImagePull"),
            ..broken("no such image", WORKER, "ImagePull")
        },
    ]
}

impl Broken {
    /// Returns how often leadership must have moved given the conditions of `group`; `None` if no expected one is
    /// there.
    fn moves(&self, group: &Value) -> Option<i64> {
        let conditions = group["status"]["conditions"].as_array()?;
        let message = |kind: &str| {
            let found = conditions.iter().find(|condition| condition["type"] == kind);
            found.and_then(|condition| condition["message"].as_str()).unwrap_or_default()
        };
        let (stalled, reconciling) = (message("Stalled"), message("Reconciling"));
        let failed = condition(group, "Stalled") == "True/RevisionFailed";
        let waits = reconciling.contains("waits for one of its pods to become ready to lead");
        if failed && self.led.iter().any(|fragment| stalled.contains(fragment)) {
            Some(2)
        } else if waits && self.waits.is_some_and(|fragment| reconciling.contains(fragment)) {
            Some(0)
        } else {
            None
        }
    }

    /// Returns whether the kubelet reports the expected status for a pod of this revision.
    fn is_reported_by_kubelet(&self, ns: &str) -> bool {
        let pods = get(node(), ns, "pods").unwrap_or_default();
        pods["items"].as_array().into_iter().flatten().filter(|pod| version(pod) == Some("bad")).any(|pod| {
            let containers = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
            containers.filter(|container| container["name"] == "app").any(|app| app.to_string().contains(self.kubelet))
        })
    }
}

fn broken_revisions(mode: &str) {
    load(BUSYBOX);
    for broken in revisions_in(mode) {
        let what = format!("{mode}, {}", broken.what);
        let ns = namespace("broken");
        apply(node(), &ns, &worker(mode, "good", WORKER, json!({}), json!({}))).unwrap();
        let before = transitions(&rolled_out(&ns, "good", 2));
        apply(node(), &ns, &worker(mode, "bad", broken.script, broken.container.clone(), json!({}))).unwrap();
        // The conditions have an expected message, and the former revision leads.
        let verdict = || {
            let group = group_of(&ns);
            let moves = broken.moves(&group)?;
            (leading_version(&ns, &group)? == "good").then_some((moves, group))
        };
        let (moves, group) = within(90, &format!("a verdict on a revision: {what}"), verdict);
        println!("{what}: {}", group["status"]["conditions"]);
        within(30, &format!("the kubelet's report: {what}"), || broken.is_reported_by_kubelet(&ns).then_some(()));
        // The outcome is stable. A revision that may lead but has not yet may still do so.
        let until = Instant::now() + Duration::from_secs(8);
        while Instant::now() < until {
            if let Some(version) = leading_version(&ns, &group_of(&ns)) {
                assert!(version == "good" || (moves == 0 && !broken.led.is_empty()), "{what}: {version} leads");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let (expected, group) = within(30, &format!("a stable verdict: {what}"), verdict);
        let moves = transitions(&group) - before;
        println!("{what}: {moves} leader moves");
        assert_eq!(moves, expected, "{}", group["status"]);
        // A fixed revision is rolled out.
        apply(node(), &ns, &worker(mode, "fixed", WORKER, json!({}), json!({}))).unwrap();
        rolled_out(&ns, "fixed", 2);
    }
}

#[test]
fn drain_hands_over_before_the_pod_is_gone() {
    load(BUSYBOX);
    for mode in ["Exec", "Sidecar"] {
        let ns = namespace("drain");
        let slow = "trap 'sleep 3; exit 0' TERM; \
                    while :; do wget -qO /dev/null http://localhost:4040/; sleep 0.2 & wait $!; done";
        apply(node(), &ns, &worker(mode, "one", slow, json!({}), json!({ "replicas": 3 }))).unwrap();
        let leader = holder(&rolled_out(&ns, "one", 3));
        let path = format!("/api/v1/namespaces/{ns}/pods/{leader}/eviction");
        let metadata = json!({ "name": leader, "namespace": ns.name });
        let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata });
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), eviction.to_string()).unwrap();
        kubectl(node(), &["create", "--raw", &path, "-f", file.path().to_str().unwrap()]);
        within(60, "a successor", || {
            let lease = get(node(), &ns, "lease/kestrel")?;
            let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
            (!holder.is_empty() && holder != leader).then_some(())
        });
        let old = get(node(), &ns, &format!("pod/{leader}"));
        let group = ready(&ns, "kestrel", &[&leader]);
        if mode == "Exec" {
            // The candidate releases the Lease as its last act, so the pod may be gone right afterwards.
            assert_eq!(group["status"]["history"][0]["reason"], "LeaseReleased");
        } else {
            assert!(old.is_some(), "the successor led only after the pod was gone");
            assert_eq!(group["status"]["history"][0]["reason"], "Draining");
        }
    }
}

#[test]
fn scale_down_keeps_the_leader() {
    load(BUSYBOX);
    let ns = namespace("down");
    apply(node(), &ns, &worker("Exec", "one", WORKER, json!({}), json!({ "replicas": 4 }))).unwrap();
    let mut leader = holder(&rolled_out(&ns, "one", 4));
    for round in 0..3 {
        // The annotations of the pods decide which are deleted first.
        within(30, "a deletion cost on the leader's pod alone", || {
            let pods = get(node(), &ns, "pods")?["items"].as_array()?.clone();
            let cost = "controller.kubernetes.io/pod-deletion-cost";
            let costly: Vec<_> = pods.iter().filter(|pod| !pod["metadata"]["annotations"][cost].is_null()).collect();
            (costly.len() == 1 && costly[0]["metadata"]["name"] == leader).then_some(())
        });
        kubectl(node(), &["scale", "-n", &ns, "electiongroup/kestrel", "--replicas=1"]);
        assert_eq!(holder(&rolled_out(&ns, "one", 1)), leader, "round {round}");
        kubectl(node(), &["scale", "-n", &ns, "electiongroup/kestrel", "--replicas=4"]);
        assert_eq!(holder(&rolled_out(&ns, "one", 4)), leader, "round {round}");
        // Another pod leads next, so that the leader is not always the oldest pod.
        let at = format!("k8sensus.dev/step-down-requested-at=round-{round}");
        kubectl(node(), &["annotate", "--overwrite", "-n", &ns, "electiongroup/kestrel", &at]);
        ready(&ns, "kestrel", &[&leader]);
        leader = holder(&rolled_out(&ns, "one", 4));
    }
}
