//! The status follows the Lease. The candidates are processes of this machine; the operator sees no difference.

use rustix::process::Signal;
use serde_json::json;

use crate::support::{apply, candidate, condition, get, group, kubectl, namespace, operated, within};

#[test]
fn holder_transitions_and_expiry_are_shown() {
    let cluster = operated();
    let ns = namespace(cluster, "shown");
    apply(cluster, &ns, &group("kestrel", json!({}))).unwrap();
    within(10, "the lease", || get(cluster, &ns, "lease/kestrel"));
    let status = || get(cluster, &ns, "electiongroup/kestrel").unwrap();
    let held = |holder: &str, transitions: i32| {
        within(10, &format!("{holder} in the status"), || {
            let group = status();
            (group["status"]["holderIdentity"] == holder && group["status"]["leaseTransitions"] == transitions)
                .then_some(group)
        })
    };

    let mut otter = candidate(cluster, &ns, "kestrel", "otter", &["--create-lease=false"]);
    let group = held("otter", 1);
    assert_eq!(condition(&group, "LeaderElected"), "True/LeaseHeld");
    assert_eq!(group["status"]["acquireTime"], get(cluster, &ns, "lease/kestrel").unwrap()["spec"]["acquireTime"]);
    assert_eq!(group["status"]["leader"]["podName"], "otter");
    assert!(group["status"].get("renewTime").is_none());

    let heron = candidate(cluster, &ns, "kestrel", "heron", &["--create-lease=false"]);
    heron.wait_for("New leader is: otter", std::time::Duration::from_secs(5));
    otter.terminate(std::time::Duration::from_secs(2));
    held("heron", 2);

    heron.signal(Signal::KILL);
    let group =
        within(10, "the expiry", || Some(status()).filter(|g| condition(g, "LeaderElected") == "False/LeaseExpired"));
    assert!(group["status"].get("holderIdentity").is_none());
    assert!(group["status"].get("leader").is_none());
    assert_eq!(group["status"]["leaseTransitions"], 2);
    let message = group["status"]["conditions"][1]["message"].as_str().unwrap();
    assert!(message.contains("heron stopped renewing it"), "{message}");

    let columns = kubectl(cluster, &["get", "-n", &ns, "electiongroups"]);
    let head: Vec<&str> = columns.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["NAME", "DESIRED", "READY", "HOLDER", "TRANSITIONS", "HELD", "STATUS", "AGE"]);
    let wide = kubectl(cluster, &["get", "-n", &ns, "elg", "-o", "wide"]);
    assert!(wide.lines().next().unwrap().ends_with("MODE   NODE   LEASE"), "{wide}");
}

#[test]
fn renewal_writes_no_status() {
    let cluster = operated();
    let ns = namespace(cluster, "renewed");
    apply(cluster, &ns, &group("kestrel", json!({}))).unwrap();
    within(10, "the lease", || get(cluster, &ns, "lease/kestrel"));
    let _leader = candidate(cluster, &ns, "kestrel", "otter", &["--create-lease=false"]);
    let version = || get(cluster, &ns, "electiongroup/kestrel").unwrap()["metadata"]["resourceVersion"].clone();
    within(20, "otter in the status, and the Deployment's last step", || {
        let group = get(cluster, &ns, "electiongroup/kestrel")?;
        let rolled_out = group["status"]["updatedReplicas"] == 2 && condition(&group, "Reconciling").is_empty();
        (group["status"]["holderIdentity"] == "otter" && rolled_out).then_some(())
    });
    let before = version();
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(version(), before);
}
