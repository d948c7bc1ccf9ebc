//! What keeps pods from being created, scheduled, started or ready, from statuses as Kubernetes 1.37 writes them.

use k8sensus_group::observed::trouble::{container_trouble, eviction, last_end, obstacle, replica_failure};
use serde_json::{Value, json};

fn pod(kind: &str, state: Value, last_state: Value) -> Value {
    let status = json!({ "name": "app", "restartCount": 1, "ready": false, "state": state, "lastState": last_state });
    json!({ "spec": { "nodeName": "node-1" }, "status": { "phase": "Pending", kind: [status] } })
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({ "waiting": { "reason": reason, "message": message } })
}

fn terminated(code: i64, reason: &str, message: &str) -> Value {
    json!({ "terminated": { "exitCode": code, "reason": reason, "message": message } })
}

/// Returns the reported trouble of a container in that state.
fn trouble(state: Value, last_state: Value) -> Option<String> {
    container_trouble(&pod("containerStatuses", state, last_state))
}

fn conditions(conditions: Value) -> Value {
    json!({ "spec": { "nodeName": "node-1" }, "status": { "phase": "Pending", "conditions": conditions } })
}

/// Returns the obstacle of a pod with those conditions, and whether it is passing.
fn held_up(of: Value) -> Option<(String, bool)> {
    obstacle(&conditions(of)).map(|obstacle| (obstacle.what, obstacle.is_passing))
}

fn lasting(what: &str) -> Option<(String, bool)> {
    Some((what.to_owned(), false))
}

fn passing(what: &str) -> Option<(String, bool)> {
    Some((what.to_owned(), true))
}

