//! The leader Service: the check of its spec, and the desired object.

use insta::assert_yaml_snapshot;
use k8sensus_group::desired::refusal;
use k8sensus_group::{Desired, Group};
use serde_json::{Value, json};

use super::{CANDIDATE_IMAGE, MINIMAL, NATIVE, children, group, group_of, valid, with, yaml};

/// Ports of every protocol and in every kind of container.
const PORTS: &str = r#"
template:
  spec:
    initContainers:
      - { name: once, image: a, ports: [{ name: gone, containerPort: 1 }] }
      - { name: beside, image: b, restartPolicy: Always, ports: [{ name: metrics, containerPort: 9090 }] }
    containers:
      - name: main
        image: registry.example/billing:1.4
        command: [/app/billing]
        ports:
          - { name: http, containerPort: 8080 }
          - { name: dns, containerPort: 53, protocol: UDP }
      - { name: proxy, image: p, ports: [{ name: https, containerPort: 8443, protocol: TCP }] }
"#;

fn refusal_of(base: &str, ports: &Value) -> String {
    let mut spec = yaml(base);
    spec["leaderService"] = json!({ "ports": ports });
    Group::check(&group_of(spec)).err().map_or_else(String::new, |invalid| invalid.to_string())
}

#[test]
fn group_without_a_leader_service_has_no_service() {
    assert_eq!(children(&group(MINIMAL)).service, None);
}

#[test]
fn service_has_no_selector_and_no_addresses() {
    let service = children(&with(MINIMAL, "leaderService: { ports: [{ port: 80 }] }")).service;
    assert_yaml_snapshot!("cluster_ip", service);
    let more = "leaderService: { type: NodePort, ports: [{ name: web, port: 80, targetPort: http }, { name: tls, port: 443, targetPort: 8443 }] }";
    let mut spec = yaml(PORTS);
    spec.as_object_mut().unwrap().extend(yaml(more).as_object().unwrap().clone());
    assert_yaml_snapshot!("node_port", children(&group_of(spec)).service);
}

#[test]
fn operator_upgrade_does_not_change_the_service() {
    let group = valid(&with(NATIVE, "leaderService: { ports: [{ port: 80, targetPort: 8080 }] }"));
    let [one, other] =
        [CANDIDATE_IMAGE, "registry.example/k8sensus:0.2.0"].map(|i| Desired::of(&group, None, i).service);
    assert_eq!(one, other);
}

#[test]
fn ports_that_cannot_work_are_refused_by_their_field() {
    let at = "spec.leaderService.ports";
    for (ports, message) in [
        (json!([]), "spec.leaderService.ports: must have from 1 to 16 items, found 0"),
        (json!([{ "port": 0 }]), "spec.leaderService.ports[0].port: must be from 1 to 65535, found 0"),
        (
            json!([{ "port": 80 }, { "port": 81, "name": "b" }]),
            "spec.leaderService.ports[0].name: must be set when there is more than one port",
        ),
        (
            json!([{ "name": "a", "port": 80 }, { "name": "a", "port": 81 }]),
            "spec.leaderService.ports[1].name: must be unique, found \"a\" again",
        ),
        (
            json!([{ "name": "a", "port": 80 }, { "name": "b", "port": 80 }]),
            "spec.leaderService.ports[1]: must have a unique port, found 80",
        ),
        (
            json!([{ "port": 80, "targetPort": 65_536 }]),
            "spec.leaderService.ports[0].targetPort: must be from 1 to 65535, found 65536",
        ),
    ] {
        assert_eq!(refusal_of(PORTS, &ports), message, "{ports}");
    }
    for name in ["", "8080", "-a", "a-", "Http", "a_b", "a-name-of-16-chs"] {
        let found = refusal_of(PORTS, &json!([{ "port": 80, "targetPort": name }]));
        assert!(
            found.starts_with(&format!("{at}[0].targetPort: must ")) && found.contains("found"),
            "{name:?}: {found}"
        );
    }
    let mut spec = yaml(MINIMAL);
    spec["leaderService"] = json!({ "type": "Carrier", "ports": [{ "port": 80 }] });
    assert_eq!(
        Group::check(&group_of(spec)).unwrap_err().to_string(),
        "spec.leaderService.type: is not known to this version of the operator; use ClusterIP, NodePort or \
         LoadBalancer, or upgrade the operator"
    );
}

#[test]
fn port_name_must_be_a_tcp_port_of_a_lasting_container() {
    let to = |base: &str, name: &str| refusal_of(base, &json!([{ "port": 80, "targetPort": name }]));
    for name in ["http", "https", "metrics"] {
        assert_eq!(to(PORTS, name), "");
    }
    for name in ["web", "dns", "gone"] {
        assert_eq!(
            to(PORTS, name),
            format!(
                "spec.leaderService.ports[0].targetPort: must name a TCP port of a container of spec.template (http, https, \
                 metrics), found {name:?}"
            )
        );
    }
    assert_eq!(
        to(MINIMAL, "http"),
        "spec.leaderService.ports[0].targetPort: must be a number where spec.image is used, whose ports have no names, \
         found \"http\""
    );
    assert_eq!(
        to(NATIVE, "http"),
        "spec.leaderService.ports[0].targetPort: must be a number: no container of spec.template has a named TCP port, \
         found \"http\""
    );
}

#[test]
fn refused_service_is_reported_with_the_groups_field() {
    let group = valid(&with(MINIMAL, "leaderService: { ports: [{ port: 80 }] }"));
    let of = |field: &str| refusal::explain(&group, "Service", "", &[(field, "Invalid value")]);
    assert_eq!(of("spec.ports[0].name"), "spec.leaderService.ports[0].name: Invalid value");
    assert_eq!(of("spec.type"), "spec.leaderService.type: Invalid value");
    assert_eq!(of("spec.clusterIPs"), "Service spec.clusterIPs: Invalid value");
}
