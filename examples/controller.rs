//! A kube-runtime controller of which only one replica reconciles: it writes a greeting for the name in a ConfigMap.
//!
//! Run two replicas in two terminals, and end the one that reconciles:
//!
//! ```text
//! cargo demo -- up
//! export KUBECONFIG=$(cargo demo -- kubeconfig)
//! POD_NAME=otter cargo run --example controller
//! POD_NAME=heron cargo run --example controller
//! kubectl create configmap moss --from-literal=name=Moss
//! kubectl label configmap moss example=greeting
//! kubectl get configmap moss -o yaml
//! ```
//!
//! In a cluster it needs POD_NAME and POD_NAMESPACE from the downward API, and this Role in its namespace:
//!
//! ```yaml
//! rules:
//!   - apiGroups: [coordination.k8s.io]
//!     resources: [leases]
//!     verbs: [get, list, watch, create, update]
//!   - apiGroups: [""]
//!     resources: [configmaps]
//!     verbs: [get, list, watch, patch]
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8sensus::campaign::{Campaign, Term};
use k8sensus::shutdown::Shutdown;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;
use kube::{Api, Client, Config, ResourceExt};
use serde_json::json;

struct Context {
    configmaps: Api<ConfigMap>,
    me: String,
    term: Term,
}

#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error("no longer the leader")]
    NotLeading,
    #[error(transparent)]
    Api(#[from] kube::Error),
}

// One thread, so that a dropped future does not keep running on another thread for a moment.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let namespace = std::env::var("POD_NAMESPACE").unwrap_or_else(|_| "default".to_owned());
    let mut shutdown = Shutdown::listen()?;
    let config = Config::infer().await?;
    let campaign = Campaign::builder(&namespace, "controller").start(&config)?;
    let configmaps = Api::namespaced(Client::try_from(config)?, &namespace);

    let leave = async {
        println!("{}: leaving the election", shutdown.requested().await);
        campaign.leave();
    };
    let lead = async {
        while let Some(leader) = campaign.lead().await {
            println!("{} reconciles with token {}", campaign.identity(), leader.token());
            let context = Context {
                configmaps: configmaps.clone(),
                me: campaign.identity().to_owned(),
                term: leader.term().clone(),
            };
            tokio::select! {
                biased;
                // The Lease is lost: dropping the stream aborts the running reconciles.
                _ = leader.revoked() => {}
                // On a shutdown, running reconciles finish first.
                () = reconcile_until_lost(context) => {}
            }
            // No reconcile is running, so the Lease may be released.
            leader.end();
            println!("{} stopped reconciling", campaign.identity());
        }
    };
    tokio::join!(lead, leave);
    Ok(())
}

async fn reconcile_until_lost(context: Context) {
    let term = context.term.clone();
    Controller::new(context.configmaps.clone(), watcher::Config::default().labels("example=greeting"))
        .graceful_shutdown_on(async move {
            term.lost().await;
        })
        .run(reconcile, requeue, Arc::new(context))
        .for_each(async |result| {
            if let Err(error) = result {
                eprintln!("{error}");
            }
        })
        .await;
}

async fn reconcile(configmap: Arc<ConfigMap>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let read = |key| configmap.data.as_ref().and_then(|data| data.get(key)).map(String::as_str);
    let greeting = format!("Hello, {}.", read("name").unwrap_or("world"));
    if read("greeting") == Some(&greeting) {
        return Ok(Action::await_change());
    }
    let patch = json!({
        // A late write, after one of another leader, is refused as a conflict.
        "metadata": { "resourceVersion": configmap.resource_version() },
        "data": { "greeting": greeting, "by": context.me, "token": context.term.token() },
    });
    // Checked right before the write, because a reconcile may have waited for long.
    if !context.term.is_valid() {
        return Err(ReconcileError::NotLeading);
    }
    context.configmaps.patch(&configmap.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(Action::await_change())
}

fn requeue(_: Arc<ConfigMap>, _: &ReconcileError, _: Arc<Context>) -> Action {
    Action::requeue(Duration::from_secs(1))
}
