//! A plain HTTP proxy to the API server. It records writes, loses a chosen write, and refuses or silences chosen lists
//! and watches.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use futures::stream::{self, StreamExt};
use k8sensus_local::Cluster;
use kube::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::sync::watch;

use super::objects::{Retry, client, runtime};
use super::{OPERATOR, Program};

/// The moment at which an operator is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cut {
    /// Before its write reaches the API server.
    Before,
    /// After the API server performed the write and before the operator receives the response.
    After,
}

/// The watch event for a resource version that the API server no longer has.
const GONE: &str = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version","reason":"Expired","code":410}}"#;

/// An HTTP proxy for one operator, whose own Lease is in namespace `default`. It stops when this is dropped.
pub struct HttpProxy {
    kubeconfig: NamedTempFile,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

/// What the proxy and its request handlers share.
struct Shared {
    client: Client,
    /// The client for lists and watches.
    lister: Client,
    ledger: Mutex<Ledger>,
    /// The status code of every list and watch, by plural.
    refused: watch::Sender<HashMap<String, u16>>,
    /// The plurals whose watches stay open without delivering an event.
    silenced: watch::Sender<HashSet<String>>,
}

#[derive(Default)]
struct Ledger {
    /// Entries such as "POST roles" or "PATCH electiongroups/kestrel/status".
    writes: Vec<String>,
    /// The number of the write, counted from 1, at which a process is killed; when exactly; and the PID.
    cut: Option<(usize, Cut, i32)>,
    /// The write at which the process was killed.
    cut_at: Option<String>,
    /// The single objects that were read, for example "leases/kestrel".
    reads: Vec<String>,
}

impl HttpProxy {
    pub fn to(cluster: &Cluster) -> Self {
        Self::between(cluster, cluster.kubeconfig())
    }

    /// Sends lists and watches to the API server of the kubeconfig `second`, and everything else to the cluster's own.
    pub fn between(cluster: &Cluster, second: &Path) -> Self {
        let shared = Arc::new(Shared {
            client: client(cluster.kubeconfig(), Retry::Never),
            lister: client(second, Retry::Never),
            ledger: Mutex::default(),
            refused: watch::Sender::new(HashMap::new()),
            silenced: watch::Sender::new(HashSet::new()),
        });
        let listener = runtime().block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let server = runtime().spawn(async move { axum::serve(listener, router).await.unwrap() });
        let kubeconfig = NamedTempFile::new().unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{ "name": "proxy", "cluster": { "server": format!("http://{address}") } }],
            "contexts": [{ "name": "proxy", "context": { "cluster": "proxy", "user": "proxy" } }],
            "users": [{ "name": "proxy", "user": {} }],
        });
        std::fs::write(kubeconfig.path(), config.to_string()).unwrap();
        Self { kubeconfig, shared, server }
    }

    pub fn kubeconfig(&self) -> &Path {
        self.kubeconfig.path()
    }

    /// Returns the writes until now, without those to the operator's own Lease.
    pub fn writes(&self) -> Vec<String> {
        self.shared.ledger.lock().unwrap().writes.clone()
    }

    /// Returns the single objects that were read until now, for example "leases/kestrel".
    pub fn reads(&self) -> Vec<String> {
        self.shared.ledger.lock().unwrap().reads.clone()
    }

    /// Kills `operator` at its `write`-th write from now on, counted from 1.
    pub fn kill_at(&self, write: usize, cut: Cut, operator: &Program) {
        let mut ledger = self.shared.ledger.lock().unwrap();
        ledger.writes.clear();
        ledger.cut = Some((write, cut, operator.pid()));
    }

    /// Cancels a kill that has not happened yet.
    pub fn kill_no_more(&self) {
        self.shared.ledger.lock().unwrap().cut = None;
    }

    /// Returns the write at which the operator was killed.
    pub fn killed_at(&self) -> Option<String> {
        self.shared.ledger.lock().unwrap().cut_at.clone()
    }

    /// Answers every list and watch of `plural` with `code` from now on; running watches end with 410.
    pub fn refuse(&self, plural: &str, code: u16) {
        self.shared.refused.send_modify(|refused| {
            refused.insert(plural.to_owned(), code);
        });
    }

    /// Keeps all running and later watches of `plural` open without delivering an event. All other requests pass,
    /// including those for single objects and lists of `plural`.
    pub fn silence(&self, plural: &str) {
        self.shared.silenced.send_modify(|silenced| {
            silenced.insert(plural.to_owned());
        });
    }

    /// Lets new watches deliver events again. Watches that were silent stay silent, as over a dead connection.
    pub fn silence_no_more(&self) {
        self.shared.silenced.send_modify(HashSet::clear);
    }

    pub fn refuse_no_more(&self) {
        self.shared.refused.send_modify(HashMap::clear);
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Starts an operator for one namespace, with its Lease `name` in namespace `default`. That Lease is as long as in
/// production, because many operators share the machine and none should lose its Lease.
pub fn operator_for(namespace: &str, name: &str, kubeconfig: &Path, listen: SocketAddr) -> Program {
    let mut command = Command::new(OPERATOR);
    command
        .args(["run", "--candidate-image=localhost/k8sensus:dev", &format!("--listen={listen}")])
        .args([format!("--namespaces={namespace}"), format!("--lease-name={name}")])
        .env("POD_NAME", name)
        .env("POD_NAMESPACE", "default")
        .env("KUBECONFIG", kubeconfig);
    Program::start(name, &mut command)
}

/// The object of a request.
struct Call {
    namespace: String,
    plural: String,
    /// The path from the plural on.
    text: String,
}

impl Call {
    fn of(path: &str) -> Self {
        let (namespace, text) =
            path.split_once("/namespaces/").and_then(|(_, rest)| rest.split_once('/')).unwrap_or_default();
        let plural = text.split('/').next().unwrap_or_default();
        Self { namespace: namespace.to_owned(), plural: plural.to_owned(), text: text.to_owned() }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let call = Call::of(request.uri().path());
    let watching = request.uri().query().unwrap_or_default().contains("watch=true");
    if request.method() == http::Method::GET {
        let refused = shared.refused.borrow().get(&call.plural).copied();
        if call.text != call.plural {
            shared.ledger.lock().unwrap().reads.push(call.text.clone());
        }
        return match refused {
            // Single objects can still be read.
            Some(code) if call.text == call.plural => error_response(code),
            _ if watching => streamed(&shared, request, call.plural).await,
            _ if call.text == call.plural => forwarded(&shared.lister, request).await,
            _ => forwarded(&shared.client, request).await,
        };
    }
    if call.namespace == "default" {
        return forwarded(&shared.client, request).await;
    }
    let (cut, pid) = {
        let mut ledger = shared.ledger.lock().unwrap();
        let write = format!("{} {}", request.method(), call.text);
        if ledger.cut_at.is_some() {
            // The operator was killed while this request was in flight.
            return error_response(503);
        }
        ledger.writes.push(write.clone());
        match ledger.cut {
            Some((number, cut, pid)) if number == ledger.writes.len() => {
                ledger.cut_at = Some(write);
                (Some(cut), pid)
            }
            _ => (None, 0),
        }
    };
    let kill = || kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    match cut {
        None => forwarded(&shared.client, request).await,
        Some(Cut::Before) => {
            kill();
            error_response(503)
        }
        Some(Cut::After) => {
            let done = forwarded(&shared.client, request).await;
            kill();
            done
        }
    }
}

fn error_response(code: u16) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "refused by the test", "reason": "InternalError", "code": code,
    });
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(Body::from(status.to_string()))
        .unwrap()
}

