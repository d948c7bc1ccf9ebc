//! Two operators that could reconcile one group: one does, and the other reports that.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use k8sensus_local::Cluster;
use serde_json::{Value, json};

use super::installed::{Installed, install};
use crate::support::{apply, audit_position, control_plane, get, group, kubectl, namespace, within};

const SOON: Duration = Duration::from_secs(10);

/// Returns what this operator wrote in `ns` since line `from` of the audit log, except Events.
fn writes(cluster: &Cluster, operator: &Installed, ns: &str, from: usize) -> Vec<Value> {
    let text = fs::read_to_string(cluster.audit_log()).unwrap();
    let events = text.lines().skip(from).filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events
        .filter(|event| {
            let object = &event["objectRef"];
            event["user"]["username"] == operator.user.as_str()
                && object["namespace"] == ns
                && object["resource"] != "events"
                && !["get", "list", "watch"].iter().any(|verb| event["verb"] == *verb)
        })
        .collect()
}

fn operator_of(cluster: &Cluster, ns: &str) -> String {
    let group = get(cluster, ns, "electiongroup/kestrel").unwrap();
    group["status"]["operator"].as_str().unwrap_or_default().to_owned()
}

fn becomes(cluster: &Cluster, ns: &str, operator: &str) {
    within(30, &format!("{operator} in the status"), || (operator_of(cluster, ns) == operator).then_some(()));
}

fn is_reported(cluster: &Cluster, ns: &str, words: &str) {
    within(20, &format!("an Event that contains {words:?}"), || {
        let events = get(cluster, ns, "events.events.k8s.io")?;
        let mut events = events["items"].as_array()?.iter();
        events
            .any(|event| event["reason"] == "OtherOperator" && event["note"].as_str().unwrap().contains(words))
            .then_some(())
    });
}

#[test]
fn second_operator_leaves_a_group_alone_until_the_first_is_gone() {
    let cluster = control_plane();
    let mut first = install(&cluster, "default", &[]);
    let ns = namespace(&cluster, "shared");
    apply(&cluster, &ns, &group("kestrel", json!({}))).unwrap();
    becomes(&cluster, &ns, "default/k8sensus-operator");

    kubectl(&cluster, &["create", "namespace", "elsewhere"]);
    let start = audit_position(&cluster);
    let second = install(&cluster, "elsewhere", &["fullnameOverride=other"]);
    second.operator.wait_for("operator default/k8sensus-operator reconciles this group", SOON);
    is_reported(&cluster, &ns, "operator default/k8sensus-operator reconciles this group");
    apply(&cluster, &ns, &group("kestrel", json!({ "replicas": 3 }))).unwrap();
    within(20, "the first to follow the spec", || {
        (get(&cluster, &ns, "deployment/kestrel")?["spec"]["replicas"] == 3).then_some(())
    });
    sleep(Duration::from_secs(3));
    let strayed = writes(&cluster, &second, &ns, start);
    assert!(strayed.is_empty(), "{strayed:#?}");

    // As if the release was moved to another namespace: no operator runs in the former one.
    assert!(first.operator.terminate(SOON).success());
    becomes(&cluster, &ns, "elsewhere/other-operator");
    kubectl(&cluster, &["delete", "-n", &ns, "role/kestrel"]);
    within(20, "the role to be recreated", || get(&cluster, &ns, "role/kestrel"));
    is_reported(&cluster, &ns, "takes over this group from operator default/k8sensus-operator");
}

#[test]
fn operator_without_access_to_the_other_takes_over_the_group() {
    let cluster = control_plane();
    let first = install(&cluster, "default", &[]);
    let ns = namespace(&cluster, "shared");
    apply(&cluster, &ns, &group("kestrel", json!({}))).unwrap();
    becomes(&cluster, &ns, "default/k8sensus-operator");

    kubectl(&cluster, &["create", "namespace", "elsewhere"]);
    let values = ["fullnameOverride=other", &format!("namespaces={{{ns}}}")];
    let second = install(&cluster, "elsewhere", &values);
    becomes(&cluster, &ns, "elsewhere/other-operator");
    is_reported(&cluster, &ns, "may still run");
    first.operator.wait_for("operator elsewhere/other-operator reconciles this group", SOON);
    let start = audit_position(&cluster);
    sleep(Duration::from_secs(12));
    let strayed = writes(&cluster, &first, &ns, start);
    assert!(strayed.is_empty(), "{strayed:#?}");
    assert_eq!(operator_of(&cluster, &ns), "elsewhere/other-operator");
    assert!(!second.operator.says("leaves it alone"), "{}", second.operator.output());
}
