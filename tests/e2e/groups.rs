use serde_json::json;

use super::{apply_sample, holder, kill, logs, namespace, node, ready, sample};
use crate::support::{apply, condition, get, kubectl, within};

#[test]
fn a_group_elects_hands_over_and_fails_over() {
    let ns = namespace("exec");
    apply(node(), &ns, &sample("kestrel", json!({ "replicas": 3 }))).unwrap();
    let group = ready(&ns, "kestrel", &[]);
    let first = holder(&group);
    assert_eq!(group["status"]["leaseTransitions"], 1);
    assert_eq!(group["status"]["readyReplicas"], 3);
    assert_eq!(group["status"]["leader"]["nodeName"], "node0");
    assert!(group["status"]["leader"]["podIP"].is_string());
    assert_eq!(condition(&group, "FailoverReady"), "False/StandbysOnSameNode");
    let lines = |pod: &str| logs(&ns, pod).matches("k8sensus is running sample task.").count();
    assert!(lines(&first) > 0);
    let pods = kubectl(node(), &["get", "pods", "-n", &ns, "-o", "name"]);
    let standbys: Vec<&str> =
        pods.lines().map(|pod| pod.trim_start_matches("pod/")).filter(|pod| *pod != first).collect();
    assert_eq!(standbys.len(), 2);
    assert!(standbys.iter().all(|pod| lines(pod) == 0), "the command runs on a standby");

    kubectl(node(), &["delete", "-n", &ns, "pod", &first, "--wait=false"]);
    let group = ready(&ns, "kestrel", &[&first]);
    let second = holder(&group);
    assert_eq!(group["status"]["leaseTransitions"], 2);

    let incarnation =
        || get(node(), &ns, "lease/kestrel").unwrap()["metadata"]["annotations"]["k8sensus.dev/incarnation"].clone();
    let former = incarnation();
    kill(&ns, &second);
    within(30, "another term", || {
        (get(node(), &ns, "electiongroup/kestrel")?["status"]["leaseTransitions"] == 3).then_some(())
    });
    // The operator releases the Lease for every standby once the kubelet reports the container's end. The restarted
    // container in the same pod may be faster: it is a new incarnation with its own proof. `proof` tests that a standby
    // waits without a proof.
    assert_ne!(incarnation(), former);
    let group = ready(&ns, "kestrel", &[]);
    let third = holder(&group);
    assert!(lines(&third) > 0);
    let history = group["status"]["history"].as_array().unwrap();
    let reasons: Vec<&str> = history.iter().map(|change| change["reason"].as_str().unwrap()).collect();
    let is_restarted = third == second && reasons[0] == "HolderRestarted";
    assert_eq!(reasons[1..], ["LeaseReleased", "Elected"]);
    assert!(is_restarted || reasons[0] == "KubeletReported", "{reasons:?}");
    let third = format!("{third} leads");
    within(30, "an Event for the last election in kubectl describe", || {
        let description = kubectl(node(), &["describe", "-n", &ns, "electiongroup/kestrel"]);
        let events = description.split("\nEvents:").nth(1)?.to_owned();
        (events.contains("LeaderElected") && events.contains(&third)).then_some(())
    });
}

#[test]
fn command_exit_hands_over_and_restarts_its_container() {
    let ns = namespace("ending");
    // `install` exits with an error, because the root file system is read-only.
    let template = json!({ "template": { "spec": { "containers": [{
        "name": "app", "image": k8sensus_local::IMAGE, "command": ["/k8sensus", "install", "/nowhere/k8sensus"],
    }] } } });
    let mut group = sample("kestrel", template);
    for field in ["image", "command"] {
        group["spec"].as_object_mut().unwrap().remove(field);
    }
    apply(node(), &ns, &group).unwrap();
    let lease = within(60, "two terms", || {
        get(node(), &ns, "lease/kestrel").filter(|lease| lease["spec"]["leaseTransitions"].as_i64() >= Some(2))
    });
    assert!(lease["spec"]["leaseTransitions"].as_i64().unwrap() < 10, "a hot loop: {lease}");
    within(30, "the command's exit code in a container's status", || {
        let pods = get(node(), &ns, "pods")?["items"].clone();
        let codes = pods.as_array()?.iter().flat_map(|pod| {
            let status = &pod["status"]["containerStatuses"][0];
            ["state", "lastState"].map(|state| status[state]["terminated"]["exitCode"].clone())
        });
        codes.into_iter().any(|code| code == 1).then_some(())
    });
}

#[test]
fn native_pods_elect_a_leader() {
    let _sample = apply_sample("native.yaml");
    let group = ready("default", "native", &[]);
    assert_eq!(group["status"]["readyReplicas"], 3);
    let leader = holder(&group);
    assert!(logs("default", &leader).contains("I'm the new leader!"));
    assert!(get(node(), "default", &format!("pod/{leader}")).unwrap()["spec"]["initContainers"].is_null());
}

#[test]
fn injected_pods_run_in_a_restricted_namespace_with_a_read_only_root() {
    let ns = namespace("restricted");
    kubectl(node(), &["label", "namespace", &ns, "pod-security.kubernetes.io/enforce=restricted"]);
    let container = json!({
        "name": "app", "image": k8sensus_local::IMAGE, "command": ["/k8sensus"], "args": ["sample"],
        "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }, "readOnlyRootFilesystem": true,
            "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" },
        },
    });
    let mut group = sample("kestrel", json!({ "template": { "spec": { "containers": [container] } } }));
    for field in ["image", "command"] {
        group["spec"].as_object_mut().unwrap().remove(field);
    }
    apply(node(), &ns, &group).unwrap();
    let group = ready(&ns, "kestrel", &[]);
    assert!(logs(&ns, &holder(&group)).contains("k8sensus is running sample task."));
}

#[test]
fn pod_may_access_only_its_own_lease() {
    let ns = namespace("rights");
    apply(node(), &ns, &sample("kestrel", json!({}))).unwrap();
    ready(&ns, "kestrel", &[]);
    let account = format!("--as=system:serviceaccount:{ns}:kestrel");
    let may = |verb: &str, what: &str| {
        let output = node().kubectl().args(["auth", "can-i", verb, what, "-n", &ns, &account]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim() == "yes"
    };
    for verb in ["get", "list", "watch", "update"] {
        assert!(may(verb, "leases.coordination.k8s.io/kestrel"), "{verb}");
    }
    for (verb, what) in [
        ("create", "leases.coordination.k8s.io"),
        ("update", "leases.coordination.k8s.io/other"),
        ("patch", "leases.coordination.k8s.io/kestrel"),
        ("delete", "leases.coordination.k8s.io/kestrel"),
        ("get", "pods"),
        ("create", "events"),
        ("get", "secrets"),
    ] {
        assert!(!may(verb, what), "{verb} {what}");
    }
}

#[test]
fn scaling_the_group_scales_its_pods() {
    let ns = namespace("scaled");
    apply(node(), &ns, &sample("kestrel", json!({ "replicas": 1 }))).unwrap();
    let group = ready(&ns, "kestrel", &[]);
    assert_eq!(condition(&group, "FailoverReady"), "False/SingleReplica");
    kubectl(node(), &["scale", "-n", &ns, "electiongroup/kestrel", "--replicas=2"]);
    within(60, "two ready replicas in the status", || {
        (get(node(), &ns, "electiongroup/kestrel")?["status"]["readyReplicas"] == 2).then_some(())
    });
    kubectl(node(), &["wait", "-n", &ns, "--for=condition=Ready", "--timeout=30s", "electiongroup/kestrel"]);
}
