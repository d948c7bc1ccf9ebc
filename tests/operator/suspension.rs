//! Suspension of a group: no standby may take over while the pods are being removed.

use serde_json::{Value, json};

use super::rollout::Play;
use crate::support::{audit_position, within, writes_since};

/// Returns the annotation of the Lease, and the writes onto Lease and Deployment until the Deployment has so many
/// replicas.
fn changed(play: &Play, spec: Value, pods: u32) -> (Value, Vec<String>) {
    let start = audit_position(play.cluster);
    play.apply(spec);
    within(20, "the Deployment to follow", || {
        (play.get("deployment/kestrel")["spec"]["replicas"] == pods).then_some(())
    });
    let ours = |event: &Value| {
        let by_kubernetes = event["userAgent"].as_str().is_some_and(|agent| agent.starts_with("kube"));
        let done = event["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300);
        !by_kubernetes && done && event["objectRef"]["namespace"] == play.ns.as_str()
    };
    let mut writes = writes_since(play.cluster, start, ours);
    writes.retain(|write| write.contains(" leases ") || write.contains(" deployments "));
    // Before its first change of a child that it created, the operator claims the fields.
    writes.dedup_by(|next, write| next == write && write.starts_with("patch deployments"));
    let annotation = play.get("lease/kestrel")["metadata"]["annotations"]["k8sensus.dev/suspended"].clone();
    (annotation, writes)
}

#[test]
fn lease_shows_suspension_and_resumption_before_the_deployment_changes() {
    let play = Play::of("suspension", json!({ "replicas": 2 }));
    let pods = play.new_pods(2, &[]);
    pods.iter().for_each(|pod| play.comes_up(pod));
    play.lead(&pods[0], true);
    let both = ["update leases kestrel", "patch deployments kestrel"].map(str::to_owned);
    assert_eq!(changed(&play, json!({ "replicas": 2, "suspend": true }), 0), (json!("1"), both.to_vec()));
    assert_eq!(changed(&play, json!({ "replicas": 2 }), 2), (Value::Null, both.to_vec()));
    // The same for scaling.
    play.new_pods(2, &pods);
    assert_eq!(changed(&play, json!({ "replicas": 0 }), 0), (json!("1"), both.to_vec()));
    assert_eq!(changed(&play, json!({ "replicas": 1 }), 1), (Value::Null, both.to_vec()));
    // Fewer pods are no suspension.
    assert_eq!(changed(&play, json!({ "replicas": 3 }), 3), (Value::Null, both[1..].to_vec()));
    assert_eq!(changed(&play, json!({ "replicas": 2 }), 2), (Value::Null, both[1..].to_vec()));
}
