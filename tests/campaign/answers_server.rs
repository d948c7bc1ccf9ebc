//! An API server with one Lease that can answer nonsense or require another token.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use serde_json::{Value, json};

/// Returns an invalid HTTP answer in bytes, derived from the body of the proper answer. The connection is closed after
/// it.
pub type Nonsense = fn(&Value) -> Vec<u8>;

/// The settings of the server and its observations.
#[derive(Clone)]
pub struct State {
    pub lease: Value,
    /// The answers to GET, to PUT, and to lists and watches; `None` is a proper answer. A PUT that is answered with
    /// nonsense is not executed.
    pub get: Option<Nonsense>,
    pub put: Option<Nonsense>,
    pub list: Option<Nonsense>,
    /// The required bearer token.
    pub token: Option<&'static str>,
    /// When each GET and each executed PUT arrived, and the number of PUTs that were not executed.
    pub gets: Vec<Instant>,
    pub written: Vec<Instant>,
    pub not_written: usize,
    pub lists: usize,
    pub refused: usize,
}

#[derive(Clone)]
pub struct Server {
    state: Arc<Mutex<State>>,
    pub url: String,
}

/// Returns a released Lease.
pub fn lease() -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": "weir", "namespace": "river", "resourceVersion": "41", "uid": "5d7e" },
        "spec": {
            "holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 3,
            "acquireTime": "2026-03-01T12:00:00.000000Z", "renewTime": "2026-03-01T12:00:00.000000Z",
        },
    })
}

/// Returns an HTTP answer with `body`, its content type `kind` and further `headers`.
pub fn http(code: &str, kind: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {code}\r\ncontent-type: {kind}\r\n{headers}\r\n").as_bytes(), body].concat()
}

/// Returns a proper HTTP answer with any body.
pub fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    http("200 OK", "application/json", &format!("content-length: {}\r\n", body.len()), body)
}

impl Server {
    /// Starts a server that ends with the test process.
    pub fn start(lease: Value) -> Self {
        let state = State {
            lease,
            get: None,
            put: None,
            list: None,
            token: None,
            gets: Vec::new(),
            written: Vec::new(),
            not_written: 0,
            lists: 0,
            refused: 0,
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { state: Arc::new(Mutex::new(state)), url };
        let shared = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = shared.clone();
                std::thread::spawn(move || while serve(&stream, &shared).is_some() {});
            }
        });
        server
    }

    /// Locks the state. Do not call it twice in one statement: the first lock lasts until the end of the statement.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Returns a copy of the state.
    pub fn seen(&self) -> State {
        self.state().clone()
    }

    /// Returns a kubeconfig for this server with the credentials of `user`.
    pub fn kubeconfig(&self, user: Value) -> tempfile::NamedTempFile {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "river",
            "clusters": [{ "name": "river", "cluster": { "server": self.url } }],
            "contexts": [{ "name": "river", "context": { "cluster": "river", "user": "otter" } }],
            "users": [{ "name": "otter", "user": user }],
        });
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), config.to_string()).unwrap();
        file
    }
}

/// Serves one request. Returns `None` at the end of the connection.
fn serve(mut stream: &TcpStream, server: &Server) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        Some(line.trim_end().to_owned())
    };
    let request = line()?;
    let (mut length, mut token) = (0, None);
    loop {
        let header = line()?;
        let Some((name, value)) = header.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => token = value.strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut state = server.state();
    if state.token.is_some_and(|wanted| token.as_deref() != Some(wanted)) {
        state.refused += 1;
        return stream.write_all(&answer(401, &status(401, "Unauthorized"))).ok();
    }
    let (code, proper, nonsense) = if request.starts_with("PUT ") {
        let nonsense = state.put;
        let (code, proper) = put(&mut state, serde_json::from_slice(&body).ok()?, nonsense.is_none());
        (code, proper, nonsense)
    } else if request.starts_with("GET /apis/coordination.k8s.io/v1/namespaces/river/leases/weir") {
        state.gets.push(Instant::now());
        (200, state.lease.clone(), state.get)
    } else {
        state.lists += 1;
        // Without a watch the campaign polls.
        (403, status(403, "Forbidden"), state.list)
    };
    drop(state);
    match nonsense {
        None => stream.write_all(&answer(code, &proper)).ok(),
        Some(nonsense) => {
            stream.write_all(&nonsense(&proper)).ok()?;
            let _ = stream.shutdown(std::net::Shutdown::Both);
            None
        }
    }
}

fn answer(code: u16, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = format!("content-length: {}\r\n", body.len());
    http(&format!("{code} X"), "application/json", &length, body.as_bytes())
}

/// Returns the proper answer to a PUT. Executes it only if `write`.
fn put(state: &mut State, mut body: Value, write: bool) -> (u16, Value) {
    let known = &state.lease["metadata"]["resourceVersion"];
    if body["metadata"]["resourceVersion"] != *known {
        return (409, status(409, "Conflict"));
    }
    let version: u64 = known.as_str().unwrap().parse().unwrap();
    body["metadata"]["resourceVersion"] = json!((version + 1).to_string());
    if write {
        state.lease = body.clone();
        state.written.push(Instant::now());
    } else {
        state.not_written += 1;
    }
    (200, body)
}

fn status(code: u16, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason,
        "message": reason, "code": code,
    })
}
