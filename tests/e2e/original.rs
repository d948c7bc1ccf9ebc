use k8sensus_local::IMAGE;

use super::{apply_sample, logs, node};
use crate::support::{Deleted, get, kubectl, within};

/// The demonstration of the original program; in its manifests only the image is changed.
#[test]
fn original_manifests_and_demonstration_work() {
    let _lease = Deleted::at_the_end(node(), &["lease", "k8sensus"]);
    let _sample = apply_sample("original");
    let deployment = get(node(), "default", "deployment/k8sensus").unwrap();
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], IMAGE);
    assert!(container["command"].is_null(), "the image's entrypoint is the candidate");
    kubectl(node(), &["rollout", "status", "deployment/k8sensus", "--timeout=60s"]);
    let leader = || {
        let lease = get(node(), "default", "lease/k8sensus")?;
        lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(str::to_owned)
    };
    let first = within(30, "a leader", leader);
    let pods = || {
        let text = kubectl(node(), &["get", "pods", "-l", "app=k8sensus", "-o", "jsonpath={.items[*].metadata.name}"]);
        text.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(pods().len(), 3);
    within(60, "the task in the leader's log", || {
        logs("default", &first).contains("k8sensus is running sample task.").then_some(())
    });
    let others: Vec<String> = pods().into_iter().filter(|pod| *pod != first).collect();
    for pod in &others {
        within(60, "the leader in the others' logs", || {
            logs("default", pod).contains(&format!("New leader is: {first}")).then_some(())
        });
    }

    kubectl(node(), &["delete", "pod", &first, "--wait=false"]);
    let second = within(30, "a successor", || leader().filter(|now| *now != first));
    let witness = others.iter().find(|pod| **pod != second);
    if let Some(witness) = witness {
        within(60, "the successor in the other's log", || {
            logs("default", witness).contains(&format!("New leader is: {second}")).then_some(())
        });
    }
    let described = kubectl(node(), &["describe", "lease", "k8sensus"]);
    let has_line = |name: &str, value: &str| {
        described.lines().any(|line| line.trim().starts_with(name) && line.trim().ends_with(value))
    };
    assert!(has_line("Holder Identity:", &second), "{described}");
    assert!(has_line("Lease Duration Seconds:", "15"), "{described}");
    assert!(has_line("Lease Transitions:", "1"), "{described}");
}
