//! The driver against an API server that answers as the test says.

#![allow(clippy::disallowed_methods, reason = "these tests wait for real connections in real time")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8sensus::campaign::{self, Handle, INCARNATION, LeaseName, Metrics, Notice, Options, Term};
use k8sensus::election::{Candidate, Timing};
use k8sensus::runtime::clock::SystemClock;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

/// What becomes of a PUT.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Written,
    /// Refused with this code, nothing is written.
    Status(u16),
    /// Nothing is written and no answer comes on this connection.
    Silence,
}

struct Server {
    lease: Value,
    /// The `n`-th PUT, from 0.
    fate: fn(usize) -> Fate,
    /// When each PUT came.
    puts: Vec<Instant>,
    /// What was put.
    bodies: Vec<Value>,
}

type Shared = Arc<Mutex<Server>>;

/// Serves one released Lease, no watch. Ends with the test's process.
fn serve(fate: fn(usize) -> Fate) -> (Shared, kube::Config) {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": "weir", "namespace": "river", "resourceVersion": "41", "labels": { "colour": "red" } },
        "spec": {
            "holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 3, "tomorrow": "kept",
            "acquireTime": "2026-03-01T12:00:00.000000Z", "renewTime": "2026-03-01T12:00:00.000000Z",
        },
    });
    let server = Arc::new(Mutex::new(Server { lease, fate, puts: Vec::new(), bodies: Vec::new() }));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shared = server.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let shared = shared.clone();
            std::thread::spawn(move || while answer(&stream, &shared).is_some() {});
        }
    });
    (server, kube::Config::new(url.parse().unwrap()))
}

/// Answers one request; `None` at the connection's end.
fn answer(stream: &TcpStream, shared: &Shared) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        Some(line.trim_end().to_ascii_lowercase())
    };
    let request = line()?;
    let mut length = 0;
    loop {
        let header = line()?;
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (code, answer) = if request.starts_with("put ") {
        let Some(answer) = put(&mut shared.lock().unwrap(), serde_json::from_slice(&body).ok()?) else {
            loop {
                std::thread::park();
            }
        };
        answer
    } else if request.starts_with("get /apis/coordination.k8s.io/v1/namespaces/river/leases/weir") {
        (200, shared.lock().unwrap().lease.clone())
    } else {
        // The list and the watch: the campaign goes on without.
        (403, status(403))
    };
    let text = answer.to_string();
    let head = format!("HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", text.len());
    let mut stream = stream;
    stream.write_all((head + &text).as_bytes()).ok()
}

