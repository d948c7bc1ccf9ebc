//! The next operator knows what its predecessor added to the pods of a group.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    OPERATOR, Program, SHORT, apply, condition, control_plane, get, group, namespace, operator, within,
};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn upgrade_restarts_no_pod_of_a_group_in_conflict() {
    let cluster = control_plane();
    let ns = namespace(&cluster, "conflicting");
    let foreign = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "kestrel-leader" },
        "spec": { "ports": [{ "port": 80 }] },
    });
    apply(&cluster, &ns, &foreign).unwrap();
    let mut keeper = operator(&cluster, "keeper", &[]);
    keeper.wait_for("starting to reconcile", SOON);
    apply(&cluster, &ns, &group("kestrel", json!({ "leaderService": { "ports": [{ "port": 80 }] } }))).unwrap();
    within(20, "the conflict", || {
        (condition(&get(&cluster, &ns, "electiongroup/kestrel")?, "Stalled") == "True/Conflict").then_some(())
    });
    let template = || get(&cluster, &ns, "deployment/kestrel").unwrap()["spec"]["template"].clone();
    let before = template();
    assert!(keeper.terminate(SOON).success());

    let mut newer = std::process::Command::new(OPERATOR);
    newer
        .args(["run", "--candidate-image=localhost/k8sensus:newer", "--listen=127.0.0.1:0"])
        .envs([("POD_NAME", "newer"), ("POD_NAMESPACE", "default")])
        .envs(SHORT)
        .env("KUBECONFIG", cluster.kubeconfig());
    let newer = Program::start("newer", &mut newer);
    newer.wait_for("starting to reconcile", Duration::from_secs(30));
    apply(&cluster, &ns, &group("kestrel", json!({ "replicas": 3, "leaderService": { "ports": [{ "port": 80 }] } })))
        .unwrap();
    within(20, "a reconcile of the newer operator", || {
        (get(&cluster, &ns, "deployment/kestrel")?["spec"]["replicas"] == 3).then_some(())
    });
    assert_eq!(template(), before);
    let image = &get(&cluster, &ns, "electiongroup/kestrel").unwrap()["status"]["injection"]["image"];
    assert_eq!(*image, Value::from("localhost/k8sensus:dev"));
}
