//! The pipeline of a reconcile: each step uses what the previous one produced.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::controller::Action;
use tracing::warn;

use crate::api::{ElectionGroup, ElectionGroupStatus};
use crate::cache::RawGroup;
use crate::context::{Context, FIRST_BACKOFF, remember};
use crate::error::Error;
use crate::group::judge::Judgement;
use crate::group::judge::candidate_update::Update;
use crate::group::judge::proof::ProvenRelease;
use crate::group::observed::{Facts, Outcome};
use crate::group::{Findings, Group};
use crate::name::qualified_name;
use crate::report::publish::{ResultLabel, publish};
use crate::report::status;
use crate::report::status_write::write_status;
use crate::steps::children::Applied;
use crate::steps::other_operator::{self, Ownership};
use crate::steps::recreated::release_unawaited;
use crate::steps::release::{ReleaseError, release_of_dead};
use crate::steps::step_down::Performed;
use crate::steps::{candidate_update, children, pods, rollout, step_down};

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
    let released = release_leases(valid.as_ref().ok(), &context).await;
    let update = candidate_update::carry_out(&mut resource, valid.as_ref().ok(), &context).await?;
    if matches!(update, Update::Replace { .. }) {
        valid = Group::check(&resource);
    }
    let update_wait = candidate_update::wait(&update);
    let Applied { outcome, injection, target, suspension_wait, failed } =
        children::apply(&resource, &valid, &context).await?;
    let group = valid.as_ref().ok();
    let facts = status::facts(&resource, outcome, released.on_proof(), &context.cache);
    let judgement = rollout::judged(&resource, group, &target, &facts, &context);
    let Performed { step_down, wait: step_down_wait } = perform(&resource, group, &facts, &judgement, &context).await;
    let operator = Some(context.operator.clone());
    let offer = Some(context.offer.clone());
    let findings = Findings { facts, judgement, step_down, injection, operator, offer, update };
    let written = write_status(&resource, group, &findings, failed.is_none(), &context).await?;
    if let Some(error) = failed {
        return Err(error);
    }
    let outcome = &findings.facts.outcome;
    publish(&resource, outcome, &context.metrics);
    let follow_up_wait = match &written.stored {
        Some(stored) => follow_up(&resource, group, &findings.facts, stored, &context).await,
        None => None,
    };
    // Returned only now, so that a failure delays neither the children nor the status.
    let release_wait = released.wait()?;
    let endpoints_wait = followed?;
    remember(&resource, &context, |memory| {
        memory.failures = 0;
        memory.blocked = *outcome != Outcome::Applied;
    });
    let waits = [
        release_wait,
        update_wait,
        suspension_wait,
        findings.judgement.wait,
        step_down_wait,
        written.wait,
        follow_up_wait,
        endpoints_wait,
        next_resync(&resource, outcome, valid.is_ok()),
    ];
    Ok(waits.into_iter().flatten().min().map_or_else(Action::await_change, Action::requeue))
}

/// The results of [`release_leases`].
struct Released {
    on_proof: Result<Option<ProvenRelease>, ReleaseError>,
    recreated: Result<Option<Duration>, Error>,
}

impl Released {
    /// Returns the last release of a Lease whose holder was proven dead, if the present term follows from it.
    fn on_proof(&self) -> Option<ProvenRelease> {
        self.on_proof.as_ref().ok().copied().flatten()
    }

    /// Returns the time until the next check of a recreated Lease.
    fn wait(self) -> Result<Option<Duration>, Error> {
        self.on_proof?;
        self.recreated
    }
}

/// Releases the group's Lease if its holder is dead, or if it was recreated and no pod waits for a former leader.
async fn release_leases(group: Option<&Group>, context: &Context) -> Released {
    let Some(group) = group else { return Released { on_proof: Ok(None), recreated: Ok(None) } };
    Released {
        on_proof: release_of_dead(&context.leases, group, &context.cache, &*context.clock).await,
        recreated: release_unawaited(group, context).await,
    }
}

/// Writes what follows from `judgement` onto the Lease.
async fn perform(
    resource: &ElectionGroup,
    group: Option<&Group>,
    facts: &Facts,
    judgement: &Judgement,
    context: &Context,
) -> Performed {
    let retry = rollout::annotate_proven_revision(resource, group, &judgement.proven_revision, context).await;
    let Performed { step_down, wait } =
        step_down::carry_out(resource, group, facts, judgement.intent.as_ref(), context).await;
    Performed { step_down, wait: [retry, wait].into_iter().flatten().min() }
}

/// Does what has to wait until the API server has `stored` as the status. Returns the time until the next reconcile.
async fn follow_up(
    resource: &ElectionGroup,
    group: Option<&Group>,
    facts: &Facts,
    stored: &ElectionGroupStatus,
    context: &Context,
) -> Option<Duration> {
    let retry = pods::patch(resource, group, facts, stored, context).await;
    candidate_update::settle(resource, stored, context);
    let next = rollout::next_reconcile(resource, stored, facts, context);
    [retry, next].into_iter().flatten().min()
}

/// Returns the time until the group is reconciled although nothing has changed.
fn next_resync(resource: &ElectionGroup, outcome: &Outcome, is_valid: bool) -> Option<Duration> {
    match outcome {
        Outcome::Applied => Some(RESYNC + jitter(resource)),
        // An admission policy may have refused a child, and policies change.
        Outcome::Invalid(_) if is_valid => Some(REFUSED_RETRY),
        Outcome::Invalid(_) => None,
        Outcome::Conflict(_) | Outcome::Forbidden(_) => Some(BLOCKED_RETRY),
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
