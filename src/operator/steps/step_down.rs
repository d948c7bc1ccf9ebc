//! Carries out step-downs: one that is requested by annotation, or else one that the operator itself intends.
//!
//! # Flow
//! 1. A user sets `k8sensus.dev/step-down-requested-at` on the ElectionGroup, or the operator has an intent: a rollout,
//!    an unhealthy leader, or (mode Sidecar) a leader whose pod is being deleted.
//! 2. The operator [decides](crate::group::judge::step_down) by its cache. If the leader has to step down, it reads the
//!    Lease and decides again.
//! 3. The operator writes onto the Lease, by a PUT at the version that it read: `k8sensus.dev/step-down-requested-at`
//!    (the value of the request, or the reason of the intent), `k8sensus.dev/step-down-of` (the term that has to end),
//!    `k8sensus.dev/step-down-to` (the successor, if one is named) and, for a trial of a new revision,
//!    `k8sensus.dev/trial`. After a conflict it reads and decides again.
//! 4. Modes Exec and Sidecar: the candidate whose term is named stops its program, then releases the Lease. Mode
//!    Native: the operator evicts the leader's pod, with the pod's uid as precondition; a PodDisruptionBudget may
//!    refuse that.
//! 5. The successor acquires the Lease; if one is named, other candidates hold back for 1 s. With its first write of
//!    the new term a candidate removes `step-down-to`; `step-down-of` stays, and no later term matches it.
//! 6. The Lease has no leader, or shows another term, so the next reconcile writes the reason of the change into the
//!    status and, for a request, `status.lastHandledStepDownAt`. The ElectionGroup keeps its annotation; a new value is
//!    a new request.
//!
//! # Interruptions
//! - The operator dies before step 3: the next one starts with step 2. A refusal is remembered only in memory; the next
//!   operator decides again.
//! - The operator dies after step 3: the Lease has the request and the term. The next operator waits while that term
//!   lasts, evicts if the pod of a Native leader is not being deleted yet, and continues with step 6 once the term is
//!   over. So one request ends one term at most.
//! - The leader dies before its release: the Lease expires, or is [released on proof](super::release). Its term ends
//!   either way, and step 5 follows.
//! - The successor dies: the other candidates acquire the Lease after 1 s.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, DynamicObject, EvictParams, Preconditions};
use kube::{Client, ResourceExt};
use tracing::{info, warn};

use crate::api::ElectionGroup;
use crate::api::names::{ChangeReason, annotation};
use crate::cache::view_of;
use crate::campaign::describe;
use crate::context::{Context, RETRY, remember};
use crate::group::Group;
use crate::group::judge::step_down::{Decision, Question, StepDown, decide};
use crate::group::judge::successor::StepDownIntent;
use crate::group::observed::Facts;
use crate::group::observed::lease::StepDownRequest;
use crate::group::observed::trial::Trial;
use crate::lease::{LeaseError, name_of};
use crate::name::qualified_name;
use crate::protocol::lease;

/// The delay before the operator's intent is decided again after a request, which has precedence.
const NEXT: Duration = Duration::from_secs(1);

/// A step-down that could not be carried out.
#[derive(Debug, thiserror::Error)]
enum StepDownError {
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(
        "lease {lease} does not show the request that was written onto it: an admission webhook may have removed it"
    )]
    Lost { lease: String },
    #[error("cannot evict pod {pod}: {}", describe(.source))]
    Eviction { pod: String, source: Box<kube::Error> },
}

/// The result of [`carry_out`].
pub(crate) struct Performed {
    /// The outcome, which the status reports.
    pub(crate) step_down: StepDown,
    /// The delay before the next try, where no event triggers it.
    pub(crate) wait: Option<Duration>,
}

/// Takes the next steps of the step-down that `resource` requests, or else of `intent`. Each outcome is reported once.
pub(crate) async fn carry_out(
    resource: &ElectionGroup,
    group: Option<&Group>,
    facts: &Facts,
    intent: Option<&StepDownIntent>,
    context: &Context,
) -> Performed {
    let performed = match next(resource, group, facts, intent, context).await {
        Ok(step_down @ StepDown::Done { .. }) => Performed { step_down, wait: intent.map(|_| NEXT) },
        Ok(step_down) => Performed { step_down, wait: None },
        Err(error) => {
            let value = resource.annotations().get(annotation::STEP_DOWN_REQUESTED_AT).cloned().unwrap_or_default();
            // No event reports that a PodDisruptionBudget permits an eviction.
            Performed { step_down: StepDown::Pending { value, why: error.to_string() }, wait: Some(RETRY) }
        }
    };
    report(resource, &performed.step_down, context);
    performed
}

