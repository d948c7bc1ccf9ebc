use serde_json::json;

use super::{holder, logs, namespace, node, ready, sample};
use crate::support::{apply, condition, get, kubectl, within};

#[test]
fn step_down_annotation_starts_the_successor_after_the_leader_stopped() {
    let ns = namespace("stepdown");
    apply(node(), &ns, &sample("kestrel", json!({}))).unwrap();
    let first = holder(&ready(&ns, "kestrel", &[]));
    within(60, "a ready standby", || {
        let group = get(node(), &ns, "electiongroup/kestrel")?;
        // On one node the standby is ready but would fail with the leader.
        (condition(&group, "FailoverReady") == "False/StandbysOnSameNode").then_some(())
    });
    let request = "k8sensus.dev/step-down-requested-at=now";
    kubectl(node(), &["annotate", "-n", &ns, "electiongroup/kestrel", request]);
    let handled = "--for=jsonpath={.status.lastHandledStepDownAt}=now";
    kubectl(node(), &["wait", "-n", &ns, handled, "--timeout=30s", "electiongroup/kestrel"]);
    let group = ready(&ns, "kestrel", &[&first]);
    let second = holder(&group);
    assert_eq!(group["status"]["leaseTransitions"], 2);
    assert!(logs(&ns, &second).contains("k8sensus is running sample task."));
    // The former leader becomes a standby in the same container, without its command running.
    let former = get(node(), &ns, &format!("pod/{first}")).unwrap();
    assert_eq!(former["status"]["containerStatuses"][0]["restartCount"], 0);
    let lines = || logs(&ns, &first).matches("k8sensus is running sample task.").count();
    let before = lines();
    std::thread::sleep(std::time::Duration::from_secs(12));
    assert_eq!(lines(), before, "the command still runs on {first}");
}
