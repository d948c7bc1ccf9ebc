//! The leader Service routes to the leader alone. The candidates are processes of this machine. The tests create their
//! pods and play the kubelet.

mod bench;

use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{apply, control_plane, get, kubectl, namespace, operated, operator, within};
use bench::{Bench, Kind, SERVICE, SLICE, behind};

fn plain() -> Value {
    json!({ "ports": [{ "port": 80, "targetPort": 8080 }] })
}

const SWITCH: [&str; 1] = ["patch endpointslices kestrel-leader"];
/// A time without a leader, in seconds, that is surely shorter than the operator's wait for a successor.
const QUICK: f64 = 0.2;

#[test]
fn handover_and_expiry_are_one_write_each() {
    let bench = Bench::new("switched", plain());
    bench.pod("otter", Kind::Sidecar, "10.9.0.1", 8080);
    bench.pod("heron", Kind::Sidecar, "10.9.0.2", 8080);
    let mut leader = bench.candidate("otter");
    let slice = bench.routes_to(Some("otter"));
    let pod = bench.get("pod/otter").unwrap();
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["10.9.0.1"]));
    assert_eq!(slice["endpoints"][0]["targetRef"]["uid"], pod["metadata"]["uid"]);
    assert_eq!(slice["ports"], json!([{ "name": "", "port": 8080, "protocol": "TCP" }]));
    let service = bench.get(SERVICE).unwrap();
    assert!(service["spec"].get("selector").is_none(), "{service}");

    let swaps = [["otter", "heron"], ["heron", "otter"]].into_iter().cycle().take(5);
    let mut gaps = Vec::new();
    for [from, to] in swaps {
        let successor = bench.candidate(to);
        successor.wait_for(&format!("New leader is: {from}"), Duration::from_secs(5));
        let start = bench.position();
        leader.terminate(Duration::from_secs(5));
        bench.routes_to(Some(to));
        sleep(Duration::from_secs(1));
        let writes = bench.writes(start);
        gaps.push(bench.gap_before(to));
        leader = successor;
        if gaps.last().is_some_and(|gap| *gap < QUICK) {
            assert_eq!(writes, SWITCH);
            break;
        }
        // In between it may have routed to no pod.
        assert!(writes.len() <= 2 && writes.iter().all(|write| write == SWITCH[0]), "{writes:?}");
    }
    assert!(gaps.last().is_some_and(|gap| *gap < QUICK), "no handover was quick enough: {gaps:?} s");

    let start = bench.position();
    leader.signal(Signal::KILL);
    bench.routes_to(None);
    sleep(Duration::from_secs(2));
    assert_eq!(bench.writes(start), SWITCH);
}

#[test]
fn release_without_a_successor_empties_the_slice() {
    let bench = Bench::new("released", plain());
    bench.pod("otter", Kind::Sidecar, "10.9.0.1", 8080);
    let mut otter = bench.candidate("otter");
    bench.routes_to(Some("otter"));
    otter.terminate(Duration::from_secs(5));
    bench.routes_to(None);
}

#[test]
fn unready_or_deleted_leader_gets_no_traffic() {
    let bench = Bench::new("unready", plain());
    bench.pod("otter", Kind::Sidecar, "10.9.0.1", 8080);
    let _otter = bench.candidate("otter");
    bench.routes_to(Some("otter"));
    bench.containers_ready("otter", false);
    bench.routes_to(None);
    bench.containers_ready("otter", true);
    bench.routes_to(Some("otter"));
    kubectl(
        bench.cluster,
        &[
            "patch",
            "-n",
            &bench.ns,
            "pod/otter",
            "--type=merge",
            "-p",
            r#"{"metadata":{"finalizers":["example.com/kept"]}}"#,
        ],
    );
    kubectl(bench.cluster, &["delete", "-n", &bench.ns, "pod/otter", "--wait=false"]);
    bench.routes_to(None);
    assert!(bench.get("pod/otter").unwrap()["metadata"]["deletionTimestamp"].is_string());
    kubectl(
        bench.cluster,
        &["patch", "-n", &bench.ns, "pod/otter", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#],
    );
    bench.keeps_routing_to(None);
}

#[test]
fn exec_readiness_is_that_of_the_present_term_on_the_lease() {
    let bench = Bench::new("reported", plain());
    bench.pod("otter", Kind::Exec, "10.9.0.1", 8080);
    bench.pod("heron", Kind::Exec, "10.9.0.2", 8080);
    let mut otter = bench.candidate("otter");
    otter.wait_for("I'm the new leader!", Duration::from_secs(10));
    bench.keeps_routing_to(None);
    bench.report_ready_until_routed_to("otter");
    let heron = bench.candidate("heron");
    heron.wait_for("New leader is: otter", Duration::from_secs(5));
    otter.terminate(Duration::from_secs(5));
    heron.wait_for("I'm the new leader!", Duration::from_secs(10));
    bench.routes_to(None);
    bench.keeps_routing_to(None);
    bench.report_ready_until_routed_to("heron");
}

#[test]
fn named_port_and_address_family_are_those_of_the_leaders_pod() {
    let ports = json!([{ "name": "web", "port": 80, "targetPort": "http" }, { "name": "raw", "port": 90 }]);
    let bench = Bench::new("named", json!({ "ports": ports }));
    bench.pod("otter", Kind::Sidecar, "10.9.0.1", 8081);
    bench.pod("heron", Kind::Sidecar, "fd00::2", 8082);
    let ports = |number: i32| json!([{ "name": "web", "port": number, "protocol": "TCP" }, { "name": "raw", "port": 90, "protocol": "TCP" }]);
    let mut otter = bench.candidate("otter");
    let slice = bench.routes_to(Some("otter"));
    assert_eq!((&slice["addressType"], &slice["ports"]), (&json!("IPv4"), &ports(8081)));
    otter.terminate(Duration::from_secs(5));
    let _heron = bench.candidate("heron");
    let slice = within(10, "the slice of the other family", || bench.get(SLICE).filter(|s| behind(s) == Some("heron")));
    assert_eq!((&slice["addressType"], &slice["ports"]), (&json!("IPv6"), &ports(8082)));
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["fd00::2"]));
}

