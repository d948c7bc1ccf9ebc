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

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, DynamicObject, EvictParams, PostParams, Preconditions};
use kube::core::ApiResource;
use kube::{Client, ResourceExt};
use tracing::{info, warn};

use crate::api::ElectionGroup;
use crate::api::names::{ChangeReason, FIELD_MANAGER, annotation};
use crate::cache::{Cache, Memory, controller_of, view_of};
use crate::campaign::describe;
use crate::group::judge::step_down::{Decision, Question, StepDown, decide};
use crate::group::judge::successor::StepDownIntent;
use crate::group::observed::lease::LeaseView;
use crate::group::observed::lease::StepDownRequest;
use crate::group::observed::trial::Trial;
use crate::group::{Group, Observed};
use crate::name::qualified_name;
use crate::protocol::lease;
use crate::report::events::Recorder;

/// The delay before a failed request is retried: no event reports that a PodDisruptionBudget permits an eviction.
const RETRY: Duration = Duration::from_secs(10);
/// The delay before the operator's intent is decided again after a request, which has precedence.
const NEXT: Duration = Duration::from_secs(1);
/// How often the Lease is read and written. A renewal of the leader may come between, but hardly so often.
const TRIES: usize = 5;

/// The executor of step-downs. It reports each of them once.
pub(crate) struct StepDowns {
    client: Client,
    events: Recorder,
    cache: Cache,
}

impl StepDowns {
    pub(crate) fn new(client: Client, events: Recorder, cache: Cache) -> Self {
        Self { client, events, cache }
    }

    /// Takes the next steps of the step-down that `resource` requests, or else of `intent`, and sets
    /// `observed.step_down` to the result. Returns the delay before the next try, where no event triggers it.
    pub(crate) async fn carry_out(
        &self,
        resource: &ElectionGroup,
        group: Option<&Group>,
        observed: &mut Observed,
        intent: Option<&StepDownIntent>,
    ) -> Option<Duration> {
        let (step_down, retry) = match self.next(resource, group, observed, intent).await {
            Ok(step_down @ StepDown::Done { .. }) => (step_down, intent.map(|_| NEXT)),
            Ok(step_down) => (step_down, None),
            Err(why) => {
                let value = resource.annotations().get(annotation::STEP_DOWN_REQUESTED_AT).cloned().unwrap_or_default();
                (StepDown::Pending { value, why }, Some(RETRY))
            }
        };
        self.report(resource, &step_down);
        observed.step_down = step_down;
        retry
    }

    /// Takes every step that is possible now.
    ///
    /// # Errors
    /// The text names the request that failed, and the cause.
    async fn next(
        &self,
        resource: &ElectionGroup,
        group: Option<&Group>,
        observed: &Observed,
        intent: Option<&StepDownIntent>,
    ) -> Result<StepDown, String> {
        let refused = self.remember(resource, |memory| memory.refused_step_down.clone()).flatten();
        let question =
            Question { refused: refused.as_ref(), ..Question::of(resource, group, observed.facts(), intent) };
        let refused_now = question.to_be_remembered();
        self.remember(resource, |memory| memory.refused_step_down = refused_now);
        let mut live: Option<DynamicObject> = None;
        let mut view: Option<Option<LeaseView>> = None;
        for _ in 0..TRIES {
            let lease = view.as_ref().map_or(question.lease, Option::as_ref);
            let decision = decide(&Question { lease, ..question });
            let (group, request) = match (decision, group) {
                (Decision::Rest(step_down), _) => return Ok(step_down),
                (Decision::Mark(request), Some(group)) => (group, Some(request)),
                (Decision::Evict { .. }, Some(group)) if view.is_none() => (group, None),
                (Decision::Evict { value, pod, uid }, Some(group)) => {
                    self.evict(group, &pod, uid).await?;
                    let evicted = format!("pod {}/{pod} was evicted", group.namespace);
                    return Ok(match intent.filter(|intent| intent.reason.as_str() == value) {
                        Some(StepDownIntent { reason, of, why, .. }) => {
                            StepDown::Intended { reason: *reason, of: of.clone(), why: format!("{why}: {evicted}") }
                        }
                        None => StepDown::Carried { value, why: evicted },
                    });
                }
                (Decision::Mark(_) | Decision::Evict { .. }, None) => return Ok(StepDown::None),
            };
            // The cache may lag behind: the Lease is read before the first write and before an eviction.
            live = match (live.take(), request) {
                (Some(lease), Some(request)) => {
                    let trial = intent.and_then(|intent| intent.trial_of(&request));
                    self.write_request(group, lease, &request, trial).await?
                }
                _ => self.read(group).await?,
            };
            view = Some(live.as_ref().and_then(view_of));
        }
        let lease = group.map(lease_of).unwrap_or_default();
        Err(format!("{lease} was changed by other clients at each of {TRIES} attempts to write the request"))
    }

