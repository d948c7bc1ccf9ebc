//! The EndpointSlice of the leader Service.

use std::time::Duration;

use insta::assert_yaml_snapshot;
use k8sensus_group::judge::endpoints::{Decision, Question, ServicePort, Target, comparable, decide, ports_of};
use k8sensus_group::observed::lease::LeaseView;
use k8sensus_group::observed::pod::PodView;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::UID;

/// A pod of mode Sidecar that is ready for traffic.
fn pod(name: &str) -> PodView {
    PodView {
        name: name.to_owned(),
        uid: Some(format!("uid-of-{name}")),
        ip: Some("10.0.0.7".to_owned()),
        node: Some("node-1".to_owned()),
        proven: Some(false),
        containers_ready: true,
        ports: vec![("http".to_owned(), 8080)],
        ..PodView::default()
    }
}

fn held_by(holder: &str) -> LeaseView {
    LeaseView { holder: holder.to_owned(), incarnation: Some(format!("uid-of-{holder}/app/1")), ..LeaseView::default() }
}

fn http() -> Vec<ServicePort> {
    vec![ServicePort { name: "web".to_owned(), target: Target::Name("http".to_owned()) }]
}

const NO_LEADER: Question<'_> = Question {
    name: "billing",
    namespace: "shop",
    uid: UID,
    ports: &[],
    lease: None,
    pods: &[],
    suspended: false,
    handing_over: None,
    address_type: Some("IPv4"),
};

fn slice_of(question: &Question<'_>) -> Value {
    match decide(question) {
        Decision::Write(slice) => *slice,
        Decision::Wait(left) => panic!("a write, not a wait of {left:?}"),
    }
}

