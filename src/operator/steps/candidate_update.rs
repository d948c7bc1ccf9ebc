//! Gives the pods of a group the operator's present candidate where that was requested, a few groups at a time.
//!
//! What decides: [`candidate`](crate::group::judge::candidate_update).

use std::time::Duration;

use kube::ResourceExt;
use tracing::{info, warn};

use crate::api::{ElectionGroup, ElectionGroupStatus};
use crate::group::Group;
use crate::group::events::of_candidate_update;
use crate::group::judge::candidate_update::{Question, Update, decide, is_rolled_out};
use crate::operator::context::{Context, remember};
use crate::operator::error::Error;
use crate::operator::name::qualified_name;
use crate::operator::report::status;

/// So many groups with a leader replace their candidate at a time. One that does not get through keeps its place, so that a
/// candidate that does not work reaches no more leaders.
const AT_A_TIME: usize = 5;
/// How soon a group that waits for its turn asks again.
const AGAIN: Duration = Duration::from_secs(10);

/// Records the present candidate in the status of `resource`, here and at the API server, where the pods are to get it. The
/// children follow what is recorded.
///
/// # Errors
/// The status could not be written: nothing was changed.
pub(in crate::operator) async fn carry_out(
    resource: &mut ElectionGroup,
    group: Option<&Group>,
    context: &Context,
) -> Result<Update, Error> {
    let (namespace, name) = (resource.namespace().unwrap_or_default(), resource.name_any());
    let uid = resource.uid().unwrap_or_default();
    let parts = context.cache.group_state(&namespace, &name, resource.effective_lease_name(), &uid);
    let offer = &context.offer;
    let (lease, pods) = (parts.lease.as_ref(), parts.pods.as_slice());
    let update = decide(&Question { resource, group, lease, pods, offer });
    let (Update::Replace { moves_leader, .. }, Some(group)) = (&update, group) else { return Ok(update) };
    let injection = offer.injection(group);
    let before = resource.status.clone();
    let recorded = ElectionGroupStatus { injection: Some(injection.clone()), ..before.clone().unwrap_or_default() };
    resource.status = Some(recorded);
    // The rules may ask more of the spec than those of the pods that are there.
    if let Err(invalid) = Group::check(resource) {
        resource.status = before;
        let why = format!("the update that was requested waits until the spec is changed: {invalid}");
        return Ok(Update::Pending { why, for_others: false });
    }
    if *moves_leader && !context.cache.begin_candidate_update(&namespace, &name, AT_A_TIME) {
        resource.status = before;
        let why = format!("the update that was requested waits: {AT_A_TIME} groups at a time replace their candidate");
        return Ok(Update::Pending { why, for_others: true });
    }
    if let (Update::Replace { value: Some(value), .. }, Some(recorded)) = (&update, &mut resource.status) {
        recorded.last_handled_candidate_update_at = Some(value.clone());
    }
    let new = resource.status.clone().unwrap_or_default();
    // The watch brings what is written: the answer could hide a change of the spec that came before it.
    if status::write(&context.client, resource, &new).await.map_err(Error::Status)?.is_none() {
        warn!(group = qualified_name(resource), "the group was deleted before its candidate could be replaced");
        resource.status = before;
        return Ok(Update::None);
    }
    info!(group = qualified_name(resource), "the pods get candidate image {}", injection.image);
    context.events.record(resource, of_candidate_update(&injection));
    Ok(update)
}

/// When the next reconcile is due for `update`, if nothing else tells.
pub(in crate::operator) fn wait(update: &Update) -> Option<Duration> {
    matches!(update, Update::Pending { for_others: true, .. }).then_some(AGAIN)
}

/// Lets another group have its turn once the rollout of this one has ended, as `stored`, its status, says.
pub(in crate::operator) fn settle(resource: &ElectionGroup, stored: &ElectionGroupStatus, context: &Context) {
    if is_rolled_out(stored) {
        remember(resource, context, |memory| memory.updates_candidate = false);
    }
}
