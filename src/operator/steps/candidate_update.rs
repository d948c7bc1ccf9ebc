//! Gives the pods of a group the operator's present candidate on request, a few groups at a time.
//! [`candidate_update`](crate::group::judge::candidate_update) decides.

use std::time::Duration;

use kube::ResourceExt;
use tracing::{info, warn};

use crate::api::{ElectionGroup, ElectionGroupStatus};
use crate::context::{Context, remember};
use crate::error::Error;
use crate::group::Group;
use crate::group::events::of_candidate_update;
use crate::group::judge::candidate_update::{Question, Update, decide, is_rolled_out};
use crate::name::qualified_name;
use crate::report::status;

/// How many groups with a leader replace their candidate at a time. A group whose rollout does not end keeps its place,
/// so that a broken candidate reaches no further leaders.
const AT_A_TIME: usize = 5;
/// The delay before a group that waits for a place is reconciled again.
const NEXT_TRY: Duration = Duration::from_secs(10);

/// Records the present candidate in the status of `resource`, in memory and at the API server, if its pods should get
/// it. The children are built from that record.
///
/// # Errors
/// The status could not be written: nothing was changed.
pub(crate) async fn carry_out(
    resource: &mut ElectionGroup,
    group: Option<&Group>,
    context: &Context,
) -> Result<Update, Error> {
    let (namespace, name) = (resource.namespace().unwrap_or_default(), resource.name_any());
    let uid = resource.uid().unwrap_or_default();
    let state = context.cache.group_state(&namespace, &name, resource.effective_lease_name(), &uid);
    let offer = &context.offer;
    let (lease, pods) = (state.lease.as_ref(), state.pods.as_slice());
    let update = decide(&Question { resource, group, lease, pods, offer });
    let (Update::Replace { moves_leader, .. }, Some(group)) = (&update, group) else { return Ok(update) };
    let injection = offer.injection(group);
    let before = resource.status.clone();
    let recorded = ElectionGroupStatus { injection: Some(injection.clone()), ..before.clone().unwrap_or_default() };
    resource.status = Some(recorded);
    // The new candidate may require more of the spec than the present one.
    if let Err(invalid) = Group::check(resource) {
        resource.status = before;
        let why = format!("the requested update waits until the spec is changed: {invalid}");
        return Ok(Update::Pending { why, for_others: false });
    }
    if *moves_leader && !context.cache.begin_candidate_update(&namespace, &name, AT_A_TIME) {
        resource.status = before;
        let why = format!("the requested update waits: only {AT_A_TIME} groups at a time replace their candidate");
        return Ok(Update::Pending { why, for_others: true });
    }
    if let (Update::Replace { value: Some(value), .. }, Some(recorded)) = (&update, &mut resource.status) {
        recorded.last_handled_candidate_update_at = Some(value.clone());
    }
    let new = resource.status.clone().unwrap_or_default();
    // The cache takes this write from the watch: the response could hide an earlier change of the spec.
    if status::write(&context.client, resource, &new).await.map_err(Error::Status)?.is_none() {
        warn!(group = qualified_name(resource), "the group was deleted before its candidate could be replaced");
        resource.status = before;
        return Ok(Update::None);
    }
    info!(group = qualified_name(resource), "the pods get candidate image {}", injection.image);
    context.events.record(resource, of_candidate_update(&injection));
    Ok(update)
}

/// Returns the time until the next reconcile for `update`, where no event triggers it.
pub(crate) fn wait(update: &Update) -> Option<Duration> {
    matches!(update, Update::Pending { for_others: true, .. }).then_some(NEXT_TRY)
}

/// Frees the place of the group once its status `stored` shows that its rollout has ended.
pub(crate) fn settle(resource: &ElectionGroup, stored: &ElectionGroupStatus, context: &Context) {
    if is_rolled_out(stored) {
        remember(resource, context, |memory| memory.updates_candidate = false);
    }
}
