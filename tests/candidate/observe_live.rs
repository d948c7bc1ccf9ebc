//! The observer beside real candidates, on a real API server.

use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    self, CANDIDATE, Program, apply, candidate, get, kubeconfig_with, kubectl, namespace, shared, within,
};

const SOON: Duration = Duration::from_secs(10);

fn observer_command(ns: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(CANDIDATE);
    command.args(["observe", "--lease-name=weir", "--lease-namespace", ns]).args(arguments);
    command.env("KUBECONFIG", shared().kubeconfig()).env("RUST_LOG", "warn");
    command
}

fn observer(ns: &str, arguments: &[&str]) -> Program {
    Program::start("observer", &mut observer_command(ns, arguments))
}

/// Returns all lines so far, parsed.
fn lines(observer: &Program) -> Vec<Value> {
    let output = observer.output();
    let whole = output.rfind('\n').map_or("", |end| &output[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Waits for the `n`-th line of that type, from 1.
fn nth(observer: &Program, n: usize, kind: &str) -> Value {
    within(20, &format!("{kind} number {n}"), || {
        lines(observer).into_iter().filter(|line| line["type"] == kind).nth(n - 1)
    })
}

fn kinds(observer: &Program) -> Vec<String> {
    lines(observer).iter().map(|line| line["type"].as_str().unwrap().to_owned()).collect()
}

fn token(line: &Value) -> u64 {
    line["fencingToken"].as_str().unwrap().parse().unwrap()
}

#[test]
fn the_life_of_a_lease_is_printed_line_by_line() {
    let cluster = shared();
    let ns = namespace(cluster, "observe");
    let mut observer = observer(&ns, &["--output=json"]);
    nth(&observer, 1, "Absent");

    let mut otter = candidate(cluster, &ns, "weir", "otter", &[]);
    let first = nth(&observer, 1, "Acquired");
    assert_eq!((&first["holderIdentity"], &first["fencingTokenSource"]), (&json!("otter"), &json!("AcquiringWrite")));
    assert_eq!((&first["leaseDurationSeconds"], &first["leaseTransitions"]), (&json!(3), &json!(0)));
    let heron = candidate(cluster, &ns, "weir", "heron", &[]);
    heron.wait_for("New leader is: otter", SOON);

    // Handover.
    otter.terminate(SOON);
    let second = nth(&observer, 2, "Acquired");
    assert_eq!((&second["holderIdentity"], &second["leaseTransitions"]), (&json!("heron"), &json!(1)));
    assert_eq!(second["warnings"], json!([]));
    assert!(token(&second) > token(&first), "{first} {second}");
    assert_eq!(kinds(&observer), ["Absent", "Created", "Acquired", "Released", "Acquired"]);

    // Death of the leader, and a successor.
    let kite = candidate(cluster, &ns, "weir", "kite", &[]);
    kite.wait_for("New leader is: heron", SOON);
    heron.signal(Signal::KILL);
    let third = nth(&observer, 3, "Acquired");
    assert_eq!((&third["holderIdentity"], &third["leaseTransitions"]), (&json!("kite"), &json!(2)));
    assert_eq!(third["warnings"], json!([]));
    assert_eq!(kinds(&observer)[5..], ["Expired", "Acquired"]);
    assert_eq!(nth(&observer, 1, "Expired")["previousHolderIdentity"], "heron");

    // Deletion by hand: the leader creates the Lease again.
    kubectl(cluster, &["delete", "-n", &ns, "lease/weir"]);
    let fourth = nth(&observer, 4, "Acquired");
    assert_eq!(kinds(&observer)[7..], ["Deleted", "Recreated", "Acquired"]);
    assert_ne!(fourth["uid"], third["uid"]);
    assert!(token(&fourth) > token(&third));

    // Cleared by hand, which is no release.
    let patch = r#"{"spec":{"holderIdentity":""}}"#;
    kubectl(cluster, &["patch", "-n", &ns, "lease/weir", "--type=merge", "-p", patch]);
    nth(&observer, 1, "Emptied");
    nth(&observer, 5, "Acquired");
    assert_eq!(kinds(&observer)[10..], ["Emptied", "Acquired"]);

    assert!(observer.terminate(SOON).success());
    for line in lines(&observer) {
        assert_eq!((&line["namespace"], &line["name"]), (&json!(ns), &json!("weir")));
    }
}

fn once(ns: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = observer_command(ns, &["--once"]).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn once_distinguishes_a_live_holder_from_a_dead_and_no_holder() {
    let cluster = shared();
    let ns = namespace(cluster, "once");
    let (code, out, _) = once(&ns, &[]);
    assert_eq!(code, Some(1));
    assert!(out.contains("Absent") && out.lines().count() == 1, "{out}");

    let mut otter = candidate(cluster, &ns, "weir", "otter", &[]);
    otter.wait_for("I'm the new leader!", SOON);
    let (code, out, error) = once(&ns, &["--output=json"]);
    assert_eq!(code, Some(0), "{out}{error}");
    let line: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&line["type"], &line["holderIdentity"]), (&json!("Live"), &json!("otter")));

    otter.signal(Signal::KILL);
    otter.wait(SOON);
    let (code, out, _) = once(&ns, &[]);
    assert_eq!(code, Some(1));
    assert!(out.contains("Expired") && out.contains("otter"), "{out}");

    let mut heron = candidate(cluster, &ns, "weir", "heron", &[]);
    heron.wait_for("I'm the new leader!", SOON);
    heron.terminate(SOON);
    let (code, out, _) = once(&ns, &[]);
    assert_eq!(code, Some(1));
    assert!(out.contains("Unheld") && out.contains("it was released"), "{out}");
}

/// Creates the kubeconfig of a ServiceAccount with `verbs` on leases; without rights if there are none.
fn account(ns: &str, verbs: &[&str]) -> tempfile::NamedTempFile {
    let cluster = shared();
    kubectl(cluster, &["create", "-n", ns, "serviceaccount", "angler"]);
    if !verbs.is_empty() {
        let role = json!({
            "apiVersion": "v1", "kind": "List", "items": [
                { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "angler" },
                  "rules": [{ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs }] },
                { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "angler" },
                  "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "angler" },
                  "subjects": [{ "kind": "ServiceAccount", "name": "angler", "namespace": ns }] },
            ]
        });
        apply(cluster, ns, &role).unwrap();
    }
    let token = kubectl(cluster, &["create", "-n", ns, "token", "angler"]);
    kubeconfig_with(cluster, json!({ "token": token.trim() }))
}