    /// Sets `annotation` of the Lease to what `value` returns for the live Lease, or removes it. Returns the Lease
    /// after that, `None` if there is none.
    ///
    /// # Errors
    /// The text names the request that failed, and the cause.
    pub(crate) async fn annotate(
        &self,
        group: &Group,
        annotation: &str,
        value: impl Fn(&DynamicObject) -> Option<String>,
    ) -> Result<Option<DynamicObject>, String> {
        for _ in 0..TRIES {
            let Some(mut lease) = self.read(group).await? else { return Ok(None) };
            let wanted = value(&lease);
            if lease.annotations().get(annotation) == wanted.as_ref() {
                return Ok(Some(lease));
            }
            let annotations = lease.annotations_mut();
            match wanted {
                Some(wanted) => annotations.insert(annotation.to_owned(), wanted),
                None => annotations.remove(annotation),
            };
            if let Some(lease) = self.replace(group, &lease).await? {
                return Ok(Some(lease));
            }
        }
        Err(format!("{} was changed by other clients at each of {TRIES} attempts to write onto it", lease_of(group)))
    }

    fn leases(&self, group: &Group) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &group.namespace, &ApiResource::erase::<Lease>(&()))
    }

    /// Reads the Lease. Returns `None` if there is none that the group controls.
    async fn read(&self, group: &Group) -> Result<Option<DynamicObject>, String> {
        let read = self.leases(group).get_opt(&group.lease_name).await;
        let lease = read.map_err(|error| format!("cannot get {}: {}", lease_of(group), describe(&error)))?;
        Ok(lease.filter(|lease| controller_of(lease) == Some(&group.uid)))
    }

    /// Writes the request by a PUT at the version that was read, so that it reaches only the term that was read.
    /// Returns the Lease after that, or the live Lease after a conflict.
    async fn write_request(
        &self,
        group: &Group,
        mut lease: DynamicObject,
        request: &StepDownRequest,
        trial: Option<&Trial>,
    ) -> Result<Option<DynamicObject>, String> {
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
        match self.replace(group, &lease).await? {
            Some(lease) => Ok(Some(lease)),
            None => self.read(group).await,
        }
    }

    /// Sends a PUT at the version of `lease`. Returns `None` if the Lease has changed or is gone.
    async fn replace(&self, group: &Group, lease: &DynamicObject) -> Result<Option<DynamicObject>, String> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.leases(group).replace(&group.lease_name, &params, lease).await {
            Ok(lease) => Ok(Some(lease)),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
            Err(error) => Err(format!("cannot update {}: {}", lease_of(group), describe(&error))),
        }
    }

    /// Evicts a pod. A PodDisruptionBudget may refuse that.
    async fn evict(&self, group: &Group, pod: &str, uid: Option<String>) -> Result<(), String> {
        let preconditions = Preconditions { uid, resource_version: None };
        let options = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let params = EvictParams { delete_options: Some(options), ..EvictParams::default() };
        match Api::<Pod>::namespaced(self.client.clone(), &group.namespace).evict(pod, &params).await {
            Ok(_) => Ok(()),
            // The pod is gone, or another pod has its name: the next reconcile shows it.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(format!("cannot evict pod {}/{pod}: {}", group.namespace, describe(&error))),
        }
    }

    /// Changes the operator's memory of the group. Returns `None` if the group is gone.
    fn remember<T>(&self, resource: &ElectionGroup, change: impl FnOnce(&mut Memory) -> T) -> Option<T> {
        self.cache.remember(&resource.namespace().unwrap_or_default(), &resource.name_any(), change)
    }

    /// Records an Event and logs `step_down`, unless that was done before.
    fn report(&self, resource: &ElectionGroup, step_down: &StepDown) {
        // The status records a step-down that is done.
        let now = match step_down {
            StepDown::None | StepDown::Done { .. } => None,
            _ => Some(step_down.clone()),
        };
        let before = self.remember(resource, |memory| std::mem::replace(&mut memory.reported_step_down, now)).flatten();
        let Some((reason, why)) = step_down.event().filter(|_| before.as_ref() != Some(step_down)) else { return };
        self.events.record_step_down(resource, step_down);
        let group = qualified_name(resource);
        match step_down {
            StepDown::Pending { .. }
            | StepDown::Refused { .. }
            | StepDown::Intended { reason: ChangeReason::Unhealthy, .. } => warn!(group, "{reason}: {why}"),
            _ => info!(group, "{reason}: {why}"),
        }
    }
}

fn lease_of(group: &Group) -> String {
    format!("lease {}/{}", group.namespace, group.lease_name)
}
