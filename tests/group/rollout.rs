//! The rollout of a revision of the pod template, from its first pod to all pods, or its failure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::ToSpan;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8sensus_api::names::ChangeReason;
use k8sensus_api::{ConditionType, ElectionGroup, RolloutStatus};
use k8sensus_group::judge::rollout::{AnnotationChange, NAMELESS, TargetRevision, opens};
use k8sensus_group::judge::step_down::{Decision, Question, decide};
use k8sensus_group::judge::{self, Judgement};
use k8sensus_group::observed::lease::StepDownRequest;
use k8sensus_group::observed::lease::{Ended, LeaseView};
use k8sensus_group::observed::pod::PodView;
use k8sensus_group::observed::program::Watch;
use k8sensus_group::observed::{DeploymentView, EndedBy, Facts};
use k8sensus_group::{Desired, Findings, Group};
use proptest::prelude::*;

use super::status::condition;
use super::{CANDIDATE_IMAGE, MINIMAL, NATIVE, with};

const SPEC: &str = "{ minReadySeconds: 10, candidate: { unhealthyTimeoutSeconds: 30 } }";

/// A group, its candidates and one operator, second by second. Whether a program works depends on its revision.
#[derive(Clone)]
struct World {
    resource: ElectionGroup,
    group: Group,
    wanted: String,
    pods: Vec<PodView>,
    lease: LeaseView,
    watch: Option<Watch>,
    second: u64,
    /// Revisions whose program never becomes ready.
    broken: BTreeSet<String>,
    /// The step-downs that were requested, newest last.
    requests: Vec<StepDownRequest>,
    waiting: Option<String>,
    /// How long the current leader has led with its program ready.
    proof: u64,
    /// Revisions whose programs were ready on a leader for long enough, and those that need no proof.
    provable: BTreeSet<String>,
    made: u32,
}

impl World {
    /// Returns a world with `number` pods of that revision. The first one leads, and its program works.
    fn led(number: u32, revision: &str) -> Self {
        let mut world = Self::bare(revision);
        world.provable.insert(revision.to_owned());
        (0..number).for_each(|_| drop(world.start(revision)));
        world.elect("p1", None);
        world.run(30);
        assert_eq!(world.rollout(), proven(revision));
        world.requests.clear();
        world
    }

    fn bare(revision: &str) -> Self {
        let resource = with(MINIMAL, SPEC);
        Self {
            group: Group::check(&resource).unwrap(),
            resource,
            wanted: revision.to_owned(),
            pods: Vec::new(),
            lease: LeaseView { released: true, ..LeaseView::default() },
            watch: None,
            second: 0,
            broken: BTreeSet::new(),
            requests: Vec::new(),
            waiting: None,
            proof: 0,
            provable: BTreeSet::new(),
            made: 0,
        }
    }

    /// Adds a standby.
    fn start(&mut self, revision: &str) -> String {
        self.made += 1;
        let name = format!("p{}", self.made);
        let named = revision != NAMELESS;
        self.pods.push(PodView {
            name: name.clone(),
            uid: Some(format!("uid-{name}")),
            revision: named.then(|| revision.to_owned()),
            proven: named.then_some(false),
            reports_readiness: named,
            ready: !named,
            containers_ready: true,
            ..PodView::default()
        });
        name
    }

    fn pod(&mut self, name: &str) -> &mut PodView {
        self.pods.iter_mut().find(|pod| pod.name == name).unwrap()
    }

    fn time(&self) -> jiff::Timestamp {
        let noon: jiff::Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        noon + i64::try_from(self.second).unwrap().seconds()
    }

    fn elect(&mut self, name: &str, how: Option<ChangeReason>) {
        let incarnation = format!("uid-{name}/app/{:016x}", self.lease.transitions);
        let request = self.lease.step_down_request.clone();
        self.lease = LeaseView {
            holder: name.to_owned(),
            acquire_time: Some(MicroTime(self.time())),
            transitions: self.lease.transitions + 1,
            former: how.map(|reason| Ended { reason, since: None }),
            incarnation: Some(incarnation),
            // A candidate that acquires the Lease removes the successor of the former term.
            step_down_request: request.map(|request| StepDownRequest { to: None, ..request }),
            proven_revision: self.lease.proven_revision.clone(),
            trial: self.lease.trial.clone(),
            ..LeaseView::default()
        };
        self.proof = 0;
    }

    /// Lets the named successor acquire the free Lease, or else preferably a pod of the revision on the Lease.
    fn elect_next(&mut self, how: ChangeReason) {
        let former = self.lease.holder.clone();
        let named = self.lease.step_down_request.as_ref().filter(|request| Some(request.of.clone()) == self.term());
        let named = named.and_then(|request| request.to.clone());
        let mut able: Vec<&PodView> =
            self.pods.iter().filter(|pod| pod.containers_ready && !pod.terminating && pod.name != former).collect();
        able.sort_by_key(|pod| (Some(&pod.name) != named.as_ref(), pod.revision != self.lease.proven_revision));
        match able.first().map(|pod| pod.name.clone()) {
            Some(next) => self.elect(&next, Some(how)),
            None if self.pods.iter().any(|pod| pod.name == former && !pod.terminating) => {
                self.elect(&former, Some(how));
            }
            None => {
                self.lease = LeaseView { holder: String::new(), released: true, ready: false, ..self.lease.clone() };
            }
        }
    }

