//! The answers of the candidate's HTTP server to each kind of client, also while others try to block it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt};
use k8sensus::campaign::{Campaign, Metrics, Timing};
use k8sensus_candidate::serve::{Answers, AppHealth, ProbeKind, Server};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

use super::http::{Sidecar, ask, exchange, loopback, own_address, try_ask};
use crate::support::{CANDIDATE, get, namespace, shared, within};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn leader_and_standby_answer_every_path() {
    let ns = namespace(shared(), "paths");
    let otter = Sidecar::start(shared(), &ns, "otter");
    otter.leads(10);
    let heron = Sidecar::start(shared(), &ns, "heron");
    heron.program.wait_for("leader is otter", SOON);

    let lease = get(shared(), &ns, "lease/weir").unwrap();
    let body = otter.get("/").json();
    let valid_for = body["validForSeconds"].as_f64().unwrap();
    assert!(valid_for > 0.0 && valid_for <= 1.0, "at most the retry period of 1 s: {body}");
    let expected = json!({
        "name": "otter", "is_leader": true, "leader": "otter", "identity": "otter",
        "leaseName": "weir", "leaseNamespace": ns, "leaseTransitions": lease["spec"]["leaseTransitions"],
        "fencingToken": body["fencingToken"], "validForSeconds": body["validForSeconds"],
    });
    assert_eq!(body, expected);
    let (token, version) = (&body["fencingToken"], &lease["metadata"]["resourceVersion"]);
    let number = |value: &serde_json::Value| value.as_str().unwrap().parse::<u64>().unwrap();
    assert!(number(token) <= number(version), "{token} against {version}");
    let standby = json!({
        "name": "otter", "is_leader": false, "leader": "otter", "identity": "heron",
        "leaseName": "weir", "leaseNamespace": ns, "validForSeconds": 0.0,
    });
    assert_eq!(heron.get("/").json(), standby);

    let status = |sidecar: &Sidecar, method: &str, path: &str| ask(sidecar.at, method, path).status;
    for (path, leader, replica) in [("/", 200, 200), ("/leader", 200, 503), ("/replica", 503, 200)] {
        for (sidecar, expected) in [(&otter, leader), (&heron, replica)] {
            let answer = sidecar.get(path);
            assert_eq!(answer.status, expected, "{path}: {answer:?}");
            assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
            assert_eq!(answer.json()["leader"], "otter", "{path}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
            let head = ask(sidecar.at, "HEAD", path);
            assert_eq!((head.status, head.body.as_str()), (expected, ""), "{path}");
        }
    }
    for sidecar in [&otter, &heron] {
        for path in ["/livez", "/readyz"] {
            assert_eq!((status(sidecar, "GET", path), sidecar.get(path).body.as_str()), (200, "ok\n"), "{path}");
        }
        for path in ["/app-health/liveness", "/app-health/readiness"] {
            let answer = sidecar.get(path);
            assert!(answer.status == 404 && answer.body.contains("probe the app itself"), "{answer:?}");
        }
    }
    let metrics = otter.get("/metrics").body;
    assert!(metrics.contains("leader_election_master_status{name=\"weir\"} 1"), "{metrics}");
    assert!(heron.get("/metrics").body.contains("leader_election_master_status{name=\"weir\"} 0"));

    let refused = heron.post("/step-down");
    assert!(refused.status == 409 && refused.body.contains("does not lead"), "{refused:?}");
    assert_eq!(heron.post("/stopped").status, 200);
    assert_eq!(otter.post("/step-down").status, 202);
    heron.leads(5);
    within(5, "the old leader to see the new one", || (otter.get("/").json()["name"] == "heron").then_some(()));
}

#[test]
fn a_wrong_request_is_answered_with_the_remedy() {
    let ns = namespace(shared(), "wrong");
    let otter = Sidecar::start(shared(), &ns, "otter");
    otter.leads(10);
    let missing = otter.get("/leaders?verbose=1");
    assert_eq!(missing.status, 404);
    for path in ["GET, HEAD /leader;", "POST /step-down;", "GET, HEAD /metrics"] {
        assert!(missing.body.contains(path), "{missing:?}");
    }
    for (method, path, allowed) in [
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/leader", "GET, HEAD"),
        ("GET", "/step-down", "POST"),
        ("PUT", "/stopped", "POST"),
        ("BREW", "/livez", "GET, HEAD"),
    ] {
        let answer = ask(otter.at, method, path);
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{method} {path}");
        assert_eq!(answer.body, format!("{path} accepts {allowed}, found {method}\n"));
    }
    let query = otter.post("/stopped?fencingtoken=7");
    assert_eq!((query.status, query.body.contains("/stopped?fencingToken=TOKEN")), (400, true), "{query:?}");
    assert!(otter.get("/leader?a=b").status == 200, "a read may have any query");

    // No body is needed: a small one is skipped, a large one is refused.
    let with_body = |length: usize| {
        let head =
            format!("POST /stopped?fencingToken=0 HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
        exchange(otter.at, &[head.as_bytes(), &vec![b'x'; length]].concat())
    };
    assert_eq!(with_body(2_000).unwrap().status, 200);
    assert!(with_body(1_000_000).map_or(true, |answer| answer.status == 413));
    // The server waits neither for a flood of headers nor for bytes that are not HTTP.
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    assert!(exchange(otter.at, long.as_bytes()).map_or(true, |answer| answer.status == 431));
    assert!(exchange(otter.at, b"\x16\x03\x01\x02\x00 hello\r\n\r\n").map_or(true, |answer| answer.status == 400));
    assert_eq!(otter.get("/leader").status, 200);
}

#[test]
fn paths_for_the_app_are_refused_to_others() {
    let ns = namespace(shared(), "peers");
    let otter = Sidecar::start(shared(), &ns, "otter");
    otter.leads(10);
    let outside = SocketAddr::new(own_address(), otter.at.port());
    for (method, path) in
        [("GET", "/"), ("GET", "/leader"), ("GET", "/replica"), ("POST", "/step-down"), ("POST", "/stopped")]
    {
        let answer = ask(outside, method, path);
        assert!(answer.status == 403 && answer.body.contains("only within the pod"), "{method} {path}: {answer:?}");
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(ask(outside, "GET", path).status, 200, "{path}");
    }
    assert_eq!(ask(outside, "GET", "/app-health/liveness").status, 404);
    assert_eq!(otter.get("/leader").status, 200, "still the leader");
    assert_eq!(ask(SocketAddr::new("::1".parse().unwrap(), otter.at.port()), "GET", "/leader").status, 200);
}

#[test]
fn a_port_in_use_is_reported_in_one_line_before_the_election() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let ns = namespace(shared(), "taken");
    let mut command = Command::new(CANDIDATE);
    let output = command
        .args(["run", "--lease-name=weir", &format!("--lease-namespace={ns}"), &format!("--http-port={port}")])
        .env("POD_NAME", "otter")
        .env("KUBECONFIG", shared().kubeconfig())
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    let expected = format!(
        "error: cannot listen on port {port} for the HTTP server: Address already in use (os error 98); free it, or choose \
         another with --http-port\n"
    );
    assert_eq!((output.status.code(), error.as_str()), (Some(1), expected.as_str()));
    assert!(get(shared(), &ns, "lease/weir").is_none());
}

#[test]
fn slow_and_half_open_connections_disturb_no_other_client() {
    let ns = namespace(shared(), "slow-clients");
    let otter = Sidecar::start(shared(), &ns, "otter");
    let (token, _) = otter.leads(10);
    let outside = SocketAddr::new(own_address(), otter.at.port());
    let memory = resident(&otter);
    let mut connections = Vec::new();
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    for round in 0..100 {
        for to in [otter.at, outside] {
            // One connection sends nothing, the next never finishes its request.
            connections.push(TcpStream::connect(to).unwrap());
            let mut slow = TcpStream::connect(to).unwrap();
            slow.write_all(b"GET /leader HTTP/1.1\r\nx: ").unwrap();
            connections.push(slow);
        }
        let sent = Instant::now();
        let answer = try_ask(otter.at, "GET", "/").unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(answer.promise().expect("it leads").0, token);
        assert_eq!(ask(outside, "GET", "/livez").status, 200);
        slowest = slowest.max(sent.elapsed());
    }
    let sockets = std::fs::read_dir(format!("/proc/{}/fd", otter.program.pid())).unwrap().count();
    let grown = resident(&otter).saturating_sub(memory);
    eprintln!(
        "400 connections in {:?}: {sockets} open files, {grown} KiB more, slowest pair {slowest:?}",
        start.elapsed()
    );
    assert!(sockets < 100, "{sockets} open files");
    assert!(grown < 4_096, "{grown} KiB more");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    // A body that never comes occupies no place either.
    let sent = Instant::now();
    let bodiless = exchange(outside, b"GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n").unwrap();
    assert_eq!(bodiless.status, 200, "{bodiless:?}");
    assert!(sent.elapsed() < Duration::from_secs(1), "{:?}", sent.elapsed());
    // A connection that is silent for long is closed.
    let mut last = connections.pop().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut rest = Vec::new();
    let ended = last.read_to_end(&mut rest);
    assert!(ended.is_ok() || start.elapsed() < Duration::from_secs(10), "{ended:?}");
    assert_eq!(otter.leads(1).0, token, "still the same term");
}

fn resident(sidecar: &Sidecar) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.program.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// An app that is alive but not ready.
struct Unready;

impl AppHealth for Unready {
    fn check(&self, probe: ProbeKind) -> BoxFuture<'static, Result<String, String>> {
        async move {
            match probe {
                ProbeKind::Liveness => Ok("alive".to_owned()),
                ProbeKind::Readiness => Err("still reading its files".to_owned()),
            }
        }
        .boxed()
    }
}

