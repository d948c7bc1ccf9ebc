//! Which parts of a pod's status prove that a leader is dead, and which do not.

use k8sensus_group::judge::proof::{ProvenRelease, is_dead};
use k8sensus_group::observed::proof::dead_incarnations;
use serde_json::{Value, json};

const POD: &str = "0c7e5a52-1f50-4be4-9d80-3a0b5d2f7d01";
const OTHER_POD: &str = "77f0f3a4-9a3c-4bb7-8d9e-5c1d2e3f4a5b";
const INCARNATION: &str = "0c7e5a52-1f50-4be4-9d80-3a0b5d2f7d01/main/00000000c0ffee11";

fn terminated(message: &str) -> Value {
    json!({ "terminated": { "exitCode": 137, "reason": "Error", "message": message } })
}

/// The pod with one container called main.
fn pod(state: Value, last_state: Value) -> Value {
    let status = json!({ "name": "main", "restartCount": 0, "state": state, "lastState": last_state });
    json!({ "spec": {}, "status": { "phase": "Running", "containerStatuses": [status] } })
}

fn running() -> Value {
    json!({ "running": { "startedAt": "2026-03-01T12:00:00Z" } })
}

fn dead(pod: &Value) -> Vec<String> {
    dead_incarnations(POD, pod)
}

/// The pod of a leader that is proved dead, with one change.
fn but(change: impl Fn(&mut Value)) -> Value {
    let mut pod = pod(terminated(INCARNATION), json!({}));
    assert_eq!(dead(&pod), [INCARNATION], "unchanged it is a proof");
    change(&mut pod);
    pod
}

#[test]
fn terminated_container_with_its_incarnation_is_dead() {
    assert_eq!(dead(&pod(terminated(INCARNATION), json!({}))), [INCARNATION]);
    assert_eq!(dead(&pod(terminated(&format!("{INCARNATION}\n")), json!({}))), [INCARNATION]);
}

#[test]
fn restarted_container_is_alive_and_its_former_incarnation_dead() {
    let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
    for state in [running(), waiting] {
        assert_eq!(dead(&pod(state, terminated(INCARNATION))), [INCARNATION]);
    }
    let second = INCARNATION.replace("11", "22");
    assert_eq!(dead(&pod(terminated(&second), terminated(INCARNATION))), [second.as_str(), INCARNATION]);
}

#[test]
fn text_of_the_program_after_the_line_changes_nothing() {
    assert_eq!(dead(&pod(terminated(&format!("{INCARNATION}\nout of orders\n")), json!({}))), [INCARNATION]);
}

#[test]
fn no_other_message_is_a_proof() {
    for message in [
        "",
        "\n",
        "out of orders",
        &format!("out of orders\n{INCARNATION}"),
        &format!("{INCARNATION} "),
        &format!(" {INCARNATION}"),
        &format!("{INCARNATION}/more"),
        // Partly written, or truncated by the kubelet.
        &INCARNATION[..INCARNATION.len() - 1],
        &INCARNATION[..INCARNATION.len() - 16],
        "0c7e5a52-1f50-4be4-9d80-3a0b5d2f7d01/main",
        "00000000c0ffee11",
        // The kubelet's message when it cannot find the container.
        "The container could not be located when the pod was terminated",
    ] {
        assert_eq!(
            dead(&but(|pod| pod["status"]["containerStatuses"][0]["state"] = terminated(message))),
            [""; 0],
            "{message:?}"
        );
    }
}

#[test]
fn message_must_be_of_the_same_pod_and_container() {
    let of = |text: &str| dead(&but(|pod| pod["status"]["containerStatuses"][0]["state"] = terminated(text)));
    assert_eq!(of(&INCARNATION.replace(POD, OTHER_POD)), [""; 0], "another pod's");
    assert_eq!(of(&INCARNATION.replace("main", "proxy")), [""; 0], "another container's");
    assert_eq!(of(&INCARNATION.replace("main", "")), [""; 0]);
    assert_eq!(of(&INCARNATION.replace(POD, "-")), [""; 0], "of a process that knows no pod");
    assert_eq!(dead(&but(|pod| pod["status"]["containerStatuses"][0]["name"] = json!("proxy"))), [""; 0]);
    assert_eq!(dead_incarnations(OTHER_POD, &pod(terminated(INCARNATION), json!({}))), [""; 0]);
    let nameless = json!({ "status": { "containerStatuses": [{ "state": terminated("//00000000c0ffee11") }] } });
    assert_eq!(dead_incarnations("", &nameless), [""; 0]);
}

