//! Leaves a group alone that another operator reconciles, and takes it over when that operator is gone.
//! [`other_operator`](crate::group::judge::other_operator) decides.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use kube::{Client, ResourceExt};
use serde_json::json;
use tracing::warn;

use crate::api::ElectionGroup;
use crate::budget::within_budget;
use crate::cache::RawGroup;
use crate::campaign::{describe, snapshot_of};
use crate::context::{Context, remember};
use crate::election::WallTime;
use crate::group::events::of_other_operator;
use crate::group::judge::other_operator::{OtherOperator, is_left};
use crate::name::qualified_name;

/// The delay before a group of another operator is reconciled again.
const NEXT_TRY: Duration = Duration::from_secs(10);

/// Which operator reconciles a group.
pub(crate) enum Ownership {
    /// This operator.
    Own,
    /// Another operator; this one checks again after that time.
    Left(Duration),
}

/// Returns which operator reconciles `resource`. Records an Event when the group is left to the other operator or taken
/// over.
pub(crate) async fn ownership(resource: &ElectionGroup, context: &Context) -> Ownership {
    let recorded = resource.status.as_ref().and_then(|status| status.operator.as_deref());
    let Some(other) = recorded.filter(|recorded| *recorded != context.operator) else {
        remember(resource, context, |memory| {
            memory.was_reconciled |= recorded.is_some();
            memory.left_at = None;
        });
        return Ownership::Own;
    };
    let state = state_of(other, context).await;
    let now = context.clock.since_boot();
    let known = remember(resource, context, |memory| (memory.was_reconciled, memory.left_at));
    let (was_reconciled, left_at) = known.unwrap_or_default();
    let left = is_left(state, was_reconciled, left_at.map(|at| now.saturating_sub(at)));
    let event = of_other_operator(other, &context.operator, state, left);
    if left {
        if left_at.is_none() {
            warn!(group = qualified_name(resource), "{}", event.words.note);
            context.events.record(resource, event);
            remember(resource, context, |memory| memory.left_at = Some(now));
        }
        return Ownership::Left(NEXT_TRY);
    }
    // The first write of a takeover, so that the other operator, if it runs after all, observes it at once.
    match claim(&context.client, resource, &context.operator).await {
        Ok(group) => {
            warn!(group = qualified_name(resource), "{}", event.words.note);
            context.events.record(resource, event);
            context.cache.apply_group_response(group);
            remember(resource, context, |memory| {
                memory.was_reconciled = true;
                memory.left_at = None;
            });
            Ownership::Own
        }
        Err(error) => {
            warn!(
                group = qualified_name(resource),
                "cannot take the group over from operator {other}: {}",
                describe(&error)
            );
            Ownership::Left(NEXT_TRY)
        }
    }
}

/// Writes the name of this operator into the status, at the version that was read.
async fn claim(client: &Client, resource: &ElectionGroup, own: &str) -> Result<RawGroup, kube::Error> {
    let api = Api::<RawGroup>::namespaced(client.clone(), &resource.namespace().unwrap_or_default());
    let patch = json!({
        "metadata": { "resourceVersion": resource.resource_version(), "uid": resource.uid() },
        "status": { "operator": own },
    });
    api.patch_status(&resource.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await
}

async fn state_of(other: &str, context: &Context) -> OtherOperator {
    let now = context.clock.since_boot();
    if let Some(state) = context.others.get(other, now) {
        return state;
    }
    let state = match other.split_once('/') {
        Some((namespace, name)) => read(namespace, name, context).await,
        None => OtherOperator::Gone,
    };
    context.others.set(other, state, now);
    state
}

async fn read(namespace: &str, name: &str, context: &Context) -> OtherOperator {
    let kind = ApiResource::erase::<Lease>(&());
    let leases = Api::<DynamicObject>::namespaced_with(context.client.clone(), namespace, &kind);
    match within_budget(&*context.clock, leases.get_opt(name)).await {
        Ok(Ok(lease)) => {
            let record = lease.as_ref().map(|lease| snapshot_of(lease).record);
            OtherOperator::with_lease(record.as_ref(), WallTime(context.clock.wall_micros()))
        }
        // A failed read proves nothing.
        Ok(Err(_)) | Err(_) => OtherOperator::Unknown,
    }
}
