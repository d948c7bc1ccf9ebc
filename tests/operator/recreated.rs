//! A deleted Lease is recreated with a wait, in which its former leader can stop.

use serde_json::{Value, json};

use crate::support::{apply, condition, get, group, kubectl, namespace, operated, within};

/// Returns a pod of group kestrel that relies on a wait of `seconds`. No kubelet runs it, so its deletion removes it at
/// once.
fn pod(name: &str, seconds: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": { "k8sensus.dev/group": "kestrel" },
            "annotations": { "k8sensus.dev/recreated-lease-seconds": seconds.to_string() },
        },
        "spec": { "containers": [{ "name": "app", "image": "registry.example/kestrel:1" }] },
    })
}

fn lease(ns: &str) -> Option<Value> {
    get(operated(), ns, "lease/kestrel")
}

/// Creates a namespace with a group without pods of its own, and with pods that rely on waits of 40 and of 7 s.
fn group_with_pods(name: &str) -> String {
    let cluster = operated();
    let ns = namespace(cluster, name);
    apply(cluster, &ns, &group("kestrel", json!({ "replicas": 0 }))).unwrap();
    within(10, "the status", || {
        get(cluster, &ns, "electiongroup/kestrel").filter(|group| !condition(group, "Ready").is_empty())
    });
    for (name, seconds) in [("former-a", 40), ("former-b", 7)] {
        within(10, "the pod", || apply(cluster, &ns, &pod(name, seconds)).ok());
    }
    ns
}

#[test]
fn recreated_lease_lasts_as_long_as_any_living_pod_relies_on() {
    let ns = group_with_pods("relied");
    kubectl(operated(), &["delete", "-n", &ns, "lease/kestrel"]);
    let lease = within(10, "the Lease to be created again", || lease(&ns));
    assert_eq!(lease["spec"]["holderIdentity"], "k8sensus.dev/recreated");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 40);
}

#[test]
fn recreated_lease_is_released_once_no_older_pod_is_left() {
    let cluster = operated();
    let ns = group_with_pods("awaited");
    kubectl(cluster, &["delete", "-n", &ns, "lease/kestrel"]);
    let recreated = within(10, "the Lease to be created again", || lease(&ns));
    let is_recreated = || lease(&ns).unwrap()["spec"]["holderIdentity"] == "k8sensus.dev/recreated";
    // Longer than the lease duration of 3 s, which the operator always waits for.
    std::thread::sleep(std::time::Duration::from_secs(4));
    kubectl(cluster, &["delete", "-n", &ns, "pod/former-b", "--force"]);
    apply(cluster, &ns, &pod("later", 40)).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(is_recreated(), "former-a may still stop its program");
    kubectl(cluster, &["delete", "-n", &ns, "pod/former-a", "--force"]);
    let released =
        within(10, "the Lease to be released", || lease(&ns).filter(|lease| lease["spec"]["holderIdentity"] == ""));
    assert_eq!(released["spec"]["leaseDurationSeconds"], 1);
    assert_eq!(released["spec"]["leaseTransitions"], recreated["spec"]["leaseTransitions"]);
    assert_eq!(released["metadata"]["uid"], recreated["metadata"]["uid"]);
}

#[test]
fn group_gets_no_lease_while_a_former_deployment_exists() {
    let cluster = operated();
    let ns = namespace(cluster, "former");
    let former = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": "kestrel",
            "labels": { "k8sensus.dev/group": "kestrel" },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "ConfigMap", "name": "kube-root-ca.crt", "controller": true,
                "uid": within(10, "a living owner", || get(cluster, &ns, "configmap/kube-root-ca.crt"))["metadata"]["uid"],
            }],
        },
        "spec": {
            "replicas": 0,
            "selector": { "matchLabels": { "k8sensus.dev/group": "kestrel" } },
            "template": {
                "metadata": { "labels": { "k8sensus.dev/group": "kestrel" } },
                "spec": { "containers": [{ "name": "app", "image": "registry.example/kestrel:1" }] },
            },
        },
    });
    apply(cluster, &ns, &former).unwrap();
    apply(cluster, &ns, &group("kestrel", json!({}))).unwrap();
    within(10, "the conflict", || {
        (condition(&get(cluster, &ns, "electiongroup/kestrel")?, "Stalled") == "True/Conflict").then_some(())
    });
    assert_eq!(lease(&ns), None);
    kubectl(cluster, &["delete", "-n", &ns, "deployment/kestrel"]);
    within(20, "the Lease", || lease(&ns));
}
