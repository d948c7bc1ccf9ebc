//! The behavior of the original program, against a real API server.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{self, CANDIDATE, Program, apply, candidate, get, kubectl, namespace, shared, within};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn two_candidates_log_the_lines_of_the_original() {
    let cluster = shared();
    let ns = namespace(cluster, "original");
    let start = |pod: &str| {
        // Only arguments and POD_NAME, as in the original's Deployment; `-lease-namespace` is Go's other spelling.
        let mut command = Command::new(CANDIDATE);
        command.args(["--lease-name=boathouse", "-lease-namespace", &ns]).env("POD_NAME", pod);
        Program::start(pod, command.env("KUBECONFIG", cluster.kubeconfig()))
    };
    let mut otter = start("otter");
    otter.wait_for("k8sensus is running sample task.", SOON);
    let expected = [
        "🚢🏗️ k8sensus is running!",
        "Creating lease using the following metadata:",
        "Lease Name: boathouse",
        "Pod Name: otter",
        &format!("Namespace: {ns}"),
        &format!("attempting to acquire leader lease {ns}/boathouse..."),
        &format!("successfully acquired lease {ns}/boathouse"),
        "I'm the new leader!",
        "k8sensus is running sample task.",
    ];
    let output = otter.output();
    let mut rest = output.as_str();
    for line in expected {
        let at = rest.find(line).unwrap_or_else(|| panic!("{line:?} not in order in:\n{output}"));
        rest = &rest[at + line.len()..];
    }
    let lease = get(cluster, &ns, "lease/boathouse").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "otter");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 15);
    assert_eq!(lease["spec"]["leaseTransitions"], 0);

    let mut heron = start("heron");
    heron.wait_for("New leader is: otter", SOON);
    assert!(otter.terminate(Duration::from_secs(2)).success());
    assert!(otter.says("Evicted as leader: finding new leaders.."));
    heron.wait_for("I'm the new leader!", Duration::from_secs(1));
    assert_eq!(get(cluster, &ns, "lease/boathouse").unwrap()["spec"]["leaseTransitions"], 1);

    assert!(heron.terminate(Duration::from_secs(2)).success());
    let spec = get(cluster, &ns, "lease/boathouse").unwrap()["spec"].clone();
    assert_eq!(spec["holderIdentity"], "");
    assert_eq!(spec["leaseDurationSeconds"], 1);
    assert_eq!(spec["leaseTransitions"], 1);
    assert!(spec["acquireTime"].is_string() && spec["renewTime"].is_string());
}

#[test]
fn a_killed_leader_is_replaced_when_its_lease_has_expired() {
    let cluster = shared();
    let ns = namespace(cluster, "killed");
    let leader = candidate(cluster, &ns, "weir", "otter", &[]);
    leader.wait_for("I'm the new leader!", SOON);
    let standby = candidate(cluster, &ns, "weir", "heron", &[]);
    standby.wait_for("New leader is: otter", SOON);
    leader.signal(Signal::KILL);
    std::thread::sleep(Duration::from_secs(1));
    assert!(!standby.says("I'm the new leader!"));
    standby.wait_for("I'm the new leader!", SOON);
}

#[test]
fn two_processes_of_one_name_do_not_both_lead() {
    let cluster = shared();
    let ns = namespace(cluster, "twins");
    let mut first = candidate(cluster, &ns, "weir", "otter", &[]);
    first.wait_for("I'm the new leader!", SOON);
    let twin = candidate(cluster, &ns, "weir", "otter", &[]);
    std::thread::sleep(Duration::from_secs(4));
    assert!(!twin.says("I'm the new leader!"));
    first.terminate(SOON);
    twin.wait_for("I'm the new leader!", SOON);
}

