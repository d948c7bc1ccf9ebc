//! Changes of a group's spec. Each says first what it will cost.

use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::api::{ElectionGroup, Mode};
use crate::connect::{Cluster, now};
use crate::failure::{Access, Failure};
use crate::flags::Change;
use crate::output::{print, qualified};
use crate::picture::cost_of_handover;
use crate::{fetch, step_down};

/// The annotation by which `kubectl rollout restart` changes a pod template.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
/// The manager of the fields that this plugin writes.
const FIELD_MANAGER: &str = "kubectl-k8sensus";

/// A boolean field of the spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// `spec.suspend`.
    Suspend,
    /// `spec.paused`.
    Paused,
}

/// Sets a field of the spec to `value`.
pub async fn switch(cluster: &Cluster, change: &Change, switch: Switch, value: bool) -> Result<(), Failure> {
    let group = fetch::group(cluster, &change.group).await?;
    let (field, present, done) = match (switch, value) {
        (Switch::Suspend, true) => ("suspend", group.spec.suspend, "suspended"),
        (Switch::Suspend, false) => ("suspend", group.spec.suspend, "resumed"),
        (Switch::Paused, true) => ("paused", group.spec.paused, "paused"),
        (Switch::Paused, false) => ("paused", group.spec.paused, "unpaused"),
    };
    if present == value {
        return print(&format!("{} is unchanged: spec.{field} is {value} already\n", qualified(&change.group)));
    }
    print(&(cost(&group, switch, value) + "\n"))?;
    patch(cluster, &change.group, json!({ "spec": { field: value } }), change.dry_run).await?;
    print(&format!("{} {done}{}\n", qualified(&change.group), suffix(change.dry_run)))
}

fn cost(group: &ElectionGroup, switch: Switch, value: bool) -> String {
    let replicas = group.spec.replicas;
    let holder = group.status.as_ref().and_then(|status| status.holder_identity.as_deref());
    let leader = holder.filter(|holder| !holder.is_empty()).map_or("no pod".to_owned(), |holder| holder.to_owned());
    let waits = wait_if_paused(group);
    match (switch, value) {
        (Switch::Suspend, true) => {
            format!("All pods end, and no pod leads until the group is resumed; {leader} leads now.{waits}")
        }
        (Switch::Suspend, false) => {
            format!("The group gets {replicas} pods, of which one leads once it has started.{waits}")
        }
        (Switch::Paused, true) => {
            "The pods keep running and electing their leader, and traffic follows it. Changes of \
                                   the spec, rollouts and step-downs wait until the group is unpaused."
                .to_owned()
        }
        (Switch::Paused, false) => {
            "The operator applies all changes that were made while the group was paused.".to_owned()
        }
    }
}

/// Returns what a change of a paused group waits for.
fn wait_if_paused(group: &ElectionGroup) -> &'static str {
    if group.spec.paused { " The group is paused: this waits until it is unpaused." } else { "" }
}

/// Replaces all pods by a new revision of the pod template.
pub async fn restart(cluster: &Cluster, change: &Change) -> Result<(), Failure> {
    let group = fetch::group(cluster, &change.group).await?;
    let name = &change.group;
    if group.spec.template.is_none() {
        return Err(Failure::Refused(format!(
            "{} has no pod template to annotate, since it uses spec.image: move image, command and args to \
             spec.template, or replace its pods one after the other with `kubectl delete pod`, the leader's last",
            qualified(name)
        )));
    }
    let history = group.status.as_ref().map(|status| status.history.clone()).unwrap_or_default();
    let moves = match group.spec.candidate.mode {
        Mode::Native => "All pods are replaced as in any Deployment, so leadership may move more than once.",
        _ => "All pods are replaced, and leadership moves once, to the first new pod that is ready.",
    };
    let waits = wait_if_paused(&group);
    print(&format!("{moves} {}{waits}\n", cost_of_handover(&history)))?;
    let at = now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let annotations = json!({ "metadata": { "annotations": { RESTARTED_AT: at } } });
    patch(cluster, name, json!({ "spec": { "template": annotations } }), change.dry_run).await?;
    print(&format!(
        "{} restarted{}\nTo follow the rollout: kubectl wait electiongroup/{name} -n {} --for=condition=Ready \
         --timeout=10m\n",
        qualified(name),
        suffix(change.dry_run),
        cluster.namespace
    ))
}

/// Requests a step-down, and waits for it if `wait` is set.
pub async fn step_down(cluster: &Cluster, name: &str, wait: step_down::Wait, dry_run: bool) -> Result<(), Failure> {
    let before = step_down::prepare(cluster, name).await?;
    print(&format!("{} hands over to a ready standby. {}\n", before.leader, cost_of_handover(&before.history)))?;
    let annotations = json!({ (crate::api::names::annotation::STEP_DOWN_REQUESTED_AT): before.value });
    patch(cluster, name, json!({ "metadata": { "annotations": annotations } }), dry_run).await?;
    print(&format!("{}: step-down requested{}\n", qualified(name), suffix(dry_run)))?;
    match wait {
        step_down::Wait::UntilHandled(limit) if !dry_run => {
            let text = step_down::wait(cluster, name, &before, limit).await?;
            print(&(text + "\n"))
        }
        _ => Ok(()),
    }
}

async fn patch(cluster: &Cluster, name: &str, change: Value, dry_run: bool) -> Result<(), Failure> {
    let groups: Api<ElectionGroup> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let access = Access { verb: "patch", resource: "electiongroups", namespace: Some(cluster.namespace.clone()) };
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), dry_run, ..PatchParams::default() };
    cluster.send(access, groups.patch(name, &parameters, &Patch::Merge(change))).await.map(drop)
}

fn suffix(dry_run: bool) -> &'static str {
    if dry_run { " (dry run: nothing was changed)" } else { "" }
}
