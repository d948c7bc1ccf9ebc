//! The role labels of pods.

use std::time::Duration;

use serde_json::{Value, json};

use super::rollout::Play;
use crate::support::{audit_position, candidate, get, group, kubectl, namespace, operated, within, writes_since};

/// Returns the role of a pod, and its deletion cost.
fn marks(ns: &str, pod: &str) -> (Value, Value) {
    let metadata = get(operated(), ns, &format!("pod/{pod}")).unwrap()["metadata"].clone();
    let cost = metadata["annotations"]["controller.kubernetes.io/pod-deletion-cost"].clone();
    (metadata["labels"]["k8sensus.dev/role"].clone(), cost)
}

fn wait_for_role(ns: &str, pod: &str, leads: bool) {
    let wanted = if leads { (json!("leader"), json!("1000000")) } else { (json!("standby"), Value::Null) };
    within(10, &format!("{pod} to be marked, leading: {leads}"), || (marks(ns, pod) == wanted).then_some(()));
}

#[test]
fn role_labels_follow_the_leader_and_are_written_once() {
    let (play, pods) = Play::led("roles", json!({}));
    wait_for_role(&play.ns, &pods[0], true);
    wait_for_role(&play.ns, &pods[1], false);
    // At rest nothing is written, whatever triggers a reconcile.
    std::thread::sleep(Duration::from_secs(2));
    let start = audit_position(play.cluster);
    kubectl(play.cluster, &["label", "-n", &play.ns, "electiongroup/kestrel", "colour=red"]);
    play.show_ready(false);
    play.show_ready(true);
    std::thread::sleep(Duration::from_secs(3));
    let of_pods = |event: &Value| {
        event["objectRef"]["namespace"] == play.ns.as_str()
            && event["objectRef"]["resource"] == "pods"
            && !event["userAgent"].as_str().unwrap_or_default().starts_with("kube")
    };
    assert_eq!(writes_since(play.cluster, start, of_pods), Vec::<String>::new());

    play.release();
    play.lead(&pods[1], true);
    wait_for_role(&play.ns, &pods[1], true);
    wait_for_role(&play.ns, &pods[0], false);
    // One write for each of the two, and possibly one for a moment without a leader.
    let writes = writes_since(play.cluster, start, of_pods);
    assert!((2..=4).contains(&writes.len()), "{writes:?}");
    // The leader stays when one pod is removed.
    play.apply(json!({ "replicas": 1 }));
    within(20, "one pod", || (play.all_pods().len() == 1).then_some(()));
    assert_eq!(play.all_pods()[0]["metadata"]["name"], pods[1].as_str());
    // A new pod is labelled once.
    play.apply(json!({ "replicas": 2 }));
    let third = play.new_pods(1, &pods[1..]).remove(0);
    wait_for_role(&play.ns, &third, false);
}

#[test]
fn native_leader_is_labelled_too() {
    let ns = namespace(operated(), "nativeroles");
    let container = json!({ "name": "app", "image": "registry.example/kestrel:1" });
    let mut manifest = group(
        "kestrel",
        json!({ "candidate": { "mode": "Native" }, "template": { "spec": { "containers": [container] } } }),
    );
    for field in ["image", "command"] {
        manifest["spec"].as_object_mut().unwrap().remove(field);
    }
    crate::support::apply(operated(), &ns, &manifest).unwrap();
    let pods = within(20, "two pods", || {
        let pods = get(operated(), &ns, "pods")?["items"].as_array()?.clone();
        let names: Vec<String> = pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        (names.len() == 2).then_some(names)
    });
    pods.iter().for_each(|pod| wait_for_role(&ns, pod, false));
    let mut leader = candidate(operated(), &ns, "kestrel", &pods[1], &["--create-lease=false"]);
    wait_for_role(&ns, &pods[1], true);
    wait_for_role(&ns, &pods[0], false);
    leader.terminate(Duration::from_secs(5));
    wait_for_role(&ns, &pods[1], false);
}
