//! A fresh control plane for one contender, and the changes to its groups.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8sensus_local::Cluster;
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config, ResourceExt};
use serde_json::json;
use tempfile::NamedTempFile;

use crate::Error;
use crate::audit::{Audit, Requests};
use crate::contender::Contender;
use crate::support::{apply, condition, get, kubeconfig_with, kubectl, root, within};

pub const NAMESPACE: &str = "scale";
const ACCOUNT: &str = "contender";
/// The number of concurrent requests of the bench itself.
const AT_ONCE: usize = 16;
const POLL: Duration = Duration::from_millis(5);
/// A contender without requests for this long is quiet.
const QUIET: Duration = Duration::from_secs(2);

pub struct World {
    pub cluster: Cluster,
    pub kubeconfig: NamedTempFile,
    pub audit: Audit,
    client: Client,
    groups: Arc<Mutex<Groups>>,
}

/// The state of the groups as observed by a watcher.
#[derive(Default)]
struct Groups {
    of: HashMap<String, Group>,
    observed: usize,
    last_observed: Option<Instant>,
}

#[derive(Default)]
struct Group {
    observed: bool,
    holder: String,
    since: Option<Instant>,
}

impl World {
    /// Starts a control plane without a controller manager, so that only the contender and the bench make requests and
    /// no Deployment creates pods.
    pub async fn new(contender: Contender) -> Result<Self, Error> {
        let cluster = Cluster::control_plane().audit(true).controller_manager(false);
        let cluster = cluster.api_server_arg("--audit-log-maxsize=100000").start()?;
        kubectl(&cluster, &["apply", "-f", &root().join("crds/electiongroups.k8sensus.dev.yaml").to_string_lossy()]);
        within(30, "the CRD to be served", || {
            let crd = get(&cluster, "default", "crd/electiongroups.k8sensus.dev")?;
            (condition(&crd, "Established") == "True/InitialNamesAccepted").then_some(())
        });
        kubectl(&cluster, &["create", "namespace", NAMESPACE]);
        let kubeconfig = user(&cluster)?;
        let config = kube::config::Kubeconfig::read_from(cluster.kubeconfig())?;
        let client = Client::try_from(Config::from_custom_kubeconfig(config, &Default::default()).await?)?;
        let name = format!("system:serviceaccount:default:{ACCOUNT}");
        let audit = Audit::of(cluster.audit_log(), &name, contender.own_lease());
        let groups = Arc::new(Mutex::new(Groups::default()));
        let events = watcher(group_api(&client), watcher::Config::default()).applied_objects();
        let observed = groups.clone();
        tokio::spawn(events.for_each(move |event| {
            if let Ok(group) = event {
                lock(&observed).apply_event(&group);
            }
            std::future::ready(())
        }));
        Ok(Self { cluster, kubeconfig, audit, client, groups })
    }

