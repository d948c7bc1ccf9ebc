//! The pipeline: each step takes what the former one made.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::controller::Action;
use kube::{Client, ResourceExt};
use tracing::{info, warn};

use super::apply::{Applied, Applier, ApplyError};
use super::observe::{Caches, WatchHealth};
use super::publish::{Metrics, ResultLabel};
use super::status;
use crate::api::{ConditionType, ElectionGroup};
use crate::group::status::Outcome;
use crate::group::{Desired, Group};
use crate::runtime::clock::Clock;

/// A look without a cause, for what a watch may have missed.
const RESYNC: Duration = Duration::from_secs(300);
/// How soon a conflict or a missing right is looked at again: nothing tells when somebody else's object goes away.
const BLOCKED_RETRY: Duration = Duration::from_secs(10);
const UNTIL_LISTED: Duration = Duration::from_millis(50);
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

pub(super) struct Context {
    pub(super) client: Client,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) caches: Caches,
    pub(super) health: WatchHealth,
    pub(super) applier: Applier,
    pub(super) candidate_image: String,
    pub(super) metrics: Metrics,
    pub(super) failures: Mutex<HashMap<(String, String), u32>>,
}

/// A request failed that the next try may bring through.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("cannot write the status: {}", crate::campaign::told(.0))]
    Status(#[source] kube::Error),
}

pub(super) async fn reconcile(resource: Arc<ElectionGroup>, context: Arc<Context>) -> Result<Action, Error> {
    if resource.metadata.deletion_timestamp.is_some() {
        // Owner references do the deleting.
        return Ok(Action::await_change());
    }
    if !context.health.all_listed() {
        // A child or a Lease that is not known yet would be taken for one that is not there.
        return Ok(Action::requeue(UNTIL_LISTED));
    }
    let valid = Group::check(&resource);
    let (outcome, injection) = match &valid {
        Ok(group) if group.paused => (Outcome::Applied, None),
        Ok(group) => {
            let recorded = resource.status.as_ref().and_then(|status| status.injection.as_ref());
            let desired = Desired::of(group, recorded, &context.candidate_image);
            let applied = context.applier.apply(group, &resource, desired, &context.caches, &*context.clock).await;
            let (outcome, applied) = outcome_of(applied)?;
            (outcome, applied.and_then(|applied| applied.injection))
        }
        Err(invalid) => (Outcome::Invalid(invalid.to_string()), None),
    };
    let observed = status::observe(&resource, outcome, injection, &context.caches);
    let written = status::write(&context.client, &resource, valid.as_ref().ok(), &observed, &*context.clock).await;
    let written = written.map_err(Error::Status)?;
    publish(&resource, written.holder_identity.as_deref(), &observed.outcome, &context.metrics);
    forget_failures(&resource, &context);
    Ok(match observed.outcome {
        Outcome::Applied => Action::requeue(RESYNC + jitter(&resource)),
        Outcome::Invalid(_) => Action::await_change(),
        Outcome::Conflict(_) | Outcome::Forbidden(_) => Action::requeue(BLOCKED_RETRY),
    })
}

/// What a person must mend goes into the status; what time may mend is an error.
fn outcome_of(applied: Result<Applied, ApplyError>) -> Result<(Outcome, Option<Applied>), Error> {
    match applied {
        Ok(applied) => Ok((Outcome::Applied, Some(applied))),
        Err(error @ ApplyError::Conflict { .. }) => Ok((Outcome::Conflict(error.to_string()), None)),
        Err(error) => {
            let message = error.to_string();
            match error.code() {
                Some(403) => Ok((Outcome::Forbidden(message), None)),
                Some(422) => Ok((Outcome::Invalid(message), None)),
                _ => Err(error.into()),
            }
        }
    }
}

fn publish(resource: &ElectionGroup, holder: Option<&str>, outcome: &Outcome, metrics: &Metrics) {
    let name = format!("{}/{}", resource.namespace().unwrap_or_default(), resource.name_any());
    let before = resource.status.as_ref().and_then(|status| status.holder_identity.as_deref());
    if before != holder {
        metrics.leader_changed();
        match holder {
            Some(holder) => info!(group = name, "{holder} leads"),
            None => info!(group = name, "nobody leads"),
        }
    }
    let (label, why) = match outcome {
        Outcome::Applied => return metrics.count(ResultLabel::Applied),
        Outcome::Invalid(why) => (ResultLabel::Invalid, why),
        Outcome::Conflict(why) => (ResultLabel::Conflict, why),
        Outcome::Forbidden(why) => (ResultLabel::Forbidden, why),
    };
    metrics.count(label);
    let stalled =
        |condition: &Condition| condition.type_ == ConditionType::Stalled.as_str() && condition.message == *why;
    if !resource.status.as_ref().is_some_and(|status| status.conditions.iter().any(stalled)) {
        warn!(group = name, "{why}");
    }
}

/// Each group waits for itself: a poisonous one delays no other.
pub(super) fn on_error(resource: Arc<ElectionGroup>, error: &Error, context: Arc<Context>) -> Action {
    context.metrics.count(ResultLabel::Failed);
    let key = key_of(&resource);
    let mut failures = context.failures.lock().unwrap_or_else(PoisonError::into_inner);
    let count = failures.entry(key).or_default();
    let wait = (FIRST_BACKOFF * 2_u32.saturating_pow((*count).min(16))).min(LONGEST_BACKOFF);
    *count += 1;
    warn!(
        group = format!("{}/{}", resource.namespace().unwrap_or_default(), resource.name_any()),
        "{error}; next try in {:.1} s",
        wait.as_secs_f64()
    );
    Action::requeue(wait)
}

fn forget_failures(resource: &ElectionGroup, context: &Context) {
    context.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&key_of(resource));
}

fn key_of(resource: &ElectionGroup) -> (String, String) {
    (resource.namespace().unwrap_or_default(), resource.name_any())
}

/// Up to a fifth of the resync, by the group's uid, so that groups made together are not looked at together.
fn jitter(resource: &ElectionGroup) -> Duration {
    let uid = resource.uid().unwrap_or_default();
    let sum = uid.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    RESYNC / 5 * (sum % 1000) / 1000
}
