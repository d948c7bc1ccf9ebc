//! The pipeline of a reconcile: each step uses what the previous one produced.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::controller::Action;
use tracing::warn;

use crate::cache::RawGroup;
use crate::context::{Context, FIRST_BACKOFF, remember};
use crate::error::Error;
use crate::group::Group;
use crate::group::judge::candidate_update::Update;
use crate::group::observed::Outcome;
use crate::name::qualified_name;
use crate::report::publish::{ResultLabel, publish};
use crate::report::status;
use crate::report::status_write::write_status;
use crate::steps::other_operator::{self, Ownership};
use crate::steps::recreated::release_unawaited;
use crate::steps::release::release_of_dead;
use crate::steps::{candidate_update, children, pods, rollout};

/// The time between reconciles without a trigger, for changes that a watch may have missed.
const RESYNC: Duration = Duration::from_secs(300);
/// The delay before a conflict or a missing permission is checked again: no event reports that a foreign object is
/// gone.
const BLOCKED_RETRY: Duration = Duration::from_secs(10);
/// The delay before a child is applied again that the API server rejected as invalid.
const REFUSED_RETRY: Duration = Duration::from_secs(60);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// Reconciles one group and returns when the next reconcile is due.
///
/// # Errors
/// A request failed. The next try continues from what the API server stores by then.
pub(super) async fn reconcile(raw: Arc<RawGroup>, context: Arc<Context>) -> Result<Action, Error> {
    let (mut resource, readable) = raw.read();
    if resource.metadata.deletion_timestamp.is_some() {
        // The garbage collector deletes the children by their owner references.
        return Ok(Action::await_change());
    }
    if let Ownership::Left(wait) = other_operator::ownership(&resource, &context).await {
        context.metrics.count(ResultLabel::Conflict);
        return Ok(Action::requeue(wait));
    }
    let mut valid = readable.and_then(|()| Group::check(&resource));
    // First of all: clients of the leader Service wait for nothing else.
    let followed = context.applier.follow(&resource, valid.as_ref().ok(), &*context.clock).await;
    let proven_release = match &valid {
        Ok(group) => release_of_dead(&context.client, group, &context.cache, &*context.clock).await,
        Err(_) => Ok(None),
    };
    let recreated = match &valid {
        Ok(group) => release_unawaited(&context.client, group, &context.cache, &*context.clock).await,
        Err(_) => Ok(None),
    };
    let update = candidate_update::carry_out(&mut resource, valid.as_ref().ok(), &context).await?;
    if matches!(update, Update::Replace { .. }) {
        valid = Group::check(&resource);
    }
    let applied = children::apply(&resource, &valid, &context).await?;
    let release = proven_release.as_ref().ok().copied().flatten();
    let mut observed =
        status::observe(&resource, applied.outcome, applied.injection, release, &context.operator, &context.cache);
    observed.offer = Some(context.offer.clone());
    let update_wait = candidate_update::wait(&update);
    observed.update = update;
    let judged = rollout::judge(&resource, valid.as_ref().ok(), &applied.target, &mut observed, &context).await;
    let step_down_wait =
        context.step_downs.carry_out(&resource, valid.as_ref().ok(), &mut observed, judged.intent.as_ref()).await;
    let written = write_status(&resource, valid.as_ref().ok(), &observed, applied.failed.is_none(), &context).await?;
    if let Some(error) = applied.failed {
        return Err(error);
    }
    publish(&resource, &observed.outcome, &context.metrics);
    let pods_wait = match &written.stored {
        Some(stored) => pods::patch(&resource, valid.as_ref().ok(), &observed, stored, &context).await,
        None => None,
    };
    written.stored.iter().for_each(|stored| candidate_update::settle(&resource, stored, &context));
    let next_judgement =
        written.stored.as_ref().and_then(|stored| rollout::next_reconcile(&resource, stored, &observed, &context));
    // Returned only now, so that a failure delays neither the children nor the status.
    proven_release?;
    let recreated_wait = recreated?;
    let endpoints_wait = followed?;
    let next = match observed.outcome {
        Outcome::Applied => Some(RESYNC + jitter(&resource)),
        // An admission policy may have refused a child, and policies change.
        Outcome::Invalid(_) if valid.is_ok() => Some(REFUSED_RETRY),
        Outcome::Invalid(_) => None,
        Outcome::Conflict(_) | Outcome::Forbidden(_) => Some(BLOCKED_RETRY),
    };
    remember(&resource, &context, |memory| {
        memory.failures = 0;
        memory.blocked = observed.outcome != Outcome::Applied;
    });
    let waits = [
        written.wait,
        judged.wait,
        step_down_wait,
        applied.suspension_wait,
        pods_wait,
        next_judgement,
        next,
        endpoints_wait,
        recreated_wait,
        update_wait,
    ];
    Ok(waits.into_iter().flatten().min().map_or_else(Action::await_change, Action::requeue))
}

/// Returns the backoff after `error`. Each group has its own, so that a failing group delays no other.
pub(super) fn on_error(raw: Arc<RawGroup>, error: &Error, context: Arc<Context>) -> Action {
    context.metrics.count(ResultLabel::Failed);
    let failures = context.cache.remember(&raw.namespace().unwrap_or_default(), &raw.name_any(), |memory| {
        memory.failures += 1;
        memory.failures
    });
    let doublings = failures.unwrap_or(1).saturating_sub(1).min(16);
    let wait = (FIRST_BACKOFF * 2_u32.saturating_pow(doublings)).min(LONGEST_BACKOFF);
    warn!(group = qualified_name(&*raw), "{error}; next try in {:.1} s", wait.as_secs_f64());
    // Groups that failed together are not retried together.
    Action::requeue(wait + jitter(&*raw) * wait.as_millis().try_into().unwrap_or(0) / 60_000)
}

/// Returns up to a fifth of [`RESYNC`], by the group's uid, so that groups created together are not reconciled
/// together.
fn jitter(resource: &impl ResourceExt) -> Duration {
    let uid = resource.uid().unwrap_or_default();
    let sum = uid.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    RESYNC / 5 * (sum % 1000) / 1000
}
