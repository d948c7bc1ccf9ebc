//! A scripted API server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8sensus::campaign::{Builder, Campaign, LeaderGuard};
use k8sensus_election::Timing;
use serde_json::{Value, json};

/// The result of a PUT.
#[derive(Clone, Copy, PartialEq)]
pub enum Fate {
    Written,
    /// Refused with this code. Nothing is written.
    Status(u16),
    /// Nothing is written, and the connection stays silent.
    Silence,
}

pub struct Server {
    pub lease: Value,
    /// The result of the `n`-th PUT, counted from 0.
    fate: fn(usize) -> Fate,
    /// When each PUT arrived.
    pub puts: Vec<Instant>,
    /// The body of each PUT.
    pub bodies: Vec<Value>,
}

pub type Shared = Arc<Mutex<Server>>;

/// Serves one released Lease without a watch. Ends with the test process.
pub fn serve(fate: fn(usize) -> Fate) -> (Shared, kube::Config) {
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

/// Answers one request. Returns `None` at the end of the connection.
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
        // The list and the watch: the campaign works without them.
        (403, status(403))
    };
    let text = answer.to_string();
    let head = format!("HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", text.len());
    let mut stream = stream;
    stream.write_all((head + &text).as_bytes()).ok()
}

/// Returns the answer to a PUT, `None` if the connection must stay open and silent.
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
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": "scripted", "code": code })
}

/// Returns the builder of a candidate with a lease of 3 s, a renew deadline of 2 s and renewals every second.
pub fn builder() -> Builder {
    let seconds = Duration::from_secs;
    Campaign::builder("river", "weir")
        .identity("otter")
        .incarnation("uid/app/1")
        .timing(Timing::new(seconds(3), seconds(2), seconds(1)).unwrap())
        .create_lease(false)
}

pub fn candidate(config: &kube::Config) -> Campaign {
    builder().start(config).unwrap()
}

/// Waits for a term of the campaign.
pub async fn lead(campaign: &mut Campaign) -> LeaderGuard {
    let guard = tokio::time::timeout(Duration::from_secs(5), campaign.lead()).await;
    guard.expect("no term in time").expect("the campaign is over")
}
