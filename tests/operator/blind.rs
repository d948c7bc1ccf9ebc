//! An operator that cannot watch one kind of object takes no object of that kind for deleted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::crashes::{ANYWHERE, PLURALS};
use crate::support::http_proxy::{HttpProxy, operator_for};
use crate::support::objects::Direct;
use crate::support::{condition, group, namespace, shared, within};

const SOON: Duration = Duration::from_secs(20);

/// The kinds whose watch is refused, with the status code, and for how long.
const CASES: [(&str, u16, Duration); 8] = [
    ("leases", 500, Duration::from_secs(5)),
    ("electiongroups", 403, Duration::from_secs(3)),
    ("pods", 500, Duration::from_secs(3)),
    ("deployments", 403, Duration::from_secs(3)),
    ("serviceaccounts", 500, Duration::from_secs(3)),
    ("roles", 403, Duration::from_secs(3)),
    ("rolebindings", 500, Duration::from_secs(3)),
    ("poddisruptionbudgets", 503, Duration::from_secs(3)),
];

#[test]
fn operator_writes_nothing_while_one_kind_cannot_be_watched() {
    let direct = Direct::to(shared());
    thread::scope(|scope| {
        let cases = CASES.map(|(plural, code, time)| {
            let direct = &direct;
            scope.spawn(move || blinded(direct, plural, code, time))
        });
        cases.into_iter().for_each(|case| case.join().unwrap());
    });
}

fn blinded(direct: &Direct, plural: &str, code: u16, time: Duration) {
    let ns = namespace(shared(), &format!("blind-{plural}"));
    let versions = led(direct, &ns, 3600);
    // Changes that an operator with a complete view would act on.
    direct.delete(&ns, "roles", "kestrel");

    let (proxy, listen) = (HttpProxy::to(shared()), free_port());
    proxy.refuse(plural, code);
    let operator = operator_for(&ns, &format!("{ns}-operator"), proxy.kubeconfig(), listen);
    operator.wait_for("starting to reconcile", SOON);
    let problem = format!("cannot watch {plural} in namespace {ns}: refused by the test ({code})");
    within(10, &problem, || readiness(listen).contains(&problem).then_some(()));
    thread::sleep(time);
    assert_eq!(proxy.writes(), Vec::<String>::new(), "{plural} were not shown");
    assert!(readiness(listen).starts_with("HTTP/1.1 503"), "{}", readiness(listen));
    proxy.refuse_no_more();
    within(20, "the role", || direct.get(&ns, "roles", "kestrel"));
    within(20, "readiness", || readiness(listen).starts_with("HTTP/1.1 200").then_some(()));
    thread::sleep(Duration::from_secs(1));
    assert_eq!(proxy.writes(), ["POST roles"], "{plural} were shown late");

    // The same for a running operator: its watches end, and no list follows.
    proxy.refuse(plural, code);
    within(10, &problem, || readiness(listen).contains(&problem).then_some(()));
    thread::sleep(time);
    proxy.refuse_no_more();
    within(20, "readiness", || readiness(listen).starts_with("HTTP/1.1 200").then_some(()));
    thread::sleep(Duration::from_secs(1));
    assert_eq!(proxy.writes(), ["POST roles"], "{plural} were hidden for {time:?}");
    let found = self::versions(direct, &ns);
    for ((what, before), (_, after)) in versions.iter().zip(&found).filter(|((what, _), _)| *what != "roles") {
        assert_eq!(before, after, "{what} while {plural} were not shown");
    }
}

#[test]
fn leader_is_kept_while_its_renewals_cannot_be_watched() {
    let direct = Direct::to(shared());
    let ns = namespace(shared(), "unseen");
    led(&direct, &ns, 4);
    let (proxy, listen) = (HttpProxy::to(shared()), free_port());
    let operator = operator_for(&ns, &format!("{ns}-operator"), proxy.kubeconfig(), listen);
    operator.wait_for("starting to reconcile", SOON);
    let elected = || condition(&direct.get(&ns, "electiongroups", "kestrel").unwrap(), "LeaderElected");
    let renew_for = |time: Duration, wanted: Option<&str>| {
        let start = Instant::now();
        while start.elapsed() < time {
            renew(&direct, &ns);
            thread::sleep(Duration::from_millis(500));
            assert!(wanted.is_none_or(|wanted| elected() == wanted), "{} after {:?}", elected(), start.elapsed());
        }
    };
    renew_for(Duration::from_secs(2), None);
    within(10, "otter in the status", || (elected() == "True/LeaseHeld").then(|| renew(&direct, &ns)));
    proxy.refuse("leases", 500);
    renew_for(Duration::from_secs(9), Some("True/LeaseHeld"));
    assert!(readiness(listen).contains("cannot watch leases"), "{}", readiness(listen));
    proxy.refuse_no_more();
    // The longest backoff of a watch.
    renew_for(Duration::from_secs(12), Some("True/LeaseHeld"));
    assert!(readiness(listen).starts_with("HTTP/1.1 200"), "{}", readiness(listen));

    // A leader that is lost during the outage is reported after it.
    proxy.refuse("leases", 500);
    thread::sleep(Duration::from_secs(6));
    assert_eq!(elected(), "True/LeaseHeld");
    proxy.refuse_no_more();
    within(20, "the loss of otter", || (elected() == "False/LeaseExpired").then_some(()));
}

