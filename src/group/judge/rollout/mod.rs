//! Whether a revision of the pod template has led well, so that its pods may replace those of the former revision.
//!
//! Pods of modes Exec and Sidecar have a readiness gate, which the operator opens only for a proven revision. Until
//! then the Deployment's rollout waits.
//!
//! 1. Leadership is handed over to the first standby of the new revision: its trial.
//! 2. If its program stays ready for `minReadySeconds`, the revision is proven. Where the kubelet probes the program,
//!    the time in which its readiness probe can fail is added.
//! 3. Otherwise the former revision leads again. The new revision gets no second trial until the pod template changes.
//!
//! Every decision is written to the status before anything is done about it, so an operator that restarts after any of
//! these steps continues from there. Elections never wait for any of this.

mod trials;

use std::time::Duration;

use super::successor::StepDownIntent;
use crate::api::names::{ChangeReason, label};
use crate::api::{ElectionGroupStatus, RolloutStatus};
use crate::desired::Desired;
use crate::observed::lease::{LeaseView, is_candidate};
use crate::observed::pod::{PodView, pod_of};
use crate::observed::program::Watch;
use crate::spec::group::Group;

/// The revision of pods without a revision label.
pub const NAMELESS: &str = "";

/// How much longer than `minReadySeconds` a program must stay ready: a break may not have been reported yet.
const REPORT_DELAY: Duration = Duration::from_secs(1);
/// How long it may take until the kubelet reports why the program of a former leader ended, and until the API server
/// shows that a pod is being deleted.
const EXPLANATION_DELAY: Duration = Duration::from_secs(5);
/// How long a leader of another revision leads before it is asked to hand over again.
const BETWEEN_TRIES: Duration = Duration::from_secs(30);
/// How long it takes until the pods of a lost node are evicted: 300 s by default, and some time until that is observed.
const UNTIL_EVICTED: Duration = Duration::from_secs(360);
/// How often another pod may lead in place of a requested successor, and how often a leader on trial may release the
/// Lease.
const TRIES: usize = 3;
/// How long a new leader may be unready where the group sets no limit.
const LONGEST_UNREADY: Duration = Duration::from_secs(600);

/// The revision of the pod template that the Deployment should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetRevision {
    /// The pods are left as they are: the rollout in the status stays.
    Unknown,
    /// The pods have no readiness gate: there is no trial.
    None,
    /// The name of the revision.
    Revision(String),
}

impl TargetRevision {
    /// Returns the target of `desired`.
    pub fn of(desired: &Desired) -> Self {
        if desired.keeps_pods {
            return Self::Unknown;
        }
        let labels = &desired.deployment["spec"]["template"]["metadata"]["labels"];
        labels[label::REVISION].as_str().map_or(Self::None, |revision| Self::Revision(revision.to_owned()))
    }
}

/// The inputs of the decision.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The group.
    pub group: &'a Group,
    /// The revision of the Deployment's pod template.
    pub wanted: &'a str,
    /// The status as stored by the API server.
    pub status: Option<&'a ElectionGroupStatus>,
    /// The Lease, if there is one.
    pub lease: Option<&'a LeaseView>,
    /// The group's pods.
    pub pods: &'a [PodView],
    /// The leader's program.
    pub watch: Option<&'a Watch>,
    /// Time since boot.
    pub now: Duration,
}

/// The decision about the rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The progress of the revision.
    pub status: RolloutStatus,
    /// The handover of the leader, if it must hand over.
    pub intent: Option<StepDownIntent>,
    /// What the rollout waits for, as a sentence.
    pub waiting: Option<String>,
    /// When to reconcile again, if nothing changes before.
    pub wait: Option<Duration>,
}

/// Decides what to do about the wanted revision.
pub fn decide(question: &Question<'_>) -> Decision {
    let before = question.status.and_then(|status| status.rollout.clone()).unwrap_or_default();
    let proven = before.proven_revision.clone().unwrap_or_else(|| question.first_proven());
    let failed = before.failed_revision.as_deref() == Some(question.wanted);
    if proven == question.wanted {
        Decision { status: proven_to_be(question.wanted), ..Decision::default() }
    } else if failed && !question.is_stranded(&proven) {
        Decision { intent: question.hand_back(&proven), status: before, ..Decision::default() }
    } else {
        let status = RolloutStatus { proven_revision: Some(proven), ..RolloutStatus::default() };
        question.evaluate(status)
    }
}