#[test]
fn container_lost_by_kubelet_or_runtime_proves_nothing() {
    let with = |field: &str, value: Value| {
        dead(&but(|pod| pod["status"]["containerStatuses"][0]["state"]["terminated"][field] = value.clone()))
    };
    assert_eq!(with("reason", json!("ContainerStatusUnknown")), [""; 0]);
    assert_eq!(with("reason", json!("OOMKilled")), [INCARNATION]);
    assert_eq!(with("exitCode", json!(255)), [""; 0]);
    assert_eq!(with("exitCode", json!(null)), [""; 0]);
    assert_eq!(with("exitCode", json!(0)), [INCARNATION]);
}

#[test]
fn only_a_terminated_state_counts() {
    let with_phase = |phase: &str, state: Value| {
        but(|pod| {
            pod["status"]["phase"] = json!(phase);
            pod["status"]["containerStatuses"][0]["state"] = state.clone();
        })
    };
    for phase in ["Failed", "Unknown", "Succeeded", "Running", "Pending"] {
        assert_eq!(dead(&with_phase(phase, running())), [""; 0], "{phase}");
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": INCARNATION } });
        assert_eq!(dead(&with_phase(phase, waiting)), [""; 0], "{phase}");
        assert_eq!(dead(&with_phase(phase, json!({}))), [""; 0], "{phase}");
    }
    let without_containers = json!({ "phase": "Failed", "reason": "Evicted", "message": INCARNATION });
    assert_eq!(dead(&but(|pod| pod["status"] = without_containers.clone())), [""; 0]);
    assert_eq!(dead(&json!({ "metadata": { "deletionTimestamp": "2026-03-01T12:00:00Z" } })), [""; 0]);
    let unready = json!([{ "type": "Ready", "status": "False", "reason": "PodFailed", "message": INCARNATION }]);
    assert_eq!(dead(&json!({ "status": { "phase": "Running", "conditions": unready } })), [""; 0]);
}

#[test]
fn container_that_shares_processes_proves_nothing() {
    for field in ["hostPID", "shareProcessNamespace"] {
        assert_eq!(dead(&but(|pod| pod["spec"][field] = json!(true))), [""; 0], "{field}");
        assert_eq!(dead(&but(|pod| pod["spec"][field] = json!(false))), [INCARNATION], "{field}");
    }
}

#[test]
fn init_and_ephemeral_containers_do_not_lead() {
    for kind in ["initContainerStatuses", "ephemeralContainerStatuses"] {
        let moved = but(|pod| {
            pod["status"][kind] = pod["status"]["containerStatuses"].take();
        });
        assert_eq!(dead(&moved), [""; 0], "{kind}");
    }
}

#[test]
fn odd_statuses_are_no_proof_and_no_panic() {
    for status in [
        json!(null),
        json!("x"),
        json!([]),
        json!({ "containerStatuses": "x" }),
        json!({ "containerStatuses": [1, null, {}] }),
    ] {
        assert_eq!(dead(&json!({ "spec": null, "status": status })), [""; 0]);
    }
    assert_eq!(
        dead(&but(|pod| pod["status"]["containerStatuses"][0]["state"] = terminated(&"x".repeat(1 << 20)))),
        [""; 0]
    );
}

#[test]
fn holder_is_dead_if_its_pod_proves_that_very_incarnation() {
    let dead = [INCARNATION.to_owned()];
    let of_dead = |holder: &str, incarnation: Option<&str>| is_dead(holder, incarnation, "billing-1", &dead);
    assert!(of_dead("billing-1", Some(INCARNATION)));
    assert!(!of_dead("billing-1", None), "a candidate that writes no incarnation");
    assert!(!of_dead("billing-1", Some(&INCARNATION.replace("11", "22"))), "its successor in the same pod");
    assert!(!of_dead("billing-2", Some(INCARNATION)), "an annotation that another holder left in place");
    assert!(!of_dead("", Some(INCARNATION)), "no holder");
    assert!(!is_dead("billing-1", Some(INCARNATION), "billing-1", &[]));
    assert!(!is_dead("", Some(INCARNATION), "", &dead));
}

#[test]
fn release_explains_the_free_lease_and_the_next_term() {
    let freed = ProvenRelease { transitions: 4 };
    assert_eq!([3, 4, 5, 6].map(|transitions| freed.leads_to(transitions)), [false, true, true, false]);
    assert!(ProvenRelease { transitions: i32::MAX }.leads_to(i32::MAX));
}
