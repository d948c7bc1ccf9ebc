//! Probes, hooks and signals of a program that runs only on the leader, with a real kubelet.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::images::{BUSYBOX, load};
use super::{holder, namespace, node, ready};
use crate::support::{apply, condition, get, group, kubectl, within};

/// A group of two that runs `script`; `container` is added to its container.
fn exec(script: &str, container: Value) -> Value {
    let mut app = json!({ "name": "app", "image": BUSYBOX, "command": ["/bin/sh", "-c", script] });
    app.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    let template = json!({ "spec": { "containers": [
        app,
        { "name": "beside", "image": BUSYBOX, "command": ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"] },
    ] } });
    let mut group = group("kestrel", json!({ "minReadySeconds": 1, "template": template }));
    group["spec"].as_object_mut().unwrap().retain(|field, _| !["image", "command"].contains(&field.as_str()));
    group
}

fn pod(ns: &str, name: &str) -> Value {
    get(node(), ns, &format!("pod/{name}")).unwrap()
}

fn app(pod: &Value) -> Value {
    let statuses = pod["status"]["containerStatuses"].as_array().unwrap();
    statuses.iter().find(|status| status["name"] == "app").unwrap().clone()
}

/// The pod that does not lead.
fn standby(ns: &str, leader: &str) -> String {
    let names = kubectl(node(), &["get", "pods", "-n", ns, "-o", "name"]);
    let mut names = names.lines().map(|name| name.trim_start_matches("pod/"));
    names.find(|name| *name != leader).unwrap().to_owned()
}

/// What a shell in the program's container prints.
fn shell(ns: &str, pod: &str, script: &str) -> String {
    kubectl(node(), &["exec", "-n", ns, pod, "-c", "app", "--", "/bin/sh", "-c", script])
}

/// What the program wrote, on whichever pod.
fn said(ns: &str, pod: &str) -> String {
    kubectl(node(), &["logs", "-n", ns, pod, "-c", "app"])
}

const WEB: &str = "echo started; mkdir -p /tmp/www; echo ok > /tmp/www/live; cd /tmp/www; trap 'echo stopping; exit 0' TERM; \
                   sleep 2; httpd -f -p 8080 -h /tmp/www & while :; do sleep 0.2 & wait $!; done";

#[test]
fn standbys_are_ready_and_the_leaders_program_is_asked() {
    load(BUSYBOX);
    let ns = namespace("probes");
    let probes = json!({
        "ports": [{ "name": "web", "containerPort": 8080 }],
        "startupProbe": { "httpGet": { "path": "/live", "port": "web" }, "periodSeconds": 1, "failureThreshold": 30 },
        "readinessProbe": { "exec": { "command": ["test", "-e", "/tmp/www/live"] }, "periodSeconds": 1 },
        "livenessProbe": {
            "httpGet": { "path": "/live", "port": "web" }, "periodSeconds": 1, "failureThreshold": 2, "timeoutSeconds": 5,
        },
    });
    apply(node(), &ns, &exec(WEB, probes)).unwrap();
    let group = ready(&ns, "kestrel", &[]);
    let leader = holder(&group);
    within(30, "both pods to be ready", || {
        (get(node(), &ns, "electiongroup/kestrel")?["status"]["readyReplicas"] == 2).then_some(())
    });
    let standby = standby(&ns, &leader);
    assert!(said(&ns, &leader).contains("started") && !said(&ns, &standby).contains("started"));
    let restarts = [&leader, &standby].map(|name| app(&pod(&ns, name))["restartCount"].clone());
    assert_eq!(restarts, [0, 0]);

    // The program loses its health: the kubelet hears of it through the candidate and ends the container.
    shell(&ns, &leader, "rm /tmp/www/live");
    within(60, "the kubelet to start the container again", || {
        (app(&pod(&ns, &leader))["restartCount"].as_i64()? > 0).then_some(())
    });
    let after = ready(&ns, "kestrel", &[&leader]);
    assert_eq!(holder(&after), standby, "{}", after["status"]);
}

#[test]
fn a_program_that_never_starts_up_is_told_of_and_gives_way() {
    load(BUSYBOX);
    let ns = namespace("startup");
    let never = json!({ "startupProbe": { "tcpSocket": { "port": 9 }, "periodSeconds": 1, "failureThreshold": 3 } });
    apply(node(), &ns, &exec("trap 'exit 0' TERM; while :; do sleep 0.2 & wait $!; done", never)).unwrap();
    within(60, "a group that tells of it", || {
        let group = get(node(), &ns, "electiongroup/kestrel")?;
        group["status"]["conditions"].to_string().contains("startup probe").then_some(())
    });
    within(60, "each of the two pods to have led", || {
        let group = get(node(), &ns, "electiongroup/kestrel")?;
        let history = group["status"]["history"].as_array()?;
        let leaders: BTreeSet<_> = history.iter().map(|term| term["holderIdentity"].as_str().unwrap()).collect();
        (leaders.len() == 2).then_some(())
    });
}

#[test]
fn hooks_run_on_the_leader_alone_and_a_step_down_waits_for_them() {
    load(BUSYBOX);
    let ns = namespace("hooks");
    let say = |words: &str| json!({ "exec": { "command": ["/bin/sh", "-c", format!("echo {words} >> /tmp/told")] } });
    let hooks = json!({ "lifecycle": { "postStart": say("post"), "preStop": say("pre") } });
    let script = "trap 'sleep 1; cat /tmp/told; exit 0' TERM; while :; do sleep 0.2 & wait $!; done";
    apply(node(), &ns, &exec(script, hooks)).unwrap();
    let leader = holder(&ready(&ns, "kestrel", &[]));
    within(30, "both pods to be ready", || {
        (get(node(), &ns, "electiongroup/kestrel")?["status"]["readyReplicas"] == 2).then_some(())
    });
    let standby = standby(&ns, &leader);
    shell(&ns, &standby, "test ! -e /tmp/told");
    kubectl(node(), &["annotate", "-n", &ns, "electiongroup/kestrel", "k8sensus.dev/step-down-requested-at=now"]);
    let second = holder(&ready(&ns, "kestrel", &[&leader]));
    assert_eq!(second, standby);
    assert!(said(&ns, &leader).contains("post\npre\n"), "{}", said(&ns, &leader));
    let told = within(30, "a hook of the second", || {
        Some(shell(&ns, &second, "if [ -e /tmp/told ]; then cat /tmp/told; fi")).filter(|told| !told.is_empty())
    });
    assert_eq!(told, "post\n");
}

#[test]
fn a_program_that_is_not_there_is_named_in_the_conditions_and_not_tried_hot() {
    load(BUSYBOX);
    for (command, expected) in
        [(vec!["/no/such/program"], "cannot start /no/such/program"), (vec!["/etc/passwd"], "cannot start /etc/passwd")]
    {
        let ns = namespace("missing");
        apply(node(), &ns, &exec("", json!({ "command": command }))).unwrap();
        let group = within(60, "the conditions to name it", || {
            let group = get(node(), &ns, "electiongroup/kestrel")?;
            let found = group["status"]["conditions"].to_string().contains(expected);
            (found && condition(&group, "Ready").starts_with("False")).then_some(group)
        });
        println!("{}", group["status"]["conditions"]);
        std::thread::sleep(std::time::Duration::from_secs(10));
        let transitions = get(node(), &ns, "lease/kestrel").unwrap()["spec"]["leaseTransitions"].as_i64().unwrap();
        assert!(transitions < 12, "a hot loop: {transitions}");
    }
}
