//! A real control plane: starts, repeated starts, stops and faults.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use k8sensus_local::{Cluster, Component, instances};
use support::{PROGRAM, Program, audited, killed_owner, run, within};

#[test]
fn two_owned_control_planes_run_side_by_side_and_leave_nothing() {
    let audited_cluster = Cluster::control_plane().audit(true).start().unwrap();
    let other = Cluster::control_plane().controller_manager(false).start().unwrap();
    run(audited_cluster.kubectl().args(["create", "configmap", "kestrel"]));
    let found = run(other.kubectl().args(["get", "configmaps", "--output=name"]));
    assert!(!found.contains("kestrel"), "the instances share their data: {found}");
    assert_eq!(audited(&audited_cluster.audit_log(), "create", "kestrel"), 1);
    assert_eq!(other.pid(Component::ControllerManager), None);

    let records = [audited_cluster.instance(), other.instance()];
    let folders = records.each_ref().map(|record| record.kubeconfig.parent().unwrap().to_owned());
    audited_cluster.down().unwrap();
    drop(other);
    for (record, folder) in records.iter().zip(folders) {
        assert!(record.processes.values().all(|process| !process.alive()));
        assert!(!folder.exists(), "{}", folder.display());
    }
}

#[test]
fn a_component_can_be_paused_killed_and_started_again() {
    let cluster = Cluster::control_plane().controller_manager(false).start().unwrap();
    run(cluster.kubectl().args(["create", "configmap", "kestrel"]));
    cluster.signal(Component::Etcd, libc::SIGSTOP).unwrap();
    let etcd = cluster.instance().processes[&Component::Etcd];
    within(Duration::from_secs(5), || etcd.paused().then_some(()));
    cluster.signal(Component::Etcd, libc::SIGCONT).unwrap();
    cluster.signal(Component::ApiServer, libc::SIGKILL).unwrap();
    cluster.stop(Component::Etcd).unwrap();
    assert_eq!(cluster.pid(Component::Etcd), None);
    cluster.start_component(Component::Etcd).unwrap();
    cluster.start_component(Component::ApiServer).unwrap();
    run(cluster.kubectl().args(["get", "configmap", "kestrel"]));
}

#[test]
fn second_up_starts_only_missing_components() {
    let program = Program::new("again");
    let first = program.run(&["up", "--control-plane"]);
    assert!(first.contains("is ready after"), "{first}");
    let second = program.run(&["up", "--control-plane"]);
    assert!(second.contains("is already running\n"), "{second}");

    let before = program.instance();
    before.processes[&Component::ControllerManager].terminate(Duration::from_secs(10)).unwrap();
    assert!(program.run(&["status"]).contains("not running"));
    let third = program.run(&["up", "--control-plane"]);
    assert!(third.contains("restarted in") && third.contains("kube-controller-manager"), "{third}");
    assert_eq!(program.instance().processes[&Component::ApiServer], before.processes[&Component::ApiServer]);

    assert!(program.run(&["down"]).contains("is down"));
    assert!(program.run(&["down"]).contains("was not running"));
}

#[test]
fn down_removes_a_half_started_instance() {
    let program = Program::new("killed");
    let mut launcher = program.command(&["up", "--control-plane"]).stdout(Stdio::null()).spawn().unwrap();
    let record = within(Duration::from_secs(30), || {
        program.try_instance().filter(|found| found.running(Component::ApiServer).is_some())
    });
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    assert!(record.running(Component::ApiServer).is_some(), "the API server must survive its launcher");
    assert!(program.run(&["down"]).contains("is down"));
    assert!(record.processes.values().all(|process| !process.alive()));
    assert!(!record.kubeconfig.parent().unwrap().exists());
}

#[test]
fn up_replaces_a_half_started_instance() {
    let program = Program::new("replaced");
    let mut launcher = program.command(&["up", "--control-plane"]).stdout(Stdio::null()).spawn().unwrap();
    let record = within(Duration::from_secs(30), || {
        program.try_instance().filter(|found| found.running(Component::Etcd).is_some())
    });
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    assert!(program.run(&["up", "--control-plane"]).contains("is ready after"));
    assert!(record.processes.values().all(|process| !process.alive()));
    program.run(&["kubectl", "get", "namespaces"]);
}

#[test]
fn leftovers_of_a_killed_owner_are_swept() {
    let record = killed_owner("an_owner_waits_to_be_killed");
    assert!(!record.kubeconfig.exists());
}

#[test]
#[ignore = "runs as a part of the test above"]
fn an_owner_waits_to_be_killed() {
    let _cluster = Cluster::control_plane().controller_manager(false).start().unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_cluster_in_a_static_ends_when_its_owner_exits() {
    let test = ["--exact", "an_owner_keeps_its_cluster_in_a_static", "--ignored"];
    let mut owner = Command::new(std::env::current_exe().unwrap()).args(test).stdout(Stdio::null()).spawn().unwrap();
    let pid = owner.id().cast_signed();
    assert!(owner.wait().unwrap().success());
    let left = instances().into_iter().filter_map(|(_, found)| found.ok().flatten());
    assert_eq!(left.filter(|found| found.owner.is_some_and(|owner| owner.pid == pid)).count(), 0);
}

#[test]
#[ignore = "runs as a part of the test above"]
fn an_owner_keeps_its_cluster_in_a_static() {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let start = || Cluster::control_plane().controller_manager(false).start().unwrap();
    assert!(CLUSTER.get_or_init(start).kubeconfig().exists());
}

#[test]
fn error_names_the_stopped_instance_and_how_to_start_it() {
    let output = Command::new(PROGRAM).args(["--", "kubeconfig", "--name", "heron"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(error.contains(r#"no instance "heron" is running"#) && error.contains("up --name heron"), "{error}");
    assert!(!Path::new("heron").exists());
}
