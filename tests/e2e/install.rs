use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use k8sensus_local::{IMAGE, Image, ImageFile, Profile, product_program};
use serde_json::{Value, json};

use super::{SYSTEM, holder, namespace, node, ready, sample};
use crate::support::{apply, get, kubectl, root, within};

const OPERATOR: &str = "deployment/k8sensus-operator";
const GROUPS: [&str; 3] = ["heron", "kestrel", "merlin"];

/// Lets one test at a time roll the operator, which all tests share.
fn lock_operator() -> MutexGuard<'static, ()> {
    static OPERATOR_LOCK: Mutex<()> = Mutex::new(());
    OPERATOR_LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn operator_leader() -> String {
    within(30, "an operator that leads", || {
        let holder = get(node(), SYSTEM, "lease/k8sensus-operator")?["spec"]["holderIdentity"].as_str()?.to_owned();
        (!holder.is_empty()).then_some(holder)
    })
}

/// Returns the state that the operator must not change: leader and term of each group, its pods and its ReplicaSets.
fn workloads(ns: &str) -> Vec<Value> {
    let every = |kind: &str, what: &dyn Fn(&Value) -> Value| -> Vec<Value> {
        let list = get(node(), ns, kind).unwrap();
        list["items"].as_array().unwrap().iter().map(|item| json!([item["metadata"]["name"], what(item)])).collect()
    };
    let leases = every("leases", &|lease| {
        let spec = &lease["spec"];
        json!([spec["holderIdentity"], spec["acquireTime"], spec["leaseTransitions"]])
    });
    let pods =
        every("pods", &|pod| json!([pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]]));
    let replica_sets = every("replicasets", &|set| set["metadata"]["uid"].clone());
    let statuses = every("electiongroups", &|group| {
        let status = &group["status"];
        json!([status["holderIdentity"], status["leaseTransitions"], status["injection"]])
    });
    [leases, pods, replica_sets, statuses].concat()
}

fn three_groups(ns: &str) -> Vec<Value> {
    for name in GROUPS {
        apply(node(), ns, &sample(name, json!({}))).unwrap();
    }
    for name in GROUPS {
        ready(ns, name, &[]);
    }
    let workloads = workloads(ns);
    assert_eq!(workloads.len(), 3 + 6 + 3 + 3, "{workloads:?}");
    workloads
}

/// Loads an image of that name that contains the candidate program.
fn load_candidate(name: &str) {
    let archive = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("candidate-{}.tar", std::process::id()));
    let source = product_program("k8sensus", Profile::Demo).unwrap();
    let files = vec![ImageFile { source: source.into(), path: "k8sensus".to_owned(), mode: 0o755 }];
    Image { name: name.to_owned(), entrypoint: vec!["/k8sensus".to_owned()], files }.write(&archive).unwrap();
    node().load_image(&archive).unwrap();
    let _ = std::fs::remove_file(&archive);
}

/// Asserts that the current operator still reconciles.
fn assert_reconciles(ns: &str, name: &str) {
    let former = holder(&get(node(), ns, &format!("electiongroup/{name}")).unwrap());
    kubectl(node(), &["delete", "-n", ns, "pod", &former, "--wait=false"]);
    ready(ns, name, &[&former]);
    kubectl(node(), &["delete", "-n", ns, &format!("role/{name}")]);
    within(30, "the operator to restore the role", || get(node(), ns, &format!("role/{name}")));
}

#[test]
fn operator_rollout_moves_no_group_leader() {
    let _lock = lock_operator();
    let ns = namespace("restarted");
    let before = three_groups(&ns);
    let deployment = get(node(), SYSTEM, OPERATOR).unwrap();
    assert_eq!(deployment["status"]["readyReplicas"], 2);

    let first = operator_leader();
    kubectl(node(), &["rollout", "restart", "-n", SYSTEM, OPERATOR]);
    kubectl(node(), &["rollout", "status", "-n", SYSTEM, OPERATOR, "--timeout=60s"]);
    within(30, "another operator to lead", || (operator_leader() != first).then_some(()));
    assert_eq!(workloads(&ns), before);
    assert_reconciles(&ns, "kestrel");
}

#[test]
fn candidate_image_upgrade_leaves_groups_unchanged_until_their_template_changes() {
    let _lock = lock_operator();
    let ns = namespace("upgraded");
    let next = format!("{IMAGE}-next");
    load_candidate(&next);
    let pods = get(node(), SYSTEM, "pods").unwrap();
    let operators: Vec<String> =
        pods["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().into()).collect();
    let before = three_groups(&ns);
    let mut helm = node().helm().unwrap();
    helm.args(["upgrade", "k8sensus", "charts/k8sensus", "--namespace", SYSTEM, "--reuse-values"])
        .args(["--set", &format!("candidateImage={next}"), "--wait", "--timeout=120s"])
        .current_dir(root());
    let output = helm.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Helm waited, so every replica is updated.
    let deployment = get(node(), SYSTEM, OPERATOR).unwrap();
    for count in ["replicas", "updatedReplicas", "readyReplicas"] {
        assert_eq!(deployment["status"][count], 2, "{count}");
    }
    within(30, "a new operator to lead", || (!operators.contains(&operator_leader())).then_some(()));
    assert_eq!(workloads(&ns), before);
    assert_reconciles(&ns, "kestrel");

    // A change of replicas does not change the template.
    kubectl(node(), &["scale", "-n", &ns, "electiongroup/heron", "--replicas=3"]);
    within(60, "the third pod", || {
        (get(node(), &ns, "electiongroup/heron")?["status"]["readyReplicas"] == 3).then_some(())
    });
    let image = |name: &str| {
        let deployment = get(node(), &ns, &format!("deployment/{name}")).unwrap();
        deployment["spec"]["template"]["spec"]["initContainers"][0]["image"].as_str().unwrap().to_owned()
    };
    assert_eq!(image("heron"), IMAGE);
    let former = holder(&get(node(), &ns, "electiongroup/merlin").unwrap());
    let other = r#"{"spec":{"command":["/k8sensus"],"args":["sample"]}}"#;
    kubectl(node(), &["patch", "-n", &ns, "electiongroup/merlin", "--type=merge", "-p", other]);
    within(30, "the changed template to take the new image", || (image("merlin") == next).then_some(()));
    ready(&ns, "merlin", &[&former]);
    assert_eq!(image("kestrel"), IMAGE);
}

#[test]
fn operator_has_every_permission_it_needs() {
    // A roll would delete the log.
    let _lock = lock_operator();
    let ns = namespace("granted");
    apply(node(), &ns, &sample("kestrel", json!({}))).unwrap();
    ready(&ns, "kestrel", &[]);
    let logs = kubectl(node(), &["logs", "-n", SYSTEM, "-l", "app.kubernetes.io/name=k8sensus", "--tail=-1"]);
    assert!(logs.contains("created Deployment"), "no operator's log: {logs}");
    assert!(!logs.to_lowercase().contains("forbidden"), "{logs}");
}
