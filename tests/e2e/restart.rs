//! A restarted container knows that its predecessor in the pod is dead.

use serde_json::json;

use super::{holder, kill, namespace, node, ready, sample};
use crate::support::{apply, get, within};

#[test]
fn restarted_container_acquires_its_lease_immediately() {
    let ns = namespace("restart");
    let election = json!({ "leaseDurationSeconds": 60, "renewDeadlineSeconds": 40, "retryPeriodSeconds": 5 });
    apply(node(), &ns, &sample("kestrel", json!({ "replicas": 1, "election": election }))).unwrap();
    let leader = holder(&ready(&ns, "kestrel", &[]));
    // In a paused group only candidates write the Lease: the operator does not release it on the kubelet's report.
    apply(node(), &ns, &sample("kestrel", json!({ "replicas": 1, "election": election, "paused": true }))).unwrap();
    within(30, "the operator to observe the pause", || {
        let group = get(node(), &ns, "electiongroup/kestrel")?;
        (group["status"]["observedGeneration"] == group["metadata"]["generation"]).then_some(())
    });
    let lease = || get(node(), &ns, "lease/kestrel").unwrap();
    for round in 1..=2 {
        let former = lease();
        let start = kill(&ns, &leader);
        let after = within(45, "the restarted container to lead", || {
            let incarnation =
                |lease: &serde_json::Value| lease["metadata"]["annotations"]["k8sensus.dev/incarnation"].clone();
            Some(lease()).filter(|lease| incarnation(lease) != incarnation(&former))
        });
        println!("SIGKILL of the container until its restart leads: {:?}", start.elapsed());
        assert_eq!(after["spec"]["holderIdentity"], leader.as_str());
        assert_eq!(
            after["spec"]["leaseTransitions"].as_i64(),
            former["spec"]["leaseTransitions"].as_i64().map(|n| n + 1),
            "round {round}"
        );
    }
}
