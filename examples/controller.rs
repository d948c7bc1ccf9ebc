//! A controller of kube-runtime of which one replica reconciles: it greets whom a ConfigMap names.
//!
//! Run two, in two terminals, and end the one that reconciles:
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
use k8sensus::runtime::shutdown::Shutdown;
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
enum Refused {
    #[error("not the leader any more")]
    NotLeading,
    #[error(transparent)]
    Api(#[from] kube::Error),
}

// One thread: what was dropped does not run on elsewhere for a moment.
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
                // The Lease is lost: the stream is dropped, which cuts what is being reconciled.
                _ = leader.revoked() => {}
                // An end was asked for: what was begun is finished first.
                () = reconcile_until_lost(context) => {}
            }
            // Nothing is reconciled any more, so the Lease may be released.
            leader.end();
            println!("{} reconciles no longer", campaign.identity());
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
        .run(reconcile, try_again, Arc::new(context))
        .for_each(async |result| {
            if let Err(error) = result {
                eprintln!("{error}");
            }
        })
        .await;
}

async fn reconcile(configmap: Arc<ConfigMap>, context: Arc<Context>) -> Result<Action, Refused> {
    let read = |key| configmap.data.as_ref().and_then(|data| data.get(key)).map(String::as_str);
    let greeting = format!("Hello, {}.", read("name").unwrap_or("world"));
    if read("greeting") == Some(&greeting) {
        return Ok(Action::await_change());
    }
    let patch = json!({
        // A write that comes late, after another leader's, is refused as a conflict.
        "metadata": { "resourceVersion": configmap.resource_version() },
        "data": { "greeting": greeting, "by": context.me, "token": context.term.token() },
    });
    // Asked right before the write: a reconcile may have waited for long.
    if !context.term.is_valid() {
        return Err(Refused::NotLeading);
    }
    context.configmaps.patch(&configmap.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(Action::await_change())
}

fn try_again(_: Arc<ConfigMap>, _: &Refused, _: Arc<Context>) -> Action {
    Action::requeue(Duration::from_secs(1))
}
