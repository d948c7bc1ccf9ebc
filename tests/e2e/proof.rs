//! The kubelet's own word that a leader's container has died.

use serde_json::{Value, json};

use super::{holder, kill, namespace, node, ready, sample, uid};
use crate::support::{apply, get, kubectl, within};

/// The group of the sample with a lease so long that an expiry cannot be taken for a release.
fn long(name: &str, container: Value) -> Value {
    let mut template = json!({ "name": "app", "image": k8sensus_local::IMAGE, "command": ["/k8sensus", "sample"] });
    template.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    let mut group = sample(
        name,
        json!({
            "replicas": 3,
            "election": { "leaseDurationSeconds": 60, "renewDeadlineSeconds": 40, "retryPeriodSeconds": 5 },
            "template": { "spec": { "containers": [template] } },
        }),
    );
    for field in ["image", "command"] {
        group["spec"].as_object_mut().unwrap().remove(field);
    }
    group
}

fn restricted() -> Value {
    json!({ "securityContext": {
        "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }, "readOnlyRootFilesystem": true,
        "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" },
    } })
}

fn lease(ns: &str) -> Value {
    get(node(), ns, "lease/kestrel").unwrap()
}

/// Waits until the kubelet says of an end of the pod's only container that it left `message`.
fn ended_with(ns: &str, pod: &str, message: &str) {
    within(30, &format!("the kubelet to report {message:?} of {pod}"), || {
        let status = get(node(), ns, &format!("pod/{pod}"))?["status"]["containerStatuses"][0].clone();
        ["state", "lastState"].iter().any(|state| status[state]["terminated"]["message"] == message).then_some(())
    });
}

#[test]
fn a_container_that_was_killed_hands_over_long_before_its_lease_runs_out() {
    let ns = namespace("proved");
    kubectl(node(), &["label", "namespace", &ns, "pod-security.kubernetes.io/enforce=restricted"]);
    apply(node(), &ns, &long("kestrel", restricted())).unwrap();
    let mut former = holder(&ready(&ns, "kestrel", &[]));
    for round in 1..=2 {
        let incarnation = lease(&ns)["metadata"]["annotations"]["k8sensus.dev/incarnation"].clone();
        let start = kill(&ns, &former);
        let after = within(30, "a successor", || {
            Some(lease(&ns)).filter(|lease| {
                let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
                !holder.is_empty() && lease["metadata"]["annotations"]["k8sensus.dev/incarnation"] != incarnation
            })
        });
        println!("SIGKILL of the container to successor: {:?}", start.elapsed());
        // The release is no change of leadership, its successor's acquisition is one.
        assert_eq!(after["spec"]["leaseTransitions"], 1 + round);
        ended_with(&ns, &former, &format!("{}\n", incarnation.as_str().unwrap()));
        former = holder(&ready(&ns, "kestrel", &[]));
    }
}

#[test]
fn a_program_that_writes_its_own_termination_message_is_not_taken_for_dead() {
    let ns = namespace("unproved");
    let image = json!({ "terminationMessagePath": "/tmp/last-words" });
    apply(node(), &ns, &long("kestrel", image)).unwrap();
    let leader = holder(&ready(&ns, "kestrel", &[]));
    let pid = node().processes_in_pod(&uid(&ns, &leader))[0].pid;
    let message = format!("/proc/{pid}/root/tmp/last-words");
    let incarnation = lease(&ns)["metadata"]["annotations"]["k8sensus.dev/incarnation"].clone();
    assert_eq!(std::fs::read_to_string(&message).unwrap(), format!("{}\n", incarnation.as_str().unwrap()));
    std::fs::write(&message, "out of orders\n").unwrap();
    kill(&ns, &leader);
    ended_with(&ns, &leader, "out of orders\n");
    // Nobody releases it for the standbys. Only the container that is started again in the same pod has a proof of its own.
    let after = within(45, "the next start of the container to lead", || {
        Some(lease(&ns)).filter(|lease| {
            let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
            assert_eq!(holder, leader, "the Lease was released, or taken by a standby");
            lease["metadata"]["annotations"]["k8sensus.dev/incarnation"] != incarnation
        })
    });
    assert_eq!(after["spec"]["leaseTransitions"], 2);
}