    fn term(&self) -> Option<String> {
        let incarnation = self.lease.incarnation.as_ref().filter(|_| !self.lease.holder.is_empty())?;
        Some(format!("{}/{incarnation}", self.lease.transitions))
    }

    fn leader(&self) -> Option<&PodView> {
        self.pods.iter().find(|pod| pod.name == self.lease.holder)
    }

    fn leads(&self) -> &str {
        &self.lease.holder
    }

    /// Ends the leader's program. The kubelet restarts it a second later.
    fn crash(&mut self, trouble: &str) {
        let holder = self.lease.holder.clone();
        let pod = self.pod(&holder);
        (pod.trouble, pod.restarts) = (Some(trouble.to_owned()), pod.restarts + 1);
        self.elect_next(ChangeReason::LeaseReleased);
        self.reconcile();
    }

    fn delete(&mut self, name: &str) {
        self.pods.retain(|pod| pod.name != name);
        if self.lease.holder == name {
            self.elect_next(ChangeReason::LeaseReleased);
        }
        self.reconcile();
    }

    /// Reconciles until the operator has nothing more to write.
    fn reconcile(&mut self) {
        for turn in 0.. {
            assert!(turn < 10, "the operator does not come to rest");
            if !self.reconcile_once() {
                return;
            }
        }
    }

    /// Reconciles once. Returns whether it must reconcile again at once.
    fn reconcile_once(&mut self) -> bool {
        // A kubelet never reports a pod as Ready whose containers are not ready.
        for pod in &mut self.pods {
            pod.ready &= pod.containers_ready;
        }
        let now = Duration::from_secs(self.second);
        self.watch = Watch::observe(self.watch.as_ref(), self.group.mode, Some(&self.lease), &self.pods, now);
        let before = self.resource.status.clone();
        let known = before.clone().unwrap_or_default();
        let request = self.lease.step_down_request.as_ref();
        let deployment = DeploymentView { replicas: 2, ready: 2, updated: 2, observed: true, ..Default::default() };
        let facts = Facts {
            deployment: Some(deployment),
            lease: Some(self.lease.clone()),
            pods: self.pods.clone(),
            ended: request.and_then(|request| EndedBy::of_term(&known, request.transitions()?, request.reason())),
            ..Facts::default()
        };
        let judgement = judge::judge(&judge::Question {
            group: Some(&self.group),
            status: before.as_ref(),
            target: &TargetRevision::Revision(self.wanted.clone()),
            facts: &facts,
            watch: self.watch.as_ref(),
            now,
        });
        self.check(&judgement);
        self.waiting.clone_from(&judgement.waiting);
        match &judgement.proven_revision {
            AnnotationChange::Keep => {}
            AnnotationChange::Set(revision) => self.lease.proven_revision = Some(revision.clone()),
            AnnotationChange::Remove => self.lease.proven_revision = None,
        }
        let intent = judgement.intent.as_ref();
        if let Decision::Mark(request) = decide(&Question::of(&self.resource, Some(&self.group), &facts, intent)) {
            self.requests.push(request.clone());
            if let Some(trial) = intent.and_then(|intent| intent.trial_of(&request)) {
                self.lease.trial = Some(trial.clone());
            }
            self.lease.step_down_request = Some(request);
        }
        let findings = Findings { facts, judgement, ..Findings::default() };
        let new = k8sensus_group::status::status(&self.resource, Some(&self.group), &findings, &Time(self.time()));
        let is_new = before.as_ref() != Some(&new);
        let open = proven_in(&new.rollout).map(str::to_owned);
        for pod in self.pods.iter_mut().filter(|pod| opens(pod, open.as_deref())) {
            assert!(self.provable.contains(pod.revision.as_ref().unwrap()), "the gate of {pod:?} is opened");
            pod.proven = Some(true);
        }
        for pod in self.pods.iter_mut().filter(|pod| pod.proven.is_some()) {
            pod.ready = pod.containers_ready && pod.proven == Some(true) && !pod.terminating;
        }
        self.resource.status = Some(new);
        is_new
    }