/// Sends a request to the API server.
async fn send(client: &Client, request: Request) -> Result<http::Response<kube::client::Body>, String> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.map_err(|error| error.to_string())?;
    let mut onward = http::Request::new(kube::client::Body::from(body.to_vec()));
    *onward.method_mut() = parts.method;
    *onward.uri_mut() = parts.uri;
    *onward.headers_mut() = parts.headers;
    for own in ["host", "connection", "content-length", "transfer-encoding"] {
        onward.headers_mut().remove(own);
    }
    client.send(onward).await.map_err(|error| error.to_string())
}

fn response_of(status: http::StatusCode, headers: &http::HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Some(kind) = headers.get("content-type") {
        response.headers_mut().insert("content-type", kind.clone());
    }
    response
}

async fn forwarded(client: &Client, request: Request) -> Response {
    let response = match send(client, request).await {
        Ok(response) => response,
        Err(_) => return error_response(502),
    };
    let (parts, body) = response.into_parts();
    match body.collect_bytes().await {
        Ok(bytes) => response_of(parts.status, &parts.headers, Body::from(bytes)),
        Err(_) => error_response(502),
    }
}

async fn streamed(shared: &Shared, request: Request, plural: String) -> Response {
    let response = match send(&shared.lister, request).await {
        Ok(response) => response,
        Err(_) => return error_response(502),
    };
    let (parts, body) = response.into_parts();
    let (mut refused, mut silenced) = (shared.refused.subscribe(), shared.silenced.subscribe());
    let kind = plural.clone();
    let end = Box::pin(async move { refused.wait_for(|refused| refused.contains_key(&plural)).await.is_ok() });
    let silence = Box::pin(async move { silenced.wait_for(|silenced| silenced.contains(&kind)).await.is_ok() });
    let data = Body::new(body).into_data_stream();
    let events = stream::unfold(Some((data, end, silence)), |state| async move {
        let (mut data, mut end, mut silence) = state?;
        tokio::select! {
            biased;
            _ = &mut silence => std::future::pending().await,
            _ = &mut end => Some((Ok(Bytes::from(format!("{GONE}\n"))), None)),
            next = data.next() => Some((next?, Some((data, end, silence)))),
        }
    });
    response_of(parts.status, &parts.headers, Body::from_stream(events))
}
