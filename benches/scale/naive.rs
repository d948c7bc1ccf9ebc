//! The reference for the operator: a controller for the same ElectionGroups, as a first tutorial on kube-rs teaches it.
//!
//! It owns all five children, applies each of them and the status in every reconcile, and requeues after five minutes.
//! With `--caches` it is one step further: it keeps typed copies of all that it watches, including pods, and skips
//! objects that already have the wanted hash. It reconciles 16 groups at a time, as the operator does, although kube's
//! default is no limit.

#![allow(clippy::print_stdout, reason = "the bench counts its lines")]

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, CustomResource, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const LABEL: &str = "k8sensus.dev/group";
const HASH: &str = "naive.example/hash";
const REQUEUE: Duration = Duration::from_secs(300);

#[derive(CustomResource, Clone, Debug, Deserialize, Serialize)]
#[kube(group = "k8sensus.dev", version = "v1alpha1", kind = "ElectionGroup", namespaced)]
#[kube(status = "Status", schema = "disabled")]
struct Spec {
    replicas: i32,
    image: String,
    command: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    observed_generation: Option<i64>,
    lease_name: Option<String>,
    holder_identity: Option<String>,
    lease_transitions: Option<i32>,
    ready_replicas: Option<i32>,
}

/// Children of one kind; the store is `None` without caches.
struct Children<K: Resource<DynamicType = ()> + 'static>(Api<K>, Option<Store<K>>);

struct Context {
    client: Client,
    accounts: Option<Store<ServiceAccount>>,
    roles: Option<Store<Role>>,
    bindings: Option<Store<RoleBinding>>,
    leases: Option<Store<Lease>>,
    deployments: Option<Store<Deployment>>,
}

#[tokio::main]
async fn main() -> Result<(), kube::Error> {
    k8sensus::runtime::tls::use_ring();
    let caches = std::env::args().any(|argument| argument == "--caches");
    let client = Client::try_default().await?;
    let controller = Controller::new(Api::<ElectionGroup>::all(client.clone()), watcher::Config::default());
    let controller = controller.with_config(Config::default().concurrency(16)).shutdown_on_signal();
    let (controller, accounts) = owning(controller, &client, caches);
    let (controller, roles) = owning(controller, &client, caches);
    let (controller, bindings) = owning(controller, &client, caches);
    let (controller, leases) = owning(controller, &client, caches);
    let (mut controller, deployments) = owning(controller, &client, caches);
    if caches {
        // A ReplicaSet owns the pod, so only the pod's label names its group.
        let (_, writer) = reflector::store();
        let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default().labels(LABEL));
        let pods = pods.default_backoff().reflect(writer).touched_objects();
        controller = controller.watches_stream(pods, |pod: Pod| {
            let group = pod.labels().get(LABEL).cloned()?;
            Some(ObjectRef::new(&group).within(&pod.namespace()?))
        });
    }
    println!("started");
    let context = Context { client, accounts, roles, bindings, leases, deployments };
    controller
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(1)), Arc::new(context))
        .for_each(async |result| {
            if let Err(error) = result {
                println!("failed: {error}");
            }
        })
        .await;
    Ok(())
}

fn owning<K>(
    controller: Controller<ElectionGroup>,
    client: &Client,
    caches: bool,
) -> (Controller<ElectionGroup>, Option<Store<K>>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (api, config) = (Api::<K>::all(client.clone()), watcher::Config::default());
    if !caches {
        return (controller.owns(api, config), None);
    }
    let (store, writer) = reflector::store();
    let children = watcher(api, config).default_backoff().reflect(writer).touched_objects();
    (controller.owns_stream(children), Some(store))
}

