//! An operator that is not shown one kind of object takes nothing of that kind for gone.

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

/// What is refused, and how long.
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
fn nothing_is_written_while_one_kind_is_not_shown_and_nothing_wrong_after_it() {
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
    // Something to do for whoever sees everything.
    direct.delete(&ns, "roles", "kestrel");

    let (proxy, listen) = (HttpProxy::to(shared()), free_port());
    proxy.refuse(plural, code);
    let operator = operator_for(&ns, &format!("{ns}-operator"), proxy.kubeconfig(), listen);
    operator.wait_for("reconciles from now on", SOON);
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

    // The same in the middle of its life: running watches end, and no list follows.
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
fn a_leader_whose_renewals_are_not_shown_leads_until_it_is_seen_that_it_does_not() {
    let direct = Direct::to(shared());
    let ns = namespace(shared(), "unseen");
    led(&direct, &ns, 4);
    let (proxy, listen) = (HttpProxy::to(shared()), free_port());
    let operator = operator_for(&ns, &format!("{ns}-operator"), proxy.kubeconfig(), listen);
    operator.wait_for("reconciles from now on", SOON);
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
    // The next try may take as long as this.
    renew_for(Duration::from_secs(12), Some("True/LeaseHeld"));
    assert!(readiness(listen).starts_with("HTTP/1.1 200"), "{}", readiness(listen));

    // And a leader that is gone while nothing is shown is told of when all is shown.
    proxy.refuse("leases", 500);
    thread::sleep(Duration::from_secs(6));
    assert_eq!(elected(), "True/LeaseHeld");
    proxy.refuse_no_more();
    within(20, "the end of otter", || (elected() == "False/LeaseExpired").then_some(()));
}

#[test]
fn groups_that_come_and_go_while_no_group_is_shown_are_seen_to_afterwards() {
    let direct = Direct::to(shared());
    let ns = namespace(shared(), "unshown");
    let (proxy, listen) = (HttpProxy::to(shared()), free_port());
    let operator = operator_for(&ns, &format!("{ns}-first"), proxy.kubeconfig(), listen);
    operator.wait_for("reconciles from now on", SOON);
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
            // Pods that are still there make the Lease one that was lost.
            condition(&group, "LeaderElected").starts_with("False/Lease").then_some(())
        });
    }
    within(40, "the end of heron's children", || {
        direct.get(&ns, "poddisruptionbudgets", "heron").is_none().then_some(())
    });
}

/// A group at rest that otter leads, and nobody watches over it any more.
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
    // Its successor is the same operator, and need not wait until this Lease expires.
    direct.delete("default", "leases", &format!("{ns}-operator"));
    last
}

fn renew(direct: &Direct, ns: &str) {
    let now = jiff::Timestamp::now();
    direct.merge(ns, "leases", "kestrel", &json!({ "spec": { "renewTime": format!("{now:.6}") } }));
}

/// Whether anything was written of the group and its children, the Lease apart.
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
