//! A group whose pods are taken away: nobody is to lead for the moment by which one pod is told later than another.

use serde_json::{Value, json};

use super::rollout::Play;
use crate::support::{audit_position, within, writes_since};

/// What the Lease tells standbys, and the writes onto Lease and Deployment until the latter asks for so many pods.
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
    // Before it changes for the first time what it had created it makes its fields its own.
    writes.dedup_by(|next, write| next == write && write.starts_with("patch deployments"));
    let told = play.get("lease/kestrel")["metadata"]["annotations"]["k8sensus.dev/suspended"].clone();
    (told, writes)
}

#[test]
fn standbys_are_told_before_the_pods_are_taken_away_and_before_there_are_some_again() {
    let play = Play::of("told", json!({ "replicas": 2 }));
    let pods = play.new_pods(2, &[]);
    pods.iter().for_each(|pod| play.comes_up(pod));
    play.lead(&pods[0], true);
    let told = ["update leases kestrel", "patch deployments kestrel"].map(str::to_owned);
    assert_eq!(changed(&play, json!({ "replicas": 2, "suspend": true }), 0), (json!("1"), told.to_vec()));
    assert_eq!(changed(&play, json!({ "replicas": 2 }), 2), (Value::Null, told.to_vec()));
    // The same for whoever scales it.
    play.new_pods(2, &pods);
    assert_eq!(changed(&play, json!({ "replicas": 0 }), 0), (json!("1"), told.to_vec()));
    assert_eq!(changed(&play, json!({ "replicas": 1 }), 1), (Value::Null, told.to_vec()));
    // Fewer pods are no reason: somebody is to lead.
    assert_eq!(changed(&play, json!({ "replicas": 3 }), 3), (Value::Null, told[1..].to_vec()));
    assert_eq!(changed(&play, json!({ "replicas": 2 }), 2), (Value::Null, told[1..].to_vec()));
}