#[test]
fn edited_or_deleted_service_and_slice_are_restored() {
    let bench = Bench::new("mended", plain());
    bench.pod("otter", Kind::Sidecar, "10.9.0.1", 8080);
    bench.pod("heron", Kind::Sidecar, "10.9.0.2", 8080);
    let _otter = bench.candidate("otter");
    bench.routes_to(Some("otter"));
    let patch = |what: &str, kind: &str, patch: Value| {
        kubectl(bench.cluster, &["patch", "-n", &bench.ns, what, &format!("--type={kind}"), "-p", &patch.to_string()]);
    };
    let addresses = || bench.get(SLICE).map(|slice| slice["endpoints"][0]["addresses"].clone());
    patch(SLICE, "json", json!([{ "op": "replace", "path": "/endpoints/0/addresses/0", "value": "10.9.0.2" }]));
    within(10, "the address", || (addresses()? == json!(["10.9.0.1"])).then_some(()));
    patch(SLICE, "merge", json!({ "metadata": { "labels": { "kubernetes.io/service-name": "other" } } }));
    within(10, "the label", || {
        (bench.get(SLICE)?["metadata"]["labels"]["kubernetes.io/service-name"] == "kestrel-leader").then_some(())
    });
    kubectl(bench.cluster, &["delete", "-n", &bench.ns, SLICE]);
    bench_leads(&bench);

    patch(SERVICE, "merge", json!({ "spec": { "ports": [{ "port": 80, "targetPort": 9999 }] } }));
    within(10, "the port", || (bench.get(SERVICE)?["spec"]["ports"][0]["targetPort"] == 8080).then_some(()));
    kubectl(bench.cluster, &["delete", "-n", &bench.ns, SERVICE]);
    within(10, "the Service", || bench.get(SERVICE));

    // The endpoints controller adds every matching pod, and removes none when the selector is removed.
    patch(SERVICE, "merge", json!({ "spec": { "selector": { "app": "kestrel" } } }));
    within(10, "the selector to go", || bench.get(SERVICE)?["spec"].get("selector").is_none().then_some(()));
    within(60, "the slices of the cluster's own controller to go", || {
        let label = "kubernetes.io/service-name=kestrel-leader";
        let names = kubectl(bench.cluster, &["get", "-n", &bench.ns, "endpointslices", "-l", label, "-o", "name"]);
        (names.trim() == "endpointslice.discovery.k8s.io/kestrel-leader").then_some(())
    });
    bench_leads(&bench);
}

fn bench_leads(bench: &Bench<'_>) {
    within(10, "the Service to lead to otter", || bench.get(SLICE).filter(|slice| behind(slice) == Some("otter")));
}

#[test]
fn service_follows_the_spec_and_is_removed_with_it() {
    let bench = Bench::new("changed", plain());
    bench.pod("otter", Kind::Sidecar, "10.9.0.1", 8080);
    let _otter = bench.candidate("otter");
    bench.routes_to(Some("otter"));
    let address = bench.get(SERVICE).unwrap()["spec"]["clusterIP"].clone();
    let node_port = json!({ "type": "NodePort", "ports": [{ "port": 81, "targetPort": 8081 }] });
    bench.apply(json!({ "leaderService": node_port }));
    let service = within(10, "the type", || bench.get(SERVICE).filter(|s| s["spec"]["type"] == "NodePort"));
    assert_eq!(service["spec"]["clusterIP"], address);
    let ports = service["spec"]["ports"].as_array().unwrap();
    assert!(ports.len() == 1 && ports[0]["port"] == 81 && ports[0]["nodePort"].is_number(), "{service}");
    within(10, "the port of the slice", || (bench.get(SLICE)?["ports"][0]["port"] == 8081).then_some(()));
    bench.apply(json!({ "leaderService": plain() }));
    let service = within(10, "the type", || bench.get(SERVICE).filter(|s| s["spec"]["type"] == "ClusterIP"));
    assert_eq!(service["spec"]["clusterIP"], address);
    bench.apply(json!({}));
    for what in [SERVICE, SLICE] {
        within(10, &format!("{what} to go"), || bench.get(what).is_none().then_some(()));
    }
}