/// Whether to open the readiness gate of `pod`. `proven` is the proven revision of the status.
pub fn opens(pod: &PodView, proven: Option<&str>) -> bool {
    !pod.terminating && pod.proven == Some(false) && pod.revision.is_some() && pod.revision.as_deref() == proven
}

/// The change of an annotation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AnnotationChange {
    /// It is up to date, or its value is not known yet.
    #[default]
    Keep,
    /// Set it to this value.
    Set(String),
    /// Remove it.
    Remove,
}

/// Returns the change of the Lease's annotation `k8sensus.dev/proven-revision`. While all pods are of one revision, the
/// annotation is not needed.
pub fn preferred(lease: &LeaseView, pods: &[PodView], proven: Option<&str>) -> AnnotationChange {
    let wanted = proven.filter(|proven| *proven != NAMELESS);
    let is_needed = lease.proven_revision.is_some() || pods.iter().any(|pod| pod.revision.as_deref() != wanted);
    match wanted {
        _ if !is_needed || lease.proven_revision.as_deref() == wanted => AnnotationChange::Keep,
        Some(wanted) => AnnotationChange::Set(wanted.to_owned()),
        None => AnnotationChange::Remove,
    }
}

/// Returns the proven revision of a status that the API server has stored.
pub fn proven_in(status: &ElectionGroupStatus) -> Option<&str> {
    status.rollout.as_ref()?.proven_revision.as_deref()
}

fn proven_to_be(revision: &str) -> RolloutStatus {
    RolloutStatus { proven_revision: Some(revision.to_owned()), ..RolloutStatus::default() }
}

impl<'a> Question<'a> {
    /// Returns the revision that counts as proven where the status has none: that of the existing pods. If there are no
    /// other pods than those of the wanted revision, there is no leader to protect.
    fn first_proven(&self) -> String {
        let mut former = self.pods.iter().filter(|pod| !self.is_wanted(pod) && !pod.terminating);
        let leader = self.leader().filter(|leader| !self.is_wanted(leader) && !leader.terminating);
        match leader.or_else(|| former.next()) {
            Some(pod) => pod.revision.as_deref().unwrap_or(NAMELESS).to_owned(),
            None => self.wanted.to_owned(),
        }
    }

    fn is_wanted(&self, pod: &PodView) -> bool {
        pod.revision.as_deref() == Some(self.wanted)
    }