    /// Checks the invariants of every decision.
    fn check(&self, judgement: &Judgement) {
        let failed = judgement.rollout.as_ref().and_then(|rollout| rollout.failed_revision.as_deref());
        if let Some(intent) = &judgement.intent {
            let to = intent.to.as_deref().expect("a successor");
            let to = self.pods.iter().find(|pod| pod.name == to).expect("a pod that exists");
            // Where no pod of the proven revision is left, an unhealthy leader hands over to a pod of its own revision.
            let is_rollout = intent.reason == ChangeReason::Rollout;
            assert!(
                !is_rollout || failed.is_none() || to.revision.as_deref() != failed,
                "the failed revision is asked to lead again: {intent:?}"
            );
            assert!(to.containers_ready && !to.terminating, "{to:?} is asked to lead");
            assert_eq!(Some(&intent.of), self.term().as_ref());
        }
        if let (Some(now), Some(then)) = (
            judgement.rollout.as_ref().and_then(|rollout| rollout.proven_revision.as_ref()),
            self.resource.status.as_ref().and_then(|status| proven_in(&status.rollout)),
        ) {
            assert!(now == then || self.provable.contains(now), "{now} was never proven");
        }
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.tick();
        }
    }

    /// Simulates one second: candidates act on the Lease, programs become ready, the operator reconciles.
    fn tick(&mut self) {
        self.second += 1;
        if let Some(term) = self.term() {
            match &self.lease.step_down_request {
                Some(request) if request.of == term => self.elect_next(ChangeReason::LeaseReleased),
                _ => {
                    let works = self
                        .leader()
                        .is_some_and(|leader| !self.broken.contains(leader.revision.as_deref().unwrap_or("")));
                    self.lease.ready = works;
                    self.proof = if works { self.proof + 1 } else { 0 };
                }
            }
        } else if let Some(next) = self.pods.iter().find(|pod| pod.containers_ready && !pod.terminating) {
            let next = next.name.clone();
            self.elect(&next, None);
        }
        self.reconcile();
        if self.proof >= 10
            && let Some(revision) = self.leader().and_then(|leader| leader.revision.clone())
        {
            self.provable.insert(revision);
        }
    }

    fn rollout(&self) -> RolloutStatus {
        self.resource.status.as_ref().unwrap().rollout.clone().unwrap()
    }

    fn failed(&self) -> Option<String> {
        let rollout = self.rollout();
        rollout.failed_revision.map(|revision| format!("{revision}: {}", rollout.message.unwrap()))
    }

    fn condition(&self, kind: ConditionType) -> String {
        let condition = condition(self.resource.status.as_ref().unwrap(), kind);
        condition.map_or_else(String::new, |it| format!("{}: {}", it.reason, it.message))
    }

    /// Returns the requested handovers as (successor, reason).
    fn handovers(&self) -> Vec<(&str, &str)> {
        self.requests.iter().map(|request| (request.to.as_deref().unwrap_or("-"), request.value.as_str())).collect()
    }
}

fn proven(revision: &str) -> RolloutStatus {
    RolloutStatus { proven_revision: Some(revision.to_owned()), ..RolloutStatus::default() }
}

fn proven_in(rollout: &Option<RolloutStatus>) -> Option<&str> {
    rollout.as_ref()?.proven_revision.as_deref()
}

#[test]
fn first_revision_needs_no_proof() {
    let mut world = World::bare("a");
    world.provable.insert("a".to_owned());
    world.reconcile();
    assert_eq!(world.rollout(), proven("a"));
    world.start("a");
    world.reconcile();
    assert!(world.pods[0].ready, "there is no leader to protect");
    assert_eq!(world.lease.proven_revision, None, "not needed while all pods have the same revision");
}

#[test]
fn working_revision_takes_over_with_one_handover() {
    let mut world = World::led(5, "a");
    world.wanted = "b".to_owned();
    world.reconcile();
    assert_eq!(world.condition(ConditionType::Reconciling), "RollingOut: revision b: waits for its first pod");
    let first = world.start("b");
    world.reconcile();
    assert_eq!(world.handovers(), [("p6", "Rollout")]);
    assert_eq!(world.lease.proven_revision.as_deref(), Some("a"));
    world.run(2);
    assert_eq!(world.leads(), first);
    let expected = "RollingOut: revision b: p6 leads and must stay ready for 10 s";
    assert_eq!(world.condition(ConditionType::Reconciling), expected);
    assert_eq!(world.rollout(), proven("a"));
    world.run(9);
    assert_eq!(world.rollout(), proven("a"), "not before its time");
    world.run(5);
    assert_eq!(world.rollout(), proven("b"));
    assert_eq!(world.lease.proven_revision.as_deref(), Some("b"));
    assert!(world.pod("p6").ready);
    // The Deployment continues its rollout: there are no more handovers.
    for number in 1..=5 {
        world.start("b");
        world.delete(&format!("p{number}"));
        world.run(20);
    }
    assert_eq!((world.leads(), world.handovers().len()), ("p6", 1));
    assert_eq!(world.resource.status.as_ref().unwrap().history[0].reason.as_deref(), Some("Rollout"));
    assert!(world.pods.iter().all(|pod| pod.ready));
}

