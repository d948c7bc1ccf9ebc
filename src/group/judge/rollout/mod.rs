//! Whether a revision of the pod template has led well, so that its pods may replace those of the former one.
//!
//! Pods of modes Exec and Sidecar have a readiness gate. It is opened for a revision that is proven, and so a Deployment waits
//! with its rollout until then. The first pod of a new revision that stands by is handed leadership. Does its program work
//! there for `minReadySeconds`, and where the kubelet asks it for as long as it takes to fail its readiness probe besides, the
//! revision is proven; does it not, the former revision leads again, and the new one gets no
//! second try until the pod template changes.
//!
//! What was decided stands in the status, and what follows from it is done only once it stands there: whichever of its steps
//! an operator dies after, the next one goes on from there. Elections wait for nothing of this.

mod trials;

use std::time::Duration;

use super::successor::StepDownIntent;
use crate::api::names::{ChangeReason, label};
use crate::api::{ElectionGroupStatus, RolloutStatus};
use crate::group::desired::Desired;
use crate::group::observed::lease::{LeaseView, is_candidate};
use crate::group::observed::pod::{PodView, pod_of};
use crate::group::observed::program::Watch;
use crate::group::spec::group::Group;

/// The name of the revision of pods that were made before there were names.
pub const NAMELESS: &str = "";

/// What a program needs to be ready for beyond `minReadySeconds`: a break that was there may not have been reported yet.
const REPORTED: Duration = Duration::from_secs(1);
/// How long the kubelet may take to report why the program of a former leader ended, and the API server to show that a pod is
/// being deleted.
const EXPLAINED: Duration = Duration::from_secs(5);
/// How long a leader that is no pod of the new revision leads before it is asked once more.
const BETWEEN_TRIES: Duration = Duration::from_secs(30);
/// How long it takes until the pods of a lost node are evicted: 300 s unless they say otherwise, and some time until that is seen.
const UNTIL_EVICTED: Duration = Duration::from_secs(360);
/// How often a pod that is to lead may be forestalled, or give leadership back.
const TRIES: usize = 3;
/// How long a new leader may be not ready where the group sets no limit.
const LONGEST_UNREADY: Duration = Duration::from_secs(600);

/// All that the decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The group.
    pub group: &'a Group,
    /// The revision that the Deployment asks for.
    pub wanted: &'a str,
    /// The status as the API server has it.
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

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// How far the revision has got.
    pub status: RolloutStatus,
    /// The leader is to hand over.
    pub intent: Option<StepDownIntent>,
    /// What is waited for, as a sentence.
    pub waiting: Option<String>,
    /// When the next look is due, if nothing happens before.
    pub wait: Option<Duration>,
}

/// How far the wanted revision has got, and what is to be done for it.
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

/// The revision that the Deployment asks for; `None` if its pods have no readiness gate.
pub fn wanted(desired: &Desired) -> Option<&str> {
    desired.deployment["spec"]["template"]["metadata"]["labels"][label::REVISION].as_str()
}

/// Whether the gate of `pod` is closed and to be opened, given the revision that is proven by the status.
pub fn opens(pod: &PodView, proven: Option<&str>) -> bool {
    !pod.terminating && pod.proven == Some(false) && pod.template.is_some() && pod.template.as_deref() == proven
}

/// What to write into an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnotationChange<'a> {
    /// It is as it should be.
    Keep,
    /// Set it to this value.
    Set(&'a str),
    /// Remove it.
    Remove,
}

/// Returns the change of the Lease's annotation `k8sensus.dev/proven-revision`. While all pods are of one revision, the annotation
/// is not needed.
pub fn preferred<'a>(lease: &LeaseView, pods: &[PodView], proven: Option<&'a str>) -> AnnotationChange<'a> {
    let wanted = proven.filter(|proven| *proven != NAMELESS);
    let is_needed = lease.proven_revision.is_some() || pods.iter().any(|pod| pod.template.as_deref() != wanted);
    match wanted {
        _ if !is_needed || lease.proven_revision.as_deref() == wanted => AnnotationChange::Keep,
        Some(wanted) => AnnotationChange::Set(wanted),
        None => AnnotationChange::Remove,
    }
}

/// The revision that is proven by a status that the API server has.
pub fn proven_in(status: &ElectionGroupStatus) -> Option<&str> {
    status.rollout.as_ref()?.proven_revision.as_deref()
}

fn proven_to_be(revision: &str) -> RolloutStatus {
    RolloutStatus { proven_revision: Some(revision.to_owned()), ..RolloutStatus::default() }
}

