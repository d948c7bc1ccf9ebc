//! Access to objects without kubectl, which costs a tenth of a second of processor time per call. Tests poll many times
//! a second and would take that time from the pods under test.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, mpsc};

use k8sensus_local::Cluster;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::kubectl;

/// The namespaced kinds that tests read, singular and plural. Other kinds are read with kubectl.
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

/// Whether a client retries a request that the API server temporarily refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    Never,
    /// The default of kube.
    Usual,
}

/// Returns an object by its kubectl name, such as `lease/kestrel`, or a list, such as `pods`; `None` if there is none.
///
/// # Panics
/// If the API server responds with an error, or not at all.
pub fn get(cluster: &Cluster, namespace: &str, what: &str) -> Option<Value> {
    let known = match what.split_once('/') {
        Some((kind, name)) => KINDS.iter().find(|it| it.0 == kind).map(|it| (it.1, name)),
        None => KINDS.iter().find(|it| it.1 == what).map(|it| (it.1, "")),
    };
    let Some((plural, name)) = known else {
        let text = kubectl(cluster, &["get", "-n", namespace, what, "--ignore-not-found", "-o", "json"]);
        return (!text.is_empty()).then(|| serde_json::from_str(&text).unwrap());
    };
    let client = cached_client(cluster.kubeconfig());
    let read = || if_exists(send(&client, http::Request::get(path(namespace, plural, name)).body(Vec::new()).unwrap()));
    let found = match read() {
        // The connection may date from before the API server restarted.
        Err(error) if !matches!(error, kube::Error::Api(_)) => read(),
        found => found,
    };
    found.unwrap_or_else(|error| panic!("get {what} in {namespace}: {error}"))
}

/// Returns the one client of a cluster, so that its connection is reused.
fn cached_client(kubeconfig: &Path) -> Client {
    static CLIENTS: Mutex<Option<HashMap<PathBuf, Client>>> = Mutex::new(None);
    let known = |file: &Path| CLIENTS.lock().unwrap().get_or_insert_default().get(file).cloned();
    known(kubeconfig).unwrap_or_else(|| {
        let client = client(kubeconfig, Retry::Usual);
        CLIENTS.lock().unwrap().get_or_insert_default().insert(kubeconfig.to_owned(), client.clone());
        client
    })
}

/// Returns the runtime for clients and servers, separate from any runtime of a test.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().thread_name("http").build().unwrap()
    })
}

/// Runs `work` on the shared runtime. Works in a test with its own runtime, too, which must not enter another runtime.
fn run<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, result) = mpsc::channel();
    runtime().spawn(async move {
        let _ = sender.send(work.await);
    });
    result.recv().unwrap()
}

pub fn client(kubeconfig: &Path, retry: Retry) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    run(async move {
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        config.default_retry = retry == Retry::Usual;
        Client::try_from(config).unwrap()
    })
}

fn send(client: &Client, request: http::Request<Vec<u8>>) -> Result<Value, kube::Error> {
    let client = client.clone();
    run(async move { client.request(request).await })
}

/// Turns "not found" into `None`.
fn if_exists(found: Result<Value, kube::Error>) -> Result<Option<Value>, kube::Error> {
    match found {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// A client of the API server that needs no kubectl process for each request.
pub struct Direct(Client);

impl Direct {
    pub fn to(cluster: &Cluster) -> Self {
        Self(client(cluster.kubeconfig(), Retry::Never))
    }

    fn request(&self, method: &str, path: &str, kind: &str, body: &Value) -> Result<Value, kube::Error> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
        send(&self.0, request.body(body).unwrap())
    }

    /// Returns an object, or a list if `name` is empty; `None` if there is none.
    pub fn get(&self, ns: &str, plural: &str, name: &str) -> Option<Value> {
        let found = self.request("GET", &path(ns, plural, name), "application/json", &Value::Null);
        if_exists(found).unwrap_or_else(|error| panic!("{plural} {ns}/{name}: {error}"))
    }

    pub fn create(&self, ns: &str, plural: &str, object: &Value) -> Value {
        let created = self.request("POST", &path(ns, plural, ""), "application/json", object);
        created.unwrap_or_else(|error| panic!("{plural} in {ns}: {error}"))
    }

    pub fn delete(&self, ns: &str, plural: &str, name: &str) {
        let deleted = self.request("DELETE", &path(ns, plural, name), "application/json", &Value::Null);
        deleted.unwrap_or_else(|error| panic!("{plural} {ns}/{name}: {error}"));
    }

    pub fn merge(&self, ns: &str, plural: &str, name: &str, patch: &Value) -> Value {
        let patched = self.request("PATCH", &path(ns, plural, name), "application/merge-patch+json", patch);
        patched.unwrap_or_else(|error| panic!("{plural} {ns}/{name}: {error}"))
    }

    /// Applies a merge patch that may be refused.
    pub fn try_merge(&self, ns: &str, plural: &str, name: &str, patch: &Value) -> Result<Value, kube::Error> {
        self.request("PATCH", &path(ns, plural, name), "application/merge-patch+json", patch)
    }

    /// Reports the status of a pod as a kubelet does: conditions of other types stay. Does nothing if the pod is gone.
    pub fn report(&self, ns: &str, pod: &str, patch: &Value) {
        let path = path(ns, "pods", &format!("{pod}/status"));
        match self.request("PATCH", &path, "application/strategic-merge-patch+json", patch) {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => panic!("pod {ns}/{pod}: {error}"),
        }
    }

    /// Applies a JSON patch that may be refused.
    pub fn patch(&self, ns: &str, plural: &str, name: &str, operations: &Value) -> Result<Value, kube::Error> {
        self.request("PATCH", &path(ns, plural, name), "application/json-patch+json", operations)
    }
}

/// Returns the path of an object, or of the list in the namespace if `name` is empty.
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
