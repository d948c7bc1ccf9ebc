//! Probes, hooks and signals of a program that runs only on the leader, under a real kubelet.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::images::{BUSYBOX, load};
use super::{holder, namespace, node, ready};
use crate::support::{apply, condition, get, group, kubectl, within};

/// Returns a group of two that runs `script`; `container` is added to its container.
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

/// Returns the pod that is not the leader.
fn standby(ns: &str, leader: &str) -> String {
    let names = kubectl(node(), &["get", "pods", "-n", ns, "-o", "name"]);
    let mut names = names.lines().map(|name| name.trim_start_matches("pod/"));
    names.find(|name| *name != leader).unwrap().to_owned()
}

/// Runs a script in the program's container; returns its output.
fn shell(ns: &str, pod: &str, script: &str) -> String {
    kubectl(node(), &["exec", "-n", ns, pod, "-c", "app", "--", "/bin/sh", "-c", script])
}

/// Returns the log of the program's container.
fn app_log(ns: &str, pod: &str) -> String {
    kubectl(node(), &["logs", "-n", ns, pod, "-c", "app"])
}

const WEB: &str = "echo started; mkdir -p /tmp/www; echo ok > /tmp/www/live; cd /tmp/www; trap 'echo stopping; exit 0' TERM; \
                   sleep 2; httpd -f -p 8080 -h /tmp/www & while :; do sleep 0.2 & wait $!; done";

#[test]
fn standbys_are_ready_and_the_leader_is_probed() {
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
    assert!(app_log(&ns, &leader).contains("started") && !app_log(&ns, &standby).contains("started"));
    let restarts = [&leader, &standby].map(|name| app(&pod(&ns, name))["restartCount"].clone());
    assert_eq!(restarts, [0, 0]);

    // The program becomes unhealthy: the kubelet's probe reaches it through the candidate, and the kubelet restarts the
    // container.
    shell(&ns, &leader, "rm /tmp/www/live");
    within(60, "the kubelet to restart the container", || {
        (app(&pod(&ns, &leader))["restartCount"].as_i64()? > 0).then_some(())
    });
    let after = ready(&ns, "kestrel", &[&leader]);
    assert_eq!(holder(&after), standby, "{}", after["status"]);
}

#[test]
fn failing_startup_probe_is_reported_and_leadership_moves() {
    load(BUSYBOX);
    let ns = namespace("startup");
    let never = json!({ "startupProbe": { "tcpSocket": { "port": 9 }, "periodSeconds": 1, "failureThreshold": 3 } });
    apply(node(), &ns, &exec("trap 'exit 0' TERM; while :; do sleep 0.2 & wait $!; done", never)).unwrap();
    within(60, "a condition that names the startup probe", || {
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
fn hooks_run_only_on_the_leader_and_delay_a_step_down() {
    load(BUSYBOX);
    let ns = namespace("hooks");
    let hook = |name: &str| json!({ "exec": { "command": ["/bin/sh", "-c", format!("echo {name} >> /tmp/hooks")] } });
    let hooks = json!({ "lifecycle": { "postStart": hook("post"), "preStop": hook("pre") } });
    let script = "trap 'sleep 1; cat /tmp/hooks; exit 0' TERM; while :; do sleep 0.2 & wait $!; done";
    apply(node(), &ns, &exec(script, hooks)).unwrap();
    let leader = holder(&ready(&ns, "kestrel", &[]));
    within(30, "both pods to be ready", || {
        (get(node(), &ns, "electiongroup/kestrel")?["status"]["readyReplicas"] == 2).then_some(())
    });
    let standby = standby(&ns, &leader);
    shell(&ns, &standby, "test ! -e /tmp/hooks");
    kubectl(node(), &["annotate", "-n", &ns, "electiongroup/kestrel", "k8sensus.dev/step-down-requested-at=now"]);
    let second = holder(&ready(&ns, "kestrel", &[&leader]));
    assert_eq!(second, standby);
    assert!(app_log(&ns, &leader).contains("post\npre\n"), "{}", app_log(&ns, &leader));
    let output = within(30, "a hook of the second leader", || {
        Some(shell(&ns, &second, "if [ -e /tmp/hooks ]; then cat /tmp/hooks; fi")).filter(|output| !output.is_empty())
    });
    assert_eq!(output, "post\n");
}

#[test]
fn missing_program_is_named_in_the_conditions_without_a_hot_loop() {
    load(BUSYBOX);
    for (command, expected) in
        [(vec!["/no/such/program"], "cannot start /no/such/program"), (vec!["/etc/passwd"], "cannot start /etc/passwd")]
    {
        let ns = namespace("missing");
        apply(node(), &ns, &exec("", json!({ "command": command }))).unwrap();
        let group = within(60, "the conditions to name the program", || {
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