/// `None` if the connection is to stay open and silent.
fn put(server: &mut Server, mut body: Value) -> Option<(u16, Value)> {
    let fate = (server.fate)(server.puts.len());
    server.puts.push(Instant::now());
    server.bodies.push(body.clone());
    match fate {
        Fate::Silence => None,
        Fate::Status(code) => Some((code, status(code))),
        Fate::Written if body["metadata"]["resourceVersion"] != server.lease["metadata"]["resourceVersion"] => {
            Some((409, status(409)))
        }
        Fate::Written => {
            let version: u64 = server.lease["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            body["metadata"]["resourceVersion"] = json!((version + 1).to_string());
            server.lease = body.clone();
            Some((200, body))
        }
    }
}

fn status(code: u16) -> Value {
    let reason = match code {
        403 => "Forbidden",
        409 => "Conflict",
        _ => "InternalError",
    };
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": "as told", "code": code })
}

/// A candidate with a lease of 3 s, a renew deadline of 2 s and renewals every second.
fn candidate(config: &kube::Config) -> (Handle, UnboundedReceiver<Notice>) {
    let seconds = Duration::from_secs;
    let options = Options {
        lease: LeaseName { namespace: "river".to_owned(), name: "weir".to_owned() },
        candidate: Candidate::new("otter", "uid/app/1").unwrap(),
        timing: Timing::new(seconds(3), seconds(2), seconds(1)).unwrap(),
        may_create: false,
        clock: Arc::new(SystemClock),
        metrics: Metrics::default(),
    };
    campaign::start(config, options).unwrap()
}

async fn lead(notices: &mut UnboundedReceiver<Notice>) -> Term {
    let limit = Duration::from_secs(5);
    loop {
        match tokio::time::timeout(limit, notices.recv()).await.expect("no term in time") {
            Some(Notice::Lead(term)) => return term,
            Some(Notice::Holder(_)) => {}
            other => panic!("expected a term, found {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_renewal_that_gets_no_answer_is_tried_again_over_another_connection() {
    let (server, config) = serve(|n| if n == 1 { Fate::Silence } else { Fate::Written });
    let (_handle, mut notices) = candidate(&config);
    let term = lead(&mut notices).await;
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    assert!(term.is_valid());
    while let Ok(notice) = notices.try_recv() {
        assert!(!matches!(notice, Notice::Stop { .. }), "{notice:?}");
    }
    let server = server.lock().unwrap();
    assert!(server.puts.len() >= 4, "{} writes", server.puts.len());
    let again = server.puts[2] - server.puts[1];
    assert!(again < Duration::from_secs(1), "tried again after {again:?}");
    // It cannot be known whether the first of the two was written, so they say the same.
    assert_eq!(server.bodies[1], server.bodies[2]);
}

#[tokio::test]
async fn a_term_is_valid_as_long_as_its_renewals_are_acknowledged() {
    let (_server, config) = serve(|n| if n < 3 { Fate::Written } else { Fate::Silence });
    let (_handle, mut notices) = candidate(&config);
    let term = lead(&mut notices).await;
    let start = Instant::now();
    // Renewed after 1 s and 2 s, then no more.
    tokio::time::sleep(Duration::from_millis(3_000)).await;
    assert!(term.is_valid(), "a renewal must extend the term");
    while term.is_valid() {
        assert!(start.elapsed() < Duration::from_millis(4_500), "still valid after {:?}", start.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(term.remaining(), Duration::ZERO);
}

#[tokio::test]
async fn a_server_that_fails_is_not_stormed() {
    type FateOf = fn(usize) -> Fate;
    let fates: [(u16, FateOf); 5] = [
        (422, |_| Fate::Status(422)),
        (429, |_| Fate::Status(429)),
        (500, |_| Fate::Status(500)),
        (503, |_| Fate::Status(503)),
        (409, |_| Fate::Status(409)),
    ];
    let mut found = Vec::new();
    for (code, fate) in fates {
        let (server, config) = serve(fate);
        let (_handle, _notices) = candidate(&config);
        tokio::time::sleep(Duration::from_millis(2_000)).await;
        found.push((code, server.lock().unwrap().puts.len()));
    }
    println!("writes in 2 s, by the answer: {found:?}");
    // At 0 s, 0.25 s, 0.75 s and 1.75 s; after a conflict once more at once.
    assert!(found.iter().all(|(_, writes)| (3..=5).contains(writes)), "{found:?}");
}

#[tokio::test]
async fn what_the_lease_has_besides_is_put_back_and_only_the_version_that_was_seen_is_replaced() {
    let (server, config) = serve(|_| Fate::Written);
    let (handle, mut notices) = candidate(&config);
    let term = lead(&mut notices).await;
    assert_eq!((term.token(), term.transitions()), ("42", 4));
    handle.shutdown();
    while !matches!(notices.recv().await, Some(Notice::Stop { .. })) {}
    handle.work_ended(&term);
    while !matches!(notices.recv().await, Some(Notice::Finished) | None) {}
    let server = server.lock().unwrap();
    let [acquired, released] = &server.bodies[..] else { panic!("{:?}", server.bodies) };
    for (body, version) in [(acquired, "41"), (released, "42")] {
        assert_eq!(body["metadata"]["resourceVersion"], version);
        assert_eq!(body["metadata"]["labels"], json!({ "colour": "red" }));
        assert_eq!(body["spec"]["tomorrow"], "kept");
    }
    assert_eq!(acquired["metadata"]["annotations"], json!({ INCARNATION: "uid/app/1" }));
    assert!(released["metadata"]["annotations"].get(INCARNATION).is_none());
    assert_eq!(released["spec"]["holderIdentity"], "");
}

#[tokio::test]
async fn a_campaign_without_a_handle_writes_no_more() {
    let (server, config) = serve(|_| Fate::Written);
    let (handle, mut notices) = candidate(&config);
    lead(&mut notices).await;
    drop(handle);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(server.lock().unwrap().puts.len(), 1);
}
