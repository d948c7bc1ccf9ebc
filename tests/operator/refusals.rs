//! A spec that cannot work is reported in the status of the group.

use std::time::Duration;

use serde_json::json;

use crate::support::{apply, condition, get, group, kubectl, namespace, operated, operator, unusable, within};

#[test]
fn invalid_field_is_named_and_nothing_is_created() {
    let cluster = operated();
    let ns = namespace(cluster, "unusable");
    let cases = [
        (unusable(), "spec.leaderService.ports[0].targetPort: "),
        (
            json!({ "image": null, "command": null, "template": { "spec": { "containers": [
                { "name": "app", "image": "kestrel", "command": ["/kestrel"], "ports": [{ "containerPort": 4040 }] },
            ] } } }),
            "spec.candidate.httpPort: must not be a port of another container, found 4040 in container app",
        ),
    ];
    for (number, (more, message)) in cases.into_iter().enumerate() {
        let name = format!("kestrel-{number}");
        apply(cluster, &ns, &group(&name, more)).unwrap();
        let group = within(10, "the refusal", || {
            let what = format!("electiongroup/{name}");
            get(cluster, &ns, &what).filter(|group| condition(group, "Stalled") == "True/Invalid")
        });
        let found = group["status"]["conditions"][0]["message"].as_str().unwrap();
        assert!(found.starts_with(message), "{found}");
        assert_eq!(condition(&group, "Ready"), "False/Invalid");
        assert_eq!(group["status"]["observedGeneration"], 1);
        assert!(get(cluster, &ns, &format!("deployment/{name}")).is_none());
    }
}

#[test]
fn corrected_spec_is_applied() {
    let cluster = operated();
    let ns = namespace(cluster, "corrected");
    apply(cluster, &ns, &group("kestrel", unusable())).unwrap();
    within(10, "the refusal", || {
        get(cluster, &ns, "electiongroup/kestrel").filter(|group| condition(group, "Stalled") == "True/Invalid")
    });
    apply(cluster, &ns, &group("kestrel", json!({ "candidate": { "mode": "Native" } }))).unwrap();
    let group = within(10, "the group to be run", || {
        get(cluster, &ns, "electiongroup/kestrel").filter(|group| condition(group, "Stalled").is_empty())
    });
    assert_eq!(group["status"]["observedGeneration"], 2);
    assert!(get(cluster, &ns, "deployment/kestrel").is_some());
}

#[test]
fn refusal_of_a_template_by_the_api_server_is_shown() {
    let cluster = operated();
    let ns = namespace(cluster, "refused");
    let template = json!({ "template": { "spec": { "containers": [
        { "name": "app", "image": "kestrel", "command": ["/kestrel"], "volumeMounts": [{ "name": "gone", "mountPath": "/x" }] },
    ] } } });
    let mut group = group("kestrel", template);
    group["spec"].as_object_mut().unwrap().retain(|key, _| key == "template");
    apply(cluster, &ns, &group).unwrap();
    let group = within(10, "the refusal", || {
        get(cluster, &ns, "electiongroup/kestrel").filter(|group| condition(group, "Stalled") == "True/Invalid")
    });
    let message = group["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("volumeMounts[0].name") && message.contains("Not found"), "{message}");
}

#[test]
fn suspend_scales_to_zero_and_paused_changes_nothing() {
    let cluster = operated();
    let ns = namespace(cluster, "suspended");
    apply(cluster, &ns, &group("kestrel", json!({ "suspend": true }))).unwrap();
    within(10, "the suspension", || {
        get(cluster, &ns, "electiongroup/kestrel").filter(|group| condition(group, "Ready") == "False/Suspended")
    });
    assert_eq!(get(cluster, &ns, "deployment/kestrel").unwrap()["spec"]["replicas"], 0);
    apply(cluster, &ns, &group("kestrel", json!({ "suspend": false, "paused": true }))).unwrap();
    within(10, "the status of the paused group", || {
        get(cluster, &ns, "electiongroup/kestrel").filter(|group| condition(group, "Ready") == "False/NoLeader")
    });
    assert_eq!(get(cluster, &ns, "deployment/kestrel").unwrap()["spec"]["replicas"], 0);
    apply(cluster, &ns, &group("kestrel", json!({}))).unwrap();
    within(10, "the pods to be requested again", || {
        (get(cluster, &ns, "deployment/kestrel")?["spec"]["replicas"] == 2).then_some(())
    });
}

#[test]
fn operator_reports_a_missing_crd_and_continues_once_it_exists() {
    let cluster = k8sensus_local::Cluster::control_plane().start().unwrap_or_else(|error| panic!("{error}"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{port}");
    let mut command = std::process::Command::new(crate::support::OPERATOR);
    command
        .args(["run", "--candidate-image=x", "--listen", &listen])
        .env("POD_NAME", "keeper")
        .env("KUBECONFIG", cluster.kubeconfig());
    let keeper = crate::support::Program::start("keeper", &mut command);
    keeper.wait_for("electiongroups.k8sensus.dev is not installed", Duration::from_secs(10));
    let (status, body) = http(&listen, "/readyz");
    assert_eq!(status, 503);
    assert!(body.contains("electiongroups.k8sensus.dev is not installed"), "{body}");
    assert_eq!(http(&listen, "/healthz").0, 200);
    kubectl(
        &cluster,
        &["apply", "-f", crate::support::root().join("crds/electiongroups.k8sensus.dev.yaml").to_str().unwrap()],
    );
    within(45, "readiness", || (http(&listen, "/readyz").0 == 200).then_some(()));
    let (_, metrics) = http(&listen, "/metrics");
    assert!(metrics.contains("leader_election_master_status{name=\"k8sensus-operator\"} 1"), "{metrics}");
}

#[test]
fn operator_without_rights_names_verb_and_resource() {
    let cluster = crate::support::control_plane();
    let ns = namespace(&cluster, "forbidden");
    kubectl(&cluster, &["create", "clusterrole", "reader", "--verb=get,list,watch", "--resource=*.*"]);
    kubectl(&cluster, &["create", "clusterrole", "electing", "--verb=*", "--resource=leases.coordination.k8s.io"]);
    kubectl(
        &cluster,
        &["create", "clusterrole", "telling", "--verb=patch", "--resource=electiongroups.k8sensus.dev/status"],
    );
    kubectl(&cluster, &["create", "serviceaccount", "keeper"]);
    for role in ["reader", "electing", "telling"] {
        kubectl(
            &cluster,
            &["create", "clusterrolebinding", role, "--clusterrole", role, "--serviceaccount=default:keeper"],
        );
    }
    let token = kubectl(&cluster, &["create", "token", "keeper"]);
    let file = crate::support::kubeconfig_with(&cluster, json!({ "token": token.trim() }));
    let _keeper = operator(&cluster, "keeper", &[("KUBECONFIG", file.path().to_str().unwrap())]);
    apply(&cluster, &ns, &group("kestrel", json!({}))).unwrap();
    let group = within(20, "the condition", || {
        get(&cluster, &ns, "electiongroup/kestrel").filter(|group| condition(group, "Stalled") == "True/Forbidden")
    });
    let conditions = group["status"]["conditions"].as_array().unwrap();
    let message = conditions.iter().find(|c| c["type"] == "Stalled").unwrap()["message"].as_str().unwrap();
    assert!(message.contains("cannot create resource \"serviceaccounts\""), "{message}");
}

fn http(address: &str, path: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect(address) else { return (0, String::new()) };
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    (status, text)
}