#[test]
fn beside_a_command_nothing_is_ready_before_the_first_lease_read() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _inside = runtime.enter();
    // This port has no listener.
    let config = kube::Config::new("http://127.0.0.1:9".parse().unwrap());
    let server = Server::bind(0).unwrap();
    let at = loopback(server.port().unwrap());
    let metrics = Metrics::default();
    let campaign = Campaign::builder("shop", "weir").identity("otter").metrics(metrics.clone()).start(&config).unwrap();
    let _serving = server.serve(Answers::beside_command(Arc::new(campaign), Arc::new(Unready), &metrics));
    for path in ["/readyz", "/app-health/readiness"] {
        let answer = ask(at, "GET", path);
        assert!(answer.status == 503 && answer.body.contains("lease shop/weir was not seen yet"), "{path}: {answer:?}");
    }
    assert_eq!(ask(at, "GET", "/app-health/liveness").status, 200, "a restart would not help");
}

#[test]
fn beside_a_command_its_health_is_served_and_stopped_is_refused() {
    let ns = namespace(shared(), "command");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let kubeconfig = Kubeconfig::read_from(shared().kubeconfig()).unwrap();
    let config =
        runtime.block_on(kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())).unwrap();
    let server = Server::bind(0).unwrap();
    let at = loopback(server.port().unwrap());
    let seconds = Duration::from_secs;
    let metrics = Metrics::default();
    let campaign = Campaign::builder(&ns, "weir")
        .identity("otter")
        .timing(Timing::new(seconds(3), seconds(2), seconds(1)).unwrap())
        .metrics(metrics.clone());
    let campaign = Arc::new(campaign.start(&config).unwrap());
    let serving = server.serve(Answers::beside_command(campaign.clone(), Arc::new(Unready), &metrics));

    let guard = runtime.block_on(campaign.lead()).unwrap();
    let body = ask(at, "GET", "/").json();
    assert_eq!((&body["is_leader"], &body["fencingToken"]), (&json!(true), &json!(guard.token())));
    let valid_for = body["validForSeconds"].as_f64().unwrap();
    assert!(valid_for > 0.0 && valid_for <= 2.0, "as long as the term is valid: {body}");
    let outside = SocketAddr::new(own_address(), at.port());
    for at in [at, outside] {
        let (alive, ready) = (ask(at, "GET", "/app-health/liveness"), ask(at, "HEAD", "/app-health/readiness"));
        assert_eq!((alive.status, alive.body.as_str(), ready.status), (200, "alive\n", 503));
    }
    let ready = ask(at, "GET", "/app-health/readiness");
    assert_eq!((ready.status, ready.body.as_str()), (503, "still reading its files\n"));
    let stopped = ask(at, "POST", "/stopped");
    assert!(stopped.status == 409 && stopped.body.contains("observes its end"), "{stopped:?}");

    assert_eq!(ask(at, "POST", "/step-down").status, 202);
    runtime.block_on(guard.lost());
    assert_eq!(ask(at, "GET", "/leader").status, 200, "it may finish its work");
    guard.end();
    within(5, "the term to end", || (ask(at, "GET", "/leader").status == 503).then_some(()));
    assert_eq!(ask(at, "GET", "/").json()["name"], "");
    drop(serving);
    within(5, "the server to end", || try_ask(at, "GET", "/livez").is_err().then_some(()));
}

#[test]
fn readiness_starts_with_the_first_lease_read_and_lasts() {
    let cluster = crate::support::control_plane();
    cluster.signal(k8sensus_local::Component::ApiServer, 19).unwrap();
    let heron = Sidecar::start(&cluster, "default", "heron");
    let answer = heron.get("/readyz");
    assert!(answer.status == 503 && answer.body.contains("lease default/weir was not seen yet"), "{answer:?}");
    assert_eq!(heron.get("/livez").status, 200);
    assert_eq!(heron.get("/").json()["leader"], "");
    cluster.signal(k8sensus_local::Component::ApiServer, 18).unwrap();
    let ready = || within(15, "the candidate to be ready", || (heron.get("/readyz").status == 200).then_some(()));
    ready();
    cluster.signal(k8sensus_local::Component::ApiServer, 19).unwrap();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!((heron.get("/readyz").status, heron.get("/livez").status), (200, 200));
    cluster.signal(k8sensus_local::Component::ApiServer, 18).unwrap();
}
