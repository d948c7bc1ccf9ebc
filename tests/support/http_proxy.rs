//! A way to the API server in plain HTTP that counts what is written, loses what the test says, and refuses to show what
//! the test says.

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

/// Where an operator is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cut {
    /// Its write never arrives.
    Before,
    /// Its write is done, but it never hears of that.
    After,
}

/// What ends a watch whose beginning the API server has forgotten.
const GONE: &str = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version","reason":"Expired","code":410}}"#;

/// An HTTP proxy for one operator, whose own Lease is in namespace `default`. It ends when this is dropped.
pub struct HttpProxy {
    kubeconfig: NamedTempFile,
    way: Arc<Way>,
    serving: tokio::task::JoinHandle<()>,
}

struct Way {
    client: Client,
    /// What answers lists and watches.
    lister: Client,
    ledger: Mutex<Ledger>,
    /// By plural: the code that answers every list and watch.
    refused: watch::Sender<HashMap<String, u16>>,
    /// The plurals whose watches stay open and bring nothing.
    silenced: watch::Sender<HashSet<String>>,
}

#[derive(Default)]
struct Ledger {
    /// As "POST roles" or "PATCH electiongroups/kestrel/status".
    writes: Vec<String>,
    /// At which write from now on, counted from 1, which process is killed.
    cut: Option<(usize, Cut, i32)>,
    /// The write at which it was.
    cut_at: Option<String>,
    /// The single objects that were read, as "leases/kestrel".
    reads: Vec<String>,
}

impl HttpProxy {
    pub fn to(cluster: &Cluster) -> Self {
        Self::between(cluster, cluster.kubeconfig())
    }

    /// One that sends lists and watches to the API server of `second`, a kubeconfig, and all else to the cluster's own.
    pub fn between(cluster: &Cluster, second: &Path) -> Self {
        let way = Arc::new(Way {
            client: client(cluster.kubeconfig(), Retry::Never),
            lister: client(second, Retry::Never),
            ledger: Mutex::default(),
            refused: watch::Sender::new(HashMap::new()),
            silenced: watch::Sender::new(HashSet::new()),
        });
        let listener = runtime().block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(way.clone());
        let serving = runtime().spawn(async move { axum::serve(listener, router).await.unwrap() });
        let kubeconfig = NamedTempFile::new().unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{ "name": "proxy", "cluster": { "server": format!("http://{address}") } }],
            "contexts": [{ "name": "proxy", "context": { "cluster": "proxy", "user": "proxy" } }],
            "users": [{ "name": "proxy", "user": {} }],
        });
        std::fs::write(kubeconfig.path(), config.to_string()).unwrap();
        Self { kubeconfig, way, serving }
    }

    pub fn kubeconfig(&self) -> &Path {
        self.kubeconfig.path()
    }

    /// What was written until now, the operator's own Lease apart.
    pub fn writes(&self) -> Vec<String> {
        self.way.ledger.lock().unwrap().writes.clone()
    }

    /// The single objects that were read until now, as "leases/kestrel".
    pub fn reads(&self) -> Vec<String> {
        self.way.ledger.lock().unwrap().reads.clone()
    }

    /// Kills `operator` at its `write`-th write from now on, counted from 1.
    pub fn kill_at(&self, write: usize, cut: Cut, operator: &Program) {
        let mut ledger = self.way.ledger.lock().unwrap();
        ledger.writes.clear();
        ledger.cut = Some((write, cut, operator.pid()));
    }

    /// Lets the operator live that was to be killed and has not come so far.
    pub fn kill_no_more(&self) {
        self.way.ledger.lock().unwrap().cut = None;
    }

    /// The write at which the operator was killed.
    pub fn killed_at(&self) -> Option<String> {
        self.way.ledger.lock().unwrap().cut_at.clone()
    }

    /// From now on every list and watch of `plural` is answered with `code`; running watches end with 410.
    pub fn refuse(&self, plural: &str, code: u16) {
        self.way.refused.send_modify(|refused| {
            refused.insert(plural.to_owned(), code);
        });
    }

    /// From now on no watch of `plural` brings anything, and none ends: neither those that run nor later ones. All other requests
    /// pass, single objects and lists of `plural` among them.
    pub fn silence(&self, plural: &str) {
        self.way.silenced.send_modify(|silenced| {
            silenced.insert(plural.to_owned());
        });
    }

    /// New watches bring everything again; those that were silent stay so, as over a dead connection.
    pub fn silence_no_more(&self) {
        self.way.silenced.send_modify(HashSet::clear);
    }

    pub fn refuse_no_more(&self) {
        self.way.refused.send_modify(HashMap::clear);
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// An operator for one namespace alone, with its Lease `name` in namespace `default`. That one is as long as in production:
/// many operators share the machine, and none is to lose it.
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

/// What a request is about.
struct Call {
    namespace: String,
    plural: String,
    /// The plural and what follows it.
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

async fn answer(State(way): State<Arc<Way>>, request: Request) -> Response {
    let call = Call::of(request.uri().path());
    let watching = request.uri().query().unwrap_or_default().contains("watch=true");
    if request.method() == http::Method::GET {
        let refused = way.refused.borrow().get(&call.plural).copied();
        if call.text != call.plural {
            way.ledger.lock().unwrap().reads.push(call.text.clone());
        }
        return match refused {
            // A single object is still shown.
            Some(code) if call.text == call.plural => refusal(code),
            _ if watching => streamed(&way, request, call.plural).await,
            _ if call.text == call.plural => forwarded(&way.lister, request).await,
            _ => forwarded(&way.client, request).await,
        };
    }
    if call.namespace == "default" {
        return forwarded(&way.client, request).await;
    }
    let (cut, pid) = {
        let mut ledger = way.ledger.lock().unwrap();
        let write = format!("{} {}", request.method(), call.text);
        if ledger.cut_at.is_some() {
            // It was killed, but this was under way.
            return refusal(503);
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
        None => forwarded(&way.client, request).await,
        Some(Cut::Before) => {
            kill();
            refusal(503)
        }
        Some(Cut::After) => {
            let done = forwarded(&way.client, request).await;
            kill();
            done
        }
    }
}

fn refusal(code: u16) -> Response {
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

/// Hands a request on.
async fn passed_on(client: &Client, request: Request) -> Result<http::Response<kube::client::Body>, String> {
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

fn answered(status: http::StatusCode, headers: &http::HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Some(kind) = headers.get("content-type") {
        response.headers_mut().insert("content-type", kind.clone());
    }
    response
}

async fn forwarded(client: &Client, request: Request) -> Response {
    let response = match passed_on(client, request).await {
        Ok(response) => response,
        Err(_) => return refusal(502),
    };
    let (parts, body) = response.into_parts();
    match body.collect_bytes().await {
        Ok(bytes) => answered(parts.status, &parts.headers, Body::from(bytes)),
        Err(_) => refusal(502),
    }
}

async fn streamed(way: &Way, request: Request, plural: String) -> Response {
    let response = match passed_on(&way.lister, request).await {
        Ok(response) => response,
        Err(_) => return refusal(502),
    };
    let (parts, body) = response.into_parts();
    let (mut refused, mut silenced) = (way.refused.subscribe(), way.silenced.subscribe());
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
    answered(parts.status, &parts.headers, Body::from_stream(events))
}
