//! The pipeline of a reconcile: each step uses what the previous one produced.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use tracing::{info, warn};

use crate::api::{ConditionType, ElectionGroup, ElectionGroupStatus};
use crate::cache::RawGroup;
use crate::context::{Context, remember};
use crate::error::Error;
use crate::group::judge::candidate_update::Update;
use crate::group::observed::Outcome;
use crate::group::spec::injection;
use crate::group::status::InjectionRecord;
use crate::group::{Desired, Group, Observed};
use crate::name::qualified_name;
use crate::report::publish::{Metrics, ResultLabel};
use crate::report::status;
use crate::steps::apply::ApplyError;
use crate::steps::candidate_update;
use crate::steps::other_operator;
use crate::steps::other_operator::Ownership;
use crate::steps::pods;
use crate::steps::recreated::release_unawaited;
use crate::steps::release::release_of_dead;
use crate::steps::rollout::{self, TargetRevision};
use crate::steps::suspension;

/// The time between reconciles without a trigger, for changes that a watch may have missed.
const RESYNC: Duration = Duration::from_secs(300);
/// The delay before a conflict or a missing permission is checked again: no event reports that a foreign object is
/// gone.
const BLOCKED_RETRY: Duration = Duration::from_secs(10);
/// The delay before a child is applied again that the API server rejected as invalid.
const REFUSED_RETRY: Duration = Duration::from_secs(60);
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
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
    let (mut failed, mut target, mut suspended) = (None, TargetRevision::Unknown, None);
    let (outcome, injection) = match &valid {
        Ok(group) if group.paused => (Outcome::Applied, InjectionRecord::Keep),
        Ok(group) => {
            let recorded = resource.status.as_ref().and_then(|status| status.injection.as_ref());
            // Additions of a newer operator can only be kept while the Deployment has them.
            let recorded = recorded.filter(|it| !injection::is_newer(it) || context.applier.has_deployment(group));
            let desired = Desired::of(group, recorded, &context.offer.image);
            target = TargetRevision::of(&desired);
            suspended = suspension::annotate_suspended(&resource, group, &context).await;
            let applied = context.applier.apply(group, &resource, &desired, &*context.clock).await;
            // Recorded even if another child failed: otherwise the next version would replace the pods once more.
            let deployed = applied.is_ok() || context.applier.has_deployed(group, &desired);
            let injection = match desired.injection {
                _ if !deployed => InjectionRecord::Keep,
                Some(injection) => InjectionRecord::Set(injection),
                None => InjectionRecord::Remove,
            };
            match outcome_of(group, applied) {
                Ok(outcome) => (outcome, injection),
                Err(error) if resource.status.is_none() => return Err(error),
                Err(error) => {
                    // The status still reports the leader; the spec stays unobserved.
                    failed = Some(error);
                    (Outcome::Applied, injection)
                }
            }
        }
        Err(invalid) => (Outcome::Invalid(invalid.to_string()), InjectionRecord::Keep),
    };
    let release = proven_release.as_ref().ok().copied().flatten();
    let mut observed = status::observe(&resource, outcome, injection, release, &context.operator, &context.cache);
    observed.offer = Some(context.offer.clone());
    let update_wait = candidate_update::wait(&update);
    observed.update = update;
    let judged = rollout::judge(&resource, valid.as_ref().ok(), &target, &mut observed, &context).await;
    let step_down_wait =
        context.step_downs.carry_out(&resource, valid.as_ref().ok(), &mut observed, judged.intent.as_ref()).await;
    let written = write_status(&resource, valid.as_ref().ok(), &observed, failed.is_none(), &context).await?;
    if let Some(error) = failed {
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
        suspended,
        pods_wait,
        next_judgement,
        next,
        endpoints_wait,
        recreated_wait,
        update_wait,
    ];
    Ok(waits.into_iter().flatten().min().map_or_else(Action::await_change, Action::requeue))
}

/// The result of [`write_status`].
struct StatusWrite {
    /// The status as the API server stores it; `None` if it was not written.
    stored: Option<ElectionGroupStatus>,
    /// The time until the group is reconciled again for it.
    wait: Option<Duration>,
}

/// Writes the status if it changed. `is_complete`: whether everything that the spec requests was applied.
async fn write_status(
    resource: &ElectionGroup,
    valid: Option<&Group>,
    observed: &Observed,
    is_complete: bool,
    context: &Context,
) -> Result<StatusWrite, Error> {
    let mut new = status::of(resource, valid, observed, &*context.clock);
    if !is_complete {
        status::keep_generation(resource.status.as_ref(), &mut new);
    }
    if resource.status.as_ref() == Some(&new) {
        // A condition that persists counts as a repeated Event.
        context.events.record_changes(resource, &new, observed);
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
    context.events.record_changes(resource, &new, observed);
    log_leader(resource, new.holder_identity.as_deref(), &context.metrics);
    // The response may be the first to show another spec; the event that follows then triggers no reconcile.
    Ok(StatusWrite { stored, wait: changed.then_some(Duration::ZERO) })
}

/// Returns what the status reports of `applied`, for problems that a person has to solve. Other problems are errors,
/// which are retried.
fn outcome_of(group: &Group, applied: Result<(), ApplyError>) -> Result<Outcome, Error> {
    match applied {
        Ok(()) => Ok(Outcome::Applied),
        Err(error @ ApplyError::Conflict { .. }) => Ok(Outcome::Conflict(error.to_string())),
        Err(error) => {
            let message = error.to_string();
            match error.code() {
                Some(403) => Ok(Outcome::Forbidden(message)),
                Some(422) => Ok(Outcome::Invalid(error.explained(group))),
                _ => Err(error.into()),
            }
        }
    }
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

/// Counts the reconcile, and logs a problem that the status did not report before.
fn publish(resource: &ElectionGroup, outcome: &Outcome, metrics: &Metrics) {
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
        warn!(group = qualified_name(resource), "{why}");
    }
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
