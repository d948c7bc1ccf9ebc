//! The replicas of the operator.

use std::time::{Duration, Instant};

use k8sensus_local::Cluster;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    SHORT, apply, audit_position, condition, control_plane, get, group, kubeconfig_with, kubectl, namespace, operator,
    within, writes_since,
};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn standby_writes_nothing_and_takes_over_from_a_killed_leader() {
    let cluster = control_plane();
    let first = operator(&cluster, "keeper-1", &[]);
    first.wait_for("starting to reconcile", SOON);
    let start = audit_position(&cluster);
    let second = operator(&cluster, "keeper-2", &[]);
    second.wait_for("standing by: keeper-1 reconciles", SOON);
    let ns = namespace(&cluster, "replicas");
    apply(&cluster, &ns, &group("kestrel", json!({}))).unwrap();
    within(10, "the deployment", || get(&cluster, &ns, "deployment/kestrel"));
    assert!(!second.says("created"));

    first.signal(Signal::KILL);
    second.wait_for("starting to reconcile", SOON);
    kubectl(&cluster, &["delete", "-n", &ns, "role/kestrel"]);
    within(10, "the role to be recreated", || get(&cluster, &ns, "role/kestrel"));
    let statuses = writes_since(&cluster, start, |event: &Value| event["objectRef"]["subresource"] == "status");
    assert!(!statuses.is_empty());
}

#[test]
fn sigterm_hands_over_at_once_and_exits_with_zero() {
    const HANDOVERS: usize = 20;
    let cluster = control_plane();
    let mut first = operator(&cluster, "keeper-0", &[]);
    first.wait_for("starting to reconcile", SOON);
    let mut durations = Vec::new();
    for number in 1..=HANDOVERS {
        let second = operator(&cluster, &format!("keeper-{number}"), &[]);
        second.wait_for(&format!("standing by: keeper-{} reconciles", number - 1), SOON);
        let start = Instant::now();
        assert!(first.terminate(Duration::from_secs(2)).success());
        second.wait_for("starting to reconcile", Duration::from_secs(1));
        durations.push(start.elapsed());
        first = second;
    }
    durations.sort_unstable();
    let (median, longest) = (durations[HANDOVERS / 2], durations[HANDOVERS - 1]);
    println!(
        "SIGTERM of an operator to its successor's reign, {HANDOVERS} times: median {median:?}, at most {longest:?}"
    );
    assert!(first.terminate(Duration::from_secs(2)).success());
    let lease = get(&cluster, "default", "lease/k8sensus-operator").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "");
}

/// Returns an administrator's kubeconfig under that name, so that the audit log distinguishes the replicas.
fn known_as(cluster: &Cluster, name: &str) -> tempfile::NamedTempFile {
    let text = kubectl(cluster, &["config", "view", "--raw", "-o", "json"]);
    let config: Value = serde_json::from_str(&text).unwrap();
    let mut user = config["users"][0]["user"].clone();
    user["as"] = json!(name);
    user["as-groups"] = json!(["system:masters"]);
    kubeconfig_with(cluster, user)
}

#[test]
fn frozen_leader_writes_nothing_before_it_leads_again() {
    let cluster = control_plane();
    let kubeconfig = known_as(&cluster, "keeper-1");
    let first = operator(&cluster, "keeper-1", &[("KUBECONFIG", kubeconfig.path().to_str().unwrap())]);
    first.wait_for("starting to reconcile", SOON);
    let second = operator(&cluster, "keeper-2", &[]);
    second.wait_for("standing by: keeper-1 reconciles", SOON);
    let by_first = |event: &Value| event["impersonatedUser"]["username"] == "keeper-1";
    assert_ne!(writes_since(&cluster, 0, by_first), Vec::<String>::new(), "the audit log does not know it");
    first.signal(Signal::STOP);
    let frozen = audit_position(&cluster);
    second.wait_for("starting to reconcile", SOON);
    let ns = namespace(&cluster, "frozen");
    apply(&cluster, &ns, &group("kestrel", json!({}))).unwrap();
    within(10, "the status by the second", || {
        get(&cluster, &ns, "electiongroup/kestrel").filter(|group| !condition(group, "Ready").is_empty())
    });
    first.signal(Signal::CONT);
    first.wait_for("keeper-1 stopped reconciling", Duration::from_secs(2));
    first.wait_for("standing by: keeper-2 reconciles", Duration::from_secs(2));
    assert!(!first.says("created"), "{}", first.output());
    // Nothing of its former term tries to write either: the refusal of such a write would be logged.
    kubectl(&cluster, &["delete", "-n", &ns, "role/kestrel"]);
    within(10, "the role to be recreated", || get(&cluster, &ns, "role/kestrel"));
    std::thread::sleep(Duration::from_secs(1));
    assert!(!first.says("was not sent"), "{}", first.output());
    assert_eq!(writes_since(&cluster, frozen, by_first), Vec::<String>::new());
}

#[test]
fn disconnected_leader_stops_reconciling_before_its_lease_expires() {
    let cluster = control_plane();
    let keeper = operator(&cluster, "keeper", &SHORT);
    keeper.wait_for("starting to reconcile", SOON);
    cluster.signal(k8sensus_local::Component::ApiServer, Signal::STOP.as_raw()).unwrap();
    keeper.wait_for("keeper stopped reconciling (DeadlinePassed)", Duration::from_millis(2_900));
    cluster.signal(k8sensus_local::Component::ApiServer, Signal::CONT.as_raw()).unwrap();
    within(10, "it to reconcile again", || {
        (keeper.output().matches("starting to reconcile").count() == 2).then_some(())
    });
}