#[test]
fn crashing_revision_hands_back_and_gets_no_second_trial() {
    let mut world = World::led(2, "a");
    world.wanted = "b".to_owned();
    world.start("b");
    world.run(3);
    assert_eq!(world.leads(), "p3");
    world.crash("container app exited with code 3: no such table");
    assert_eq!(world.leads(), "p1", "by election: the Lease has the proven revision");
    world.run(1);
    let why = "b: p3 led and its program ended: pod p3: container app exited with code 3: no such table";
    assert_eq!(world.failed().as_deref(), Some(why));
    let stalled = world.condition(ConditionType::Stalled);
    assert!(
        stalled
            .starts_with(&format!("RevisionFailed: revision {}", why.replacen(':', " of the pod template failed:", 1))),
        "{stalled}"
    );
    assert_eq!(world.condition(ConditionType::Reconciling), "");
    world.pod("p3").trouble = None;
    world.run(600);
    assert_eq!((world.leads(), world.handovers().len()), ("p1", 1));
    assert!(!world.pod("p3").ready && world.pod("p1").ready);
}

#[test]
fn slow_stop_of_a_leader_on_trial_is_no_failure() {
    let stopping: [fn(&mut World); 2] = [
        |world| {
            let pod = world.pod("p3");
            (pod.terminating, pod.containers_ready, pod.restarts) = (true, false, 1);
        },
        |world| {
            let of = world.term().unwrap();
            world.lease.step_down_request = Some(StepDownRequest { value: "now".to_owned(), of, to: None });
        },
    ];
    for stop in stopping {
        let mut world = World::led(2, "a");
        world.wanted = "b".to_owned();
        world.start("b");
        world.run(3);
        assert_eq!(world.leads(), "p3");
        stop(&mut world);
        for _ in 0..60 {
            world.second += 1;
            world.reconcile();
            assert_eq!(world.failed(), None, "after {} s", world.second);
        }
        assert_eq!(world.condition(ConditionType::Reconciling), "RollingOut: revision b: the leader is about to stop");
    }
}

#[test]
fn wait_for_the_kubelets_explanation_of_a_crash_is_bounded() {
    let mut world = World::led(2, "a");
    world.wanted = "b".to_owned();
    world.start("b");
    world.run(3);
    world.crash("");
    world.pod("p3").trouble = None;
    world.resource.status.as_mut().unwrap().rollout = Some(proven("a"));
    world.reconcile();
    assert_eq!(world.failed(), None);
    assert_eq!(world.condition(ConditionType::Reconciling), "RollingOut: p3 of revision b led and its program ended");
    world.run(4);
    assert_eq!((world.failed(), world.handovers().len()), (None, 1));
    world.run(2);
    assert_eq!(world.failed().as_deref(), Some("b: p3 led and its program ended"));
}

#[test]
fn program_that_never_becomes_ready_hands_back() {
    let mut world = World::led(2, "a");
    world.broken.insert("b".to_owned());
    world.wanted = "b".to_owned();
    world.start("b");
    world.run(3);
    world.pod("p3").trouble = None;
    assert_eq!(world.leads(), "p3");
    world.run(26);
    assert_eq!((world.leads(), world.failed()), ("p3", None));
    world.run(5);
    assert_eq!(world.failed().as_deref(), Some("b: the program of p3 was not ready within 30 s of leading"));
    assert_eq!(world.leads(), "p1");
    assert_eq!(world.handovers(), [("p3", "Rollout"), ("p1", "Rollout")]);
    world.run(600);
    assert_eq!((world.leads(), world.handovers().len()), ("p1", 2));
    // After a rollback nothing has changed; if it is wanted again, it is tried again.
    world.wanted = "a".to_owned();
    world.reconcile();
    assert_eq!(world.rollout(), proven("a"));
    world.delete("p3");
    world.wanted = "b".to_owned();
    world.broken.clear();
    world.start("b");
    world.run(30);
    assert_eq!(world.rollout(), proven("b"));
}

#[test]
fn container_restart_while_its_sidecar_leads_is_a_failure() {
    let mut world = World::led(2, "a");
    world.wanted = "b".to_owned();
    world.start("b");
    world.run(8);
    assert_eq!(world.leads(), "p3");
    // Too short for an unready program to be observed.
    world.pod("p3").restarts += 1;
    world.run(2);
    assert_eq!(world.failed().as_deref(), Some("b: a container of p3 ended while it led"));
    assert_eq!(world.leads(), "p1");
}

#[test]
fn pod_that_never_becomes_ready_is_reported_without_a_handover() {
    let mut world = World::led(2, "a");
    world.wanted = "b".to_owned();
    let new = world.start("b");
    let pod = world.pod(&new);
    (pod.containers_ready, pod.trouble) = (false, Some("container app: ImagePullBackOff: no such image".to_owned()));
    world.run(900);
    assert_eq!((world.leads(), world.handovers()), ("p1", vec![]));
    let expected = "RollingOut: revision b: waits for one of its pods to become ready to lead: pod p3: container app: \
                ImagePullBackOff: no such image";
    assert_eq!(world.condition(ConditionType::Reconciling), expected);
    let pod = world.pod(&new);
    (pod.containers_ready, pod.trouble) = (true, None);
    world.run(20);
    assert_eq!(world.rollout(), proven("b"));
}

