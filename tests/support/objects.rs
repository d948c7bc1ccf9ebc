//! Reads objects without starting kubectl, which costs a tenth of a second of processor time: waits look many times a second,
//! and what they use up the pods that they wait for do not get.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, mpsc};

use k8sensus_local::Cluster;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::kubectl;

/// The path of each kind of namespaced object that tests look at, up to the namespace. Others are asked for with kubectl.
const KINDS: [(&str, &str, &str); 12] = [
    ("configmap", "/api/v1", "configmaps"),
    ("deployment", "/apis/apps/v1", "deployments"),
    ("electiongroup", "/apis/k8sensus.dev/v1alpha1", "electiongroups"),
    ("lease", "/apis/coordination.k8s.io/v1", "leases"),
    ("pdb", "/apis/policy/v1", "poddisruptionbudgets"),
    ("pod", "/api/v1", "pods"),
    ("poddisruptionbudget", "/apis/policy/v1", "poddisruptionbudgets"),
    ("replicaset", "/apis/apps/v1", "replicasets"),
    ("role", "/apis/rbac.authorization.k8s.io/v1", "roles"),
    ("rolebinding", "/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    ("service", "/api/v1", "services"),
    ("serviceaccount", "/api/v1", "serviceaccounts"),
];

/// An object named as kubectl names it, `lease/kestrel`, or a list of them, `pods`; `None` if there is none.
///
/// # Panics
/// If the API server answers with an error, or not at all.
pub fn get(cluster: &Cluster, namespace: &str, what: &str) -> Option<Value> {
    let Some(path) = path(namespace, what) else {
        let text = kubectl(cluster, &["get", "-n", namespace, what, "--ignore-not-found", "-o", "json"]);
        return (!text.is_empty()).then(|| serde_json::from_str(&text).unwrap());
    };
    request(cluster.kubeconfig(), &path).unwrap_or_else(|error| panic!("get {what} in {namespace}: {error}"))
}

fn path(namespace: &str, what: &str) -> Option<String> {
    let (kind, name) = match what.split_once('/') {
        Some((kind, name)) => (KINDS.iter().find(|it| it.0 == kind)?, format!("/{name}")),
        None => (KINDS.iter().find(|it| it.2 == what)?, String::new()),
    };
    let (_, api, resource) = kind;
    Some(format!("{api}/namespaces/{namespace}/{resource}{name}"))
}

/// In a runtime of its own: a test may have one that must not be blocked.
fn request(kubeconfig: &Path, path: &str) -> Result<Option<Value>, String> {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    let (sender, answer) = mpsc::channel();
    let (kubeconfig, path) = (kubeconfig.to_owned(), path.to_owned());
    RUNTIME.spawn(async move {
        let client = client(&kubeconfig).await;
        let mut result = ask(&client, &path).await;
        if result.as_ref().is_err_and(|error| !matches!(error, kube::Error::Api(_))) {
            // The connection may be one from before the API server was started again.
            result = ask(&client, &path).await;
        }
        let _ = sender.send(result.map_err(|error| error.to_string()));
    });
    answer.recv().unwrap()
}

async fn ask(client: &Client, path: &str) -> Result<Option<Value>, kube::Error> {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    match client.request(request).await {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// One client for each cluster, so that its connection is kept.
async fn client(kubeconfig: &Path) -> Client {
    static CLIENTS: Mutex<Option<HashMap<PathBuf, Client>>> = Mutex::new(None);
    let known = |file: &Path| CLIENTS.lock().unwrap().get_or_insert_default().get(file).cloned();
    if let Some(client) = known(kubeconfig) {
        return client;
    }
    let config = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    CLIENTS.lock().unwrap().get_or_insert_default().insert(kubeconfig.to_owned(), client.clone());
    client
}
