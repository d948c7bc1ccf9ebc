//! The life of a group: the cost of its creation and of its rest, and what remains after its deletion.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    apply, audit_position, condition, control_plane, get, group, kubectl, namespace, operated, operator,
    requests_since, within, writes_since,
};

const CHILDREN: [&str; 6] = ["deployment", "serviceaccount", "role", "rolebinding", "lease", "poddisruptionbudget"];

#[test]
fn minimal_group_gets_six_owned_children() {
    let cluster = operated();
    let ns = namespace(cluster, "minimal");
    apply(cluster, &ns, &group("kestrel", json!({}))).unwrap();
    let group = within(10, "the status", || {
        get(cluster, &ns, "electiongroup/kestrel").filter(|group| !condition(group, "Ready").is_empty())
    });
    for kind in CHILDREN {
        let child = get(cluster, &ns, &format!("{kind}/kestrel")).unwrap_or_else(|| panic!("no {kind}"));
        let owner = &child["metadata"]["ownerReferences"][0];
        assert_eq!(owner["uid"], group["metadata"]["uid"], "{kind}");
        assert_eq!(owner["controller"], true, "{kind}");
    }
    let rules = get(cluster, &ns, "role/kestrel").unwrap()["rules"].clone();
    assert_eq!(
        rules,
        json!([{
            "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["kestrel"],
            "verbs": ["get", "list", "watch", "update"],
        }])
    );
    let lease = get(cluster, &ns, "lease/kestrel").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 1);
    assert_eq!(lease["spec"]["leaseTransitions"], 0);
    assert_eq!(group["status"]["observedGeneration"], 1);
    assert_eq!(condition(&group, "Ready"), "False/NoLeader");
    assert_eq!(condition(&group, "LeaderElected"), "False/LeaseReleased");
}

/// Whether the operator wrote it, except renewals of the operator's own Lease.
fn by_the_operator(event: &Value) -> bool {
    let agent = event["userAgent"].as_str().unwrap_or_default();
    let own_lease = event["objectRef"]["name"] == "k8sensus-operator";
    !agent.starts_with("kube") && !own_lease
}

#[test]
fn group_costs_seven_writes_and_none_while_nothing_changes() {
    let cluster = control_plane();
    let keeper = operator(&cluster, "keeper", &[]);
    keeper.wait_for("starting to reconcile", Duration::from_secs(10));
    let ns = namespace(&cluster, "writes");
    let start = audit_position(&cluster);
    apply(&cluster, &ns, &group("kestrel", json!({}))).unwrap();
    within(10, "the deployment to be counted", || {
        let group = get(&cluster, &ns, "electiongroup/kestrel")?;
        (condition(&group, "Reconciling") == "True/Scaling" || group["status"]["replicas"] == 2).then_some(())
    });
    std::thread::sleep(Duration::from_secs(3));
    let writes = writes_since(&cluster, start, by_the_operator);
    println!("writes for a new group: {writes:#?}");
    let made = ["serviceaccounts", "roles", "rolebindings", "leases", "deployments", "poddisruptionbudgets"];
    for resource in made {
        assert_eq!(writes.iter().filter(|w| **w == format!("create {resource} kestrel")).count(), 1, "{writes:?}");
    }
    // Each of the two pods gets its gate opened and its role label, once.
    let marks = writes.iter().filter(|write| write.starts_with("patch pods")).count();
    assert!(marks <= 4, "{writes:?}");
    // The rest are statuses: one after the creation of the children, and one for each step of the Deployment.
    let status = writes.iter().filter(|write| **write == "patch electiongroups/status kestrel").count();
    assert_eq!(writes.len(), made.len() + marks + status, "{writes:?}");
    let steps = writes_since(&cluster, start, |event| {
        event["user"]["username"] == "system:serviceaccount:kube-system:deployment-controller"
            && event["objectRef"]["namespace"] == ns.as_str()
            && event["objectRef"]["resource"] == "deployments"
    });
    println!("steps of its Deployment: {steps:#?}");
    assert!(!steps.is_empty() && status <= 1 + steps.len(), "{writes:?} for {steps:?}");

    let steady = audit_position(&cluster);
    // Two lease durations: neither the Lease nor the group changes.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(writes_since(&cluster, steady, by_the_operator), Vec::<String>::new());
    // A reconcile that has a trigger, but no change to make.
    kubectl(&cluster, &["label", "-n", &ns, "deployment/kestrel", "colour=red"]);
    let labelled = audit_position(&cluster);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(writes_since(&cluster, labelled, by_the_operator), Vec::<String>::new());

    // Nothing is requested either if everything is known, even after a restart.
    drop(keeper);
    let keeper = operator(&cluster, "keeper", &[]);
    keeper.wait_for("starting to reconcile", Duration::from_secs(10));
    let restarted = audit_position(&cluster);
    std::thread::sleep(Duration::from_secs(2));
    kubectl(&cluster, &["label", "-n", &ns, "electiongroup/kestrel", "colour=blue", "--overwrite"]);
    std::thread::sleep(Duration::from_secs(2));
    let requests =
        requests_since(&cluster, restarted, |event| by_the_operator(event) && event["objectRef"]["name"] == "kestrel");
    let operators: Vec<_> = requests.iter().filter(|request| !request.ends_with("electiongroups kestrel")).collect();
    assert!(operators.is_empty(), "{operators:?}");
}

#[test]
fn deleted_group_leaves_nothing_even_without_an_operator() {
    let cluster = control_plane();
    let mut keeper = operator(&cluster, "keeper", &[]);
    let ns = namespace(&cluster, "deleted");
    apply(&cluster, &ns, &group("kestrel", json!({}))).unwrap();
    within(20, "the children", || get(&cluster, &ns, "deployment/kestrel"));
    assert!(keeper.terminate(Duration::from_secs(2)).success());
    kubectl(&cluster, &["delete", "-n", &ns, "electiongroup/kestrel"]);
    for kind in CHILDREN {
        within(20, &format!("the {kind} to be collected"), || {
            get(&cluster, &ns, &format!("{kind}/kestrel")).is_none().then_some(())
        });
    }
}

#[test]
fn operator_killed_midway_converges_after_its_restart() {
    let cluster = control_plane();
    let ns = namespace(&cluster, "midway");
    let first = operator(&cluster, "keeper", &[]);
    first.wait_for("starting to reconcile", Duration::from_secs(10));
    apply(&cluster, &ns, &group("kestrel", json!({}))).unwrap();
    first.wait_for("created Role", Duration::from_secs(10));
    first.signal(rustix::process::Signal::KILL);
    let second = operator(&cluster, "keeper", &[]);
    second.wait_for("starting to reconcile", Duration::from_secs(10));
    within(20, "the children and the status", || {
        let group = get(&cluster, &ns, "electiongroup/kestrel")?;
        let children = CHILDREN.iter().all(|kind| get(&cluster, &ns, &format!("{kind}/kestrel")).is_some());
        (children && condition(&group, "Ready") == "False/NoLeader").then_some(())
    });
    let lease = get(&cluster, &ns, "lease/kestrel").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "", "no pod ran: the first leader need not wait");
}
