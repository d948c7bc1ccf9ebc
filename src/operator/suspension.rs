//! Tells the candidates of a group by its Lease that nobody is to lead, or that somebody is again.

use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use tracing::warn;

use super::observe::Parts;
use super::reconcile::{Context, told_name};
use crate::api::ElectionGroup;
use crate::api::names::annotation;
use crate::campaign::snapshot_of;
use crate::group::{Group, suspension};

/// How soon a write onto the Lease is tried again that failed.
const RETRY: Duration = Duration::from_secs(10);
/// For how long the pods may be kept waiting for this.
const LONGEST: Duration = Duration::from_secs(2);

/// Before the pods are taken away, and before there are some again: a standby that is told to end a little later than the leader
/// would lead meanwhile. What cannot be written hinders neither.
pub(super) async fn tell(resource: &ElectionGroup, group: &Group, context: &Context) -> Option<Duration> {
    let Parts { lease, pods, .. } = context.world.parts(&group.namespace, &group.name, &group.lease_name, &group.uid);
    let suspended = suspension::word(group, &lease?, &pods)?;
    let term = |lease: &_| suspended.then(|| snapshot_of(lease).record.transitions.to_string());
    let written = pin!(context.step_downs.annotate(group, annotation::SUSPENDED, term));
    let late = context.clock.sleep_until(context.clock.since_boot() + LONGEST);
    let error = match select(written, late).await {
        Either::Left((Ok(lease), _)) => {
            // The watch may be late to show it.
            lease.iter().for_each(|lease| context.world.took_lease(lease));
            return None;
        }
        Either::Left((Err(error), _)) => error,
        Either::Right(_) => format!("the API server did not answer within {} s", LONGEST.as_secs()),
    };
    warn!(group = told_name(resource), "{error}; the candidates are not told whether anybody is to lead");
    Some(RETRY)
}
