//! Objects of an API server without starting kubectl, which costs a tenth of a second of processor time: waits look many times a
//! second, and what they use up the pods that they wait for do not get.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, mpsc};

use k8sensus_local::Cluster;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::kubectl;

/// The namespaced kinds that tests look at, as kubectl names one and all of them. Others are asked for with kubectl.
const KINDS: [(&str, &str); 12] = [
    ("configmap", "configmaps"),
    ("deployment", "deployments"),
    ("electiongroup", "electiongroups"),
    ("lease", "leases"),
    ("pdb", "poddisruptionbudgets"),
    ("pod", "pods"),
    ("poddisruptionbudget", "poddisruptionbudgets"),
    ("replicaset", "replicasets"),
    ("role", "roles"),
    ("rolebinding", "rolebindings"),
    ("service", "services"),
    ("serviceaccount", "serviceaccounts"),
];

/// Whether a client asks again where the API server refuses a request for the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    Never,
    /// As kube does by default.
    Usual,
}

/// An object named as kubectl names it, `lease/kestrel`, or a list of them, `pods`; `None` if there is none.
///
/// # Panics
/// If the API server answers with an error, or not at all.
pub fn get(cluster: &Cluster, namespace: &str, what: &str) -> Option<Value> {
    let known = match what.split_once('/') {
        Some((kind, name)) => KINDS.iter().find(|it| it.0 == kind).map(|it| (it.1, name)),
        None => KINDS.iter().find(|it| it.1 == what).map(|it| (it.1, "")),
    };
    let Some((plural, name)) = known else {
        let text = kubectl(cluster, &["get", "-n", namespace, what, "--ignore-not-found", "-o", "json"]);
        return (!text.is_empty()).then(|| serde_json::from_str(&text).unwrap());
    };
    let client = kept_client(cluster.kubeconfig());
    let look =
        || if_there(answer(&client, http::Request::get(path(namespace, plural, name)).body(Vec::new()).unwrap()));
    let found = match look() {
        // The connection may be one from before the API server was started again.
        Err(error) if !matches!(error, kube::Error::Api(_)) => look(),
        found => found,
    };
    found.unwrap_or_else(|error| panic!("get {what} in {namespace}: {error}"))
}

/// One client for each cluster, so that its connection is kept.
fn kept_client(kubeconfig: &Path) -> Client {
    static CLIENTS: Mutex<Option<HashMap<PathBuf, Client>>> = Mutex::new(None);
    let known = |file: &Path| CLIENTS.lock().unwrap().get_or_insert_default().get(file).cloned();
    known(kubeconfig).unwrap_or_else(|| {
        let client = client(kubeconfig, Retry::Usual);
        CLIENTS.lock().unwrap().get_or_insert_default().insert(kubeconfig.to_owned(), client.clone());
        client
    })
}

/// What serves and asks, beside any runtime that a test has of its own.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().thread_name("http").build().unwrap()
    })
}

/// The result of `work`, also in a test with a runtime of its own, which may not enter another one.
fn outcome<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, outcome) = mpsc::channel();
    runtime().spawn(async move {
        let _ = sender.send(work.await);
    });
    outcome.recv().unwrap()
}

pub fn client(kubeconfig: &Path, retry: Retry) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    outcome(async move {
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        config.default_retry = retry == Retry::Usual;
        Client::try_from(config).unwrap()
    })
}

fn answer(client: &Client, request: http::Request<Vec<u8>>) -> Result<Value, kube::Error> {
    let client = client.clone();
    outcome(async move { client.request(request).await })
}

/// `None` for an object that the API server does not have.
fn if_there(found: Result<Value, kube::Error>) -> Result<Option<Value>, kube::Error> {
    match found {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks the API server without a kubectl for each request.
pub struct Direct(Client);

impl Direct {
    pub fn to(cluster: &Cluster) -> Self {
        Self(client(cluster.kubeconfig(), Retry::Never))
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: &Value) -> Result<Value, kube::Error> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
        answer(&self.0, request.body(body).unwrap())
    }

    /// An object, or a list where `name` is empty; `None` if there is none.
    pub fn get(&self, ns: &str, plural: &str, name: &str) -> Option<Value> {
        let found = self.ask("GET", &path(ns, plural, name), "application/json", &Value::Null);
        if_there(found).unwrap_or_else(|error| panic!("{plural} {ns}/{name}: {error}"))
    }

    pub fn create(&self, ns: &str, plural: &str, object: &Value) -> Value {
        let made = self.ask("POST", &path(ns, plural, ""), "application/json", object);
        made.unwrap_or_else(|error| panic!("{plural} in {ns}: {error}"))
    }

    pub fn delete(&self, ns: &str, plural: &str, name: &str) {
        let gone = self.ask("DELETE", &path(ns, plural, name), "application/json", &Value::Null);
        gone.unwrap_or_else(|error| panic!("{plural} {ns}/{name}: {error}"));
    }

    pub fn merge(&self, ns: &str, plural: &str, name: &str, patch: &Value) -> Value {
        let patched = self.ask("PATCH", &path(ns, plural, name), "application/merge-patch+json", patch);
        patched.unwrap_or_else(|error| panic!("{plural} {ns}/{name}: {error}"))
    }

    /// A merge patch that may be refused.
    pub fn try_merge(&self, ns: &str, plural: &str, name: &str, patch: &Value) -> Result<Value, kube::Error> {
        self.ask("PATCH", &path(ns, plural, name), "application/merge-patch+json", patch)
    }

    /// Reports the status of a pod as a kubelet does: conditions of other types stay. Nothing if the pod is gone.
    pub fn report(&self, ns: &str, pod: &str, patch: &Value) {
        let path = path(ns, "pods", &format!("{pod}/status"));
        match self.ask("PATCH", &path, "application/strategic-merge-patch+json", patch) {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => panic!("pod {ns}/{pod}: {error}"),
        }
    }

    /// A patch of operations, which may be refused.
    pub fn patch(&self, ns: &str, plural: &str, name: &str, operations: &Value) -> Result<Value, kube::Error> {
        self.ask("PATCH", &path(ns, plural, name), "application/json-patch+json", operations)
    }
}

/// The path of an object, or of all in the namespace where `name` is empty.
fn path(ns: &str, plural: &str, name: &str) -> String {
    let api = match plural {
        "deployments" | "replicasets" => "/apis/apps/v1",
        "roles" | "rolebindings" => "/apis/rbac.authorization.k8s.io/v1",
        "leases" => "/apis/coordination.k8s.io/v1",
        "endpointslices" => "/apis/discovery.k8s.io/v1",
        "poddisruptionbudgets" => "/apis/policy/v1",
        "electiongroups" => "/apis/k8sensus.dev/v1alpha1",
        _ => "/api/v1",
    };
    let slash = if name.is_empty() { "" } else { "/" };
    format!("{api}/namespaces/{ns}/{plural}{slash}{name}")
}
