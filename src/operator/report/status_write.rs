//! Writes the status of a group, and records the Events of its changes.

use std::time::Duration;

use kube::ResourceExt;
use tracing::info;

use super::publish::Metrics;
use super::status;
use crate::api::{ElectionGroup, ElectionGroupStatus};
use crate::context::{Context, FIRST_BACKOFF, remember};
use crate::error::Error;
use crate::group::{Findings, Group};
use crate::name::qualified_name;

/// The result of [`write_status`].
pub(crate) struct StatusWrite {
    /// The status as the API server stores it; `None` if it was not written.
    pub(crate) stored: Option<ElectionGroupStatus>,
    /// The time until the group is reconciled again for it.
    pub(crate) wait: Option<Duration>,
}

/// Writes the status if it changed. `is_complete`: whether everything that the spec requests was applied.
pub(crate) async fn write_status(
    resource: &ElectionGroup,
    valid: Option<&Group>,
    findings: &Findings,
    is_complete: bool,
    context: &Context,
) -> Result<StatusWrite, Error> {
    let mut new = status::of(resource, valid, findings, &*context.clock);
    if !is_complete {
        status::keep_generation(resource.status.as_ref(), &mut new);
    }
    if resource.status.as_ref() == Some(&new) {
        // A condition that persists counts as a repeated Event.
        context.events.record_changes(resource, &new, &findings.facts);
        return Ok(StatusWrite { stored: Some(new), wait: None });
    }
    let now = context.clock.since_boot();
    let written_at = remember(resource, context, |memory| memory.written_at).flatten();
    let handing_over = || {
        let released_at = context.cache.released_at(valid?)?;
        status::handing_over(resource.status.as_ref(), &new, released_at, now)
    };
    let wait = status::wait(resource.status.as_ref(), &new, written_at, now).or_else(handing_over);
    if wait.is_some() {
        return Ok(StatusWrite { stored: None, wait });
    }
    context.cache.begin_write(&resource.namespace().unwrap_or_default(), &resource.name_any());
    let written = status::write(&context.client, resource, &new).await;
    // As the API server stores it: a definition of another version may have dropped fields.
    let mut stored = None;
    let changed = match &written {
        Ok(Some(group)) => {
            stored = group.read().0.status;
            context.cache.apply_group_response(group.clone())
        }
        _ => false,
    };
    remember(resource, context, |memory| {
        memory.writing = false;
        memory.written_at = Some(now);
    });
    if written.map_err(Error::Status)?.is_none() {
        // The group was deleted, and perhaps created again.
        return Ok(StatusWrite { stored: None, wait: Some(FIRST_BACKOFF) });
    }
    context.events.record_changes(resource, &new, &findings.facts);
    log_leader(resource, new.holder_identity.as_deref(), &context.metrics);
    // The response may be the first to show another spec; the event that follows then triggers no reconcile.
    Ok(StatusWrite { stored, wait: changed.then_some(Duration::ZERO) })
}

fn log_leader(resource: &ElectionGroup, holder: Option<&str>, metrics: &Metrics) {
    let before = resource.status.as_ref().and_then(|status| status.holder_identity.as_deref());
    if before != holder {
        metrics.leader_changed();
        match holder {
            Some(holder) => info!(group = qualified_name(resource), "{holder} is the leader"),
            None => info!(group = qualified_name(resource), "the group has no leader"),
        }
    }
}
