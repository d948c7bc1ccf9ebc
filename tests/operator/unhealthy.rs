//! Leaders whose program does not work, and leaders that are about to end, give way to a standby.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use super::rollout::Play;
use crate::support::{Deleted, apply, condition, kubectl, within};

#[test]
fn a_leader_whose_program_is_not_ready_gives_way_and_the_next_one_has_longer() {
    let (play, pods) = Play::led("unhealthy", json!({ "candidate": { "unhealthyTimeoutSeconds": 3 } }));
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(play.asked(), None, "it works");
    let start = Instant::now();
    play.show_ready(false);
    play.is_asked("Unhealthy", &pods[1]);
    assert!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
    let note = play.is_told("LeaderUnhealthy");
    assert!(note.contains(&pods[0]) && note.contains("has not been ready for 3 s"), "{note}");
    let start = Instant::now();
    play.hands_over(false);
    assert_eq!(play.status()["history"][0]["reason"], "Unhealthy");
    play.is_asked("Unhealthy", &pods[0]);
    assert!(start.elapsed() >= Duration::from_secs(6), "twice as long: {:?}", start.elapsed());
    // Without anybody to follow it stays.
    play.hands_over(false);
    play.containers_are(&pods[1], false);
    std::thread::sleep(Duration::from_secs(14));
    assert_eq!(play.asked(), None);
    play.containers_are(&pods[1], true);
    play.is_asked("Unhealthy", &pods[1]);
}

#[test]
fn programs_that_crash_one_after_the_other_are_told_of_as_flapping() {
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
    play.is_told("LeaderFlapping");
}

#[test]
fn a_sidecars_leader_hands_over_before_its_program_is_told_to_end() {
    let (play, pods) = Play::led("drained", json!({ "candidate": { "mode": "Sidecar" } }));
    let node = format!("{}-one", play.ns);
    // No kubelet of that node will ever say that the pod has ended.
    let _node = Deleted::at_the_end(play.cluster, &["node", &node]);
    let _pod = Deleted::at_the_end(play.cluster, &["-n", &play.ns, "pod", &pods[0], "--force", "--grace-period=0"]);
    apply(play.cluster, &play.ns, &json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node } }))
        .unwrap();
    // One without a node would be gone at once.
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
    play.is_asked("Draining", &pods[1]);
    play.hands_over(true);
    assert_eq!(play.status()["history"][0]["reason"], "Draining");
}
