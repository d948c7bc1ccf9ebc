use serde_json::json;

use super::{SYSTEM, node, ready, sample};
use crate::support::{apply, get, kubectl, namespace, within};

fn operator_leader() -> String {
    within(30, "an operator to lead", || {
        let holder = get(node(), SYSTEM, "lease/k8sensus-operator")?["spec"]["holderIdentity"].as_str()?.to_owned();
        (!holder.is_empty()).then_some(holder)
    })
}

#[test]
fn the_chart_runs_two_replicas_of_which_one_reconciles_and_a_rollout_moves_no_groups_leader() {
    let ns = namespace(node(), "upgraded");
    apply(node(), &ns, &sample("kestrel", json!({}))).unwrap();
    let before = ready(&ns, "kestrel", &[]);
    let deployment = get(node(), SYSTEM, "deployment/k8sensus-operator").unwrap();
    assert_eq!(deployment["status"]["readyReplicas"], 2);

    let first = operator_leader();
    kubectl(node(), &["rollout", "restart", "-n", SYSTEM, "deployment/k8sensus-operator"]);
    kubectl(node(), &["rollout", "status", "-n", SYSTEM, "deployment/k8sensus-operator", "--timeout=60s"]);
    within(30, "another operator to lead", || (operator_leader() != first).then_some(()));
    let after = ready(&ns, "kestrel", &[]);
    assert_eq!(after["status"]["acquireTime"], before["status"]["acquireTime"], "the group's leader has moved");

    kubectl(node(), &["delete", "-n", &ns, "role/kestrel"]);
    within(30, "the new operator to restore the role", || get(node(), &ns, "role/kestrel"));
}

#[test]
fn no_right_is_missing() {
    let ns = namespace(node(), "granted");
    apply(node(), &ns, &sample("kestrel", json!({}))).unwrap();
    ready(&ns, "kestrel", &[]);
    let logs = kubectl(node(), &["logs", "-n", SYSTEM, "-l", "app.kubernetes.io/name=k8sensus", "--tail=-1"]);
    assert!(logs.contains("created Deployment"), "no operator's log: {logs}");
    assert!(!logs.to_lowercase().contains("forbidden"), "{logs}");
}
