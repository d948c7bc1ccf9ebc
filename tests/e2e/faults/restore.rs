//! etcd is put back to older data under a group that is led.
//!
//! Tokens fall then, and so may all that is counted: what is promised is one program at a time, and that all is well again by
//! itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use k8sensus_local::Component;
use serde_json::Value;

use super::super::SYSTEM;
use super::scene::{Scene, node, now};
use crate::support::{get, kubectl, within};

/// Kubernetes' own programs that watch: they wait for versions that are no more, and their administrator has to start them again.
const WATCHING: [Component; 4] =
    [Component::Proxy, Component::ControllerManager, Component::Scheduler, Component::Kubelet];

/// A term ends and another begins between the older data and the newer. The leader finds the former one's name in its Lease.
pub fn restore(scene: &Scene) {
    let data = node().instance().kubeconfig.with_file_name("etcd");
    let folder = tempfile::tempdir().unwrap();
    let older = folder.path().join("etcd");
    without_etcd(|| copy(&data, &older));
    // This may have cost a leadership, which the status need not say yet.
    let leader = within(60, "restored: a leader at work", || {
        let leader = lease(scene)["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        (!leader.is_empty() && scene.works(&leader)).then_some(leader)
    });
    let older_version = version(scene);
    scene.kill(&leader);
    let killed = now();
    within(30, "restored: the work of a successor", || works_since(scene, killed).then_some(()));
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
    within(60, "restored: work after the restore", || works_since(scene, restored).then_some(()));
    let first = scene.workload.report().stretches.into_iter().find(|stretch| stretch.from > restored).unwrap();
    println!(
        "restored: version {newer_version} to {restored_version}; the next work {:?} later",
        first.from - restored
    );
    scene.well();
    println!("restored: all was well {:?} later", now() - restored);
    // All kinds of objects are watched again: what a user wants comes about.
    kubectl(node(), &["scale", "-n", &scene.ns, "electiongroup/kestrel", "--replicas=3"]);
    within(60, "restored: a third pod", || (scene.group()?["status"]["readyReplicas"] == 3).then_some(()));
    println!("restored: a third pod {:?} later", now() - restored);
    assert_eq!(operators, self::operators(), "an operator was started again");
}

pub fn judge(scene: &Scene) -> String {
    scene.no_container_crashes_in_a_loop();
    let report = scene.workload.judged();
    assert!(report.overlaps.is_empty() && report.stale.is_empty(), "restored: {report}");
    format!("restored: {} terms, nobody worked for {:?} at most", report.incarnations(), report.longest_gap())
}

fn works_since(scene: &Scene, since: std::time::Duration) -> bool {
    scene.workload.report().stretches.iter().any(|stretch| stretch.from > since)
}

fn lease(scene: &Scene) -> Value {
    get(node(), &scene.ns, "lease/kestrel").unwrap()
}

fn version(scene: &Scene) -> u64 {
    lease(scene)["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// The operators' processes.
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