#[test]
fn groups_changed_during_a_watch_outage_are_reconciled_afterwards() {
    let direct = Direct::to(shared());
    let ns = namespace(shared(), "unshown");
    let (proxy, listen) = (HttpProxy::to(shared()), free_port());
    let operator = operator_for(&ns, &format!("{ns}-first"), proxy.kubeconfig(), listen);
    operator.wait_for("starting to reconcile", SOON);
    let make = |name: &str| direct.create(&ns, "electiongroups", &group(name, json!({})));
    let children = |name: &str, uid: &Value| {
        within(40, &format!("the children of {name}"), || {
            let last = direct.get(&ns, "poddisruptionbudgets", name)?;
            (last["metadata"]["ownerReferences"][0]["uid"] == *uid).then_some(())
        });
    };
    for name in ["kestrel", "heron"] {
        children(name, &make(name)["metadata"]["uid"]);
    }
    proxy.refuse("electiongroups", 500);
    within(10, "the end of the watch", || readiness(listen).contains("cannot watch electiongroups").then_some(()));
    for name in ["kestrel", "heron"] {
        direct.delete(&ns, "electiongroups", name);
    }
    let made = ["siskin", "kestrel"].map(|name| (name, make(name)["metadata"]["uid"].clone()));
    thread::sleep(Duration::from_secs(1));
    proxy.refuse_no_more();
    for (name, uid) in made {
        children(name, &uid);
        within(10, "the status", || {
            let group = direct.get(&ns, "electiongroups", name)?;
            // With pods that still exist the Lease counts as lost.
            condition(&group, "LeaderElected").starts_with("False/Lease").then_some(())
        });
    }
    within(40, "the end of heron's children", || {
        direct.get(&ns, "poddisruptionbudgets", "heron").is_none().then_some(())
    });
}

/// Creates a group at rest that otter leads, and stops its operator.
fn led(direct: &Direct, ns: &str, seconds: i32) -> Vec<(&'static str, Value)> {
    let first = operator_for(ns, &format!("{ns}-operator"), shared().kubeconfig(), ANYWHERE);
    direct.create(ns, "electiongroups", &group("kestrel", json!({})));
    within(30, "the lease", || direct.get(ns, "leases", "kestrel"));
    let spec = json!({ "holderIdentity": "otter", "leaseDurationSeconds": seconds, "leaseTransitions": 1 });
    direct.merge(ns, "leases", "kestrel", &json!({ "spec": spec }));
    renew(direct, ns);
    let (mut last, mut since) = (Vec::new(), Instant::now());
    let last = within(40, "the group to be at rest", || {
        renew(direct, ns);
        let now = versions(direct, ns);
        let group = direct.get(ns, "electiongroups", "kestrel")?;
        if now != last || group["status"]["holderIdentity"] != "otter" {
            (last, since) = (now, Instant::now());
        }
        thread::sleep(Duration::from_millis(200));
        (since.elapsed() > Duration::from_secs(2)).then(|| last.clone())
    });
    drop(first);
    // The next operator has the same name, and need not wait until this Lease expires.
    direct.delete("default", "leases", &format!("{ns}-operator"));
    last
}

fn renew(direct: &Direct, ns: &str) {
    let now = jiff::Timestamp::now();
    direct.merge(ns, "leases", "kestrel", &json!({ "spec": { "renewTime": format!("{now:.6}") } }));
}

/// Returns the versions of the group and its children, without the Lease.
fn versions(direct: &Direct, ns: &str) -> Vec<(&'static str, Value)> {
    let plurals = PLURALS.iter().filter(|plural| **plural != "leases").chain(&["electiongroups"]);
    plurals
        .map(|plural| {
            let found = direct.get(ns, plural, "kestrel").unwrap_or_default();
            (*plural, json!([found["metadata"]["uid"], found["metadata"]["resourceVersion"]]))
        })
        .collect()
}

fn free_port() -> SocketAddr {
    TcpListener::bind(ANYWHERE).unwrap().local_addr().unwrap()
}

fn readiness(at: SocketAddr) -> String {
    let mut text = String::new();
    if let Ok(mut stream) = TcpStream::connect(at) {
        let _ = stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n");
        let _ = stream.read_to_string(&mut text);
    }
    text
}
