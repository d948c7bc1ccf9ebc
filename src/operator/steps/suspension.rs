//! Tells the candidates of a group by its Lease that nobody is to lead, or that somebody is again.

use std::time::Duration;

use tracing::warn;

use crate::api::ElectionGroup;
use crate::campaign::snapshot_of;
use crate::group::Group;
use crate::group::judge::suspension;
use crate::operator::context::{Context, RETRY};
use crate::operator::name::qualified_name;
use crate::protocol::lease;

/// Before the pods are taken away, and before there are some again: a standby that is told to end a little later than the leader
/// would lead meanwhile. What cannot be written hinders neither.
pub(in crate::operator) async fn annotate_suspended(
    resource: &ElectionGroup,
    group: &Group,
    context: &Context,
) -> Option<Duration> {
    let cache = &context.cache;
    let pods = || cache.group_state(&group.namespace, &group.name, &group.lease_name, &group.uid).pods;
    let suspended = suspension::change(group, cache.is_suspended(group)?, pods)?;
    let term = |lease: &_| suspended.then(|| snapshot_of(lease).record.transitions.to_string());
    match context.within_budget(context.step_downs.annotate(group, lease::SUSPENDED, term)).await.flatten() {
        Ok(lease) => {
            // The watch may be late to show it.
            lease.iter().for_each(|lease| cache.apply_lease_response(lease));
            None
        }
        Err(error) => {
            warn!(group = qualified_name(resource), "{error}; the candidates are not told whether anybody is to lead");
            Some(RETRY)
        }
    }
}
