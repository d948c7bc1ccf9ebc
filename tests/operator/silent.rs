//! A silent watch while all other requests pass, as behind an API server that lost power or a firewall that dropped the
//! connection.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::crashes::ANYWHERE;
use super::rest::{Ended, at_rest};
use crate::support::http_proxy::{HttpProxy, operator_for};
use crate::support::objects::Direct;
use crate::support::{group, namespace, shared, within};

const GROUPS: usize = 50;
/// How long the watch is silent, unless `K8SENSUS_SILENT_SECONDS` is set.
const SECONDS: u64 = 20;
/// The duration of the Leases, in seconds. Renewals come about every second.
const LEASE_SECONDS: u64 = 6;

#[test]
fn leaders_stay_elected_while_the_lease_watch_is_silent_and_a_dead_one_is_still_noticed() {
    let seconds = std::env::var("K8SENSUS_SILENT_SECONDS").ok().map_or(SECONDS, |text| text.parse().unwrap());
    let direct = Direct::to(shared());
    let ns = namespace(shared(), "silent");
    let proxy = HttpProxy::to(shared());
    let operator = operator_for(&ns, &ns, proxy.kubeconfig(), ANYWHERE);
    let (over, dead) = (AtomicBool::new(false), AtomicBool::new(false));
    within(20, "the default account", || direct.get(&ns, "serviceaccounts", "default"));
    (0..GROUPS).for_each(|number| lead(&direct, &ns, number));

    thread::scope(|scope| {
        let renewals = scope.spawn(|| {
            let direct = Direct::to(shared());
            while !over.load(Ordering::Relaxed) {
                let first = usize::from(dead.load(Ordering::Relaxed));
                let start = Instant::now();
                (first..GROUPS).for_each(|number| renew(&direct, &ns, &name(number)));
                thread::sleep(Duration::from_secs(1).saturating_sub(start.elapsed()));
            }
        });
        // Stops the other thread, however this one ends.
        let ended = Ended(&over);
        within(120, "all groups to be led", || (led(&direct, &ns).len() == GROUPS).then_some(()));
        let at_rest = at_rest(&proxy);

        let reads = proxy.reads().len();
        proxy.silence("leases");
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) {
            thread::sleep(Duration::from_millis(500));
            assert!(!renewals.is_finished());
        }
        let writes = proxy.writes().split_off(at_rest);
        let of = |plural: &str| writes.iter().filter(|write| write.contains(plural)).count();
        let reads = proxy.reads().split_off(reads);
        println!(
            "{GROUPS} groups, {seconds} s: {} writes of EndpointSlices, {} of statuses, {} in all; {} reads of Leases; {} led",
            of("endpointslices"),
            of("electiongroups"),
            writes.len(),
            reads.len(),
            led(&direct, &ns).len()
        );
        assert_eq!(writes, Vec::<String>::new(), "{}", operator.output());
        // One read each time that a Lease seems to expire, not one for each reconcile.
        let most = GROUPS * (seconds / LEASE_SECONDS + 1) as usize;
        assert!((1..=most).contains(&reads.len()), "{} reads, at most {most} were to be", reads.len());

        dead.store(true, Ordering::Relaxed);
        within(4 * LEASE_SECONDS, "the end of the dead leader", || {
            (led(&direct, &ns).len() == GROUPS - 1).then_some(())
        });
        assert!(!led(&direct, &ns).contains(&name(0)));

        // New watches work again: the operator starts one by itself.
        proxy.silence_no_more();
        operator.wait_for("restarting it", Duration::from_secs(60));
        within(60, "the watch", || {
            let before = proxy.reads().len();
            thread::sleep(Duration::from_secs(LEASE_SECONDS + 2));
            (proxy.reads().len() == before).then_some(())
        });
        drop(ended);
    });
}