#[test]
fn foreign_service_is_left_alone_and_gets_no_leader() {
    let cluster = operated();
    let object = |kind: &str, version: &str| json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "kestrel-leader" } });
    let mut service = object("Service", "v1");
    service["spec"] = json!({ "ports": [{ "port": 80 }] });
    let mut slice = object("EndpointSlice", "discovery.k8s.io/v1");
    slice["addressType"] = json!("IPv4");
    slice["endpoints"] = json!([{ "addresses": ["10.9.0.9"] }]);
    for (name, foreign, what) in [("service", &service, SERVICE), ("slice", &slice, SLICE)] {
        let ns = namespace(cluster, &format!("foreign-{name}"));
        apply(cluster, &ns, foreign).unwrap();
        let before = get(cluster, &ns, what).unwrap()["metadata"]["resourceVersion"].clone();
        let bench = Bench { cluster, ns };
        bench.apply(json!({ "leaderService": plain() }));
        let message = bench.stalled("Conflict");
        let kind = foreign["kind"].as_str().unwrap();
        assert!(message.starts_with(&format!("{kind} {}/kestrel-leader exists", bench.ns)), "{message}");
        sleep(Duration::from_secs(1));
        assert_eq!(bench.get(what).unwrap()["metadata"]["resourceVersion"], before);
        if what == SERVICE {
            assert_eq!(bench.get(SLICE), None);
        }
    }
}

#[test]
fn service_that_lost_its_owner_loses_its_slice() {
    let bench = Bench::new("disowned", plain());
    bench.pod("otter", Kind::Sidecar, "10.9.0.1", 8080);
    let _otter = bench.candidate("otter");
    bench.routes_to(Some("otter"));
    let patch = r#"{"metadata":{"ownerReferences":null}}"#;
    kubectl(bench.cluster, &["patch", "-n", &bench.ns, SERVICE, "--type=merge", "-p", patch]);
    let message = bench.stalled("Conflict");
    assert!(message.contains("it has no controller"), "{message}");
    within(10, "the slice to go", || bench.get(SLICE).is_none().then_some(()));
    kubectl(bench.cluster, &["delete", "-n", &bench.ns, SERVICE]);
    within(20, "the Service to be recreated", || bench.get(SLICE).filter(|slice| behind(slice) == Some("otter")));
}

#[test]
fn traffic_follows_the_leader_of_a_paused_or_refused_group() {
    let bench = Bench::new("paused", plain());
    bench.pod("otter", Kind::Sidecar, "10.9.0.1", 8080);
    bench.pod("heron", Kind::Sidecar, "10.9.0.2", 8080);
    let mut otter = bench.candidate("otter");
    bench.routes_to(Some("otter"));
    // Neither a new port nor the suspension takes effect while the group is paused.
    let service = json!({ "ports": [{ "port": 80, "targetPort": 8081 }] });
    bench.apply(json!({ "leaderService": service, "paused": true, "suspend": true }));
    let heron = bench.candidate("heron");
    heron.wait_for("New leader is: otter", Duration::from_secs(5));
    otter.terminate(Duration::from_secs(5));
    let slice = bench.routes_to(Some("heron"));
    assert_eq!(slice["ports"][0]["port"], 8080);

    bench.apply(json!({ "leaderService": { "ports": [{ "port": 80, "targetPort": "web" }] } }));
    let message = bench.stalled("Invalid");
    assert!(message.starts_with("spec.leaderService.ports[0].targetPort: must name a TCP port"), "{message}");
    bench.containers_ready("heron", false);
    bench.routes_to(None);
    bench.containers_ready("heron", true);
    let slice = bench.routes_to(Some("heron"));
    assert_eq!(slice["ports"][0]["port"], 8080);

    bench.apply(json!({ "leaderService": plain(), "suspend": true }));
    bench.routes_to(None);
    assert!(heron.says("I'm the new leader!") && bench.get(SERVICE).is_some());
}

#[test]
fn restarted_operator_writes_nothing() {
    let cluster = control_plane();
    let mut first = operator(&cluster, "first", &[]);
    let bench = Bench { cluster: &cluster, ns: namespace(&cluster, "again") };
    bench.apply(json!({ "leaderService": plain() }));
    bench.pod("otter", Kind::Sidecar, "10.9.0.1", 8080);
    let _otter = bench.candidate("otter");
    bench.routes_to(Some("otter"));
    sleep(Duration::from_secs(1));
    first.terminate(Duration::from_secs(10));
    let start = bench.position();
    let second = operator(&cluster, "second", &[]);
    second.wait_for("starting to reconcile", Duration::from_secs(20));
    // A write for a change of the Lease or of a pod follows all writes of the start.
    sleep(Duration::from_secs(3));
    assert_eq!(bench.writes(start), [""; 0], "{}", second.output());
    bench.containers_ready("otter", false);
    bench.routes_to(None);
    assert_eq!(bench.writes(start), SWITCH);
}
