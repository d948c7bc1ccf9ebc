//! Carries a step-down to the leader: one that was asked for by annotation, or one that the operator wishes itself.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, DynamicObject, EvictParams, PostParams, Preconditions};
use kube::core::ApiResource;
use kube::{Client, ResourceExt};
use tracing::{info, warn};

use crate::api::ElectionGroup;
use crate::api::names::{ChangeReason, FIELD_MANAGER, annotation};
use crate::campaign::describe;
use crate::group::judge::step_down::{Decision, Question, StepDown, decide};
use crate::group::judge::successor::StepDownIntent;
use crate::group::observed::lease::LeaseView;
use crate::group::observed::lease::StepDownRequest;
use crate::group::observed::trial::Trial;
use crate::group::{Group, Observed};
use crate::operator::cache::{Cache, Memory, controller_of, view_of};
use crate::operator::name::qualified_name;
use crate::operator::report::events::Recorder;
use crate::protocol::lease;

/// How soon a request that the API server refused is tried again: nothing tells when a budget permits an eviction.
const RETRY: Duration = Duration::from_secs(10);
/// How soon the operator's own intent is looked at again that had to stand back behind a request.
const NEXT: Duration = Duration::from_secs(1);
/// The leader renews meanwhile, so the Lease may change between a read and a write; hardly so often.
const TRIES: usize = 5;

/// Carries step-downs out, and reports each of them once.
pub(in crate::operator) struct StepDowns {
    client: Client,
    events: Recorder,
    cache: Cache,
}

impl StepDowns {
    pub(in crate::operator) fn new(client: Client, events: Recorder, cache: Cache) -> Self {
        Self { client, events, cache }
    }

    /// Takes the next steps towards what `resource` asks for, or else towards `wish`, and writes into `observed` what became of
    /// it. Returns how soon it is to be tried again, if nothing else will tell.
    pub(in crate::operator) async fn carry_out(
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

    /// As far as it gets now. An error says which request failed, and why.
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
            let (group, asked) = match (decision, group) {
                (Decision::Rest(step_down), _) => return Ok(step_down),
                (Decision::Mark(asked), Some(group)) => (group, Some(asked)),
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
            // What the watch showed may be out of date: whoever is to go is looked at right before.
            live = match (live.take(), asked) {
                (Some(lease), Some(asked)) => {
                    let trial = intent.and_then(|intent| intent.trial_of(&asked));
                    self.mark(group, lease, &asked, trial).await?
                }
                _ => self.read(group).await?,
            };
            view = Some(live.as_ref().and_then(view_of));
        }
        let lease = group.map(lease_of).unwrap_or_default();
        Err(format!("{lease} was changed by others at each of {TRIES} tries to write the request onto it"))
    }

    /// Lets the Lease carry under `annotation` what `value` says for it as it is now. Returns it as it is then; `None` if there is
    /// none.
    ///
    /// # Errors
    /// Says which request failed, and why.
    pub(in crate::operator) async fn annotate(
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
        Err(format!("{} was changed by others at each of {TRIES} tries to write onto it", lease_of(group)))
    }

    fn leases(&self, group: &Group) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &group.namespace, &ApiResource::erase::<Lease>(&()))
    }

    /// The group's Lease as it is now.
    async fn read(&self, group: &Group) -> Result<Option<DynamicObject>, String> {
        let read = self.leases(group).get_opt(&group.lease_name).await;
        let lease = read.map_err(|error| format!("cannot get {}: {}", lease_of(group), describe(&error)))?;
        Ok(lease.filter(|lease| controller_of(lease) == Some(&group.uid)))
    }

    /// A PUT at the version that was read: the mark is for the term that was seen, or not written. Returns the Lease as it is
    /// then.
    async fn mark(
        &self,
        group: &Group,
        mut lease: DynamicObject,
        asked: &StepDownRequest,
        trial: Option<&Trial>,
    ) -> Result<Option<DynamicObject>, String> {
        let annotations = lease.annotations_mut();
        if let Some(trial) = trial {
            annotations.insert(lease::TRIAL.to_owned(), trial.to_string());
        }
        annotations.insert(annotation::STEP_DOWN_REQUESTED_AT.to_owned(), asked.value.clone());
        annotations.insert(lease::STEP_DOWN_OF.to_owned(), asked.of.clone());
        match &asked.to {
            Some(to) => annotations.insert(lease::STEP_DOWN_TO.to_owned(), to.clone()),
            None => annotations.remove(lease::STEP_DOWN_TO),
        };
        match self.replace(group, &lease).await? {
            Some(lease) => Ok(Some(lease)),
            None => self.read(group).await,
        }
    }

    /// A PUT at the version of `lease`; `None` if there is another version by now, or none.
    async fn replace(&self, group: &Group, lease: &DynamicObject) -> Result<Option<DynamicObject>, String> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.leases(group).replace(&group.lease_name, &params, lease).await {
            Ok(lease) => Ok(Some(lease)),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
            Err(error) => Err(format!("cannot update {}: {}", lease_of(group), describe(&error))),
        }
    }

    /// Asks for the eviction of a pod, with all that a PodDisruptionBudget may have against it.
    async fn evict(&self, group: &Group, pod: &str, uid: Option<String>) -> Result<(), String> {
        let preconditions = Preconditions { uid, resource_version: None };
        let options = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let params = EvictParams { delete_options: Some(options), ..EvictParams::default() };
        match Api::<Pod>::namespaced(self.client.clone(), &group.namespace).evict(pod, &params).await {
            Ok(_) => Ok(()),
            // Gone, or another pod by now: the next look shows it.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(format!("cannot evict pod {}/{pod}: {}", group.namespace, describe(&error))),
        }
    }

    /// Changes what is remembered of the group, for as long as it is there.
    fn remember<T>(&self, resource: &ElectionGroup, change: impl FnOnce(&mut Memory) -> T) -> Option<T> {
        self.cache.remember(&resource.namespace().unwrap_or_default(), &resource.name_any(), change)
    }

    fn report(&self, resource: &ElectionGroup, step_down: &StepDown) {
        // Once it is done, the status has it.
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
