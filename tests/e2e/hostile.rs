//! A program that damages the container that it shares with its candidate.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::images::{BUSYBOX, load};
use super::{holder, namespace, node, ready, uid};
use crate::support::{apply, get, group, kubectl, within};

/// Removes the candidate's files as far as it can and, once `/tmp/go` exists, starts more processes than its container
/// may have.
const SCRIPT: &str = "rm -rf /.k8sensus; echo nonsense > /dev/termination-log; exec <&- >&- 2>&-
    while [ ! -e /tmp/go ]; do usleep 100000; done
    sleep 3
    n=0
    while [ $n -lt 200 ]; do sleep 1000 & n=$((n + 1)); done
    while :; do sleep 1; done";

/// Limits the processes and threads in the container of `pid` to `more` than it has now; returns the limit.
fn limit_processes(pid: i32, more: u64) -> u64 {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = cgroups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        match rest.split_once(':')? {
            ("pids", path) => Some(PathBuf::from(format!("/sys/fs/cgroup/pids{path}"))),
            ("", path) => {
                Some(PathBuf::from(format!("/sys/fs/cgroup{path}"))).filter(|path| path.join("pids.max").exists())
            }
            _ => None,
        }
    });
    let folder = path.unwrap_or_else(|| panic!("no cgroup that counts processes: {cgroups}"));
    let now: u64 = fs::read_to_string(folder.join("pids.current")).unwrap().trim().parse().unwrap();
    fs::write(folder.join("pids.max"), (now + more).to_string()).unwrap();
    now + more
}

#[test]
fn program_that_deletes_our_files_and_exhausts_pids_hands_over() {
    load(BUSYBOX);
    let ns = namespace("hostile");
    let app = json!({ "name": "app", "image": BUSYBOX, "command": ["/bin/sh", "-c", SCRIPT] });
    let mut manifest = group(
        "kestrel",
        json!({ "replicas": 2, "template": { "spec": { "terminationGracePeriodSeconds": 5, "containers": [app] } } }),
    );
    let spec = manifest["spec"].as_object_mut().unwrap();
    // With the default lease, so that the end of the program moves the leader and not an expired Lease.
    spec.retain(|field, _| !["image", "command", "election"].contains(&field.as_str()));
    apply(node(), &ns, &manifest).unwrap();
    let leader = holder(&ready(&ns, "kestrel", &[]));
    let transitions = || get(node(), &ns, "lease/kestrel").unwrap()["spec"]["leaseTransitions"].as_i64().unwrap();
    let before = transitions();
    let pids = within(30, "the program beside its candidate", || {
        Some(node().pids_in_pod(&uid(&ns, &leader))).filter(|pids| pids.len() >= 2)
    });
    kubectl(node(), &["exec", "-n", &ns, &leader, "-c", "app", "--", "touch", "/tmp/go"]);
    let most = limit_processes(pids[0], 20);
    within(60, "another term", || (transitions() > before).then_some(()));
    let group = within(60, "the status of the new term", || {
        get(node(), &ns, "electiongroup/kestrel")
            .filter(|group| group["status"]["leaseTransitions"].as_i64() > Some(before))
    });
    println!("{leader} may have {most} processes and threads; then: {}", group["status"]["history"][0]);
    // The candidate's own files are still there, so its restarted container can lead again.
    let restarts = |pod: &str| {
        let pod = get(node(), &ns, &format!("pod/{pod}")).unwrap();
        pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap()
    };
    within(60, "both pods to be ready", || {
        (get(node(), &ns, "electiongroup/kestrel")?["status"]["readyReplicas"] == 2).then_some(())
    });
    assert!(restarts(&leader) <= 1, "{} restarts for one fault of the program", restarts(&leader));
    kubectl(node(), &["delete", "-n", &ns, "electiongroup/kestrel", "--wait=false"]);
    within(60, "the end of all pods", || get(node(), &ns, "pods")?["items"].as_array()?.is_empty().then_some(()));
}
