//! Releases of a Lease on the kubelet's report that the leader's container ended.

use serde_json::{Value, json};

use super::{holder, kill, namespace, node, ready, sample, uid};
use crate::support::{apply, get, kubectl, within};

/// Returns the sample group with a lease so long that an expiry cannot be mistaken for a release.
fn group_with_long_lease(name: &str, container: Value) -> Value {
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

/// Waits until the kubelet reports an end of the pod's only container with termination message `message`.
fn wait_for_end_with(ns: &str, pod: &str, message: &str) {
    within(30, &format!("the kubelet to report {message:?} of {pod}"), || {
        let status = get(node(), ns, &format!("pod/{pod}"))?["status"]["containerStatuses"][0].clone();
        ["state", "lastState"].iter().any(|state| status[state]["terminated"]["message"] == message).then_some(())
    });
}

#[test]
fn killed_container_hands_over_long_before_its_lease_expires() {
    let ns = namespace("proved");
    kubectl(node(), &["label", "namespace", &ns, "pod-security.kubernetes.io/enforce=restricted"]);
    apply(node(), &ns, &group_with_long_lease("kestrel", restricted())).unwrap();
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
        // Only the successor's acquisition counts as a transition, not the release.
        assert_eq!(after["spec"]["leaseTransitions"], 1 + round);
        wait_for_end_with(&ns, &former, &format!("{}\n", incarnation.as_str().unwrap()));
        // Not by the status, which may still show the former leader.
        former = after["spec"]["holderIdentity"].as_str().unwrap().to_owned();
        within(60, "the status to show the successor", || {
            (holder(&ready(&ns, "kestrel", &[])) == former).then_some(())
        });
    }
}

#[test]
fn custom_termination_message_is_no_proof_of_death() {
    let ns = namespace("unproved");
    let image = json!({ "terminationMessagePath": "/tmp/termination-message" });
    apply(node(), &ns, &group_with_long_lease("kestrel", image)).unwrap();
    let leader = holder(&ready(&ns, "kestrel", &[]));
    let pid = node().processes_in_pod(&uid(&ns, &leader))[0].pid;
    let message = format!("/proc/{pid}/root/tmp/termination-message");
    let incarnation = lease(&ns)["metadata"]["annotations"]["k8sensus.dev/incarnation"].clone();
    assert_eq!(std::fs::read_to_string(&message).unwrap(), format!("{}\n", incarnation.as_str().unwrap()));
    std::fs::write(&message, "out of memory\n").unwrap();
    kill(&ns, &leader);
    wait_for_end_with(&ns, &leader, "out of memory\n");
    // Nothing releases the Lease for the standbys. Only the restarted container in the same pod has its own proof.
    let after = within(45, "the restarted container to lead", || {
        Some(lease(&ns)).filter(|lease| {
            let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
            assert_eq!(holder, leader, "the Lease was released, or acquired by a standby");
            lease["metadata"]["annotations"]["k8sensus.dev/incarnation"] != incarnation
        })
    });
    assert_eq!(after["spec"]["leaseTransitions"], 2);
}
