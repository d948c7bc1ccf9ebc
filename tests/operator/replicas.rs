//! The operator's own replicas.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    SHORT, apply, audit_position, condition, control_plane, get, group, kubectl, namespace, operator, within,
    writes_since,
};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_standby_writes_nothing_and_takes_over_from_a_killed_leader() {
    let cluster = control_plane();
    let first = operator(&cluster, "keeper-1", &[]);
    first.wait_for("reconciles from now on", SOON);
    let start = audit_position(&cluster);
    let second = operator(&cluster, "keeper-2", &[]);
    second.wait_for("standing by: keeper-1 reconciles", SOON);
    let ns = namespace(&cluster, "replicas");
    apply(&cluster, &ns, &group("kestrel", json!({}))).unwrap();
    within(10, "the deployment", || get(&cluster, &ns, "deployment/kestrel"));
    assert!(!second.says("created"));

    first.signal(Signal::KILL);
    second.wait_for("reconciles from now on", SOON);
    kubectl(&cluster, &["delete", "-n", &ns, "role/kestrel"]);
    within(10, "the role to be made again", || get(&cluster, &ns, "role/kestrel"));
    let statuses = writes_since(&cluster, start, |event: &Value| event["objectRef"]["subresource"] == "status");
    assert!(!statuses.is_empty());
}

#[test]
fn sigterm_hands_over_at_once_and_exits_with_zero() {
    let cluster = control_plane();
    let mut first = operator(&cluster, "keeper-1", &[]);
    first.wait_for("reconciles from now on", SOON);
    let mut second = operator(&cluster, "keeper-2", &[]);
    second.wait_for("standing by: keeper-1 reconciles", SOON);
    let start = Instant::now();
    assert!(first.terminate(Duration::from_secs(2)).success());
    second.wait_for("reconciles from now on", Duration::from_secs(1));
    println!("handover of the operator: {:?}", start.elapsed());
    assert!(second.terminate(Duration::from_secs(2)).success());
    let lease = get(&cluster, "default", "lease/k8sensus-operator").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "");
}

#[test]
fn a_frozen_leader_that_wakes_writes_nothing_before_it_leads_again() {
    let cluster = control_plane();
    let first = operator(&cluster, "keeper-1", &[]);
    first.wait_for("reconciles from now on", SOON);
    let second = operator(&cluster, "keeper-2", &[]);
    second.wait_for("standing by: keeper-1 reconciles", SOON);
    first.signal(Signal::STOP);
    second.wait_for("reconciles from now on", SOON);
    let ns = namespace(&cluster, "frozen");
    apply(&cluster, &ns, &group("kestrel", json!({}))).unwrap();
    within(10, "the status by the second", || {
        get(&cluster, &ns, "electiongroup/kestrel").filter(|group| !condition(group, "Ready").is_empty())
    });
    first.signal(Signal::CONT);
    first.wait_for("keeper-1 reconciles no longer", Duration::from_secs(2));
    first.wait_for("standing by: keeper-2 reconciles", Duration::from_secs(2));
    assert!(!first.says("created"), "{}", first.output());
    // Nor does anything of its former term try to: what it would write is refused, but it would say so.
    kubectl(&cluster, &["delete", "-n", &ns, "role/kestrel"]);
    within(10, "the role to be made again", || get(&cluster, &ns, "role/kestrel"));
    std::thread::sleep(Duration::from_secs(1));
    assert!(!first.says("was not sent"), "{}", first.output());
}

#[test]
fn a_leader_that_is_cut_off_stops_reconciling_before_its_lease_runs_out() {
    let cluster = control_plane();
    let keeper = operator(&cluster, "keeper", &SHORT);
    keeper.wait_for("reconciles from now on", SOON);
    cluster.signal(k8sensus_local::Component::ApiServer, Signal::STOP.as_raw()).unwrap();
    keeper.wait_for("keeper reconciles no longer (DeadlinePassed)", Duration::from_millis(2_900));
    cluster.signal(k8sensus_local::Component::ApiServer, Signal::CONT.as_raw()).unwrap();
    within(10, "it to reconcile again", || {
        (keeper.output().matches("reconciles from now on").count() == 2).then_some(())
    });
}