#[test]
fn without_the_watch_right_it_polls_and_names_the_right() {
    let ns = namespace(shared(), "polling");
    let kubeconfig = account(&ns, &["get"]);
    let mut command = observer_command(&ns, &["--renewals"]);
    let mut observer = Program::start("poller", command.env("KUBECONFIG", kubeconfig.path()));
    observer.wait_for("cannot list resource \"leases\"", SOON);
    observer.wait_for("grant list and watch on leases.coordination.k8s.io", SOON);
    observer.wait_for("Absent", SOON);
    let mut otter = candidate(shared(), &ns, "weir", "otter", &[]);
    observer.wait_for("otter leads", SOON);
    observer.wait_for("otter renewed", SOON);
    otter.terminate(SOON);
    observer.wait_for("otter released the lease", SOON);
    assert!(!observer.says("Expired"), "{}", observer.output());
    assert_eq!(observer.output().matches("WARN").count(), 1, "{}", observer.output());
    observer.signal(Signal::INT);
    assert!(observer.wait(SOON).success());
}

#[test]
fn without_any_right_it_retries_and_once_fails_in_one_line() {
    let ns = namespace(shared(), "norights");
    let kubeconfig = account(&ns, &[]);
    let path = kubeconfig.path().to_str().unwrap();
    let mut observer = observer(&ns, &["--kubeconfig", path]);
    observer.wait_for("cannot get resource \"leases\"", SOON);
    observer.wait_for("will try again within 2 s", SOON);
    assert!(observer.terminate(SOON).success());

    let Output { status, stdout, stderr } =
        observer_command(&ns, &["--once", "--kubeconfig", path]).env("RUST_LOG", "off").output().unwrap();
    let error = String::from_utf8(stderr).unwrap();
    assert_eq!((status.code(), stdout.as_slice()), (Some(1), &b""[..]));
    assert_eq!(error.lines().count(), 1, "{error}");
    for part in [&format!("lease {ns}/weir"), "cannot get resource \"leases\"", "grant list and watch"] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
}

#[test]
fn an_identity_of_a_megabyte_is_one_line() {
    let ns = namespace(shared(), "megabyte");
    let mut observer = observer(&ns, &[]);
    observer.wait_for("Absent", SOON);
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "weir", "namespace": ns },
        "spec": { "holderIdentity": "x".repeat(1_000_000), "leaseDurationSeconds": 1 },
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lease.to_string()).unwrap();
    kubectl(shared(), &["create", "-f", file.path().to_str().unwrap()]);
    observer.wait_for("Expired", SOON);
    assert!(observer.output().len() < 4_000);
    observer.wait_for("holderIdentity is 1000000 bytes long", SOON);
    assert!(get(shared(), &ns, "lease/weir").is_some());
    assert!(observer.terminate(SOON).success());
}

#[test]
fn an_expiry_without_an_api_server_has_a_warning() {
    let cluster = support::control_plane();
    let mut command = observer_command("default", &["--output=json"]);
    let observer = Program::start("observer", command.env("KUBECONFIG", cluster.kubeconfig()).env("RUST_LOG", "info"));
    observer.wait_for("Absent", SOON);
    let otter = candidate(&cluster, "default", "weir", "otter", &[]);
    observer.wait_for("Acquired", SOON);
    cluster.signal(k8sensus_local::Component::ApiServer, Signal::KILL.as_raw()).unwrap();
    observer.wait_for("will try again within 2 s", SOON);
    observer.wait_for("the holder may have renewed", SOON);
    drop(otter);
}