#[test]
fn a_lease_changed_or_deleted_by_hand_stops_the_leader_immediately() {
    let cluster = shared();
    let ns = namespace(cluster, "meddled");
    let leader = candidate(cluster, &ns, "weir", "otter", &[]);
    leader.wait_for("I'm the new leader!", SOON);
    kubectl(
        cluster,
        &["patch", "-n", &ns, "lease/weir", "--type=merge", "-p", r#"{"spec":{"holderIdentity":"heron"}}"#],
    );
    leader.wait_for("Evicted as leader", Duration::from_secs(1));
    leader.wait_for("New leader is: heron", Duration::from_secs(1));
    within(8, "the lease to be taken back", || {
        (leader.output().matches("I'm the new leader!").count() == 2).then_some(())
    });
    kubectl(cluster, &["delete", "-n", &ns, "lease/weir"]);
    within(2, "the leader to stop", || (leader.output().matches("Evicted as leader").count() == 2).then_some(()));
    within(8, "the lease to be recreated", || {
        (leader.output().matches("I'm the new leader!").count() == 3).then_some(())
    });
}

/// Creates the kubeconfig of a ServiceAccount with `verbs` on leases.
fn account(ns: &str, verbs: &[&str]) -> tempfile::NamedTempFile {
    let cluster = shared();
    kubectl(cluster, &["create", "-n", ns, "serviceaccount", "boatman"]);
    let role = json!({
        "apiVersion": "v1", "kind": "List", "items": [
            { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "boatman" },
              "rules": [{ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs }] },
            { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "boatman" },
              "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "boatman" },
              "subjects": [{ "kind": "ServiceAccount", "name": "boatman", "namespace": ns }] },
        ]
    });
    apply(cluster, ns, &role).unwrap();
    let token = kubectl(cluster, &["create", "-n", ns, "token", "boatman"]);
    support::kubeconfig_with(cluster, json!({ "token": token.trim() }))
}

fn candidate_as(kubeconfig: &std::path::Path, ns: &str, pod: &str) -> Program {
    let mut command = support::candidate_command(shared(), ns, "weir", pod, &[]);
    Program::start(pod, command.env("KUBECONFIG", kubeconfig))
}

#[test]
fn the_rights_of_client_go_suffice_for_a_quick_handover() {
    let cluster = shared();
    let ns = namespace(cluster, "rights");
    let kubeconfig = account(&ns, &["get", "create", "update"]);
    let mut leader = candidate_as(kubeconfig.path(), &ns, "otter");
    leader.wait_for("I'm the new leader!", SOON);
    let standby = candidate_as(kubeconfig.path(), &ns, "heron");
    standby.wait_for("New leader is: otter", SOON);
    standby.wait_for("cannot watch lease", SOON);
    std::thread::sleep(Duration::from_secs(3));
    let warnings = standby.output().matches("WARN").count();
    assert_eq!(warnings, 1, "{}", standby.output());
    leader.terminate(Duration::from_secs(2));
    standby.wait_for("I'm the new leader!", Duration::from_secs(2));
}

#[test]
fn missing_rights_are_named_and_leadership_follows_their_grant() {
    let cluster = shared();
    let ns = namespace(cluster, "norights");
    let kubeconfig = account(&ns, &["get"]);
    let mut patient = candidate_as(kubeconfig.path(), &ns, "otter");
    patient.wait_for("cannot create resource \"leases\"", SOON);
    assert!(patient.output().contains(&format!("cannot create lease {ns}/weir")), "{}", patient.output());
    kubectl(
        cluster,
        &[
            "patch",
            "-n",
            &ns,
            "role/boatman",
            "--type=json",
            "-p",
            r#"[{"op":"add","path":"/rules/0/verbs/-","value":"*"}]"#,
        ],
    );
    patient.wait_for("I'm the new leader!", SOON);
    patient.terminate(SOON);
}

#[test]
fn an_unknown_certificate_authority_is_reported_and_retried() {
    let text = kubectl(shared(), &["config", "view", "--raw", "-o", "json"]);
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let cluster = config["clusters"][0]["cluster"].as_object_mut().unwrap();
    cluster.remove("certificate-authority");
    cluster.remove("certificate-authority-data");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config.to_string()).unwrap();
    let mut stranger = candidate_as(file.path(), "default", "otter");
    stranger.wait_for("UnknownIssuer", SOON);
    assert!(stranger.says("cannot get lease default/weir"), "{}", stranger.output());
    assert!(stranger.terminate(Duration::from_secs(3)).success());
}
