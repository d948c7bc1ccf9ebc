//! An operator without work writes nothing.

use std::thread::sleep;
use std::time::Duration;

use k8sensus_local::Cluster;
use serde_json::{Value, json};

use super::installed::install;
use crate::support::{
    apply, audit_position, candidate, condition, control_plane, get, group, kubectl, namespace, requests_since, within,
    writes_since,
};

/// The time of observation. `K8SENSUS_QUIET_SECONDS=600` covers the promised ten minutes.
const SECONDS: u64 = 20;

#[test]
fn idle_operator_writes_only_its_own_renewals() {
    let seconds = std::env::var("K8SENSUS_QUIET_SECONDS").ok().map_or(SECONDS, |text| text.parse().unwrap());
    let cluster = control_plane();
    let installed = install(&cluster, "default", &[]);
    let ns = namespace(&cluster, "quiet");
    apply(&cluster, &ns, &group("led", json!({}))).unwrap();
    apply(&cluster, &ns, &group("unled", json!({}))).unwrap();
    apply(&cluster, &ns, &group("suspended", json!({ "suspend": true }))).unwrap();
    apply(&cluster, &ns, &group("native", json!({ "candidate": { "mode": "Native" } }))).unwrap();
    within(20, "the Lease", || get(&cluster, &ns, "lease/led"));
    let leader = candidate(&cluster, &ns, "led", "otter", &["--create-lease=false"]);
    within(30, "all pods", || (pods(&cluster, &ns).len() == 6).then_some(()));
    // Otherwise the Deployments would give up after ten minutes, which changes their status.
    for pod in pods(&cluster, &ns) {
        let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }).to_string();
        kubectl(&cluster, &["patch", "-n", &ns, "pod", &pod, "--subresource=status", "-p", &ready]);
    }
    within(30, "all groups to be at rest", || {
        let group = |name: &str| get(&cluster, &ns, &format!("electiongroup/{name}"));
        let rests = |name: &&str| group(name).is_some_and(|group| group["status"]["readyReplicas"] == 2);
        let led = condition(&group("led")?, "Ready") == "True/LeaderElected";
        (led && ["led", "unled", "native"].iter().all(rests)).then_some(())
    });
    sleep(Duration::from_secs(3));

    let start = audit_position(&cluster);
    let renewed = |lease: &Value| lease["spec"]["renewTime"].clone();
    let before = renewed(&get(&cluster, &ns, "lease/led").unwrap());
    sleep(Duration::from_secs(seconds));
    assert_ne!(
        renewed(&get(&cluster, &ns, "lease/led").unwrap()),
        before,
        "the leader was to renew: {}",
        leader.output()
    );
    let by_operator = |event: &Value| event["user"]["username"] == installed.user.as_str();
    let mut writes = writes_since(&cluster, start, by_operator);
    writes.retain(|write| write != "update leases k8sensus-operator");
    assert!(writes.is_empty(), "{writes:#?}");
    let renewals = writes_since(&cluster, start, by_operator).len() as u64;
    // It renews every second with the short lease of the tests.
    assert!((seconds / 2..=seconds + 2).contains(&renewals), "{renewals} renewals in {seconds} s");
    // The API server ends a watch after five to ten minutes, and the operator requests it again.
    let mut reads = requests_since(&cluster, start, by_operator);
    reads.retain(|request| !request.starts_with("update ") && !request.starts_with("watch "));
    assert!(reads.is_empty(), "{reads:#?}");
}

fn pods(cluster: &Cluster, ns: &str) -> Vec<String> {
    let names = kubectl(cluster, &["get", "pods", "-n", ns, "-o", "jsonpath={.items[*].metadata.name}"]);
    names.split_whitespace().map(str::to_owned).collect()
}