#[test]
fn refused_pod_is_explained_by_the_deployment() {
    let why = |message: &str| {
        let condition =
            json!({ "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message });
        replica_failure(&json!({ "conditions": [{ "type": "Available", "status": "False" }, condition] })).unwrap()
    };
    let messages = [
        // ResourceQuota, LimitRange, Pod Security.
        r#"pods "billing-6c9f7d5b8-x7k2p" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1"#,
        r#"pods "billing-6c9f7d5b8-x7k2p" is forbidden: maximum cpu usage per Container is 1, but limit is 2"#,
        r#"pods "billing-6c9f7d5b8-x7k2p" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true (pod or container "app" must set securityContext.runAsNonRoot=true)"#,
        // References of the pod.
        r#"pods "billing-6c9f7d5b8-" is forbidden: error looking up service account shop/nobody: serviceaccount "nobody" not found"#,
        r#"pods "billing-6c9f7d5b8-" is forbidden: no PriorityClass with name high was found"#,
        r#"pods "billing-6c9f7d5b8-" is forbidden: pod rejected: RuntimeClass "gvisor" not found"#,
        // Webhooks.
        r#"admission webhook "deny.example.com" denied the request: no pods on Sundays"#,
        r#"Internal error occurred: failed calling webhook "deny.example.com": failed to call webhook: Post "https://deny.shop.svc:443/?timeout=10s": service "deny" not found"#,
    ];
    for message in messages {
        assert_eq!(why(message), format!("FailedCreate: {message}"));
    }
    let past = json!({ "type": "ReplicaFailure", "status": "False", "reason": "FailedCreate", "message": "past" });
    assert_eq!(replica_failure(&json!({ "conditions": [past] })), None);
    assert_eq!(replica_failure(&Value::Null), None);
}

#[test]
fn unschedulable_pod_quotes_the_scheduler() {
    let messages = [
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.",
        r#"0/1 nodes are available: persistentvolumeclaim "data" not found. not found"#,
        "0/1 nodes are available: 1 node(s) had untolerated taint(s). no new claims to deallocate",
    ];
    for message in messages {
        let of = json!([{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message }]);
        assert_eq!(held_up(of), lasting(&format!("Unschedulable: {message}")));
    }
    assert_eq!(held_up(json!([{ "type": "PodScheduled", "status": "True" }])), None);
}

#[test]
fn failed_image_pull_reads_the_same_during_back_off() {
    let error = r#"failed to pull and unpack image "localhost/nobody/has:this": failed to resolve reference "localhost/nobody/has:this": failed to do request: Head "https://localhost/v2/nobody/has/manifests/this": dial tcp 127.0.0.1:443: connect: connection refused"#;
    let pulling = trouble(waiting("ErrImagePull", error), json!({}));
    let back_off = format!(r#"Back-off pulling image "localhost/nobody/has:this": ErrImagePull: {error}"#);
    assert_eq!(pulling.as_deref(), Some(&*format!("container app: ErrImagePull: {error}")));
    assert_eq!(trouble(waiting("ImagePullBackOff", &back_off), json!({})), pulling);
    let invalid =
        r#"Failed to apply default image tag "UPPER": couldn't parse image name "UPPER": invalid reference format"#;
    let named = trouble(waiting("InvalidImageName", invalid), json!({}));
    assert_eq!(named, Some(format!("container app: InvalidImageName: {invalid}")));
    let never = r#"Container image "here:1" is not present with pull policy of Never"#;
    let named = trouble(waiting("ErrImageNeverPull", never), json!({}));
    assert_eq!(named, Some(format!("container app: ErrImageNeverPull: {never}")));
}

#[test]
fn container_that_cannot_start_quotes_the_kubelet() {
    for (reason, message) in [
        ("CreateContainerConfigError", r#"configmap "settings" not found"#),
        ("CreateContainerConfigError", r#"secret "password" not found"#),
        (
            "CreateContainerError",
            r#"failed to generate container "3f0c" spec: failed to generate spec: no command specified"#,
        ),
        (
            "RunContainerError",
            "failed to create containerd task: failed to create shim task: OCI runtime create failed",
        ),
    ] {
        let found = trouble(waiting(reason, message), json!({}));
        assert_eq!(found, Some(format!("container app: {reason}: {message}")));
    }
    let message = r#"failed to create containerd task: exec: "/no/such/program": no such file or directory"#;
    let found = trouble(waiting("CrashLoopBackOff", "back-off 10s"), terminated(128, "StartError", message));
    assert_eq!(
        found,
        Some(format!("container app: CrashLoopBackOff: it exited with code 128 (StartError): {message}"))
    );
}

#[test]
fn crash_is_reported_with_code_reason_and_last_message() {
    let ended = |code, reason, message| trouble(terminated(code, reason, message), json!({}));
    let looping =
        |code, reason, message| trouble(waiting("CrashLoopBackOff", "back-off"), terminated(code, reason, message));
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(ended(3, "Error", ""), some("container app exited with code 3"));
    assert_eq!(ended(3, "Error", "no such table"), some("container app exited with code 3: no such table"));
    assert_eq!(ended(137, "OOMKilled", ""), some("container app exited with code 137 (OOMKilled)"));
    assert_eq!(ended(0, "Completed", ""), None);
    assert_eq!(looping(3, "Error", ""), some("container app: CrashLoopBackOff: it exited with code 3"));
    assert_eq!(looping(3, "Error", "no such table"), some("container app: CrashLoopBackOff: no such table"));
    let killed = "container app: CrashLoopBackOff: it exited with code 137 (OOMKilled)";
    assert_eq!(looping(137, "OOMKilled", ""), some(killed));
    // The candidate's incarnation is not a message of the program.
    let mark = "0c7e5a52/app/00000000c0ffee11";
    assert_eq!(looping(137, "OOMKilled", mark), some(killed));
    assert_eq!(ended(137, "Error", mark), some("container app exited with code 137"));
    let again = pod("containerStatuses", json!({ "running": {} }), terminated(137, "OOMKilled", ""));
    assert_eq!(container_trouble(&again), None);
    assert_eq!(last_end(&again), some("container app exited with code 137 (OOMKilled)"));
}

#[test]
fn failing_init_container_is_named() {
    let failed =
        pod("initContainerStatuses", waiting("CrashLoopBackOff", "back-off"), terminated(1, "Error", "no schema"));
    assert_eq!(container_trouble(&failed).as_deref(), Some("container app: CrashLoopBackOff: no schema"));
    let waits = pod("containerStatuses", json!({ "waiting": { "reason": "PodInitializing" } }), json!({}));
    assert_eq!(container_trouble(&waits), None);
    assert!(obstacle(&waits).is_some_and(|found| found.is_passing && found.what.contains("PodInitializing")));
}

#[test]
fn container_that_is_never_created_refers_to_the_events() {
    let waits = pod("containerStatuses", json!({ "waiting": { "reason": "ContainerCreating" } }), json!({}));
    let reported = |pod: &Value| {
        let found = obstacle(pod).unwrap();
        assert!(found.is_passing, "{found:?}");
        found.what
    };
    let missing = "container app: ContainerCreating: a volume, ConfigMap or Secret may be missing, or an image is being pulled; \
                   the Events of the pod say more";
    assert_eq!(reported(&waits), missing);
    // With a sidecar, which is an init container, the kubelet gives the other reason for the same.
    let mut beside = pod("initContainerStatuses", json!({ "waiting": { "reason": "PodInitializing" } }), json!({}));
    let sandbox = |status: &str| json!([{ "type": "PodReadyToStartContainers", "status": status }]);
    beside["status"]["conditions"] = sandbox("False");
    assert_eq!(reported(&beside), missing.replace("ContainerCreating", "PodInitializing"));
    beside["status"]["conditions"] = sandbox("True");
    let pulls = "an image is being pulled, or an init container has not ended yet";
    assert!(reported(&beside).contains(pulls), "{}", reported(&beside));
}

#[test]
fn lost_node_is_distinguished_from_a_failing_probe() {
    // The node controller sets the condition and keeps reason and message as they were: empty.
    let lost = json!([{ "type": "ContainersReady", "status": "True" }, { "type": "Ready", "status": "False" }]);
    let expected = "node node-1 does not report to the API server: the pod was set to not ready, without a reason";
    assert_eq!(held_up(lost), lasting(expected));
    let unready = |reason: &str, message: &str| {
        json!([
            { "type": "ContainersReady", "status": if reason == "ContainersNotReady" { "False" } else { "True" } },
            { "type": "Ready", "status": "False", "reason": reason, "message": message },
        ])
    };
    let message = "containers with unready status: [app]";
    assert_eq!(held_up(unready("ContainersNotReady", message)), passing(&format!("ContainersNotReady: {message}")));
    let gate = |gate: &str| format!(r#"the status of pod readiness gate "{gate}" is not "True", but False"#);
    let theirs = gate("example.com/attached");
    assert_eq!(
        held_up(unready("ReadinessGatesNotReady", &theirs)),
        passing(&format!("ReadinessGatesNotReady: {theirs}"))
    );
    assert_eq!(held_up(unready("ReadinessGatesNotReady", &gate("k8sensus.dev/proven"))), None);
    let healthy = json!([{ "type": "ContainersReady", "status": "True" }, { "type": "Ready", "status": "True" }]);
    assert_eq!(held_up(healthy), None);
}

#[test]
fn unready_sidecar_alone_is_explained_by_the_program() {
    let pod = |app_ready: bool, sidecar: Value| {
        json!({ "status": {
            "initContainerStatuses": [{ "name": "k8sensus-sidecar", "ready": false, "state": sidecar }],
            "containerStatuses": [{ "name": "app", "ready": app_ready, "state": { "running": {} } }],
            "conditions": [{ "type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "[of Kubernetes]" }],
        } })
    };
    let held_up = |pod: Value| obstacle(&pod).map(|obstacle| (obstacle.what, obstacle.is_passing));
    let running = json!({ "running": {} });
    let silent = "ContainersNotReady: [of Kubernetes]: the program does not ask its sidecar whether it leads, \
                  or the sidecar has not observed the Lease yet";
    assert_eq!(held_up(pod(true, running.clone())), passing(silent));
    let plain = passing("ContainersNotReady: [of Kubernetes]");
    assert_eq!(held_up(pod(false, running)), plain);
    assert_eq!(held_up(pod(true, json!({ "terminated": { "exitCode": 1 } }))), plain);
}

#[test]
fn disrupted_pod_names_the_cause() {
    for (reason, message) in [
        ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"),
        ("PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod"),
        ("EvictionByEvictionAPI", "Eviction API: evicting"),
    ] {
        let of = json!([{ "type": "DisruptionTarget", "status": "True", "reason": reason, "message": message }]);
        assert_eq!(held_up(of), lasting(&format!("{reason}: {message}")));
    }
    let low = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52196Ki.";
    let evicted = json!({ "status": { "phase": "Failed", "reason": "Evicted", "message": low } });
    assert_eq!(eviction(&evicted), Some(format!("Evicted: {low}")));
    assert_eq!(eviction(&json!({ "status": { "phase": "Failed" } })), None);
    assert_eq!(eviction(&json!({ "status": { "phase": "Running" } })), None);
}

#[test]
fn foreign_texts_are_one_line_of_bounded_length() {
    let long = "ü ".repeat(3_000);
    let found = trouble(waiting("CreateContainerError", &long), json!({})).unwrap();
    assert!(found.chars().count() < 450 && found.ends_with("..."), "{found}");
    let found = trouble(terminated(1, "Error", "first\n\n  second\r\n"), json!({}));
    assert_eq!(found.as_deref(), Some("container app exited with code 1: first second"));
}
