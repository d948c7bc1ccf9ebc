//! The kubectl plugin against a real API server and a real operator. There is no node, so no pod is ever ready.

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    PLUGIN, apply, candidate, condition, get, group, kubeconfig_with, kubectl, namespace, operated, within,
};

/// Returns the plugin as a shell without kubeconfig would start it.
fn plugin(arguments: &[&str]) -> Command {
    let mut command = Command::new(PLUGIN);
    command.args(arguments).env_remove("KUBECONFIG").env("HOME", "/nonexistent");
    command
}

/// Runs the plugin in a namespace of the shared cluster.
fn run(namespace: &str, arguments: &[&str]) -> Output {
    let mut command = plugin(arguments);
    command.args(["--namespace", namespace]).env("KUBECONFIG", operated().kubeconfig());
    command.output().unwrap()
}

/// Returns the output of a run that must succeed.
fn succeed(namespace: &str, arguments: &[&str]) -> String {
    let output = run(namespace, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the one line that a failed run writes, without its prefix.
fn failure(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text.trim_end().strip_prefix("error: ").unwrap_or_else(|| panic!("{text}")).to_owned()
}

/// Creates a group, and waits until the operator has reconciled it.
fn reconciled(namespace: &str, name: &str) {
    apply(operated(), namespace, &group(name, json!({}))).unwrap();
    within(20, "the group to be reconciled", || {
        let found = get(operated(), namespace, &format!("electiongroup/{name}"))?;
        (!condition(&found, "Ready").is_empty()).then_some(())
    });
}

#[test]
fn status_and_list_show_a_group_without_ready_pods() {
    let ns = namespace(operated(), "screen");
    reconciled(&ns, "kestrel");
    let text = succeed(&ns, &["status", "kestrel"]);
    assert!(text.starts_with(&format!("{ns}/kestrel (mode Exec): Leaderless, no pod leads\n")), "{text}");
    assert!(text.contains("Lease        kestrel is free: no pod holds it\n"), "{text}");
    assert!(text.contains("Needs action\n  Ready (NoLeader): "), "{text}");
    let all = succeed(&ns, &["list", "-A"]);
    let line = all.lines().find(|line| line.starts_with(&format!("{ns} "))).unwrap_or_else(|| panic!("{all}"));
    assert!(line.contains("kestrel") && line.contains("Leaderless (LeaseReleased)"), "{all}");
    assert_eq!(succeed(&ns, &["list", "-o", "name"]), "electiongroup.k8sensus.dev/kestrel\n");
    let json: Value = serde_json::from_str(&succeed(&ns, &["status", "kestrel", "-o", "json"])).unwrap();
    assert_eq!((&json["state"], &json["name"]), (&json!("Leaderless"), &json!("kestrel")));
    assert_eq!(succeed(&ns, &["history", "kestrel"]), format!("{ns}/kestrel has had no leader yet.\n"));
}

/// A candidate outside of the group's pods leads. Without a ready standby it must not step down.
#[test]
fn refused_step_down_names_the_reason() {
    let ns = namespace(operated(), "refused");
    reconciled(&ns, "kestrel");
    let text = failure(&run(&ns, &["step-down", "kestrel"]));
    assert!(text.starts_with(&format!("{ns}/kestrel has no leader that could step down: ")), "{text}");
    let leader = candidate(operated(), &ns, "kestrel", "kestrel-a", &["exec", "--", "sleep", "600"]);
    within(20, "the candidate to lead", || {
        let lease = get(operated(), &ns, "lease/kestrel")?;
        (lease["spec"]["holderIdentity"] == "kestrel-a").then_some(())
    });
    within(10, "the operator to observe it", || {
        let found = get(operated(), &ns, "electiongroup/kestrel")?;
        (found["status"]["holderIdentity"] == "kestrel-a").then_some(())
    });
    let output = run(&ns, &["step-down", "kestrel", "--wait", "--timeout=20s"]);
    let text = failure(&output);
    assert!(text.contains("not stepped down yet: no standby is ready to follow kestrel-a"), "{text}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("kestrel-a hands over to a ready standby."), "{output:?}");
    let status = succeed(&ns, &["status", "kestrel"]);
    assert!(status.contains("Pending      step-down requested at "), "{status}");
    assert!(status.contains("Leader       kestrel-a\n") && status.contains("valid for another "), "{status}");
    drop(leader);
}

#[test]
fn group_is_suspended_and_resumed() {
    let ns = namespace(operated(), "suspended");
    reconciled(&ns, "kestrel");
    let suspended = || get(operated(), &ns, "electiongroup/kestrel").unwrap()["spec"]["suspend"].clone();
    let text = succeed(&ns, &["suspend", "kestrel", "--dry-run"]);
    assert!(text.ends_with("suspended (dry run: nothing was changed)\n") && suspended() == false, "{text}");
    let text = succeed(&ns, &["suspend", "kestrel"]);
    let expected = "All pods end, and no pod leads until the group is resumed; no pod leads now.\n\
                    electiongroup.k8sensus.dev/kestrel suspended\n";
    assert_eq!((text.as_str(), suspended()), (expected, json!(true)));
    let text = succeed(&ns, &["suspend", "kestrel"]);
    assert_eq!(text, "electiongroup.k8sensus.dev/kestrel is unchanged: spec.suspend is true already\n");
    within(10, "the suspension to be shown", || {
        succeed(&ns, &["status", "kestrel"]).contains("(mode Exec): Suspended, no pod is to lead").then_some(())
    });
    assert!(succeed(&ns, &["resume", "kestrel"]).ends_with("kestrel resumed\n") && suspended() == false);
}

#[test]
fn restart_annotates_the_pod_template() {
    let ns = namespace(operated(), "restarted");
    reconciled(&ns, "kestrel");
    let text = failure(&run(&ns, &["restart", "kestrel"]));
    assert!(text.contains("has no pod template to annotate, since it uses spec.image"), "{text}");
    let mut owl = group(
        "owl",
        json!({ "template": { "spec": { "containers": [{
        "name": "app", "image": "owl:1", "command": ["/owl"] }] } } }),
    );
    owl["spec"].as_object_mut().unwrap().retain(|key, _| key != "image" && key != "command");
    apply(operated(), &ns, &owl).unwrap();
    assert!(succeed(&ns, &["restart", "owl"]).contains("electiongroup.k8sensus.dev/owl restarted\n"));
    let found = get(operated(), &ns, "electiongroup/owl").unwrap();
    let annotations = &found["spec"]["template"]["metadata"]["annotations"];
    assert!(annotations["kubectl.kubernetes.io/restartedAt"].is_string(), "{found}");
}

#[test]
fn missing_objects_are_named_with_a_remedy() {
    let ns = namespace(operated(), "missing");
    apply(operated(), &ns, &group("kestrel", json!({}))).unwrap();
    let expected = format!("there is no ElectionGroup kestral in namespace {ns}: did you mean kestrel?");
    assert_eq!(failure(&run(&ns, &["status", "kestral"])), expected);
    let text = failure(&run("nowhere", &["list"]));
    assert!(text.starts_with("namespace nowhere does not exist: "), "{text}");
    let text = failure(&run("nowhere", &["status", "kestrel"]));
    assert!(text.starts_with("namespace nowhere does not exist: "), "{text}");
}

#[test]
fn user_without_rights_learns_which_are_missing() {
    let ns = namespace(operated(), "rights");
    apply(operated(), &ns, &group("kestrel", json!({}))).unwrap();
    let text = failure(&run(&ns, &["status", "kestrel", "--as=owl"]));
    let expected = format!(
        "you may not get electiongroups in namespace {ns}: ask an administrator of the cluster for a Role with this \
         verb and resource (you are owl)"
    );
    assert_eq!(text, expected);
    // With the group alone, the status is shown without what needs more rights.
    kubectl(
        operated(),
        &["create", "role", "reader", "-n", &ns, "--verb=get,list", "--resource=electiongroups.k8sensus.dev"],
    );
    kubectl(operated(), &["create", "rolebinding", "reader", "-n", &ns, "--role=reader", "--user=wren"]);
    let text = succeed(&ns, &["status", "kestrel", "--as=wren"]);
    assert!(text.contains(&format!("Note: the pods are not shown: you may not list pods in namespace {ns}")), "{text}");
}

#[test]
fn unusable_connections_are_explained_in_one_sentence() {
    let text = failure(&plugin(&["list"]).output().unwrap());
    assert!(text.starts_with("no cluster found: ") && text.ends_with("set KUBECONFIG or pass --kubeconfig"), "{text}");
    let mut command = plugin(&["list", "--context=elsewhere"]);
    let text = failure(&command.env("KUBECONFIG", operated().kubeconfig()).output().unwrap());
    assert!(text.starts_with("the kubeconfig has no context elsewhere: it has "), "{text}");
    let stranger = kubeconfig_with(operated(), json!({ "token": "stolen" }));
    let text = failure(&plugin(&["list", "--kubeconfig", stranger.path().to_str().unwrap()]).output().unwrap());
    assert!(text.contains("does not accept the credentials of the kubeconfig"), "{text}");
    let away = tempfile::NamedTempFile::new().unwrap();
    let config = json!({ "apiVersion": "v1", "kind": "Config", "current-context": "away",
        "clusters": [{ "name": "away", "cluster": { "server": "http://127.0.0.1:1" } }],
        "contexts": [{ "name": "away", "context": { "cluster": "away", "user": "" } }] });
    std::fs::write(away.path(), config.to_string()).unwrap();
    let start = std::time::Instant::now();
    let text = failure(&plugin(&["list", "--kubeconfig", away.path().to_str().unwrap()]).output().unwrap());
    assert!(text.starts_with("the API server at http://127.0.0.1:1 cannot be reached (Connection refused"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(10));
}
