//! The chart's policy for Leases admits elections and refuses forged writes.

use std::process::Command;
use std::time::Duration;

use k8sensus_local::Cluster;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::installed::installed;
use crate::support::fixtures::client_go;
use crate::support::{
    Program, apply, candidate_command, get, group, kubeconfig_with, kubectl, namespace, requests_since, within,
};

const SOON: Duration = Duration::from_secs(10);

/// The change that a forger makes to a Lease.
type Forge<'a> = &'a dyn Fn(&mut Value);

/// Creates a namespace with the group kestrel. Returns the credentials of its pods as well.
fn elected(name: &str) -> (&'static Cluster, String, NamedTempFile) {
    let (cluster, _) = installed();
    let ns = namespace(cluster, name);
    apply(cluster, &ns, &group("kestrel", json!({}))).unwrap();
    within(20, "the group's permissions", || get(cluster, &ns, "deployment/kestrel"));
    let token = kubectl(cluster, &["create", "token", "-n", &ns, "kestrel"]);
    (cluster, ns, kubeconfig_with(cluster, json!({ "token": token.trim() })))
}

fn start_candidate(cluster: &Cluster, ns: &str, pod: &str, kubeconfig: &NamedTempFile) -> Program {
    let mut command = candidate_command(cluster, ns, "kestrel", pod, &["--create-lease=false"]);
    Program::start(pod, command.env("KUBECONFIG", kubeconfig.path()))
}

fn wait_for_holder(cluster: &Cluster, ns: &str, holder: &str) -> Value {
    within(20, &format!("{holder:?} to hold the Lease"), || {
        get(cluster, ns, "lease/kestrel").filter(|lease| lease["spec"]["holderIdentity"] == holder)
    })
}

#[test]
fn policy_admits_elections_recreated_leases_and_client_go() {
    let (cluster, ns, kubeconfig) = elected("polled");
    let mut otter = start_candidate(cluster, &ns, "otter", &kubeconfig);
    assert_eq!(wait_for_holder(cluster, &ns, "otter")["spec"]["leaseTransitions"], 1);
    otter.terminate(SOON);
    wait_for_holder(cluster, &ns, "");

    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(client_go());
    command
        .args(["--lease-name=kestrel", "--identity=heron", "--lease-duration=3s", "--renew-deadline=2s"])
        .args(["--retry-period=1s", &format!("--lease-namespace={ns}")])
        .arg(format!("--stamps={}", folder.path().join("stamps").display()))
        .env("KUBECONFIG", kubeconfig.path());
    let mut heron = Program::start("heron", &mut command);
    assert_eq!(wait_for_holder(cluster, &ns, "heron")["spec"]["leaseTransitions"], 2);
    within(10, "the status to show the term", || {
        (get(cluster, &ns, "electiongroup/kestrel")?["status"]["leaseTransitions"] == 2).then_some(())
    });
    // A new object has no former state: the operator sets its first transitions.
    kubectl(cluster, &["delete", "-n", &ns, "lease/kestrel"]);
    // Pods of the group rely on a wait of 37 s: their grace period and the lease duration, and a tenth.
    within(90, "heron to hold a Lease with a higher token", || {
        let lease = get(cluster, &ns, "lease/kestrel")?;
        (lease["spec"]["holderIdentity"] == "heron" && lease["spec"]["leaseTransitions"].as_i64() > Some(2))
            .then_some(())
    });
    heron.terminate(SOON);
    let released = wait_for_holder(cluster, &ns, "");
    assert_eq!(released["spec"]["leaseDurationSeconds"], 1, "client-go's release is not what was tested");

    let refused = requests_since(cluster, 0, |event| {
        event["objectRef"]["namespace"] == ns.as_str()
            && event["objectRef"]["resource"] == "leases"
            && event["responseStatus"]["code"] == 422
    });
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn forged_writes_are_refused_with_the_reason() {
    let (cluster, ns, kubeconfig) = elected("forged");
    let mut otter = start_candidate(cluster, &ns, "otter", &kubeconfig);
    wait_for_holder(cluster, &ns, "otter");
    otter.terminate(SOON);
    wait_for_holder(cluster, &ns, "");
    // Pods of the group write a PUT of the whole object.
    let put = |forge: Forge<'_>| {
        let mut lease = get(cluster, &ns, "lease/kestrel").unwrap();
        forge(&mut lease);
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lease.to_string()).unwrap();
        let mut kubectl = cluster.kubectl();
        kubectl.args(["replace", "-f"]).arg(file.path()).env("KUBECONFIG", kubeconfig.path());
        let output = kubectl.output().unwrap();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr).unwrap()) }
    };
    let spec = |field: &'static str, value: Value| move |lease: &mut Value| lease["spec"][field] = value.clone();
    let lower = spec("leaseTransitions", json!(0));
    // The API server loads a policy some time after its creation.
    within(10, "the policy to be in force", || put(&lower).is_err().then_some(()));

    let lease = format!("Lease {ns}/kestrel: ");
    let by_one = "leaseTransitions may rise by 1 at a time, expected 2 at most, found";
    let owners = "ownerReferences must stay as they are";
    let finalizers = "finalizers must stay as they are";
    let uid = get(cluster, &ns, "deployment/kestrel").unwrap()["metadata"]["uid"].clone();
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "name": "gone", "uid": uid });
    let cases: [(Forge<'_>, &str); 13] = [
        (&lower, "leaseTransitions must never fall: they count the terms, expected 1 or more, found 0"),
        (&spec("leaseTransitions", Value::Null), "leaseTransitions must never fall: they count the terms"),
        (&spec("leaseDurationSeconds", json!(i32::MAX)), "leaseDurationSeconds must be 1 to 3600, found 2147483647"),
        (&spec("leaseDurationSeconds", json!(3601)), "leaseDurationSeconds must be 1 to 3600, found 3601"),
        (&spec("holderIdentity", json!("o".repeat(254))), "holderIdentity must be at most 253 bytes"),
        // 127 characters of two bytes each.
        (&spec("holderIdentity", json!("ö".repeat(127))), "holderIdentity must be at most 253 bytes"),
        (
            &|lease: &mut Value| lease["metadata"]["labels"] = json!({ "colour": "red" }),
            "the label k8sensus.dev/group must stay",
        ),
        (&spec("leaseTransitions", json!(3)), by_one),
        (&spec("leaseTransitions", json!(i32::MAX)), by_one),
        (
            &|lease: &mut Value| {
                lease["metadata"]["ownerReferences"].as_array_mut().unwrap().push(account.clone());
            },
            owners,
        ),
        (&|lease: &mut Value| lease["metadata"]["ownerReferences"][0]["uid"] = json!("e0a5"), owners),
        (&|lease: &mut Value| lease["metadata"]["ownerReferences"] = json!([]), owners),
        (&|lease: &mut Value| lease["metadata"]["finalizers"] = json!(["example.com/never"]), finalizers),
    ];
    for (forge, expected) in cases {
        let refusal = put(forge).expect_err(expected);
        assert!(refusal.contains(&lease) && refusal.contains(expected), "expected {expected}: {refusal}");
    }
    for (field, value) in [
        ("leaseDurationSeconds", json!(3600)),
        ("leaseTransitions", json!(2)),
        ("holderIdentity", json!("o".repeat(253))),
        ("leaseDurationSeconds", json!(1)),
    ] {
        put(&spec(field, value.clone())).unwrap_or_else(|refusal| panic!("{field} {value}: {refusal}"));
    }

    let policy = get(cluster, &ns, "validatingadmissionpolicy/k8sensus-leases").unwrap();
    let warnings = &policy["status"]["typeChecking"]["expressionWarnings"];
    assert!(warnings.is_null(), "{warnings}");
}

