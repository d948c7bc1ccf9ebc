//! Attempts to starve the operator: by connections, and by objects as large as an API server accepts.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::crashes::ANYWHERE;
use crate::support::http_proxy::operator_for;
use crate::support::objects::Direct;
use crate::support::{Program, control_plane, group, namespace, within};

const FAT_GROUPS: usize = 300;
const IDLE_CONNECTIONS: usize = 5_000;
const OPERATOR: &str = "starved-operator";
/// The chart's memory limit.
const LIMIT_KIB: u64 = 128 * 1024;

#[test]
fn idle_connections_and_large_objects_do_not_starve_the_operator() {
    let cluster = control_plane();
    let direct = Direct::to(&cluster);
    let ns = namespace(&cluster, "starved");
    // Just below the limit of 256 KiB for all annotations of an object.
    let fat = json!({ "example.com/fat": "x".repeat(250 * 1024) });
    let name = |number: usize| format!("fat-{number}");
    let first = operator_for(&ns, OPERATOR, cluster.kubeconfig(), ANYWHERE);
    for number in 0..FAT_GROUPS {
        let mut group = group(&name(number), json!({ "replicas": 0 }));
        group["metadata"]["annotations"] = fat.clone();
        direct.create(&ns, "electiongroups", &group);
    }
    for number in 0..FAT_GROUPS {
        within(120, "the Lease", || direct.get(&ns, "leases", &name(number)));
        direct.merge(&ns, "leases", &name(number), &json!({ "metadata": { "annotations": fat } }));
        within(120, "the status", || {
            let group = direct.get(&ns, "electiongroups", &name(number))?;
            (group["status"]["observedGeneration"] == 1).then_some(())
        });
    }
    drop(first);
    // The next operator has the same name, and need not wait until this Lease expires.
    direct.delete("default", "leases", OPERATOR);

    let listen = TcpListener::bind(ANYWHERE).unwrap().local_addr().unwrap();
    let start = Instant::now();
    let second = operator_for(&ns, OPERATOR, cluster.kubeconfig(), listen);
    within(20, "the endpoints", || TcpStream::connect(listen).ok());
    let idle: Vec<TcpStream> = (0..IDLE_CONNECTIONS).filter_map(|_| TcpStream::connect(listen).ok()).collect();
    // Connections beyond the limit are closed by tasks that a busy machine runs a moment later.
    let files = within(10, "at most 200 open files", || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", second.pid())).unwrap().count();
        (files < 200).then_some(files)
    });
    within(60, "readiness", || fetch(listen, "/readyz").starts_with("HTTP/1.1 200").then_some(()));
    second.wait_for("starting to reconcile", Duration::from_secs(60));
    let ready = start.elapsed();

    let mut times: Vec<Duration> = (0..5).map(|number| creation(&direct, &ns, &format!("new-{number}"))).collect();
    times.sort();
    let start = Instant::now();
    assert!(fetch(listen, "/healthz").starts_with("HTTP/1.1 200"));
    let health = start.elapsed();
    let [peak, now] = ["VmHWM:", "VmRSS:"].map(|field| memory_kib(&second, field));
    println!(
        "{FAT_GROUPS} fat groups and Leases, {} idle connections: {files} open files, peak {peak} KiB, now {now} KiB; \
         ready after {ready:?}; new groups after {times:?}; /healthz in {health:?}",
        idle.len()
    );
    assert!(peak < LIMIT_KIB, "{peak} KiB");
    assert!(times[0] < Duration::from_secs(1), "{times:?}");
    assert!(health < Duration::from_secs(1), "{health:?}");
}

/// Creates a group. Returns how long it takes until its last child and its status exist.
fn creation(direct: &Direct, ns: &str, name: &str) -> Duration {
    let start = Instant::now();
    direct.create(ns, "electiongroups", &group(name, json!({})));
    within(60, "the budget", || direct.get(ns, "poddisruptionbudgets", name));
    within(60, "the status", || {
        let group: Value = direct.get(ns, "electiongroups", name)?;
        (group["status"]["observedGeneration"] == 1).then_some(())
    });
    start.elapsed()
}

fn memory_kib(operator: &Program, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", operator.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn fetch(at: SocketAddr, path: &str) -> String {
    let mut text = String::new();
    if let Ok(mut stream) = TcpStream::connect(at) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read_to_string(&mut text);
    }
    text
}
