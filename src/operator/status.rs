//! Fifth step: the status, written only if it says something new.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::observe::Caches;
use crate::api::names::{FIELD_MANAGER, label};
use crate::api::{ElectionGroup, ElectionGroupStatus, GROUP, InjectionStatus, KIND, VERSION};
use crate::group::status::{DeploymentView, Outcome, PodView, status};
use crate::group::{Group, Observed};
use crate::runtime::clock::Clock;

/// What is there of `group`, after its children were applied.
pub(super) fn observe(
    group: &ElectionGroup,
    outcome: Outcome,
    injection: Option<InjectionStatus>,
    caches: &Caches,
) -> Observed {
    let namespace = group.namespace().unwrap_or_default();
    let name = group.name_any();
    let uid = group.uid();
    // What stands in a conflict says nothing of this group.
    let is_ours = |object: &DynamicObject| {
        let controller = object.owner_references().iter().find(|owner| owner.controller == Some(true));
        controller.is_some_and(|owner| Some(&owner.uid) == uid.as_ref())
    };
    let deployment = caches.deployments.get(&namespace, &name).filter(|deployment| is_ours(deployment));
    let lease = caches.leases.get(&namespace, group.effective_lease_name()).filter(|(lease, _)| is_ours(lease));
    let pods = caches.pods.state().into_iter().filter(|pod| {
        pod.metadata.namespace.as_deref() == Some(&namespace) && pod.labels().get(label::GROUP) == Some(&name)
    });
    Observed {
        outcome,
        deployment: deployment.map(|deployment| deployment_view(&deployment)),
        lease: lease.map(|(_, view)| view),
        pods: pods.map(|pod| pod_view(&pod)).collect(),
        injection,
    }
}

fn deployment_view(deployment: &DynamicObject) -> DeploymentView {
    let status = &deployment.data["status"];
    let number = |name: &str| status[name].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or_default();
    let progressing = condition(&status["conditions"], "Progressing");
    let exceeded = progressing.filter(|condition| condition["reason"] == "ProgressDeadlineExceeded");
    DeploymentView {
        replicas: number("replicas"),
        ready: number("readyReplicas"),
        updated: number("updatedReplicas"),
        observed: status["observedGeneration"].as_i64() >= deployment.metadata.generation,
        deadline_exceeded: exceeded.map(|condition| condition["message"].as_str().unwrap_or_default().to_owned()),
    }
}

fn pod_view(pod: &DynamicObject) -> PodView {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let status = &pod.data["status"];
    PodView {
        name: pod.name_any(),
        node: text(&pod.data["spec"]["nodeName"]),
        ip: text(&status["podIP"]),
        revision: pod.labels().get("pod-template-hash").cloned(),
        ready: pod.metadata.deletion_timestamp.is_none()
            && condition(&status["conditions"], "Ready").is_some_and(|condition| condition["status"] == "True"),
    }
}

fn condition<'a>(conditions: &'a Value, kind: &str) -> Option<&'a Value> {
    conditions.as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// Writes the status of `group` if it differs from what stands there, and returns it.
pub(super) async fn write(
    client: &Client,
    group: &ElectionGroup,
    valid: Option<&Group>,
    observed: &Observed,
    clock: &dyn Clock,
) -> Result<ElectionGroupStatus, kube::Error> {
    // Conditions have a resolution of one second.
    let seconds = clock.wall_micros().div_euclid(1_000_000);
    let now = Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH));
    let new = status(group, valid, observed, &now);
    if group.status.as_ref() == Some(&new) {
        return Ok(new);
    }
    let api = Api::<ElectionGroup>::namespaced(client.clone(), &group.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": KIND,
        // A group of the same name that was made meanwhile refuses a status that is not its own.
        "metadata": { "name": group.name_any(), "uid": group.uid() },
        "status": new,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch_status(&group.name_any(), &params, &Patch::Apply(&patch)).await {
        // Deleted, or deleted and made again: the next event has the truth.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(new),
        result => result.map(|_| new),
    }
}
