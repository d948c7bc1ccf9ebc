//! A container that is started again in its pod knows that the one before is dead.

use serde_json::json;

use super::{holder, kill, namespace, node, ready, sample};
use crate::support::{apply, get, within};

#[test]
fn a_container_that_is_started_again_leads_at_once() {
    let ns = namespace("restart");
    let election = json!({ "leaseDurationSeconds": 60, "renewDeadlineSeconds": 40, "retryPeriodSeconds": 5 });
    apply(node(), &ns, &sample("kestrel", json!({ "replicas": 1, "election": election }))).unwrap();
    let leader = holder(&ready(&ns, "kestrel", &[]));
    // A paused group's Lease is nobody's but the candidates': the operator releases none by the kubelet's report.
    apply(node(), &ns, &sample("kestrel", json!({ "replicas": 1, "election": election, "paused": true }))).unwrap();
    within(30, "the operator to see that it is paused", || {
        let group = get(node(), &ns, "electiongroup/kestrel")?;
        (group["status"]["observedGeneration"] == group["metadata"]["generation"]).then_some(())
    });
    let lease = || get(node(), &ns, "lease/kestrel").unwrap();
    for round in 1..=2 {
        let former = lease();
        let start = kill(&ns, &leader);
        let after = within(45, "the next start of the container to lead", || {
            let incarnation =
                |lease: &serde_json::Value| lease["metadata"]["annotations"]["k8sensus.dev/incarnation"].clone();
            Some(lease()).filter(|lease| incarnation(lease) != incarnation(&former))
        });
        println!("SIGKILL of the container to its next start leading: {:?}", start.elapsed());
        assert_eq!(after["spec"]["holderIdentity"], leader.as_str());
        assert_eq!(
            after["spec"]["leaseTransitions"].as_i64(),
            former["spec"]["leaseTransitions"].as_i64().map(|n| n + 1),
            "round {round}"
        );
    }
}