async fn reconcile(group: Arc<ElectionGroup>, context: Arc<Context>) -> Result<Action, kube::Error> {
    let Context { client, accounts, roles, bindings, leases, deployments } = &*context;
    let name = group.name_any();
    let namespace = group.namespace().unwrap_or_default();
    let meta = json!({
        "name": name,
        "labels": { LABEL: name },
        "ownerReferences": [group.controller_owner_ref(&())],
    });
    children(client, &namespace, accounts).apply(json!({ "metadata": meta })).await?;
    let rules = json!([{
        "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [name],
        "verbs": ["get", "list", "watch", "update"],
    }]);
    children(client, &namespace, roles).apply(json!({ "metadata": meta, "rules": rules })).await?;
    let subjects = json!([{ "kind": "ServiceAccount", "name": name, "namespace": namespace }]);
    let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name });
    let binding = json!({ "metadata": meta, "roleRef": role, "subjects": subjects });
    children(client, &namespace, bindings).apply(binding).await?;
    let lease = children(client, &namespace, leases).apply(json!({ "metadata": meta })).await?;
    let deployment = children(client, &namespace, deployments).apply(deployment(&group.spec, &name, &meta)).await?;

    let held = lease.spec.clone().unwrap_or_default();
    let status = Status {
        observed_generation: group.metadata.generation,
        lease_name: Some(name.clone()),
        holder_identity: held.holder_identity,
        lease_transitions: held.lease_transitions,
        ready_replicas: deployment.status.as_ref().and_then(|status| status.ready_replicas),
    };
    if leases.is_none() || group.status.as_ref() != Some(&status) {
        let api = Api::<ElectionGroup>::namespaced(client.clone(), &namespace);
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({ "status": status }))).await?;
    }
    println!("reconciled {namespace}/{name}");
    Ok(Action::requeue(REQUEUE))
}

fn children<K>(client: &Client, namespace: &str, store: &Option<Store<K>>) -> Children<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + 'static,
{
    Children(Api::namespaced(client.clone(), namespace), store.clone())
}

impl<K> Children<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    async fn apply(&self, mut wanted: Value) -> Result<K, kube::Error> {
        let Self(api, store) = self;
        wanted["apiVersion"] = json!(K::api_version(&()));
        wanted["kind"] = json!(K::kind(&()));
        let name = wanted["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if let Some(store) = store {
            let mut hasher = DefaultHasher::new();
            wanted.to_string().hash(&mut hasher);
            let hash = format!("{:x}", hasher.finish());
            // Until the store is ready, existing objects would seem to be missing.
            let _ = store.wait_until_ready().await;
            let key = ObjectRef::new(&name).within(api.namespace().unwrap_or_default());
            if let Some(found) = store.get(&key).filter(|found| found.annotations().get(HASH) == Some(&hash)) {
                return Ok((*found).clone());
            }
            wanted["metadata"]["annotations"] = json!({ HASH: hash });
        }
        api.patch(&name, &PatchParams::apply("naive").force(), &Patch::Apply(wanted)).await
    }
}

/// Returns a Deployment of the same size as the operator's: the candidate is copied into the pod and runs the command.
fn deployment(spec: &Spec, name: &str, meta: &Value) -> Value {
    let mount = json!([{ "name": "k8sensus", "mountPath": "/k8sensus" }]);
    let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    let mut command = vec!["/k8sensus/k8sensus".to_owned(), "exec".to_owned(), "--".to_owned()];
    command.extend(spec.command.iter().cloned());
    let pod = json!({
        "serviceAccountName": name,
        "initContainers": [{
            "name": "k8sensus-install", "image": "localhost/k8sensus:dev", "command": ["/k8sensus", "install"],
            "args": ["/k8sensus/k8sensus"], "volumeMounts": mount,
        }],
        "containers": [{
            "name": "app", "image": spec.image, "command": command, "volumeMounts": mount,
            "env": [
                { "name": "POD_NAME", "valueFrom": field("metadata.name") },
                { "name": "POD_NAMESPACE", "valueFrom": field("metadata.namespace") },
                { "name": "K8SENSUS_LEASE_NAME", "value": name },
            ],
        }],
        "volumes": [{ "name": "k8sensus", "emptyDir": {} }],
    });
    json!({
        "metadata": meta,
        "spec": {
            "replicas": spec.replicas,
            "selector": { "matchLabels": { LABEL: name } },
            "template": { "metadata": { "labels": { LABEL: name } }, "spec": pod },
        },
    })
}
