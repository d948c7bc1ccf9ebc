//! `helm uninstall` of the operator, with and without the CRD.

use std::time::Duration;

use serde_json::json;

use super::workload::{Mode, Workload};
use super::{SYSTEM, holder, install_operator, new_node, wait_until_the_garbage_collector_knows_groups};
use crate::support::{apply, condition, get, kubectl, within};

const GROUP: &str = "electiongroup/kestrel";

#[test]
fn groups_outlive_the_operator_but_not_their_definition() {
    let node = new_node();
    let workload = Workload::new(Mode::Exec, 6, 12);
    workload.load_on(&node);
    let uninstall = || {
        let mut helm = node.helm().unwrap();
        let output = helm.args(["uninstall", "k8sensus", "--namespace", SYSTEM, "--wait"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let leader = || {
        let group = within(90, "a group that is Ready", || {
            get(&node, "default", GROUP).filter(|group| condition(group, "Ready") == "True/LeaderElected")
        });
        holder(&group)
    };
    let last_work = || workload.report().stretches.last().map(|stretch| stretch.until).unwrap_or_default();

    install_operator(&node, "crds.keep=true");
    apply(&node, "default", &workload.group("kestrel", json!({}))).unwrap();
    let first = leader();
    within(30, "the leader's program to work", || workload.workers().contains(&first).then_some(()));
    uninstall();
    let uninstalled = last_work();
    within(30, "work five seconds after the operator was uninstalled", || {
        (last_work() > uninstalled + Duration::from_secs(5)).then_some(())
    });
    assert_eq!(workload.events_of(&first).len(), 1, "expected only its start: {:?}", workload.events());

    install_operator(&node, "crds.keep=false");
    assert_eq!(leader(), first, "reinstalling the operator moved the leader");
    wait_until_the_garbage_collector_knows_groups(&node);
    uninstall();
    within(60, "the end of the leader's program", || workload.ended_gracefully(&first).then_some(()));
    within(30, "the group's objects to be gone", || {
        let objects = "deployment,serviceaccount,role,rolebinding,lease,pod";
        let left = kubectl(&node, &["get", objects, "-l", "k8sensus.dev/group=kestrel", "-o", "name"]);
        left.is_empty().then_some(())
    });
    let report = workload.report();
    assert_eq!(report.incarnations(), 1, "another program worked: {report}");
    node.down().unwrap();
}