/// Takes every step that is possible now.
async fn next(
    resource: &ElectionGroup,
    group: Option<&Group>,
    facts: &Facts,
    intent: Option<&StepDownIntent>,
    context: &Context,
) -> Result<StepDown, StepDownError> {
    let refused = remember(resource, context, |memory| memory.refused_step_down.clone()).flatten();
    let question = Question { refused: refused.as_ref(), ..Question::of(resource, group, facts, intent) };
    let refused_now = question.to_be_remembered();
    remember(resource, context, |memory| memory.refused_step_down = refused_now);
    let group = match (decide(&question), group) {
        (Decision::Rest(step_down), _) => return Ok(step_down),
        (Decision::Mark(_) | Decision::Evict { .. }, None) => return Ok(StepDown::None),
        (Decision::Mark(_) | Decision::Evict { .. }, Some(group)) => group,
    };
    // The cache may lag behind: it is decided again by the live Lease before the first write and before an eviction.
    let decide_by = |lease: Option<&DynamicObject>| {
        let view = lease.and_then(view_of);
        decide(&Question { lease: view.as_ref(), ..question })
    };
    let requested = |lease: &DynamicObject| match decide_by(Some(lease)) {
        Decision::Mark(request) => {
            Some(with_request(lease, &request, intent.and_then(|intent| intent.trial_of(&request))))
        }
        Decision::Rest(_) | Decision::Evict { .. } => None,
    };
    let changed = context.leases.change(group, requested).await?;
    match decide_by(changed.as_ref().map(|changed| &changed.lease)) {
        Decision::Rest(step_down) => Ok(step_down),
        Decision::Mark(_) => Err(StepDownError::Lost { lease: name_of(group) }),
        Decision::Evict { value, pod, uid } => {
            evict(&context.client, group, &pod, uid).await?;
            let evicted = format!("pod {}/{pod} was evicted", group.namespace);
            Ok(match intent.filter(|intent| intent.reason.as_str() == value) {
                Some(StepDownIntent { reason, of, why, .. }) => {
                    StepDown::Intended { reason: *reason, of: of.clone(), why: format!("{why}: {evicted}") }
                }
                None => StepDown::Carried { value, why: evicted },
            })
        }
    }
}

/// Returns `lease` with the request, which reaches only the term that this version of the Lease has.
fn with_request(lease: &DynamicObject, request: &StepDownRequest, trial: Option<&Trial>) -> DynamicObject {
    let mut lease = lease.clone();
    let annotations = lease.annotations_mut();
    if let Some(trial) = trial {
        annotations.insert(lease::TRIAL.to_owned(), trial.to_string());
    }
    annotations.insert(annotation::STEP_DOWN_REQUESTED_AT.to_owned(), request.value.clone());
    annotations.insert(lease::STEP_DOWN_OF.to_owned(), request.of.clone());
    match &request.to {
        Some(to) => annotations.insert(lease::STEP_DOWN_TO.to_owned(), to.clone()),
        None => annotations.remove(lease::STEP_DOWN_TO),
    };
    lease
}

/// Evicts a pod. A PodDisruptionBudget may refuse that.
async fn evict(client: &Client, group: &Group, pod: &str, uid: Option<String>) -> Result<(), StepDownError> {
    let preconditions = Preconditions { uid, resource_version: None };
    let options = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    let params = EvictParams { delete_options: Some(options), ..EvictParams::default() };
    match Api::<Pod>::namespaced(client.clone(), &group.namespace).evict(pod, &params).await {
        Ok(_) => Ok(()),
        // The pod is gone, or another pod has its name: the next reconcile shows it.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(source) => {
            Err(StepDownError::Eviction { pod: format!("{}/{pod}", group.namespace), source: Box::new(source) })
        }
    }
}

/// Records an Event and logs `step_down`, unless that was done before.
fn report(resource: &ElectionGroup, step_down: &StepDown, context: &Context) {
    // The status records a step-down that is done.
    let now = match step_down {
        StepDown::None | StepDown::Done { .. } => None,
        _ => Some(step_down.clone()),
    };
    let before = remember(resource, context, |memory| std::mem::replace(&mut memory.reported_step_down, now)).flatten();
    let Some((reason, why)) = step_down.event().filter(|_| before.as_ref() != Some(step_down)) else { return };
    context.events.record_step_down(resource, step_down);
    let group = qualified_name(resource);
    match step_down {
        StepDown::Pending { .. }
        | StepDown::Refused { .. }
        | StepDown::Intended { reason: ChangeReason::Unhealthy, .. } => warn!(group, "{reason}: {why}"),
        _ => info!(group, "{reason}: {why}"),
    }
}