    fn lease(&self) -> Option<&'a LeaseView> {
        self.lease.filter(|lease| !lease.expired && is_candidate(&lease.holder))
    }

    fn leader(&self) -> Option<&'a PodView> {
        pod_of(&self.lease()?.holder, self.pods)
    }

    /// Whether the history of the status has the current term of the Lease.
    fn status_has_term(&self) -> bool {
        let last = self.status.and_then(|status| status.history.first());
        last.zip(self.lease())
            .is_some_and(|(last, lease)| last.holder_identity == lease.holder && last.time == lease.acquire_time)
    }

    fn limit(&self) -> Duration {
        self.group.unhealthy_timeout.unwrap_or(LONGEST_UNREADY)
    }

    /// Whether a pod of the wanted revision leads and no pod of the proven revision could lead again. The revision is
    /// then evaluated again.
    fn is_stranded(&self, proven: &str) -> bool {
        self.leader().is_some_and(|leader| self.is_wanted(leader)) && !self.can_return_to(proven)
    }

    /// Whether a pod of the proven revision could lead again.
    fn can_return_to(&self, proven: &str) -> bool {
        self.pods.iter().any(|pod| is_of(pod, proven) && pod.ready)
    }

    /// Decides about the wanted revision while it is neither proven nor failed.
    fn evaluate(&self, status: RolloutStatus) -> Decision {
        let proven = status.proven_revision.clone().unwrap_or_default();
        let can_return = self.can_return_to(&proven);
        // Without a pod of the proven revision, a failed revision would only keep the group from ever becoming Ready.
        if let Some((pod, how)) = self.ended_term().filter(|_| can_return) {
            if pod.trouble.is_some() || self.is_explained() {
                return self.fail(status, format!("{} {how}", pod.name), Some(pod));
            }
            let wait = self.watch.map(|watch| EXPLANATION_DELAY.saturating_sub(self.age(watch)));
            let waiting = Some(format!("{} of revision {} {how}", pod.name, self.wanted));
            return Decision { status, waiting, wait, intent: None };
        }
        match (self.leader(), self.watch) {
            (Some(leader), Some(watch)) if self.is_wanted(leader) => self.judge(status, leader, watch, can_return),
            (Some(leader), Some(_)) if !leader.terminating && leader.ignores_step_downs => {
                self.accept_without_trial(status)
            }
            (Some(leader), Some(watch)) if !leader.terminating => self.hand_over(status, leader, watch, can_return),
            (Some(leader), None) if !leader.terminating && leader.revision.is_none() => {
                self.accept_without_trial(status)
            }
            (Some(_), _) => self.waits(status, "the leader is about to stop"),
            (None, _) => match self.lease() {
                Some(lease) => self.waits(
                    status,
                    &format!("{} leads but is not a pod of this group: waits until it is stopped", lease.holder),
                ),
                None => self.waits(status, "there is no leader"),
            },
        }
    }

    /// Accepts the wanted revision once one of its pods is ready to lead. There is no trial, because the leader has no
    /// candidate of ours, as after a change from mode Native, and cannot be asked to hand over.
    fn accept_without_trial(&self, status: RolloutStatus) -> Decision {
        if self.pods.iter().any(|pod| self.is_wanted(pod) && pod.containers_ready) {
            return Decision { status: proven_to_be(self.wanted), ..Decision::default() };
        }
        self.waits(status, "waits for one of its pods to become ready to lead")
    }

    fn waits(&self, status: RolloutStatus, what: &str) -> Decision {
        Decision { status, waiting: Some(format!("revision {}: {what}", self.wanted)), ..Decision::default() }
    }

    /// Whether the kubelet has had enough time to report why the former term ended.
    fn is_explained(&self) -> bool {
        self.watch.is_some_and(|watch| self.age(watch) >= EXPLANATION_DELAY)
    }

    fn age(&self, watch: &Watch) -> Duration {
        self.now.saturating_sub(watch.began)
    }

    /// Judges the trial of a leader of the wanted revision.
    fn judge(&self, status: RolloutStatus, leader: &PodView, watch: &Watch, can_return: bool) -> Decision {
        if leader.terminating || watch.ready.is_none() {
            // Stopping may take long, and says nothing about the revision.
            return self.waits(status, "the leader is about to stop");
        }
        let name = &leader.name;
        let first_restarts = self.restarts_before(leader).unwrap_or(watch.first_restarts).min(watch.first_restarts);
        let has_ended = leader.restarts > first_restarts || leader.trouble.is_some();
        if has_ended && can_return {
            return self.fail(status, format!("a container of {name} ended while it led"), Some(leader));
        }
        let required = self.group.min_ready + self.group.until_unready;
        let needed = required + REPORT_DELAY;
        let limit = self.limit() + if watch.is_starting() { self.group.start_up } else { Duration::ZERO };
        let longest = self.limit() + self.group.start_up + 2 * needed;
        let wait = match (watch.ready_for(self.now), watch.unready_for(self.now)) {
            (Some(ready), _) if ready >= needed && leader.trouble.is_none() => {
                return Decision { status: proven_to_be(self.wanted), ..Decision::default() };
            }
            (_, Some(unready)) if unready >= limit && can_return => {
                let what = format!("the program of {name} was not ready within {} s of leading", limit.as_secs());
                return self.fail(status, what, Some(leader));
            }
            _ if self.age(watch) >= longest && can_return => {
                let what = format!(
                    "the program of {name} led for {} s and was never ready for {} s without a break",
                    longest.as_secs(),
                    needed.as_secs()
                );
                return self.fail(status, what, Some(leader));
            }
            (Some(ready), _) => needed.checked_sub(ready).filter(|wait| !wait.is_zero()),
            (_, Some(unready)) => limit.checked_sub(unready).filter(|wait| !wait.is_zero()),
            (None, None) => None,
        };
        let what = match watch.ready {
            Some(true) => format!("{name} leads and must stay ready for {} s", required.as_secs()),
            _ => format!("{name} leads and its program is not ready yet"),
        };
        Decision { wait, ..self.waits(status, &with_trouble(what, Some(leader))) }
    }

    /// Hands leadership over to a pod of the wanted revision, from a leader of another revision.
    fn hand_over(&self, status: RolloutStatus, leader: &PodView, watch: &Watch, can_return: bool) -> Decision {
        let mut new: Vec<&PodView> = self.pods.iter().filter(|pod| self.is_wanted(pod) && !pod.terminating).collect();
        // A pod whose Lease expired may be on a lost node, whose pods are evicted only later.
        let is_lost = |pod: &PodView| {
            self.ended_terms().any(|(other, reason)| other.name == pod.name && reason == ChangeReason::LeaseExpired)
        };
        new.sort_by_key(|pod| (!pod.containers_ready || pod.trouble.is_some(), is_lost(pod), pod.restarts, &pod.name));
        let Some(first) = new.first() else { return self.waits(status, "waits for its first pod") };
        if !self.status_has_term() {
            // Only then is it known how the former term ended.
            return self.waits(status, "waits until the status records the current leader");
        }
        if !first.containers_ready || first.trouble.is_some() {
            let troubled = new.iter().find(|pod| pod.trouble.is_some()).copied();
            let what = "waits for one of its pods to become ready to lead".to_owned();
            return self.waits(status, &with_trouble(what, troubled));
        }
        if let Some(named) = self.bypassed_successor(leader) {
            // Candidates without a revision do not know that they must hold back.
            let proven = status.proven_revision.as_deref().unwrap_or_default();
            if self.tries(proven) >= TRIES && leader.revision.is_some() && can_return {
                let what = format!("{} was asked to lead {TRIES} times and did not acquire the Lease", named.name);
                return self.fail(status, what, Some(named));
            }
            if self.unobserved_trials() >= TRIES && can_return {
                let what = format!("{} was asked to lead {TRIES} times and lost the Lease immediately", named.name);
                return self.fail(status, what, Some(named));
            }
        }
        let pause = if is_lost(first) { UNTIL_EVICTED } else { BETWEEN_TRIES };
        let wait = pause.saturating_sub(self.age(watch));
        if !wait.is_zero() && self.was_tried() {
            return Decision { wait: Some(wait), ..self.waits(status, "is about to be asked to lead again") };
        }
        let why = format!("{} must hand over to {} of revision {}", leader.name, first.name, self.wanted);
        let intent = StepDownIntent {
            reason: ChangeReason::Rollout,
            of: watch.term.clone(),
            to: Some(first.name.clone()),
            why: why.clone(),
            trial: Some(self.trial_of(first)),
        };
        Decision { intent: Some(intent), ..self.waits(status, &why) }
    }

    fn fail(&self, status: RolloutStatus, what: String, pod: Option<&PodView>) -> Decision {
        let message = Some(with_trouble(what, pod));
        let status = RolloutStatus { failed_revision: Some(self.wanted.to_owned()), message, ..status };
        Decision { status, ..Decision::default() }
    }

    /// Returns the handover from a leader of the failed revision to a pod of the proven revision.
    fn hand_back(&self, proven: &str) -> Option<StepDownIntent> {
        let leader = self.leader().filter(|leader| self.is_wanted(leader) && !leader.terminating)?;
        let back = self.pods.iter().filter(|pod| is_of(pod, proven) && pod.ready);
        let back = back.min_by_key(|pod| (pod.restarts, &pod.name))?;
        let why =
            format!("{} must hand over to {}, because revision {} has failed", leader.name, back.name, self.wanted);
        let of = self.watch.filter(|watch| watch.pod == leader.name)?.term.clone();
        Some(StepDownIntent { reason: ChangeReason::Rollout, of, to: Some(back.name.clone()), why, trial: None })
    }
}

/// Whether `pod` is of that revision.
fn is_of(pod: &PodView, revision: &str) -> bool {
    pod.revision.as_deref().unwrap_or(NAMELESS) == revision
}

fn with_trouble(what: String, pod: Option<&PodView>) -> String {
    let trouble = |pod: &'_ PodView| pod.trouble.clone().or_else(|| pod.last_end.clone());
    match pod.and_then(|pod| Some((&pod.name, trouble(pod)?))) {
        Some((name, trouble)) => format!("{what}: pod {name}: {trouble}"),
        None => what,
    }
}
