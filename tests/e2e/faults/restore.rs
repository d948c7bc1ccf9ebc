//! Restores etcd to older data under a group that has a leader.
//!
//! Tokens and all other counts may fall then. The guarantees are one program at a time and recovery without help.

use std::fs;
use std::path::Path;
use std::process::Command;

use k8sensus_local::Component;
use serde_json::Value;

use super::super::SYSTEM;
use super::scene::{Scene, node, now};
use crate::support::{get, kubectl, within};

/// Kubernetes components that watch: they wait for resource versions that no longer exist, so an administrator has to
/// restart them.
const WATCHING: [Component; 4] =
    [Component::Proxy, Component::ControllerManager, Component::Scheduler, Component::Kubelet];

/// Starts a new term between the older and the newer data, so that the leader finds its predecessor in the restored
/// Lease.
pub fn restore(scene: &Scene) {
    let data = node().instance().kubeconfig.with_file_name("etcd");
    let folder = tempfile::tempdir().unwrap();
    let older = folder.path().join("etcd");
    without_etcd(|| copy(&data, &older));
    // The leader may have changed here without the status showing it yet.
    let leader = within(60, "restored: a leader at work", || {
        let leader = lease(scene)["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        (!leader.is_empty() && scene.works(&leader)).then_some(leader)
    });
    let older_version = version(scene);
    scene.kill(&leader);
    let killed = now();
    within(30, "restored: the work of a successor", || worked_since(scene, killed).then_some(()));
    let newer_version = version(scene);
    let operators = operators();
    without_etcd(|| {
        scene.workload.rewound.set(now()).unwrap();
        fs::remove_dir_all(&data).unwrap();
        copy(&older, &data);
    });
    let restored = now();
    let restored_version = version(scene);
    assert!(restored_version < newer_version, "{older_version}, {newer_version}, then {restored_version}");
    for component in WATCHING {
        node().stop(component).unwrap();
        node().start_component(component).unwrap();
    }
    within(60, "restored: work after the restore", || worked_since(scene, restored).then_some(()));
    let first = scene.workload.report().stretches.into_iter().find(|stretch| stretch.from > restored).unwrap();
    println!(
        "restored: version {newer_version} to {restored_version}; the next work {:?} later",
        first.from - restored
    );
    scene.wait_until_healthy();
    println!("restored: healthy {:?} later", now() - restored);
    // All kinds are watched again, so the operator applies a change to the spec.
    kubectl(node(), &["scale", "-n", &scene.ns, "electiongroup/kestrel", "--replicas=3"]);
    within(60, "restored: a third pod", || (scene.group()?["status"]["readyReplicas"] == 3).then_some(()));
    println!("restored: a third pod {:?} later", now() - restored);
    assert_eq!(operators, self::operators(), "an operator restarted");
}

pub fn judge(scene: &Scene) -> String {
    scene.assert_no_crash_loop();
    let report = scene.workload.checked_report();
    assert!(report.overlaps.is_empty() && report.stale.is_empty(), "restored: {report}");
    format!("restored: {} terms, longest time without work {:?}", report.incarnations(), report.longest_gap())
}

fn worked_since(scene: &Scene, since: std::time::Duration) -> bool {
    scene.workload.report().stretches.iter().any(|stretch| stretch.from > since)
}

fn lease(scene: &Scene) -> Value {
    get(node(), &scene.ns, "lease/kestrel").unwrap()
}

fn version(scene: &Scene) -> u64 {
    lease(scene)["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// Returns the processes of the operators.
fn operators() -> Vec<i32> {
    let pods = get(node(), SYSTEM, "pods").unwrap();
    let uids = pods["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["uid"].as_str().unwrap());
    uids.flat_map(|uid| node().pids_in_pod(uid)).collect()
}

fn without_etcd(work: impl FnOnce()) {
    for component in [Component::ApiServer, Component::Etcd] {
        node().stop(component).unwrap();
    }
    work();
    for component in [Component::Etcd, Component::ApiServer] {
        node().start_component(component).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}