#[test]
fn leader_outside_the_group_is_named() {
    let mut world = World::led(2, "a");
    world.wanted = "b".to_owned();
    world.start("b");
    (world.lease.holder, world.lease.incarnation) = ("stork".to_owned(), None);
    world.reconcile();
    let expected = "RollingOut: revision b: stork leads but is not a pod of this group: waits until it is stopped";
    assert_eq!((world.condition(ConditionType::Reconciling).as_str(), world.handovers()), (expected, vec![]));
    world.lease.holder = String::new();
    world.reconcile();
    assert_eq!(world.condition(ConditionType::Reconciling), "RollingOut: revision b: there is no leader");
}

#[test]
fn externally_lost_pod_is_no_failure() {
    let mut world = World::led(2, "a");
    world.wanted = "b".to_owned();
    world.start("b");
    world.run(5);
    world.delete("p3");
    world.run(2);
    assert_eq!((world.leads(), world.failed()), ("p1", None));
    world.start("b");
    world.run(20);
    assert_eq!((world.leads(), world.rollout()), ("p4", proven("b")));
    assert_eq!(world.handovers(), [("p3", "Rollout"), ("p4", "Rollout")]);

    // A node that is cut off: the Lease expires, the pod stays, and nothing shows a failure.
    let mut world = World::led(2, "a");
    world.wanted = "b".to_owned();
    world.start("b");
    world.run(5);
    world.elect_next(ChangeReason::LeaseExpired);
    world.run(300);
    assert_eq!((world.leads(), world.failed()), ("p1", None), "its pod still seems healthy");
    let mut other = world.clone();
    world.run(100);
    assert_eq!((world.leads(), world.rollout()), ("p3", proven("b")), "it is back");
    other.start("b");
    other.run(20);
    assert_eq!((other.leads(), other.rollout()), ("p4", proven("b")));
}

#[test]
fn new_operator_continues_where_the_former_stopped() {
    for at in 0..25 {
        let mut world = World::led(2, "a");
        world.wanted = "b".to_owned();
        world.start("b");
        for second in 0..60 {
            if second == at {
                world.watch = None;
            }
            world.tick();
        }
        assert_eq!((world.leads(), world.rollout()), ("p3", proven("b")), "{at}");
        assert_eq!(world.handovers().len(), 1, "{at}");
    }
}

#[test]
fn without_a_former_pod_the_revision_is_proven_and_never_fails() {
    let mut world = World::led(2, "a");
    world.wanted = "b".to_owned();
    (1..=2).for_each(|number| world.delete(&format!("p{number}")));
    world.broken.insert("b".to_owned());
    world.start("b");
    world.run(700);
    world.crash("container app exited with code 1");
    world.run(700);
    assert_eq!((world.failed(), world.handovers()), (None, vec![]));
    assert!(!world.pods[0].ready);
    world.pod("p3").trouble = None;
    world.broken.clear();
    world.run(15);
    assert_eq!(world.rollout(), proven("b"));
}

#[test]
fn group_of_an_older_operator_has_a_leader_to_protect() {
    let mut world = World::bare("b");
    for _ in 0..2 {
        world.start(NAMELESS);
    }
    world.elect("p1", None);
    world.start("b");
    world.reconcile();
    assert_eq!(world.rollout(), proven(NAMELESS));
    assert_eq!(world.lease.proven_revision, None);
    assert_eq!(world.handovers(), [("p3", "Rollout")]);
    world.run(20);
    assert_eq!(world.rollout(), proven("b"));
    // The same with a program that does not work.
    let mut world = World::bare("b");
    for _ in 0..2 {
        world.start(NAMELESS);
    }
    world.elect("p1", None);
    world.broken.insert("b".to_owned());
    world.start("b");
    world.run(60);
    assert!(world.failed().is_some());
    assert_eq!(world.leads(), "p1");
    // A leader that cannot be asked to hand over has no trial.
    let mut world = World::bare("b");
    world.provable.insert("b".to_owned());
    world.start(NAMELESS);
    world.elect("p1", None);
    world.lease.incarnation = None;
    world.reconcile();
    assert_eq!(world.rollout(), proven(NAMELESS));
    world.start("b");
    world.reconcile();
    assert_eq!(world.rollout(), proven("b"));
}

#[test]
fn bypassed_successor_is_requested_again_a_limited_number_of_times() {
    let mut world = World::led(3, "a");
    world.wanted = "b".to_owned();
    world.start("b");
    world.reconcile();
    let mut tries = 0;
    for _ in 0..300 {
        world.second += 1;
        if world.lease.step_down_request.as_ref().map(|request| &request.of) == world.term().as_ref() {
            tries += 1;
            let next = if world.leads() == "p1" { "p2" } else { "p1" };
            world.elect(next, Some(ChangeReason::LeaseReleased));
            world.lease.ready = true;
        }
        world.reconcile();
    }
    assert_eq!(tries, 3);
    let why = "b: p4 was asked to lead 3 times and did not acquire the Lease";
    assert_eq!(world.failed().as_deref(), Some(why));
}