/// Returns the names of the pods behind the Service.
fn behind(question: &Question<'_>) -> Vec<String> {
    let slice = slice_of(question);
    let endpoints = slice["endpoints"].as_array().unwrap().iter();
    endpoints.map(|endpoint| endpoint["targetRef"]["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn leader_is_the_only_endpoint() {
    let (ports, lease, pods) = (http(), held_by("billing-1"), [pod("billing-0"), pod("billing-1")]);
    let led = Question { ports: &ports, lease: Some(&lease), pods: &pods, ..NO_LEADER };
    assert_yaml_snapshot!("led", slice_of(&led));
    assert_yaml_snapshot!("led_by_nobody", slice_of(&Question { lease: None, ..led }));
}

#[test]
fn no_endpoint_without_a_ready_leader() {
    type Change = fn(&mut LeaseView, &mut PodView);
    let cases: [(&str, Change, bool); 19] = [
        ("nothing", |_, _| {}, true),
        ("expired", |lease, _| lease.expired = true, false),
        ("unknown as a pod", |lease, _| lease.holder = "heron".to_owned(), false),
        ("terminating", |_, pod| pod.terminating = true, false),
        ("without an address", |_, pod| pod.ip = None, false),
        ("an address that is none", |_, pod| pod.ip = Some("soon".to_owned()), false),
        ("a former pod of that name", |_, pod| pod.uid = Some("another".to_owned()), false),
        ("a holder that knows no uid", |lease, _| lease.incarnation = Some("-/-/1".to_owned()), true),
        ("a holder of another library", |lease, _| lease.incarnation = None, true),
        ("sidecar: containers not ready", |_, pod| pod.containers_ready = false, false),
        ("sidecar: not proven, so not Ready", |_, pod| pod.ready = false, true),
        ("exec: not reported as ready", |_, pod| pod.reports_readiness = true, false),
        (
            "exec: reported as ready",
            |lease, pod| {
                (lease.ready, pod.reports_readiness, pod.containers_ready, pod.ready) = (true, true, false, false);
            },
            true,
        ),
        ("sidecar: another's report", |lease, pod| (lease.ready, pod.containers_ready) = (true, false), false),
        ("native: not Ready", |_, pod| pod.proven = None, false),
        ("native: Ready", |_, pod| (pod.proven, pod.ready, pod.containers_ready) = (None, true, false), true),
        (
            "native: an identity of controller-runtime",
            |lease, pod| {
                lease.holder.push_str("_0fb1c3a4-52f1-4a54-9b8e-5f2f6f0d7d11");
                (pod.proven, pod.ready) = (None, true);
            },
            true,
        ),
        (
            "native: the incarnation that another client left on the lease",
            |lease, pod| {
                lease.incarnation = Some("uid-of-billing-0/app/1".to_owned());
                (pod.proven, pod.ready) = (None, true);
            },
            true,
        ),
        ("native: another's report", |lease, pod| (lease.ready, pod.proven) = (true, None), false),
    ];
    for (what, change, is_there) in cases {
        let (mut lease, mut leader) = (held_by("billing-1"), pod("billing-1"));
        change(&mut lease, &mut leader);
        let pods = [pod("billing-0"), leader];
        let found = behind(&Question { lease: Some(&lease), pods: &pods, ..NO_LEADER });
        assert_eq!(found, if is_there { vec!["billing-1".to_owned()] } else { vec![] }, "{what}");
    }
    let (lease, pods) = (held_by("billing-1"), [pod("billing-1")]);
    assert_eq!(behind(&Question { lease: Some(&lease), pods: &pods, suspended: true, ..NO_LEADER }), [""; 0]);
}

#[test]
fn release_keeps_the_former_address_until_a_successor_or_the_deadline() {
    let (lease, pods, window) = (held_by("billing-1"), [pod("billing-1")], Duration::from_millis(90));
    let released = Question { pods: &pods, handing_over: Some(window), ..NO_LEADER };
    assert_eq!(decide(&released), Decision::Wait(window));
    assert_eq!(behind(&Question { handing_over: None, ..released }), [""; 0]);
    assert_eq!(behind(&Question { lease: Some(&lease), ..released }), ["billing-1"]);
    let not_ready = LeaseView { holder: "billing-2".to_owned(), ..lease };
    assert_eq!(behind(&Question { lease: Some(&not_ready), ..released }), [""; 0], "not beyond the next holder");
    assert_eq!(behind(&Question { suspended: true, ..released }), [""; 0]);
    assert_eq!(behind(&Question { address_type: None, ..released }), [""; 0], "there is nothing to keep");
}

#[test]
fn named_port_is_resolved_in_the_leaders_pod() {
    let target = |name: &str, target: Target| ServicePort { name: name.to_owned(), target };
    let ports = [
        target("web", Target::Name("http".to_owned())),
        target("", Target::Number(9090)),
        target("old", Target::Name("https".to_owned())),
    ];
    let (lease, mut leader) = (held_by("billing-1"), pod("billing-1"));
    leader.ports = vec![("http".to_owned(), 8081), ("http".to_owned(), 1)];
    let mut other = pod("billing-0");
    other.ports.push(("https".to_owned(), 8443));
    let found = slice_of(&Question { ports: &ports, lease: Some(&lease), pods: &[other, leader], ..NO_LEADER });
    let expected = json!([
        { "name": "web", "port": 8081, "protocol": "TCP" },
        { "name": "", "port": 9090, "protocol": "TCP" },
    ]);
    assert_eq!(found["ports"], expected);
}

#[test]
fn address_type_follows_the_leader_and_stays_without_one() {
    let (lease, mut leader) = (held_by("billing-1"), pod("billing-1"));
    leader.ip = Some("fd00::7".to_owned());
    let pods = [leader];
    let led = Question { lease: Some(&lease), pods: &pods, ..NO_LEADER };
    let family = |question: Question<'_>| slice_of(&question)["addressType"].as_str().unwrap().to_owned();
    assert_eq!(family(led), "IPv6");
    assert_eq!(family(Question { address_type: Some("IPv6"), pods: &[], lease: None, ..led }), "IPv6");
    assert_eq!(family(Question { address_type: Some("IPv4"), lease: None, ..led }), "IPv4", "it never changes");
    assert_eq!(family(Question { address_type: None, lease: None, ..led }), "IPv6", "that of the first leader");
    assert_eq!(family(Question { address_type: None, lease: None, pods: &[], ..led }), "IPv4");
}

#[test]
fn ports_are_read_from_the_live_service() {
    let service = json!({ "spec": { "ports": [
        { "protocol": "TCP", "port": 80, "targetPort": 8080, "nodePort": 30_001 },
        { "name": "b", "protocol": "TCP", "port": 81, "targetPort": "http" },
        { "name": "c", "protocol": "TCP", "port": 82 },
    ] } });
    let port = |name: &str, target: Target| ServicePort { name: name.to_owned(), target };
    let expected =
        [port("", Target::Number(8080)), port("b", Target::Name("http".to_owned())), port("c", Target::Number(82))];
    assert_eq!(ports_of(&service), expected);
    assert_eq!(ports_of(&json!({})), []);
}

#[test]
fn only_our_own_fields_are_compared() {
    let (ports, lease, pods) = (http(), held_by("billing-1"), [pod("billing-1")]);
    let led = Question { ports: &ports, lease: Some(&lease), pods: &pods, ..NO_LEADER };
    let wanted = slice_of(&led);
    let mut live = wanted.clone();
    live["metadata"]["uid"] = json!("x");
    live["metadata"]["generation"] = json!(4);
    live["metadata"]["annotations"] = json!({ "example.com/note": "x" });
    live["metadata"]["labels"]["colour"] = json!("red");
    live["metadata"]["ownerReferences"].as_array_mut().unwrap().push(json!({ "kind": "ConfigMap", "name": "x" }));
    assert_eq!(comparable(&live), wanted);
    let empty = slice_of(&NO_LEADER);
    let mut absent = empty.clone();
    for list in ["endpoints", "ports"] {
        absent[list] = Value::Null;
    }
    assert_eq!(comparable(&absent), empty);
    for (pointer, edit) in [
        ("/endpoints/0/addresses/0", json!("10.0.0.8")),
        ("/endpoints/0/conditions/ready", json!(false)),
        ("/endpoints/0/hints", json!({ "forZones": [] })),
        ("/ports/0/port", json!(1)),
        ("/addressType", json!("FQDN")),
        ("/metadata/labels/kubernetes.io~1service-name", json!("other")),
        ("/metadata/ownerReferences/0/uid", json!("other")),
    ] {
        let mut edited = live.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = edited.pointer_mut(parent).unwrap();
        match parent.as_array_mut() {
            Some(list) => list[key.parse::<usize>().unwrap()] = edit,
            None => parent[key.replace("~1", "/")] = edit,
        }
        assert_ne!(comparable(&edited), wanted, "{pointer}");
    }
}

/// Any observation of a Lease and of three pods.
fn observations() -> impl Strategy<Value = (Option<LeaseView>, Vec<PodView>)> {
    let names = prop::sample::select(vec!["", "billing-0", "billing-1", "billing-2", "k8sensus.dev/recreated"]);
    let lease =
        (names, any::<[bool; 3]>(), prop::sample::select(vec![None, Some("uid-of-billing-1/app/1"), Some("-/-/1")]))
            .prop_map(|(holder, [released, expired, ready], incarnation)| LeaseView {
                holder: holder.to_owned(),
                released,
                expired,
                ready,
                incarnation: incarnation.map(str::to_owned),
                ..LeaseView::default()
            });
    let ip = prop::sample::select(vec![None, Some("10.0.0.7"), Some("fd00::7"), Some("?")]);
    let one = (any::<[bool; 5]>(), prop::option::of(any::<bool>()), ip).prop_map(|(flags, proven, ip)| {
        let [is_there, terminating, ready, containers_ready, reports_readiness] = flags;
        let ip = ip.map(str::to_owned);
        is_there.then(|| PodView {
            terminating,
            ready,
            containers_ready,
            reports_readiness,
            proven,
            ip,
            ..PodView::default()
        })
    });
    let pods = prop::collection::vec(one, 3).prop_map(|pods| {
        let named = pods.into_iter().enumerate().filter_map(|(number, pod)| Some((format!("billing-{number}"), pod?)));
        named.map(|(name, pod)| PodView { uid: Some(format!("uid-of-{name}")), name, ..pod }).collect()
    });
    (prop::option::of(lease), pods)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_only_endpoint_is_the_leader_or_there_is_none(
        history in prop::collection::vec((observations(), any::<bool>(), prop::option::of(1_u64..250)), 1..20),
    ) {
        // The slice on the API server: it changes only by writes.
        let mut stands: Option<Value> = None;
        for ((lease, pods), suspended, window) in history {
            let lease = k8sensus_group::status::leading(&Default::default(), lease.as_ref());
            let address_type = stands.as_ref().map(|slice| slice["addressType"].as_str().unwrap().to_owned());
            let handing_over = window.map(Duration::from_millis);
            let (ports, address_type) = (http(), address_type.as_deref());
            let question =
                Question { ports: &ports, lease, pods: &pods, suspended, handing_over, address_type, ..NO_LEADER };
            match decide(&question) {
                Decision::Wait(left) => {
                    prop_assert!(lease.is_none() && !suspended && stands.is_some() && Some(left) == handing_over);
                    continue;
                }
                Decision::Write(slice) => stands = Some(*slice),
            }
            let slice = stands.as_ref().unwrap();
            prop_assert_eq!(&comparable(slice), slice);
            let endpoints = slice["endpoints"].as_array().unwrap();
            prop_assert!(endpoints.len() <= 1);
            let Some(endpoint) = endpoints.first() else { continue };
            let lease = lease.expect("a leader");
            prop_assert!(!suspended && !lease.expired && !lease.holder.is_empty());
            prop_assert_eq!(endpoint["targetRef"]["name"].as_str(), Some(lease.holder.as_str()));
            let pod = pods.iter().find(|pod| pod.name == lease.holder).expect("its pod");
            prop_assert!(!pod.terminating && (lease.ready || pod.ready || pod.containers_ready));
            prop_assert_eq!(endpoint["addresses"][0].as_str(), pod.ip.as_deref());
            let of_type = pod.ip.as_ref().unwrap().contains(':');
            prop_assert_eq!(slice["addressType"] == "IPv6", of_type);
        }
    }
}
