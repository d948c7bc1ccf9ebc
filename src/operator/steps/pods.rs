//! Writes onto pods, as the last step: opens the readiness gate of pods of the proven revision, and labels each pod as
//! leader or standby. A pod that is up to date costs no request.

use std::time::Duration;

use futures::TryFutureExt;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tracing::{debug, warn};

use crate::api::names::{FIELD_MANAGER, PROVEN_GATE, annotation, label};
use crate::api::{ElectionGroup, ElectionGroupStatus};
use crate::budget::{Late, within_budget};
use crate::campaign::describe;
use crate::context::{Context, RETRY, remember};
use crate::group::Group;
use crate::group::judge::rollout::{opens, proven_in};
use crate::group::observed::pod::PodView;
use crate::group::observed::{Facts, Outcome};
use crate::name::qualified_name;
use crate::protocol::lease::pod_of_holder;

/// Pods that could not be patched.
#[derive(Debug, thiserror::Error)]
enum PodError {
    #[error("cannot patch pod {pod}: {}", describe(.source))]
    Patch { pod: String, source: Box<kube::Error> },
    #[error(transparent)]
    Late(#[from] Late),
}

/// Patches the pods to match `stored`. Returns the time until the next reconcile, if a request failed or a response
/// showed a change by another client.
pub(crate) async fn patch(
    resource: &ElectionGroup,
    group: Option<&Group>,
    facts: &Facts,
    stored: &ElectionGroupStatus,
    context: &Context,
) -> Option<Duration> {
    // A group that is paused, or could not be applied, gets no labels. Its readiness gates are opened all the same.
    let labelled = facts.outcome == Outcome::Applied && group.is_some_and(|group| !group.paused);
    let leader = stored.holder_identity.as_deref();
    let proven = proven_in(stored);
    let now = Time(Timestamp::from_second(context.clock.wall_micros().div_euclid(1_000_000)).unwrap_or_default());
    let patches = facts.pods.iter().flat_map(|pod| {
        let gate = opens(pod, proven).then(|| (pod, Some("status"), gate_patch(pod, &now)));
        let role = role_patch(pod, leader).filter(|_| labelled).map(|patch| (pod, None, patch));
        gate.into_iter().chain(role)
    });
    let patches: Vec<_> = patches.collect();
    if patches.is_empty() {
        remember(resource, context, |memory| memory.has_unmarked_pods = false);
        return None;
    }
    let namespace = resource.namespace().unwrap_or_default();
    let api =
        Api::<DynamicObject>::namespaced_with(context.client.clone(), &namespace, &ApiResource::erase::<Pod>(&()));
    let sent = patches.into_iter().map(|(pod, subresource, patch)| {
        // The next reconcile may come before the watch shows the patch.
        write(&api, pod, subresource, patch).map_ok(|pod| pod.is_some_and(|pod| context.cache.apply_pod_response(&pod)))
    });
    let (failed, is_changed_elsewhere) = match within_budget(&*context.clock, join_all(sent)).await {
        Ok(results) => {
            let is_changed_elsewhere = results.iter().any(|result| matches!(result, Ok(true)));
            (results.into_iter().find_map(Result::err), is_changed_elsewhere)
        }
        Err(late) => (Some(late.into()), false),
    };
    let was_logged =
        remember(resource, context, |memory| std::mem::replace(&mut memory.has_unmarked_pods, failed.is_some()));
    let Some(error) = failed else { return is_changed_elsewhere.then_some(Duration::ZERO) };
    let name = qualified_name(resource);
    if was_logged == Some(true) {
        debug!(group = name, "cannot update roles and readiness gates of the pods: {error}");
    } else {
        let retry = RETRY.as_secs();
        warn!(group = name, "cannot update roles and readiness gates of the pods: {error}; retrying every {retry} s");
    }
    Some(if is_changed_elsewhere { Duration::ZERO } else { RETRY })
}

/// Returns the patch of the pod's status that opens its readiness gate.
fn gate_patch(pod: &PodView, now: &Time) -> Value {
    json!({
        "metadata": { "uid": pod.uid },
        "status": { "conditions": [{
            "type": PROVEN_GATE,
            "status": "True",
            "reason": "RevisionProven",
            "message": "the revision of this pod's template has led well",
            "lastTransitionTime": now,
        }] },
    })
}

/// Returns the patch of the role label and the deletion cost, `None` if both are right. A terminating pod is only
/// patched if it is no longer the leader.
fn role_patch(pod: &PodView, leader: Option<&str>) -> Option<Value> {
    let leads = leader.is_some_and(|leader| pod_of_holder(leader) == pod.name);
    let role = if leads { label::ROLE_LEADER } else { label::ROLE_STANDBY };
    let is_current = pod.role.as_deref() == Some(role) && pod.has_leader_deletion_cost == leads;
    let is_pointless = pod.terminating && (leads || pod.role.is_none());
    (!is_current && !is_pointless).then(|| {
        let mut patch = json!({ "metadata": { "uid": pod.uid, "labels": { label::ROLE: role } } });
        // A deletion cost that another client set stays, unless the pod leads.
        if pod.has_leader_deletion_cost != leads {
            let cost = leads.then_some(annotation::LEADER_DELETION_COST);
            patch["metadata"]["annotations"] = json!({ annotation::POD_DELETION_COST: cost });
        }
        patch
    })
}

/// Sends `patch`. Returns the patched pod, `None` if it is gone.
async fn write(
    api: &Api<DynamicObject>,
    pod: &PodView,
    subresource: Option<&str>,
    patch: Value,
) -> Result<Option<DynamicObject>, PodError> {
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let written = match subresource {
        // A strategic merge replaces only the condition of this type.
        Some(subresource) => api.patch_subresource(subresource, &pod.name, &params, &Patch::Strategic(patch)).await,
        None => api.patch(&pod.name, &params, &Patch::Merge(patch)).await,
    };
    match written {
        Ok(pod) => Ok(Some(pod)),
        // The pod is gone, or another pod has its name.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
        Err(source) => Err(PodError::Patch { pod: pod.name.clone(), source: Box::new(source) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(role: Option<&str>, has_cost: bool) -> PodView {
        let role = role.map(str::to_owned);
        PodView {
            name: "billing-1".into(),
            uid: Some("uid-1".into()),
            role,
            has_leader_deletion_cost: has_cost,
            ..PodView::default()
        }
    }

    #[test]
    fn pod_is_patched_only_when_role_or_deletion_cost_changes() {
        let of = |pod: &PodView, leader| {
            let patch = role_patch(pod, leader)?;
            let metadata = &patch["metadata"];
            assert_eq!(metadata["uid"], "uid-1");
            Some((metadata["labels"].clone(), metadata["annotations"].clone()))
        };
        let cost = |cost: Value| json!({ "controller.kubernetes.io/pod-deletion-cost": cost });
        let (leads, stands_by) = (json!({ "k8sensus.dev/role": "leader" }), json!({ "k8sensus.dev/role": "standby" }));
        let labelled = Some((stands_by.clone(), Value::Null));
        let (led, stood_by) = (Some((leads, cost(json!("1000000")))), Some((stands_by, cost(Value::Null))));
        for (role, has_cost, leader, wanted) in [
            (None, false, None, &labelled),
            (None, false, Some("billing-2"), &labelled),
            (None, false, Some("billing-1"), &led),
            // controller-runtime appends a suffix to the name of the pod.
            (None, false, Some("billing-1_5e0c"), &led),
            (Some("standby"), false, Some("billing-1"), &led),
            (Some("leader"), true, Some("billing-2"), &stood_by),
            (Some("leader"), true, None, &stood_by),
            (Some("standby"), true, None, &stood_by),
            (Some("leader"), false, None, &labelled),
            (Some("leader"), false, Some("billing-1"), &led),
            (Some("leader"), true, Some("billing-1"), &None),
            (Some("standby"), false, Some("billing-10"), &None),
            (Some("standby"), false, None, &None),
        ] {
            assert_eq!(of(&pod(role, has_cost), leader), *wanted, "{role:?} {has_cost} {leader:?}");
        }
    }

    #[test]
    fn terminating_pod_only_loses_the_role_of_leader() {
        let terminating = |role, has_cost| PodView { terminating: true, ..pod(role, has_cost) };
        assert!(role_patch(&terminating(Some("leader"), true), None).is_some());
        assert_eq!(role_patch(&terminating(Some("standby"), false), Some("billing-1")), None);
        assert_eq!(role_patch(&terminating(None, false), None), None);
    }
}