    pub async fn create_groups(&self, number: usize) -> Result<(), Error> {
        let api = group_api(&self.client);
        let resource = group_resource();
        stream::iter(0..number)
            .map(|i| {
                let group = DynamicObject::new(&name_of(i), &resource).data(json!({ "spec": {
                    "replicas": 2, "image": "registry.example/kestrel:1.4.2", "command": ["/usr/local/bin/kestrel", "--work"],
                } }));
                let api = api.clone();
                async move { api.create(&PostParams::default(), &group).await.map(drop) }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok(())
    }

    /// Waits until `number` groups have a status; returns the time of the last one.
    pub async fn all_observed(&self, number: usize, limit: Duration, what: &str) -> Result<Instant, Error> {
        let (start, mut last_report) = (Instant::now(), Instant::now());
        loop {
            let (observed, last) = {
                let groups = lock(&self.groups);
                (groups.observed, groups.last_observed)
            };
            if let Some(last) = last.filter(|_| observed >= number) {
                return Ok(last);
            }
            if start.elapsed() > limit {
                return Err(format!("{what}: {observed} of {number} groups have a status after {limit:?}").into());
            }
            if observed > 0 && last_report.elapsed() > Duration::from_secs(5) {
                last_report = Instant::now();
                let left = start.elapsed().as_secs_f64() * (number - observed) as f64 / observed as f64;
                println!("  {what}: {observed} of {number} groups have a status, about {left:.0} s more");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Checks that every group has its children; an error names the missing kind.
    pub async fn check_children(&self, number: usize) -> Result<(), Error> {
        for (group, kind) in [
            ("", "ServiceAccount"),
            ("rbac.authorization.k8s.io", "Role"),
            ("rbac.authorization.k8s.io", "RoleBinding"),
            ("coordination.k8s.io", "Lease"),
            ("apps", "Deployment"),
        ] {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
            let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), NAMESPACE, &resource);
            let found = api.list_metadata(&ListParams::default().labels("k8sensus.dev/group")).await?.items.len();
            if found != number {
                return Err(format!("each of {number} groups has a status, but there are {found} of {kind}").into());
            }
        }
        Ok(())
    }

    /// Creates two pods for each group, from the template of its Deployment. Nothing ever starts them.
    pub async fn create_pods(&self) -> Result<(), Error> {
        let deployments = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment"));
        let deployments = Api::<DynamicObject>::namespaced_with(self.client.clone(), NAMESPACE, &deployments);
        let pod = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
        let pods = Api::<DynamicObject>::namespaced_with(self.client.clone(), NAMESPACE, &pod);
        let mut wanted = Vec::new();
        for deployment in deployments.list(&ListParams::default()).await? {
            let template = &deployment.data["spec"]["template"];
            for number in 0..2 {
                let mut manifest = json!({ "metadata": template["metadata"], "spec": template["spec"] });
                manifest["metadata"]["name"] = json!(pod_of(&deployment.name_any(), number));
                manifest["metadata"]["labels"]["pod-template-hash"] = json!("6c9f7d5b8");
                wanted.push(serde_json::from_value::<DynamicObject>(manifest)?);
            }
        }
        stream::iter(wanted)
            .map(|pod| {
                let pods = pods.clone();
                async move { pods.create(&PostParams::default(), &pod).await.map(drop) }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok(())
    }

    /// Writes another holder into the Lease, as a candidate would. Returns the seconds until the group's status names
    /// it, from sending the write and from its response.
    pub async fn change_holder(&self, name: &str, holder: &str, limit: Duration) -> Result<(f64, f64), Error> {
        let api = Api::<Lease>::namespaced(self.client.clone(), NAMESPACE);
        let mut lease = api.get(name).await?;
        let spec = lease.spec.get_or_insert_default();
        let now = MicroTime(jiff::Timestamp::now());
        spec.holder_identity = Some(holder.to_owned());
        // So long that no Lease expires during a measurement.
        spec.lease_duration_seconds = Some(3600);
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default() + 1);
        (spec.acquire_time, spec.renew_time) = (Some(now.clone()), Some(now));
        let sent = Instant::now();
        api.replace(name, &PostParams::default(), &lease).await?;
        let answered = Instant::now();
        loop {
            let shown = lock(&self.groups).of.get(name).filter(|group| group.holder == holder).and_then(|g| g.since);
            if let Some(shown) = shown {
                let since = |from: Instant| shown.saturating_duration_since(from).as_secs_f64();
                return Ok((since(sent), since(answered)));
            }
            if sent.elapsed() > limit {
                return Err(format!(
                    "{holder} holds Lease {name}, but its group's status does not name it after {limit:?}"
                )
                .into());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Renews a Lease as a leader does.
    pub async fn renew(&self, name: &str) -> Result<(), Error> {
        let api = Api::<Lease>::namespaced(self.client.clone(), NAMESPACE);
        let mut lease = api.get(name).await?;
        lease.spec.get_or_insert_default().renew_time = Some(MicroTime(jiff::Timestamp::now()));
        api.replace(name, &PostParams::default(), &lease).await?;
        Ok(())
    }

    /// Waits until the contender makes no more requests; returns its requests until then.
    pub async fn until_quiet(&mut self, limit: Duration) -> Result<Requests, Error> {
        let (start, mut last) = (Instant::now(), Instant::now());
        let mut all = Requests::default();
        while last.elapsed() < QUIET {
            if start.elapsed() > limit {
                return Err(format!("not quiet after {limit:?}: {}", all.summary()).into());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            let more = self.audit.since_last()?;
            if !more.is_empty() {
                last = Instant::now();
            }
            all.add(more);
        }
        Ok(all)
    }
}

impl Groups {
    fn apply_event(&mut self, object: &DynamicObject) {
        let status = &object.data["status"];
        let group = self.of.entry(object.name_any()).or_default();
        if !group.observed && status["observedGeneration"].as_i64() == object.metadata.generation {
            group.observed = true;
            self.observed += 1;
            self.last_observed = Some(Instant::now());
        }
        let holder = status["holderIdentity"].as_str().unwrap_or_default();
        if holder != group.holder {
            holder.clone_into(&mut group.holder);
            group.since = Some(Instant::now());
        }
    }
}

pub fn name_of(number: usize) -> String {
    format!("kestrel-{number}")
}

pub fn pod_of(group: &str, number: usize) -> String {
    format!("{group}-6c9f7d5b8-{number}")
}

fn lock(groups: &Mutex<Groups>) -> MutexGuard<'_, Groups> {
    groups.lock().unwrap_or_else(PoisonError::into_inner)
}

fn group_resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("k8sensus.dev", "v1alpha1", "ElectionGroup");
    ApiResource::from_gvk_with_plural(&kind, "electiongroups")
}

fn group_api(client: &Client) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), NAMESPACE, &group_resource())
}

/// Creates an account with all permissions, so that the audit log distinguishes the contender from the bench.
fn user(cluster: &Cluster) -> Result<NamedTempFile, Error> {
    let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": ACCOUNT } },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": ACCOUNT },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
            "subjects": [{ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": "default" }],
        },
    ]});
    apply(cluster, "default", &objects)?;
    let token = kubectl(cluster, &["create", "token", ACCOUNT, "--duration=6h"]);
    Ok(kubeconfig_with(cluster, json!({ "token": token.trim() })))
}
