//! The node's objects, with the waits that the figures need.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8sensus_local::{Cluster, IMAGE};
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};

use super::{Error, SYSTEM, resident};

pub struct World<'a> {
    pub node: &'a Cluster,
    pub groups: Api<DynamicObject>,
    pub leases: Api<Lease>,
    pub pods: Api<Pod>,
    pub deployments: Api<Deployment>,
}

impl World<'_> {
    /// Creates a group that runs the sample task with the default lease.
    pub async fn create(&self, name: &str, replicas: i32) -> Result<(), Error> {
        self.create_of(name, json!({ "image": IMAGE, "command": ["/k8sensus", "sample"], "replicas": replicas })).await
    }

    pub async fn create_of(&self, name: &str, spec: Value) -> Result<(), Error> {
        let group = DynamicObject::new(name, &group_resource()).data(json!({ "spec": spec }));
        self.groups.create(&PostParams::default(), &group).await?;
        Ok(())
    }

    /// Waits for a holder of the Lease that is not `former`.
    pub async fn holder_other_than(&self, name: &str, former: &str) -> Result<String, Error> {
        let mut leases = self.lease_events(name);
        loop {
            let lease = leases.try_next().await?.ok_or("the watch ended")?;
            let holder = holder(&lease);
            if !holder.is_empty() && holder != former {
                return Ok(holder);
            }
        }
    }

    /// Waits for the term after that of `former`, whose restarted container may hold it. Returns the time from the
    /// release to the acquisition, if there was a release, and the moment at which the new term was observed.
    pub async fn watch_handover(&self, name: &str, former: &str) -> Result<(Option<Duration>, Instant), Error> {
        let mut leases = self.lease_events(name);
        let (mut released, mut term) = (None, None);
        loop {
            let lease = leases.try_next().await?.ok_or("the watch ended")?;
            let seen = Instant::now();
            let holder = holder(&lease);
            let spec = lease.spec.unwrap_or_default();
            if holder.is_empty() {
                released = spec.renew_time;
            } else if holder == former && (term.is_none() || term == spec.lease_transitions) {
                term = spec.lease_transitions;
            } else {
                // All candidates are on this machine and share its wall clock.
                let gap =
                    released.zip(spec.acquire_time).map(|(released, acquired)| acquired.0.duration_since(released.0));
                return Ok((gap.and_then(|gap| gap.try_into().ok()), seen));
            }
        }
    }

    fn lease_events(&self, name: &str) -> futures::stream::BoxStream<'static, watcher::Result<Lease>> {
        let selector = watcher::Config::default().fields(&format!("metadata.name={name}"));
        watcher(self.leases.clone(), selector).applied_objects().boxed()
    }

    pub async fn all_ready(&self, name: &str, pods: i64) -> Result<(), Error> {
        self.until(name, |status| {
            status["readyReplicas"] == pods && status["replicas"] == pods && status["holderIdentity"].is_string()
        })
        .await
    }

    /// Waits until all pods of the group are ready and the leader is not terminating; returns the leader's name and
    /// UID.
    pub async fn settled_leader(&self, name: &str, pods: i64) -> Result<(String, String), Error> {
        loop {
            self.all_ready(name, pods).await?;
            let leader = self.holder_other_than(name, "").await?;
            match self.pods.get_opt(&leader).await? {
                Some(Pod { metadata, .. }) if metadata.deletion_timestamp.is_none() => {
                    return Ok((leader, metadata.uid.unwrap_or_default()));
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    pub async fn observed(&self, name: &str) -> Result<(), Error> {
        self.until(name, |status| status["observedGeneration"] == 1).await
    }

    pub async fn until(&self, name: &str, done: impl Fn(&Value) -> bool) -> Result<(), Error> {
        for _ in 0..1200 {
            if done(&self.groups.get(name).await?.data["status"]) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("group {name} did not settle within 2 minutes").into())
    }

    pub fn operators_memory(&self) -> Result<String, Error> {
        let pods = self
            .node
            .kubectl()
            .args(["get", "pods", "-n", SYSTEM, "-o", "jsonpath={.items[*].metadata.uid}"])
            .output()?;
        let mut found = Vec::new();
        for uid in String::from_utf8(pods.stdout)?.split_whitespace() {
            for process in self.node.processes_in_pod(uid) {
                found.push(resident(process.pid)?);
            }
        }
        Ok(found.join(", "))
    }
}

pub fn group_resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("k8sensus.dev", "v1alpha1", "ElectionGroup"),
        "electiongroups",
    )
}

fn holder(lease: &Lease) -> String {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default()
}