#[test]
fn trials_of_another_revision_do_not_count() {
    let mut world = World::led(3, "a");
    world.wanted = "b".to_owned();
    world.start("b");
    world.reconcile();
    let mut tries = 0;
    for _ in 0..400 {
        world.second += 1;
        if world.lease.step_down_request.as_ref().map(|request| &request.of) == world.term().as_ref() {
            tries += 1;
            let next = if world.leads() == "p1" { "p2" } else { "p1" };
            world.elect(next, Some(ChangeReason::LeaseReleased));
            world.lease.ready = true;
        } else if tries == 2 && world.wanted == "b" {
            world.delete("p4");
            world.wanted = "c".to_owned();
            world.start("c");
            let now = world.time();
            world.pod("p5").created = Some(now);
        }
        world.reconcile();
    }
    assert_eq!(world.failed().as_deref(), Some("c: p5 was asked to lead 3 times and did not acquire the Lease"));
    assert_eq!(tries, 5);
}

#[test]
fn unobserved_trial_is_not_repeated_at_once() {
    let mut world = World::led(2, "a");
    world.wanted = "b".to_owned();
    world.start("b");
    world.reconcile();
    assert_eq!(world.handovers(), [("p3", "Rollout")]);
    world.second += 1;
    world.elect("p3", Some(ChangeReason::LeaseReleased));
    world.elect("p1", Some(ChangeReason::KubeletReported));
    let mut dead = world.clone();
    world.run(29);
    assert_eq!((world.handovers().len(), world.failed()), (1, None), "its pod may be as dead as its program");
    world.run(30);
    assert_eq!((world.leads(), world.rollout()), ("p3", proven("b")));
    // The kubelet's report of the pod shows that it has led.
    dead.run(2);
    dead.pod("p3").restarts = 1;
    dead.run(10);
    assert_eq!(dead.failed().as_deref(), Some("b: p3 was asked to lead, and its program ended"));
    assert_eq!((dead.leads(), dead.handovers().len()), ("p1", 1));
}

#[test]
fn unobserved_trial_counts_once_the_kubelet_reports_the_end() {
    let mut world = World::led(2, "a");
    world.wanted = "b".to_owned();
    world.start("b");
    // Restarts before the trial do not count.
    world.pod("p3").restarts = 2;
    world.reconcile();
    assert_eq!(world.lease.trial.as_ref().map(|trial| (trial.pod.as_str(), trial.restarts)), Some(("p3", 2)));
    world.second += 1;
    world.elect("p3", Some(ChangeReason::LeaseReleased));
    world.elect("p2", Some(ChangeReason::LeaseReleased));
    // Neither an operator that starts now nor a later step-down forgets the trial.
    world.watch = None;
    let term = world.term().unwrap();
    world.reconcile();
    world.lease.step_down_request = Some(StepDownRequest { value: "now".to_owned(), of: term, to: None });
    world.elect("p1", Some(ChangeReason::LeaseReleased));
    world.run(20);
    assert_eq!((world.leads(), world.failed()), ("p1", None), "the kubelet has reported nothing yet");
    let pod = world.pod("p3");
    (pod.restarts, pod.trouble) = (3, Some("container app exited with code 127: no such program".to_owned()));
    world.run(1);
    let why =
        "b: p3 was asked to lead, and its program ended: pod p3: container app exited with code 127: no such program";
    assert_eq!(world.failed().as_deref(), Some(why));
    world.run(600);
    assert_eq!((world.leads(), world.handovers()), ("p1", vec![("p3", "Rollout")]));
}

#[test]
fn pod_that_leads_again_after_an_unobserved_end_hands_back() {
    let mut world = World::led(2, "a");
    world.wanted = "b".to_owned();
    world.start("b");
    world.reconcile();
    world.second += 1;
    world.elect("p3", Some(ChangeReason::LeaseReleased));
    world.pod("p3").restarts = 1;
    world.elect("p3", Some(ChangeReason::HolderRestarted));
    world.run(2);
    assert_eq!(world.failed().as_deref(), Some("b: a container of p3 ended while it led"));
    assert_eq!(world.leads(), "p1");
}

#[test]
fn number_of_unobserved_trials_is_limited() {
    let mut world = World::led(2, "a");
    world.wanted = "b".to_owned();
    world.start("b");
    for _ in 0..300 {
        world.second += 1;
        if world.lease.step_down_request.as_ref().map(|request| &request.of) == world.term().as_ref() {
            world.elect("p3", Some(ChangeReason::LeaseReleased));
            world.elect("p1", Some(ChangeReason::LeaseReleased));
            world.lease.ready = true;
        }
        world.reconcile();
    }
    assert_eq!(world.failed().as_deref(), Some("b: p3 was asked to lead 3 times and lost the Lease immediately"));
    assert_eq!(world.handovers().len(), 3);
}

