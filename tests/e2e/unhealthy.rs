//! Leaders whose program does not work.

use serde_json::{Value, json};

use super::images::{BUSYBOX, load};
use super::{holder, namespace, node, ready};
use crate::support::{apply, condition, get, group, kubectl, within};

fn exec(script: &str, container: Value, spec: Value) -> Value {
    let mut app = json!({ "name": "app", "image": BUSYBOX, "command": ["/bin/sh", "-c", script] });
    app.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    let mut group = group("kestrel", json!({ "template": { "spec": { "containers": [app] } } }));
    let fields = group["spec"].as_object_mut().unwrap();
    fields.retain(|field, _| !["image", "command"].contains(&field.as_str()));
    fields.extend(spec.as_object().unwrap().clone());
    group
}

#[test]
fn leader_unready_for_too_long_steps_down() {
    load(BUSYBOX);
    for mode in ["Exec", "Sidecar"] {
        let ns = namespace("unhealthy");
        let script = "touch /tmp/ok; trap 'exit 0' TERM; \
                      while :; do wget -qO /dev/null http://localhost:4040/; sleep 0.2 & wait $!; done";
        let probe = json!({ "readinessProbe": { "exec": { "command": ["test", "-e", "/tmp/ok"] }, "periodSeconds": 1, "failureThreshold": 1 } });
        let spec = json!({ "minReadySeconds": 1, "candidate": { "mode": mode, "unhealthyTimeoutSeconds": 3 } });
        apply(node(), &ns, &exec(script, probe, spec)).unwrap();
        let leader = holder(&ready(&ns, "kestrel", &[]));
        within(60, "both pods to be ready", || {
            (get(node(), &ns, "electiongroup/kestrel")?["status"]["readyReplicas"] == 2).then_some(())
        });
        kubectl(node(), &["exec", "-n", &ns, &leader, "-c", "app", "--", "rm", "/tmp/ok"]);
        let group = within(60, "another leader", || {
            let group = get(node(), &ns, "electiongroup/kestrel")?;
            let holder = group["status"]["holderIdentity"].as_str()?;
            (holder != leader).then_some(group)
        });
        assert_eq!(group["status"]["history"][0]["reason"], "Unhealthy", "{mode}: {}", group["status"]);
    }
}

#[test]
fn flapping_leader_is_reported_and_backs_off() {
    load(BUSYBOX);
    let ns = namespace("flapping");
    apply(node(), &ns, &exec("sleep 0.5; echo giving up > /dev/termination-log; exit 7", json!({}), json!({})))
        .unwrap();
    let group = within(120, "a condition that reports a flapping leader", || {
        get(node(), &ns, "electiongroup/kestrel")
            .filter(|group| condition(group, "FailoverReady") == "False/LeaderFlapping")
    });
    println!("{}", group["status"]["conditions"]);
    within(30, "an Event for the flapping leader", || {
        kubectl(node(), &["describe", "-n", &ns, "electiongroup/kestrel"]).contains("LeaderFlapping").then_some(())
    });
    let transitions = || get(node(), &ns, "lease/kestrel").unwrap()["spec"]["leaseTransitions"].as_i64().unwrap();
    let before = transitions();
    std::thread::sleep(std::time::Duration::from_secs(20));
    let moves = transitions() - before;
    println!("{moves} leader moves in 20 s of flapping");
    assert!(moves <= 6, "a hot loop: {moves} moves in 20 s");
}