/// A bookmark comes about once a minute. The operator gives a watch up after a little more.
#[test]
fn silent_watch_reconnects_after_75_s() {
    let direct = Direct::to(shared());
    let ns = namespace(shared(), "resumed");
    let (proxy, listen) = (HttpProxy::to(shared()), TcpListener::bind(ANYWHERE).unwrap().local_addr().unwrap());
    let operator = operator_for(&ns, &ns, proxy.kubeconfig(), listen);
    within(20, "the default account", || direct.get(&ns, "serviceaccounts", "default"));
    lead(&direct, &ns, 0);
    within(20, "the leader", || (led(&direct, &ns).len() == 1).then_some(()));
    proxy.silence("electiongroups");
    proxy.silence("pods");
    thread::sleep(Duration::from_secs(1));
    proxy.silence_no_more();
    let start = Instant::now();
    // Only the watches of groups and pods show these changes.
    direct.create(&ns, "electiongroups", &group("heron", json!({ "replicas": 0 })));
    let unready = json!({ "status": { "conditions": [{ "type": "ContainersReady", "status": "False" }] } });
    direct.merge(&ns, "pods", "kestrel-0-pod/status", &unready);
    within(100, "heron's Lease and an empty Service", || {
        renew(&direct, &ns, "kestrel-0");
        assert!(readiness(listen).starts_with("HTTP/1.1 200"), "{}", readiness(listen));
        thread::sleep(Duration::from_millis(500));
        direct.get(&ns, "leases", "heron").filter(|_| led(&direct, &ns).is_empty())
    });
    println!("resumed after {:?}", start.elapsed());
    assert!(!operator.says("cannot watch"), "{}", operator.output());
}

/// Returns the response of /readyz.
fn readiness(at: SocketAddr) -> String {
    let mut text = String::new();
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: operator\r\n\r\n").unwrap();
    let _ = stream.read_to_string(&mut text);
    text
}

fn name(number: usize) -> String {
    format!("kestrel-{number}")
}

/// Creates a group whose Lease is held by a ready pod, created by the test.
fn lead(direct: &Direct, ns: &str, number: usize) {
    let name = name(number);
    let service = json!({ "ports": [{ "port": 80, "targetPort": 8080 }] });
    direct.create(ns, "electiongroups", &group(&name, json!({ "replicas": 0, "leaderService": service })));
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("{name}-pod"), "labels": { "k8sensus.dev/group": name } },
        "spec": {
            "readinessGates": [{ "conditionType": "k8sensus.dev/proven" }],
            "containers": [{ "name": "app", "image": "registry.example/kestrel:1" }],
        },
    });
    direct.create(ns, "pods", &pod);
    let ip = format!("10.9.1.{number}");
    let ready = json!([{ "type": "ContainersReady", "status": "True" }]);
    let status = json!({ "podIP": ip, "podIPs": [{ "ip": ip }], "conditions": ready });
    direct.merge(ns, "pods", &format!("{name}-pod/status"), &json!({ "status": status }));
    within(60, "the Lease", || direct.get(ns, "leases", &name));
    let spec = json!({
        "holderIdentity": format!("{name}-pod"), "leaseDurationSeconds": LEASE_SECONDS, "leaseTransitions": 1,
    });
    direct.merge(ns, "leases", &name, &json!({ "spec": spec }));
    renew(direct, ns, &name);
}

fn renew(direct: &Direct, ns: &str, name: &str) {
    let now = jiff::Timestamp::now();
    direct.merge(ns, "leases", name, &json!({ "spec": { "renewTime": format!("{now:.6}") } }));
}

/// Returns the groups whose status names their leader and whose Service routes to it.
fn led(direct: &Direct, ns: &str) -> BTreeSet<String> {
    let items = |plural: &str| match direct.get(ns, plural, "").unwrap()["items"].take() {
        Value::Array(items) => items,
        other => panic!("{plural}: {other}"),
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let groups = items("electiongroups").into_iter().filter(|group| {
        let holder = format!("{}-pod", text(&group["metadata"]["name"]));
        group["status"]["holderIdentity"] == holder.as_str()
    });
    let elected: BTreeSet<String> = groups.map(|group| text(&group["metadata"]["name"])).collect();
    let slices =
        items("endpointslices").into_iter().filter(|slice| slice["endpoints"][0]["targetRef"]["name"].is_string());
    let served: BTreeSet<String> =
        slices.map(|slice| text(&slice["metadata"]["name"]).trim_end_matches("-leader").to_owned()).collect();
    elected.intersection(&served).cloned().collect()
}