#[test]
fn program_that_releases_leadership_gets_a_limited_number_of_trials() {
    let mut world = World::led(2, "a");
    world.wanted = "b".to_owned();
    world.start("b");
    world.run(3);
    world.elect_next(ChangeReason::LeaseReleased);
    world.run(20);
    assert_eq!((world.leads(), world.failed()), ("p1", None));
    let mut well = world.clone();
    well.run(40);
    assert_eq!((well.leads(), well.rollout()), ("p3", proven("b")));
    for _ in 0..100 {
        world.tick();
        if world.leads() == "p3" {
            world.elect_next(ChangeReason::LeaseReleased);
        }
    }
    assert_eq!(world.failed().as_deref(), Some("b: p3 led and repeatedly released leadership"));
    assert_eq!(world.handovers().len(), 3);
}

#[test]
fn failed_revision_that_leads_alone_is_evaluated_again() {
    let mut world = World::led(2, "a");
    world.wanted = "b".to_owned();
    world.start("b");
    world.run(3);
    world.crash("container app exited with code 3");
    assert!(world.failed().is_some());
    let pod = world.pod("p3");
    (pod.trouble, pod.proven) = (None, Some(false));
    for number in 1..=2 {
        world.pod(&format!("p{number}")).containers_ready = false;
    }
    world.run(1);
    world.elect("p3", Some(ChangeReason::LeaseExpired));
    world.run(20);
    assert_eq!(world.rollout(), proven("b"));
}

#[test]
fn program_that_is_never_ready_for_long_enough_fails() {
    let mut world = World::led(2, "a");
    world.wanted = "b".to_owned();
    world.start("b");
    for second in 0..90 {
        if second % 8 == 0 {
            world.broken.insert("b".to_owned());
        } else {
            world.broken.remove("b");
        }
        world.tick();
    }
    let why = "b: the program of p3 led for 52 s and was never ready for 11 s without a break";
    assert_eq!((world.failed().as_deref(), world.leads()), (Some(why), "p1"));
}

#[test]
fn program_has_the_startup_time_of_its_own_probes() {
    let probes = "template: { spec: { containers: [{ name: app, image: b, command: [/b], startupProbe: { tcpSocket: { port: 1 }, \
                  periodSeconds: 5, failureThreshold: 20, initialDelaySeconds: 7 }, \
                  readinessProbe: { tcpSocket: { port: 1 }, initialDelaySeconds: 9 } }] } }";
    let mut spec = super::yaml(SPEC);
    spec.as_object_mut().unwrap().extend(super::yaml(&format!("{{ {probes} }}")).as_object().unwrap().clone());
    let mut world = World::led(2, "a");
    world.group = Group::check(&super::group_of(spec)).unwrap();
    world.broken.insert("b".to_owned());
    world.wanted = "b".to_owned();
    world.start("b");
    world.run(130);
    assert_eq!((world.leads(), world.failed()), ("p3", None));
    world.run(20);
    assert_eq!(world.failed().as_deref(), Some("b: the program of p3 was not ready within 137 s of leading"));
}

/// Beside a sidecar a program is ready as a standby already, and the kubelet needs time to notice that it is unready as
/// a leader.
#[test]
fn trial_beside_a_sidecar_includes_the_time_its_probe_needs_to_fail() {
    let of = |probe: &str| {
        let containers =
            format!("[{{ name: app, image: b }}, {{ name: proxy, image: p, readinessProbe: {{ {probe} }} }}]");
        let mode = "candidate: { mode: Sidecar, unhealthyTimeoutSeconds: 30 }";
        let spec = format!("{{ {mode}, minReadySeconds: 10, template: {{ spec: {{ containers: {containers} }} }} }}");
        let group = Group::check(&super::group_of(super::yaml(&spec))).unwrap();
        let mut world = World::led(2, "a");
        world.group = group;
        world.pods.iter_mut().for_each(|pod| pod.reports_readiness = false);
        world.wanted = "b".to_owned();
        let new = world.start("b");
        world.pod(&new).reports_readiness = false;
        world.run(3);
        assert_eq!(world.leads(), "p3");
        world
    };
    let mut world = of("tcpSocket: { port: 1 }");
    let expected = "RollingOut: revision b: p3 leads and must stay ready for 41 s";
    assert_eq!(world.condition(ConditionType::Reconciling), expected);
    // The program broke as soon as its pod led. The kubelet reports it after three probes.
    world.run(25);
    world.pod("p3").containers_ready = false;
    world.run(40);
    assert_eq!(world.failed().as_deref(), Some("b: the program of p3 was not ready within 30 s of leading"));
    assert_eq!(world.leads(), "p1");
    let mut world = of("tcpSocket: { port: 1 }, periodSeconds: 1, failureThreshold: 2, timeoutSeconds: 3");
    world.run(12);
    assert_eq!(world.rollout(), proven("a"));
    world.run(5);
    assert_eq!(world.rollout(), proven("b"));
}

