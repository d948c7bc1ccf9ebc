//! The watches of the operator.

use std::collections::BTreeMap;
use std::time::Duration;

use k8sensus_local::Cluster;
use serde_json::{Value, json};

use crate::support::{
    apply, audit_position, candidate, condition, control_plane, control_plane_with, get, group, kubectl, namespace,
    operator, requests_since, within,
};

const SOON: Duration = Duration::from_secs(10);

fn led_group(cluster: &Cluster, ns: &str) {
    apply(cluster, ns, &group("kestrel", json!({}))).unwrap();
    within(20, "the lease", || get(cluster, ns, "lease/kestrel"));
    let _leader = candidate(cluster, ns, "kestrel", "otter", &["--create-lease=false"]);
    within(20, "otter in the status", || {
        (get(cluster, ns, "electiongroup/kestrel")?["status"]["holderIdentity"] == "otter").then_some(())
    });
}

#[test]
fn lists_are_streamed_or_paged_where_the_server_cannot_stream() {
    let streams = |cluster: &Cluster| {
        let text = std::fs::read_to_string(cluster.audit_log()).unwrap();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let events = events.filter(|event| event["userAgent"].as_str().is_none_or(|agent| !agent.starts_with("kube")));
        let text = |event: &Value, field: &str| event[field].as_str().unwrap().to_owned();
        // The audit log has an event for each stage of a request.
        let events: BTreeMap<String, String> =
            events.map(|event| (text(&event, "auditID"), text(&event, "requestURI"))).collect();
        let of_pods = events.into_values().filter(|uri| uri.starts_with("/api/v1/pods?"));
        of_pods.partition::<Vec<String>, _>(|uri| uri.contains("sendInitialEvents=true"))
    };
    let cluster = control_plane();
    let _keeper = operator(&cluster, "keeper", &[]);
    led_group(&cluster, &namespace(&cluster, "streamed"));
    let (streamed, _) = streams(&cluster);
    assert_eq!(streamed.len(), 1);

    let cluster = control_plane_with(Cluster::control_plane().api_server_arg("--feature-gates=WatchList=false"));
    let keeper = operator(&cluster, "keeper", &[]);
    led_group(&cluster, &namespace(&cluster, "paged"));
    let (streamed, usual) = streams(&cluster);
    assert_eq!(streamed.len(), 1, "requested once, and refused");
    assert!(usual.iter().any(|uri| uri.contains("limit=")), "{usual:?}");
    assert!(!keeper.says("sendInitialEvents"), "{}", keeper.output());
}

#[test]
fn restart_over_converged_groups_costs_no_request() {
    let cluster = control_plane();
    let first = operator(&cluster, "keeper", &[]);
    let ns = namespace(&cluster, "restarted");
    let names = ["kestrel", "heron", "siskin"];
    for name in names {
        apply(&cluster, &ns, &group(name, json!({ "replicas": 0 }))).unwrap();
    }
    for name in names {
        within(20, "the status", || {
            let group = get(&cluster, &ns, &format!("electiongroup/{name}"))?;
            (condition(&group, "Ready") == "False/NoLeader" && condition(&group, "Reconciling").is_empty())
                .then_some(())
        });
    }
    std::thread::sleep(Duration::from_secs(2));
    drop(first);
    let start = audit_position(&cluster);
    let second = operator(&cluster, "keeper-2", &[]);
    second.wait_for("starting to reconcile", SOON);
    std::thread::sleep(Duration::from_secs(3));
    let requests = requests_since(&cluster, start, |event| {
        let agent = event["userAgent"].as_str().unwrap_or_default();
        !agent.starts_with("kube") && event["objectRef"]["namespace"] == ns.as_str()
    });
    assert_eq!(requests, Vec::<String>::new());
}

#[test]
fn failing_group_delays_no_other() {
    let cluster = control_plane();
    let ns = namespace(&cluster, "poisoned");
    // Every creation of a Deployment of that name is refused, as by a webhook that is down.
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": "poison" },
        "spec": {
            "matchConstraints": { "resourceRules": [{
                "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"],
            }] },
            "validations": [{ "expression": "!object.metadata.name.startsWith('poison')", "message": "no poison", "reason": "RequestEntityTooLarge" }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": "poison" }, "spec": { "policyName": "poison", "validationActions": ["Deny"] },
    });
    apply(&cluster, &ns, &policy).unwrap();
    apply(&cluster, &ns, &binding).unwrap();
    within(30, "the policy to hold", || {
        let tried = ["create", "deployment", "-n", &ns, "poison", "--image=x", "--dry-run=server"];
        (!cluster.kubectl().args(tried).output().unwrap().status.success()).then_some(())
    });
    // One reconcile at a time: one that waits would delay the rest.
    let keeper = operator(&cluster, "keeper", &[("K8SENSUS_CONCURRENCY", "1")]);
    keeper.wait_for("starting to reconcile", SOON);
    for number in 0..5 {
        apply(&cluster, &ns, &group(&format!("poison-{number}"), json!({}))).unwrap();
    }
    keeper.wait_for("next try in 1.0 s", SOON);
    for number in 0..5 {
        let name = format!("kestrel-{number}");
        apply(&cluster, &ns, &group(&name, json!({}))).unwrap();
        within(10, &name, || get(&cluster, &ns, &format!("deployment/{name}")));
    }
    keeper.wait_for("next try in 4.0 s", Duration::from_secs(20));
    // The child is created once it is no longer refused.
    kubectl(&cluster, &["delete", "validatingadmissionpolicybinding", "poison"]);
    for number in 0..5 {
        within(70, "the deployment", || get(&cluster, &ns, &format!("deployment/poison-{number}")));
    }
}
