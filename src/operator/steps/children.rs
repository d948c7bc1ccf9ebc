//! Applies the children of a group, unless its spec is invalid or the group is paused.

use std::time::Duration;

use super::apply::ApplyError;
use super::suspension;
use crate::api::ElectionGroup;
use crate::context::Context;
use crate::error::Error;
use crate::group::judge::rollout::TargetRevision;
use crate::group::observed::Outcome;
use crate::group::spec::injection;
use crate::group::status::InjectionRecord;
use crate::group::{Desired, Group, Invalid};

/// What became of the children.
pub(crate) struct Applied {
    pub(crate) outcome: Outcome,
    /// What the status records of the operator's additions to the pods.
    pub(crate) injection: InjectionRecord,
    /// The revision that the Deployment asks for now.
    pub(crate) target: TargetRevision,
    /// The delay before the write of annotation `k8sensus.dev/suspended` is retried, if it failed.
    pub(crate) suspension_wait: Option<Duration>,
    /// A request that failed. The status is still written, but the spec stays unobserved.
    pub(crate) failed: Option<Error>,
}

impl Applied {
    /// Nothing was applied.
    fn nothing(outcome: Outcome) -> Self {
        let (injection, target) = (InjectionRecord::Keep, TargetRevision::Unknown);
        Self { outcome, injection, target, suspension_wait: None, failed: None }
    }
}

/// Applies the children of `resource`, whose spec is `valid`.
///
/// # Errors
/// A request failed, and the group has no status yet that could report its leader.
pub(crate) async fn apply(
    resource: &ElectionGroup,
    valid: &Result<Group, Invalid>,
    context: &Context,
) -> Result<Applied, Error> {
    let group = match valid {
        Ok(group) if group.paused => return Ok(Applied::nothing(Outcome::Applied)),
        Ok(group) => group,
        Err(invalid) => return Ok(Applied::nothing(Outcome::Invalid(invalid.to_string()))),
    };
    let recorded = resource.status.as_ref().and_then(|status| status.injection.as_ref());
    // Additions of a newer operator can only be kept while the Deployment has them.
    let recorded = recorded.filter(|it| !injection::is_newer(it) || context.applier.has_deployment(group));
    let desired = Desired::of(group, recorded, &context.offer.image);
    let target = TargetRevision::of(&desired);
    let suspension_wait = suspension::annotate_suspended(resource, group, context).await;
    let applied = context.applier.apply(group, resource, &desired, &*context.clock).await;
    // Recorded even if another child failed: otherwise the next version would replace the pods once more.
    let deployed = applied.is_ok() || context.applier.has_deployed(group, &desired);
    let injection = match desired.injection {
        _ if !deployed => InjectionRecord::Keep,
        Some(injection) => InjectionRecord::Set(injection),
        None => InjectionRecord::Remove,
    };
    let (outcome, failed) = match outcome_of(group, applied) {
        Ok(outcome) => (outcome, None),
        Err(error) if resource.status.is_none() => return Err(error),
        Err(error) => (Outcome::Applied, Some(error)),
    };
    Ok(Applied { outcome, injection, target, suspension_wait, failed })
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
