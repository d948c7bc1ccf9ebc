//! A real node: pods run under the Pod Security Standard `restricted`, reach the API server, and can be killed.

mod support;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use k8sensus_local::{Cluster, Component, Image, ImageFile, Instance};
use support::{Program, killed_owner, run, within};

const IMAGE: &str = "localhost/kestrel:dev";

/// Two containers: one queries the API server and ends, one waits to be killed.
const POD: &str = r#"{
    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kestrel", "namespace": "strict"},
    "spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "restartPolicy": "OnFailure",
        "containers": [
            {"name": "asks", "image": "localhost/kestrel:dev", "command": ["/kubectl", "get", "--raw=/readyz"],
             "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}},
            {"name": "waits", "image": "localhost/kestrel:dev",
             "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}
        ]
    }
}"#;

#[test]
fn pods_run_reach_the_api_server_and_can_be_killed() {
    if !may_run() {
        return;
    }
    let cluster = Cluster::node().start().unwrap();
    cluster.load_image(&image(&cluster)).unwrap();
    run(cluster.kubectl().args(["create", "namespace", "strict"]));
    run(cluster.kubectl().args(["label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted"]));
    within(Duration::from_secs(10), || {
        let account = ["get", "serviceaccount", "default", "--namespace=strict"];
        cluster.kubectl().args(account).stderr(Stdio::null()).output().unwrap().status.success().then_some(())
    });
    let manifest = cluster.kubeconfig().with_file_name("pod.json");
    fs::write(&manifest, POD).unwrap();
    run(cluster.kubectl().args(["apply", "--filename"]).arg(&manifest));

    let ask = |path: &str| {
        let path = format!("jsonpath={path}");
        run(cluster.kubectl().args(["get", "pod", "kestrel", "--namespace=strict", "--output", &path]))
    };
    let of = |container: &str, field: &str| format!("{{.status.containerStatuses[?(@.name=='{container}')].{field}}}");
    let exit_code = within(Duration::from_secs(30), || {
        Some(ask(&of("asks", "state.terminated.exitCode"))).filter(|s| !s.is_empty())
    });
    let log = run(cluster.kubectl().args(["logs", "kestrel", "--namespace=strict", "--container=asks"]));
    assert_eq!((exit_code.as_str(), log.trim()), ("0", "ok"));

    let uid = ask("{.metadata.uid}");
    let processes =
        within(Duration::from_secs(10), || Some(cluster.processes_in_pod(&uid)).filter(|found| found.len() == 1));
    assert_eq!(processes[0].command, "/waits");
    let inner = processes[0].inner_pid.to_string();
    run(cluster.inside(["/bin/sh", "-c", &format!("kill -KILL {inner}")]).unwrap().stdin(Stdio::null()));
    within(Duration::from_secs(20), || (ask(&of("waits", "restartCount")) == "1").then_some(()));

    let record = cluster.instance();
    cluster.down().unwrap();
    assert!(record.processes.values().all(|process| !process.alive()));
    assert_eq!(traces(&record), Vec::<String>::new());
}

#[test]
fn two_nodes_run_side_by_side_and_outlive_their_launcher() {
    if !may_run() {
        return;
    }
    let [one, other] = ["one", "other"].map(Program::new);
    let launchers = [&one, &other].map(|program| program.command(&["up"]).stdout(Stdio::null()).spawn().unwrap());
    for mut launcher in launchers {
        assert!(launcher.wait().unwrap().success());
    }
    for program in [&one, &other] {
        assert!(program.run(&["kubectl", "get", "nodes"]).contains(" Ready "));
    }
    assert!(one.run(&["down"]).contains("is down"));
    let record = other.instance();
    assert!(record.running(Component::Kubelet).is_some(), "stopping one node must not affect the other");
    other.run(&["kubectl", "get", "nodes"]);
    other.run(&["down"]);
    assert_eq!(traces(&record), Vec::<String>::new());
}

#[test]
fn node_ends_with_its_killed_owner() {
    if !may_run() {
        return;
    }
    let record = killed_owner("an_owner_waits_to_be_killed");
    assert_eq!(traces(&record), Vec::<String>::new());
}

#[test]
#[ignore = "runs as a part of the test above"]
fn an_owner_waits_to_be_killed() {
    let _cluster = Cluster::node().start().unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

fn may_run() -> bool {
    let root = rustix::process::geteuid().is_root();
    assert!(root || std::env::var_os("CI").is_none(), "CI must run the node tests: run them as root");
    if !root {
        eprintln!("skipped: a node needs root");
    }
    root
}

/// Writes an image with two static programs that every node has.
fn image(cluster: &Cluster) -> std::path::PathBuf {
    let programs = cluster.instance().programs;
    let file = |program: &str, path: &str| ImageFile {
        source: programs[program].clone().into(),
        path: path.into(),
        mode: 0o755,
    };
    let files = vec![file("kubectl", "kubectl"), file("pause", "waits")];
    let archive = cluster.kubeconfig().with_file_name("kestrel.tar");
    Image { name: IMAGE.into(), entrypoint: vec!["/waits".into()], files }.write(&archive).unwrap();
    archive
}

/// Returns what remains of an instance besides its processes.
fn traces(record: &Instance) -> Vec<String> {
    let folder = record.kubeconfig.parent().unwrap();
    let node = record.node.as_ref().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(&*folder.to_string_lossy())).map(str::to_owned);
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).unwrap().flatten().map(|entry| entry.path()).chain([root.to_owned()]);
    let cgroups = hierarchies.map(|hierarchy| hierarchy.join(node.cgroup.trim_start_matches('/')));
    let paths = cgroups.chain([Path::new("/sys/class/net").join(&node.interface), folder.to_owned()]);
    mounts.chain(paths.filter(|path| path.exists()).map(|path| path.display().to_string())).collect()
}