#[test]
fn operator_kubernetes_and_administrators_change_owners_and_finalizers() {
    let (cluster, _) = installed();
    let ns = namespace(cluster, "metadata");
    // The operator adopts an existing Lease.
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "heron" },
        "spec": { "holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 7 },
    });
    apply(cluster, &ns, &lease).unwrap();
    apply(cluster, &ns, &group("heron", json!({}))).unwrap();
    within(20, "the Lease to be adopted", || {
        (get(cluster, &ns, "lease/heron")?["metadata"]["ownerReferences"][0]["kind"] == "ElectionGroup").then_some(())
    });

    // An administrator adds a finalizer and sets more transitions, as after a restored etcd.
    let administer = |patch: &str| kubectl(cluster, &["patch", "lease/heron", "-n", &ns, "--type=merge", "-p", patch]);
    administer(r#"{"metadata":{"finalizers":["example.com/kept"]},"spec":{"leaseTransitions":4711}}"#);
    // The garbage collector orphans it, and later deletes it; the administrator removes the finalizer first.
    kubectl(cluster, &["delete", "electiongroup/heron", "-n", &ns, "--cascade=orphan"]);
    within(30, "the owner reference to go", || {
        get(cluster, &ns, "lease/heron")?["metadata"]["ownerReferences"].is_null().then_some(())
    });
    administer(r#"{"metadata":{"finalizers":null}}"#);
    apply(cluster, &ns, &group("heron", json!({}))).unwrap();
    within(20, "the Lease to be adopted again", || {
        (get(cluster, &ns, "lease/heron")?["metadata"]["ownerReferences"][0]["kind"] == "ElectionGroup").then_some(())
    });
    kubectl(cluster, &["delete", "electiongroup/heron", "-n", &ns, "--cascade=foreground"]);
    within(30, "the Lease to be collected", || get(cluster, &ns, "lease/heron").is_none().then_some(()));

    let refused = requests_since(cluster, 0, |event| {
        let object = &event["objectRef"];
        object["namespace"] == ns.as_str() && object["name"] == "heron" && event["responseStatus"]["code"] == 422
    });
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn policy_ignores_leases_of_no_group() {
    let (cluster, _) = installed();
    let ns = namespace(cluster, "foreign");
    let lease = |seconds: i32, transitions: i32| {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "heron" },
            "spec": { "holderIdentity": "heron", "leaseDurationSeconds": seconds, "leaseTransitions": transitions },
        })
    };
    for lease in [lease(i32::MAX, 7), lease(i32::MAX, 3)] {
        apply(cluster, &ns, &lease).unwrap();
    }
}