impl<'a> Question<'a> {
    /// The revision that is taken for proven where nothing is known: that of the pods that are there. Where there are none, or
    /// only those that are wanted, there is no leader to protect.
    fn first_proven(&self) -> String {
        let mut former = self.pods.iter().filter(|pod| !self.is_wanted(pod) && !pod.terminating);
        let leader = self.leader().filter(|leader| !self.is_wanted(leader) && !leader.terminating);
        match leader.or_else(|| former.next()) {
            Some(pod) => pod.template.as_deref().unwrap_or(NAMELESS).to_owned(),
            None => self.wanted.to_owned(),
        }
    }

    fn is_wanted(&self, pod: &PodView) -> bool {
        pod.template.as_deref() == Some(self.wanted)
    }

    fn lease(&self) -> Option<&'a LeaseView> {
        self.lease.filter(|lease| !lease.expired && is_candidate(&lease.holder))
    }

    fn leader(&self) -> Option<&'a PodView> {
        pod_of(&self.lease()?.holder, self.pods)
    }

    /// Whether the status has the term that the Lease shows.
    fn status_has_term(&self) -> bool {
        let last = self.status.and_then(|status| status.history.first());
        last.zip(self.lease())
            .is_some_and(|(last, lease)| last.holder_identity == lease.holder && last.time == lease.acquire_time)
    }

    fn limit(&self) -> Duration {
        self.group.unhealthy_timeout.unwrap_or(LONGEST_UNREADY)
    }

    /// Whether a pod of the wanted revision leads, and there is none of the proven one to go back to: then it is judged anew.
    fn is_stranded(&self, proven: &str) -> bool {
        self.leader().is_some_and(|leader| self.is_wanted(leader)) && !self.returns_to(proven)
    }

    /// Whether a pod of the proven revision could lead again.
    fn returns_to(&self, proven: &str) -> bool {
        self.pods.iter().any(|pod| is_of(pod, proven) && pod.ready)
    }

    /// The wanted revision, neither proven nor failed as yet.
    fn evaluate(&self, status: RolloutStatus) -> Decision {
        let proven = status.proven_revision.clone().unwrap_or_default();
        let returns = self.returns_to(&proven);
        // Without a pod to go back to, a failure would only keep the group from ever getting ready.
        if let Some((pod, how)) = self.ended_term().filter(|_| returns) {
            if pod.trouble.is_some() || self.is_explained() {
                return self.fail(status, format!("{} {how}", pod.name), Some(pod));
            }
            let wait = self.watch.map(|watch| EXPLAINED.saturating_sub(self.age(watch)));
            let waiting = Some(format!("{} of revision {} {how}", pod.name, self.wanted));
            return Decision { status, waiting, wait, intent: None };
        }
        match (self.leader(), self.watch) {
            (Some(leader), Some(watch)) if self.is_wanted(leader) => self.judge(status, leader, watch, returns),
            (Some(leader), Some(_)) if !leader.terminating && leader.ignores_step_downs => {
                self.accept_without_trial(status)
            }
            (Some(leader), Some(watch)) if !leader.terminating => self.hand_over(status, leader, watch, returns),
            (Some(leader), None) if !leader.terminating && leader.template.is_none() => {
                self.accept_without_trial(status)
            }
            (Some(_), _) => self.waits(status, "the leader is about to end"),
            (None, _) => match self.lease() {
                Some(lease) => self.waits(
                    status,
                    &format!("{} leads and is no pod of this group: waits until that is ended", lease.holder),
                ),
                None => self.waits(status, "nobody leads"),
            },
        }
    }

    /// The leader is no candidate of ours, as after a change from mode Native, and cannot be asked to hand over: there is no
    /// trial, only a pod that is ready to lead.
    fn accept_without_trial(&self, status: RolloutStatus) -> Decision {
        if self.pods.iter().any(|pod| self.is_wanted(pod) && pod.containers_ready) {
            return Decision { status: proven_to_be(self.wanted), ..Decision::default() };
        }
        self.waits(status, "waits for a pod of it that is ready to lead")
    }

    fn waits(&self, status: RolloutStatus, what: &str) -> Decision {
        Decision { status, waiting: Some(format!("revision {}: {what}", self.wanted)), ..Decision::default() }
    }

    /// Whether the kubelet has had the time to say why the term before ended.
    fn is_explained(&self) -> bool {
        self.watch.is_some_and(|watch| self.age(watch) >= EXPLAINED)
    }

    fn age(&self, watch: &Watch) -> Duration {
        self.now.saturating_sub(watch.began)
    }

    /// A pod of the wanted revision leads.
    fn judge(&self, status: RolloutStatus, leader: &PodView, watch: &Watch, returns: bool) -> Decision {
        if leader.terminating || watch.ready.is_none() {
            // Its stop may take long, and what it does meanwhile says nothing of the revision.
            return self.waits(status, "the leader is about to end");
        }
        let name = &leader.name;
        let first_restarts = self.restarts_before(leader).unwrap_or(watch.first_restarts).min(watch.first_restarts);
        let has_ended = leader.restarts > first_restarts || leader.trouble.is_some();
        if has_ended && returns {
            return self.fail(status, format!("a container of {name} ended while it led"), Some(leader));
        }
        let stays = self.group.min_ready + self.group.until_unready;
        let needed = stays + REPORTED;
        let limit = self.limit() + if watch.is_starting() { self.group.start_up } else { Duration::ZERO };
        let longest = self.limit() + self.group.start_up + 2 * needed;
        let wait = match (watch.ready_for(self.now), watch.unready_for(self.now)) {
            (Some(ready), _) if ready >= needed && leader.trouble.is_none() => {
                return Decision { status: proven_to_be(self.wanted), ..Decision::default() };
            }
            (_, Some(unready)) if unready >= limit && returns => {
                let what = format!("the program of {name} was not ready within {} s of leading", limit.as_secs());
                return self.fail(status, what, Some(leader));
            }
            _ if self.age(watch) >= longest && returns => {
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
            Some(true) => format!("{name} leads and has to stay ready for {} s", stays.as_secs()),
            _ => format!("{name} leads and its program is not ready yet"),
        };
        Decision { wait, ..self.waits(status, &with_trouble(what, Some(leader))) }
    }

    /// A pod of another revision leads.
    fn hand_over(&self, status: RolloutStatus, leader: &PodView, watch: &Watch, returns: bool) -> Decision {
        let mut new: Vec<&PodView> = self.pods.iter().filter(|pod| self.is_wanted(pod) && !pod.terminating).collect();
        // A pod whose Lease ran out may be on a node that is lost: that shows only once its pods are evicted.
        let lost = |pod: &PodView| {
            self.ended_terms().any(|(other, reason)| other.name == pod.name && reason == ChangeReason::LeaseExpired)
        };
        new.sort_by_key(|pod| (!pod.containers_ready || pod.trouble.is_some(), lost(pod), pod.restarts, &pod.name));
        let Some(first) = new.first() else { return self.waits(status, "waits for its first pod") };
        if !self.status_has_term() {
            // How the term before ended is known only then.
            return self.waits(status, "waits until the status has the present leader");
        }
        if !first.containers_ready || first.trouble.is_some() {
            let troubled = new.iter().find(|pod| pod.trouble.is_some()).copied();
            return self
                .waits(status, &with_trouble("waits for a pod of it that is ready to lead".to_owned(), troubled));
        }
        if let Some(named) = self.bypassed_successor(leader) {
            // Candidates without a revision do not know that they are to stand back.
            let proven = status.proven_revision.as_deref().unwrap_or_default();
            if self.tries(proven) >= TRIES && leader.template.is_some() && returns {
                let what = format!("{} was to lead {TRIES} times and did not take the Lease", named.name);
                return self.fail(status, what, Some(named));
            }
            if self.unobserved_trials() >= TRIES && returns {
                let what = format!("{} was to lead {TRIES} times and lost the Lease each time at once", named.name);
                return self.fail(status, what, Some(named));
            }
        }
        let pause = if lost(first) { UNTIL_EVICTED } else { BETWEEN_TRIES };
        let wait = pause.saturating_sub(self.age(watch));
        if !wait.is_zero() && self.was_tried() {
            return Decision { wait: Some(wait), ..self.waits(status, "is about to be given leadership once more") };
        }
        let why = format!("{} is to hand over to {} of revision {}", leader.name, first.name, self.wanted);
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

    /// From a leader of the revision that has failed to one of the proven revision.
    fn hand_back(&self, proven: &str) -> Option<StepDownIntent> {
        let leader = self.leader().filter(|leader| self.is_wanted(leader) && !leader.terminating)?;
        let back = self.pods.iter().filter(|pod| is_of(pod, proven) && pod.ready);
        let back = back.min_by_key(|pod| (pod.restarts, &pod.name))?;
        let why =
            format!("{} is to hand over to {}, since revision {} has failed", leader.name, back.name, self.wanted);
        let of = self.watch.filter(|watch| watch.pod == leader.name)?.term.clone();
        Some(StepDownIntent { reason: ChangeReason::Rollout, of, to: Some(back.name.clone()), why, trial: None })
    }
}

/// Whether `pod` is of that revision.
fn is_of(pod: &PodView, revision: &str) -> bool {
    pod.template.as_deref().unwrap_or(NAMELESS) == revision
}

fn with_trouble(what: String, pod: Option<&PodView>) -> String {
    let words = |pod: &'_ PodView| pod.trouble.clone().or_else(|| pod.last_end.clone());
    match pod.and_then(|pod| Some((&pod.name, words(pod)?))) {
        Some((name, trouble)) => format!("{what}: pod {name}: {trouble}"),
        None => what,
    }
}
