//! Leaders with an unready program, and leaders whose pod is terminating, hand over to a standby.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use super::rollout::Play;
use crate::support::{Deleted, apply, condition, kubectl, within};

#[test]
fn unready_leader_hands_over_and_the_next_gets_longer() {
    let (play, pods) = Play::led("unhealthy", json!({ "candidate": { "unhealthyTimeoutSeconds": 3 } }));
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(play.step_down_request(), None, "it works");
    let start = Instant::now();
    play.show_ready(false);
    play.wait_for_request("Unhealthy", &pods[1]);
    assert!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
    let note = play.wait_for_event("LeaderUnhealthy");
    assert!(note.contains(&pods[0]) && note.contains("has not been ready for 3 s"), "{note}");
    let start = Instant::now();
    play.hand_over(false);
    assert_eq!(play.status()["history"][0]["reason"], "Unhealthy");
    play.wait_for_request("Unhealthy", &pods[0]);
    assert!(start.elapsed() >= Duration::from_secs(6), "twice as long: {:?}", start.elapsed());
    // Without a standby the leader stays.
    play.hand_over(false);
    play.containers_are(&pods[1], false);
    std::thread::sleep(Duration::from_secs(14));
    assert_eq!(play.step_down_request(), None);
    play.containers_are(&pods[1], true);
    play.wait_for_request("Unhealthy", &pods[1]);
}

#[test]
fn crashes_of_one_leader_after_another_are_reported_as_flapping() {
    let (play, pods) = Play::led("flapping", json!({}));
    for (number, pod) in pods.iter().enumerate() {
        let ended = json!({ "exitCode": 3, "reason": "Error", "message": format!("no such table {number}") });
        let waiting = json!({ "reason": "CrashLoopBackOff", "message": "back-off" });
        let app = json!({
            "name": "app", "image": "i", "imageID": "i", "ready": false, "restartCount": 4,
            "state": { "waiting": waiting }, "lastState": { "terminated": ended },
        });
        play.report(pod, &json!({ "containerStatuses": [app] }));
    }
    for number in 1..=3 {
        assert!(!condition(&play.get("electiongroup/kestrel"), "FailoverReady").contains("Flapping"), "{number}");
        play.release();
        play.lead(&pods[number % 2], false);
    }
    within(10, "the condition", || {
        (condition(&play.get("electiongroup/kestrel"), "FailoverReady") == "False/LeaderFlapping").then_some(())
    });
    let message = play.message("FailoverReady");
    assert!(message.starts_with("3 leaders failed within 120 s; "), "{message}");
    for (number, pod) in pods.iter().enumerate() {
        assert!(
            message.contains(&format!("pod {pod}: container app: CrashLoopBackOff: no such table {number}")),
            "{message}"
        );
    }
    play.wait_for_event("LeaderFlapping");
}

#[test]
fn sidecar_leader_hands_over_before_its_program_is_terminated() {
    let (play, pods) = Play::led("drained", json!({ "candidate": { "mode": "Sidecar" } }));
    let node = format!("{}-one", play.ns);
    // The pod never ends, since no kubelet of that node reports it.
    let _node = Deleted::at_the_end(play.cluster, &["node", &node]);
    let _pod = Deleted::at_the_end(play.cluster, &["-n", &play.ns, "pod", &pods[0], "--force", "--grace-period=0"]);
    apply(play.cluster, &play.ns, &json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node } }))
        .unwrap();
    // A pod without a node would be deleted at once.
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": { "name": pods[0] },
        "target": { "apiVersion": "v1", "kind": "Node", "name": node },
    });
    let path = format!("/api/v1/namespaces/{}/pods/{}/binding", play.ns, pods[0]);
    let mut kubectl_create = play.cluster.kubectl();
    let command =
        kubectl_create.args(["create", "--raw", &path, "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(binding.to_string().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    kubectl(play.cluster, &["delete", "-n", &play.ns, "pod", &pods[0], "--wait=false", "--grace-period=60"]);
    play.wait_for_request("Draining", &pods[1]);
    play.hand_over(true);
    assert_eq!(play.status()["history"][0]["reason"], "Draining");
}