#[test]
fn leader_without_step_down_support_is_followed_without_a_trial() {
    let mut world = World::bare("b");
    world.provable.insert("b".to_owned());
    let old = world.start(NAMELESS);
    world.pod(&old).ignores_step_downs = true;
    world.elect("p1", None);
    world.reconcile();
    assert_eq!(world.rollout(), proven(NAMELESS));
    world.start("b");
    world.reconcile();
    assert_eq!((world.rollout(), world.handovers()), (proven("b"), vec![]));
}

#[test]
fn only_templates_with_a_gate_have_a_revision() {
    let wanted = |resource: &ElectionGroup, revision: i32| {
        let group = Group::check(resource).unwrap();
        let first = Desired::of(&group, None, CANDIDATE_IMAGE);
        let recorded = first.injection.clone().map(|mut injection| {
            injection.revision = revision;
            injection
        });
        match TargetRevision::of(&Desired::of(&group, recorded.as_ref(), CANDIDATE_IMAGE)) {
            TargetRevision::Revision(name) => Some(name.len()),
            TargetRevision::None => None,
            TargetRevision::Unknown => panic!("the pods of {} are left as they are", group.name),
        }
    };
    assert_eq!(wanted(&with(MINIMAL, "{}"), 3), Some(16));
    assert_eq!(wanted(&with(MINIMAL, "candidate: { mode: Sidecar }"), 3), Some(16));
    assert_eq!(wanted(&with(MINIMAL, "{}"), 2), None);
    assert_eq!(wanted(&with(NATIVE, "{}"), 3), None);
}

/// A disturbance of a group.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Seconds(u8),
    Change(u8),
    Break(u8),
    Start { new: bool },
    Delete(u8),
    Crash,
    Unready(u8),
    Recover(u8),
    Restart,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (1_u8..40).prop_map(Happening::Seconds),
        1 => (0_u8..3).prop_map(Happening::Change),
        1 => (0_u8..3).prop_map(Happening::Break),
        3 => any::<bool>().prop_map(|new| Happening::Start { new }),
        1 => any::<u8>().prop_map(Happening::Delete),
        1 => Just(Happening::Crash),
        1 => any::<u8>().prop_map(Happening::Unready),
        1 => any::<u8>().prop_map(Happening::Recover),
        1 => Just(Happening::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// [`World`] checks every decision and every gate. This test counts how often a revision was tried.
    #[test]
    fn no_gate_opens_without_proof_and_trials_are_limited(
        happenings in prop::collection::vec(happening(), 1..40)
    ) {
        const NAMES: [&str; 3] = ["a", "b", "c"];
        let mut world = World::led(2, "a");
        let mut tried: BTreeMap<String, usize> = BTreeMap::new();
        let mut excused = 1;
        for happening in happenings {
            let number = world.pods.len();
            let pick = |at: u8, world: &World| world.pods.get(usize::from(at) % number.max(1)).map(|pod| pod.name.clone());
            let disturbs = !matches!(happening, Happening::Seconds(_));
            match happening {
                Happening::Seconds(seconds) => world.run(u64::from(seconds)),
                Happening::Change(to) => world.wanted = NAMES[usize::from(to)].to_owned(),
                Happening::Break(revision) => {
                    let revision = NAMES[usize::from(revision)].to_owned();
                    if !world.broken.remove(&revision) {
                        world.broken.insert(revision);
                    }
                }
                Happening::Start { new } if number < 6 => {
                    let former = proven_in(&Some(world.rollout())).unwrap().to_owned();
                    let revision = if new { world.wanted.clone() } else { former };
                    world.start(&revision);
                }
                Happening::Delete(at) => if let Some(name) = pick(at, &world) { world.delete(&name) },
                Happening::Crash if world.leader().is_some() => world.crash("container app exited with code 1"),
                Happening::Unready(at) => if let Some(name) = pick(at, &world) {
                    world.pod(&name).containers_ready = false;
                },
                Happening::Recover(at) => if let Some(name) = pick(at, &world) {
                    let pod = world.pod(&name);
                    (pod.containers_ready, pod.trouble) = (true, None);
                },
                Happening::Restart => world.watch = None,
                Happening::Start { .. } | Happening::Crash => {}
            }
            if matches!(happening, Happening::Change(_)) {
                tried.clear();
                excused = 1;
            }
            excused += usize::from(disturbs);
            world.reconcile();
            for request in world.requests.drain(..).filter(|request| request.reason() == ChangeReason::Rollout) {
                *tried.entry(request.to.clone().unwrap()).or_default() += 1;
            }
            // Each disturbance may cost one trial and one handover back.
            let all: usize = tried.values().sum();
            prop_assert!(all <= 2 * excused, "{tried:?} after {excused} disturbances");
        }
        // Left alone, it comes to rest.
        world.broken.clear();
        world.pods.iter_mut().for_each(|pod| (pod.containers_ready, pod.trouble) = (true, None));
        world.run(400);
        world.requests.clear();
        let leads = world.leads().to_owned();
        world.run(200);
        prop_assert_eq!(world.leads(), leads);
        prop_assert!(world.requests.is_empty());
    }
}
