use k8sensus_api::ElectionGroup;
use k8sensus_api::names::ChangeReason;
use k8sensus_group::Findings;
use k8sensus_group::judge::step_down::{Decision, Question, Refused, StepDown, decide};
use k8sensus_group::judge::successor::StepDownIntent;
use k8sensus_group::observed::Outcome;
use k8sensus_group::observed::lease::LeaseView;
use k8sensus_group::observed::lease::StepDownRequest;
use k8sensus_group::observed::pod::PodView;
use k8sensus_group::spec::group::Group;
use serde_json::json;

use super::status::{RECREATED, but, conflicting, healthy, lease_of, status};
use super::{MINIMAL, NATIVE, with};

/// The incarnation that the leader of [`healthy`] writes onto its Lease.
const INCARNATION: &str = "uid-1/app/0011";

/// Returns a group of `spec` with a status and this request; a former request was handled.
fn requesting(spec: &str, more: &str, value: Option<&str>) -> ElectionGroup {
    let mut group = with(spec, more);
    let mut status = status(&super::group(spec), &healthy());
    status.last_handled_step_down_at = Some("old".to_owned());
    group.status = Some(status);
    let annotations = value.map(|value| ("k8sensus.dev/step-down-requested-at".to_owned(), value.to_owned()));
    group.metadata.annotations = annotations.map(|annotation| [annotation].into());
    group
}

fn decision(group: &ElectionGroup, observed: &Findings) -> Decision {
    let valid = Group::check(group).ok();
    decide(&Question::of(group, valid.as_ref(), &observed.facts, None))
}

/// Two ready pods of which the first leads, as a candidate of ours, with one change.
fn led(change: impl FnOnce(&mut Findings)) -> Findings {
    but(|it| {
        lease_of(it).incarnation = Some(INCARNATION.to_owned());
        change(it);
    })
}

fn mark(value: &str, of: &str) -> StepDownRequest {
    StepDownRequest { value: value.to_owned(), of: of.to_owned(), to: None }
}

fn marked(value: &str, of: &str) -> Findings {
    led(|it| lease_of(it).step_down_request = Some(mark(value, of)))
}

/// Returns the Event's reason and note of a decision to write nothing.
fn event_of(decision: Decision) -> (&'static str, String) {
    let Decision::Rest(step_down) = decision else { panic!("{decision:?}") };
    step_down.event().map_or(("", String::new()), |(reason, why)| (reason, why.to_owned()))
}

#[test]
fn new_value_is_written_for_the_current_term() {
    let group = requesting(MINIMAL, "{}", Some("new"));
    assert_eq!(decision(&group, &led(|_| {})), Decision::Mark(mark("new", "4/uid-1/app/0011")));
    // A former request, handled or replaced, does not matter.
    for former in [mark("old", "4/uid-1/app/0011"), mark("old", "3/uid-2/app/7"), mark("older", "4/uid-1/app/0011")] {
        let observed = led(|it| lease_of(it).step_down_request = Some(former));
        assert_eq!(decision(&group, &observed), Decision::Mark(mark("new", "4/uid-1/app/0011")));
    }
    let event = event_of(decision(&group, &marked("new", "4/uid-1/app/0011")));
    let why = "billing-1 was asked to stop its work and to release lease shop/billing".to_owned();
    assert_eq!(event, ("StepDownRequested", why));
}

#[test]
fn handled_empty_and_removed_values_request_nothing() {
    for value in [Some("old"), Some(""), None] {
        let group = requesting(MINIMAL, "{}", value);
        for observed in [led(|_| {}), marked("new", "4/uid-1/app/0011"), led(|it| it.facts.pods.clear())] {
            assert_eq!(decision(&group, &observed), Decision::Rest(StepDown::None), "{value:?}");
        }
    }
}

#[test]
fn value_from_before_the_first_status_is_handled_without_a_step_down() {
    let mut group = requesting(MINIMAL, "{}", Some("restored"));
    group.status = None;
    let (reason, why) = event_of(decision(&group, &led(|_| {})));
    assert_eq!(reason, "StepDownHandled");
    assert!(why.contains("before the group was first reconciled"), "{why}");
}

#[test]
fn request_is_handled_once_its_term_is_over() {
    let group = requesting(MINIMAL, "{}", Some("new"));
    let handled = |observed: &Findings, expected: &str| {
        let event = event_of(decision(&group, observed));
        assert_eq!((event.0, event.1.as_str()), ("StepDownHandled", expected));
        assert_eq!(
            status(
                &group,
                &Findings { step_down: StepDown::Done { value: "new".into(), why: String::new() }, ..observed.clone() }
            )
            .last_handled_step_down_at
            .as_deref(),
            Some("new")
        );
    };
    let successor = led(|it| {
        *lease_of(it) = LeaseView {
            holder: "billing-2".to_owned(),
            transitions: 5,
            incarnation: Some("uid-2/app/7".to_owned()),
            step_down_request: Some(mark("new", "4/uid-1/app/0011")),
            ..lease_of(it).clone()
        };
    });
    handled(&successor, "the leader that was asked to step down is no longer the leader: billing-2 is");
    // The same process in a later term; and a client that leaves the annotations in place.
    let again = marked("new", "3/uid-1/app/0011");
    handled(&again, "the leader that was asked to step down is no longer the leader: billing-1 is");
    let foreign = but(|it| {
        let request = Some(mark("new", "4/uid-1/app/0011"));
        *lease_of(it) =
            LeaseView { transitions: 5, holder: "stork".into(), step_down_request: request, ..lease_of(it).clone() };
    });
    handled(&foreign, "the leader that was asked to step down is no longer the leader: stork is");
    for holder in ["", RECREATED] {
        handled(&led(|it| lease_of(it).holder = holder.to_owned()), "there is no leader that could step down");
    }
    handled(&led(|it| lease_of(it).expired = true), "there is no leader that could step down");
    handled(&led(|it| it.facts.lease = None), "there is no leader that could step down");
    let mut released = marked("new", "4/uid-1/app/0011");
    lease_of(&mut released).holder = String::new();
    handled(&released, "the leader that was asked to step down is no longer the leader");
}

#[test]
fn step_down_is_refused_without_a_ready_standby() {
    let group = requesting(MINIMAL, "{}", Some("new"));
    let alone: [fn(&mut Findings); 4] = [
        |it| it.facts.pods[1].ready = false,
        |it| drop(it.facts.pods.pop()),
        |it| it.facts.pods.clear(),
        |it| it.facts.pods.retain(|pod| pod.name == "billing-1"),
    ];
    for change in alone {
        let (reason, why) = event_of(decision(&group, &led(change)));
        assert_eq!(reason, "StepDownRefused");
        assert!(why.starts_with("no standby is ready to follow billing-1 on lease shop/billing; "), "{why}");
        // A request that is on the Lease already goes on.
        let carried = led(|it| {
            change(it);
            lease_of(it).step_down_request = Some(mark("new", "4/uid-1/app/0011"));
        });
        assert_eq!(event_of(decision(&group, &carried)).0, "StepDownRequested");
    }
}

#[test]
fn refused_request_is_handled_once_another_pod_leads() {
    let group = requesting(MINIMAL, "{}", Some("new"));
    let valid = Group::check(&group).unwrap();
    let refused = |value: &str, holder: &str| Refused { value: value.to_owned(), holder: holder.to_owned() };
    let after = |refused: &Refused, observed: &Findings| {
        let question = Question { refused: Some(refused), ..Question::of(&group, Some(&valid), &observed.facts, None) };
        (decide(&question), question.to_be_remembered())
    };
    let others = refused("new", "billing-2");
    let (done, remembered) = after(&others, &led(|_| {}));
    let why = "billing-2, which could not step down at that time, is no longer the leader: billing-1 is".to_owned();
    assert_eq!((event_of(done), remembered), (("StepDownHandled", why), Some(others.clone())));
    // A refused request waits as long as its holder leads. Other requests, and those on the Lease, are not affected.
    for former in [refused("new", "billing-1"), refused("older", "billing-2")] {
        assert_eq!(after(&former, &led(|_| {})).0, Decision::Mark(mark("new", "4/uid-1/app/0011")), "{former:?}");
    }
    assert_eq!(event_of(after(&others, &marked("new", "4/uid-1/app/0011")).0).0, "StepDownRequested");
    let alone = led(|it| it.facts.pods[1].ready = false);
    let question = Question::of(&group, Some(&valid), &alone.facts, None);
    assert_eq!(question.to_be_remembered(), Some(refused("new", "billing-1")));
    // Likewise if the operator has an intent of its own.
    let intent = intent(ChangeReason::Rollout);
    let with_intent = Question::of(&group, Some(&valid), &alone.facts, Some(&intent));
    assert!(matches!(decide(&with_intent), Decision::Mark(_)));
    assert_eq!(with_intent.to_be_remembered(), Some(refused("new", "billing-1")));
    let removed = requesting(MINIMAL, "{}", None);
    let question = Question { refused: Some(&others), ..Question::of(&removed, Some(&valid), &alone.facts, None) };
    assert_eq!(question.to_be_remembered(), None);
}

#[test]
fn holder_that_cannot_step_down_is_named() {
    let group = requesting(MINIMAL, "{}", Some("new"));
    let foreign = event_of(decision(&group, &but(|_| {})));
    assert_eq!(foreign.0, "StepDownRefused");
    assert!(foreign.1.contains("expected its annotation k8sensus.dev/incarnation, found none"), "{}", foreign.1);
    // A foreign holder after a candidate of ours, whose annotation it left in place.
    let foreign = led(|it| lease_of(it).holder = "billing-2".to_owned());
    let (reason, why) = event_of(decision(&group, &foreign));
    assert_eq!(reason, "StepDownRefused");
    assert!(why.contains("found uid-1/app/0011"), "{why}");
    // A candidate that does not know its pod's uid.
    let unknown = led(|it| lease_of(it).incarnation = Some("-/-/0011".to_owned()));
    assert_eq!(decision(&group, &unknown), Decision::Mark(mark("new", "4/-/-/0011")));
}

#[test]
fn request_waits_while_the_group_is_paused_suspended_or_refused() {
    for (more, expected) in [("paused: true", "spec.paused is true: "), ("suspend: true", "spec.suspend is true: ")] {
        let group = requesting(MINIMAL, more, Some("new"));
        let (reason, why) = event_of(decision(&group, &led(|_| {})));
        assert_eq!(reason, "StepDownPending");
        assert!(why.starts_with(expected), "{why}");
        assert_eq!(event_of(decision(&group, &led(|it| lease_of(it).holder.clear()))).0, "StepDownHandled");
        assert_eq!(event_of(decision(&group, &marked("new", "4/uid-1/app/0011"))).0, "StepDownRequested");
    }
    let group = requesting(MINIMAL, "{}", Some("new"));
    let (reason, why) = event_of(decision(&group, &conflicting()));
    assert_eq!((reason, why.as_str()), ("StepDownPending", "the group is not applied: Role shop/billing exists"));
    let invalid = requesting(MINIMAL, "replicas: 101", Some("new"));
    let refused = led(|it| it.facts.outcome = Outcome::Invalid("spec.replicas: …".into()));
    let (reason, why) = event_of(decision(&invalid, &refused));
    assert_eq!((reason, why.as_str()), ("StepDownPending", "the group is not applied: spec.replicas: …"));
}

#[test]
fn native_leader_is_evicted_after_the_request_is_written() {
    let group = requesting(NATIVE, "{}", Some("new"));
    // client-go names the pod, controller-runtime adds a number.
    for holder in ["billing-1", "billing-1_5e0c"] {
        let of = format!("4/{holder}");
        let held = |request: Option<StepDownRequest>, change: fn(&mut Findings)| {
            but(|it| {
                (lease_of(it).holder, lease_of(it).step_down_request) = (holder.to_owned(), request);
                change(it);
            })
        };
        let carried = Some(mark("new", &of));
        assert_eq!(decision(&group, &held(None, |_| {})), Decision::Mark(mark("new", &of)));
        let evict = Decision::Evict { value: "new".into(), pod: "billing-1".into(), uid: Some("uid-1".into()) };
        assert_eq!(decision(&group, &held(carried.clone(), |_| {})), evict);
        // The pod is being deleted already, or gone: the operator waits for its Lease.
        for gone in
            [(|it| it.facts.pods[0].terminating = true) as fn(&mut Findings), |it| drop(it.facts.pods.remove(0))]
        {
            assert_eq!(event_of(decision(&group, &held(carried.clone(), gone))).0, "StepDownRequested");
        }
        assert_eq!(event_of(decision(&group, &held(None, |it| it.facts.pods[1].ready = false))).0, "StepDownRefused");
        assert_eq!(
            event_of(decision(&group, &held(carried, |it| it.facts.pods[1].ready = false))).0,
            "StepDownRefused"
        );
    }
    let stranger = but(|it| lease_of(it).holder = "stork".to_owned());
    let (reason, why) = event_of(decision(&group, &stranger));
    assert_eq!(reason, "StepDownRefused");
    assert!(why.contains("stork holds lease shop/billing-leader, and no pod of this group has that name"), "{why}");
}

/// The step-down of the leader of [`led`] that the operator itself wants.
fn intent(reason: ChangeReason) -> StepDownIntent {
    let (of, to) = ("4/uid-1/app/0011".to_owned(), Some("billing-2".to_owned()));
    StepDownIntent { reason, of, to, why: "it must hand over".to_owned(), trial: None }
}

fn decision_with(group: &ElectionGroup, observed: &Findings, intent: &StepDownIntent) -> Decision {
    let valid = Group::check(group).ok();
    decide(&Question::of(group, valid.as_ref(), &observed.facts, Some(intent)))
}

#[test]
fn operators_own_step_down_has_its_reason_and_a_successor() {
    let group = requesting(MINIMAL, "{}", None);
    for reason in [ChangeReason::Rollout, ChangeReason::Unhealthy, ChangeReason::Draining] {
        let intent = intent(reason);
        let to = intent.to.clone();
        let request = StepDownRequest { value: reason.as_str().to_owned(), of: intent.of.clone(), to };
        assert_eq!(request.reason(), reason);
        assert_eq!(decision_with(&group, &led(|_| {}), &intent), Decision::Mark(request.clone()));
        // One request per term, whatever its origin, and none for a former term.
        let requested = led(|it| lease_of(it).step_down_request = Some(request.clone()));
        let expected = if reason == ChangeReason::Unhealthy { "LeaderUnhealthy" } else { "StepDownRequested" };
        assert_eq!(event_of(decision_with(&group, &requested, &intent)), (expected, "it must hand over".to_owned()));
        let other = StepDownIntent { reason: ChangeReason::Rollout, ..intent.clone() };
        assert!(matches!(decision_with(&group, &requested, &other), Decision::Rest(StepDown::Intended { .. })));
        let over: [fn(&mut Findings); 4] = [
            |it| lease_of(it).transitions = 5,
            |it| lease_of(it).expired = true,
            |it| lease_of(it).holder = "billing-2".to_owned(),
            |it| it.facts.lease = None,
        ];
        for change in over {
            assert_eq!(decision_with(&group, &led(change), &intent), Decision::Rest(StepDown::None));
        }
        for more in ["paused: true", "suspend: true"] {
            let still = decision_with(&requesting(MINIMAL, more, None), &led(|_| {}), &intent);
            assert_eq!(still, Decision::Rest(StepDown::None), "{more}");
        }
        assert_eq!(decision_with(&group, &conflicting(), &intent), Decision::Rest(StepDown::None));
    }
}

#[test]
fn request_precedes_the_operators_intent_and_keeps_its_successor() {
    let group = requesting(MINIMAL, "{}", Some("new"));
    let intent = intent(ChangeReason::Rollout);
    assert_eq!(decision_with(&group, &led(|_| {}), &intent), Decision::Mark(mark("new", "4/uid-1/app/0011")));
    let to = Some("billing-2".to_owned());
    let own = StepDownRequest { value: "Rollout".to_owned(), of: intent.of.clone(), to: to.clone() };
    let both = StepDownRequest { to, ..mark("new", "4/uid-1/app/0011") };
    let requested = led(|it| lease_of(it).step_down_request = Some(own.clone()));
    assert_eq!(decision_with(&group, &requested, &intent), Decision::Mark(both.clone()));
    assert_eq!(both.reason(), ChangeReason::SteppedDown);
    // It is acknowledged before the next intent overwrites it.
    let next = led(|it| (lease_of(it).transitions, lease_of(it).step_down_request) = (5, Some(both.clone())));
    let of = "5/uid-1/app/0011".to_owned();
    assert_eq!(event_of(decision_with(&group, &next, &StepDownIntent { of, ..intent.clone() })).0, "StepDownHandled");
    // A request that is refused without a standby does not prevent the operator's handover to a pod on trial.
    let alone = led(|it| it.facts.pods[1].ready = false);
    assert_eq!(decision_with(&group, &alone, &intent), Decision::Mark(own));
}

#[test]
fn native_leader_is_evicted_for_the_operators_intent_too() {
    let group = requesting(NATIVE, "{}", None);
    let (of, to) = ("4/billing-1".to_owned(), Some("billing-2".to_owned()));
    let intent = StepDownIntent {
        reason: ChangeReason::Unhealthy,
        of: of.clone(),
        to: to.clone(),
        why: String::new(),
        trial: None,
    };
    let request = StepDownRequest { value: "Unhealthy".to_owned(), of, to };
    assert_eq!(decision_with(&group, &but(|_| {}), &intent), Decision::Mark(request.clone()));
    let requested = but(|it| lease_of(it).step_down_request = Some(request.clone()));
    let evict = Decision::Evict { value: "Unhealthy".into(), pod: "billing-1".into(), uid: Some("uid-1".into()) };
    assert_eq!(decision_with(&group, &requested, &intent), evict);
    let going = but(|it| {
        (lease_of(it).step_down_request, it.facts.pods[0].terminating) = (Some(request), true);
    });
    assert!(matches!(decision_with(&group, &going, &intent), Decision::Rest(StepDown::Intended { .. })));
}

/// A small model, explored exhaustively. The operator loses its memory between any two of its writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    native: bool,
    /// The current request and the handled request; 0 for none.
    requested: u8,
    handled: u8,
    /// The leader (0 for none), its term, and the request on the Lease.
    holder: u8,
    transitions: i32,
    request: Option<(u8, String)>,
    /// The holder's pod is being deleted.
    terminating: bool,
    /// The number of leaders that stepped down for each request.
    deposed: [u8; 3],
    /// The current term at the time of each request, 0 without a leader.
    terms: [i32; 3],
    crashes: u8,
}

impl World {
    fn term(&self) -> String {
        if self.native {
            format!("{}/billing-{}", self.transitions, self.holder)
        } else {
            format!("{}/uid-{}/app/0011", self.transitions, self.holder)
        }
    }

    fn observed(&self) -> Findings {
        but(|it| {
            *lease_of(it) = LeaseView {
                holder: if self.holder == 0 { String::new() } else { format!("billing-{}", self.holder) },
                transitions: self.transitions,
                incarnation: (self.holder > 0 && !self.native).then(|| format!("uid-{}/app/0011", self.holder)),
                step_down_request: self.request.clone().map(|(value, of)| mark(&value.to_string(), &of)),
                ..lease_of(it).clone()
            };
            if self.terminating {
                let pod: &mut PodView = &mut it.facts.pods[usize::from(self.holder) - 1];
                (pod.terminating, pod.ready) = (true, false);
            }
        })
    }

    /// Returns the world after the operator's next write, `None` if there is none. `base` is the group without a
    /// request.
    fn after_operator(&self, base: &(ElectionGroup, Group)) -> Option<World> {
        let (mut resource, group) = (base.0.clone(), &base.1);
        resource.status.as_mut().unwrap().last_handled_step_down_at =
            (self.handled > 0).then(|| self.handled.to_string());
        resource.metadata.annotations = (self.requested > 0)
            .then(|| [("k8sensus.dev/step-down-requested-at".to_owned(), self.requested.to_string())].into());
        let mut next = self.clone();
        let observed = self.observed();
        match decide(&Question::of(&resource, Some(group), &observed.facts, None)) {
            Decision::Mark(request) => next.request = Some((request.value.parse().unwrap(), request.of)),
            Decision::Evict { pod, .. } => {
                assert_eq!(pod, format!("billing-{}", self.holder));
                next.terminating = true;
                next.deposed[usize::from(self.request.as_ref().unwrap().0)] += 1;
            }
            Decision::Rest(StepDown::Done { value, .. }) => next.handled = value.parse().unwrap(),
            Decision::Rest(_) => return None,
        }
        assert_ne!(next, *self, "a write that changes nothing");
        Some(next)
    }

    /// Returns the worlds after an action of a candidate: step down, stop with its pod, or acquire a free Lease.
    fn after_candidates(&self) -> Vec<World> {
        let released = |by_request: Option<u8>| {
            let mut next = World { holder: 0, terminating: false, ..self.clone() };
            by_request.into_iter().for_each(|request| next.deposed[usize::from(request)] += 1);
            next
        };
        match (self.holder, &self.request) {
            (0, _) => {
                (1..=2).map(|holder| World { holder, transitions: self.transitions + 1, ..self.clone() }).collect()
            }
            _ if self.terminating => vec![released(None)],
            (_, Some((request, of))) if !self.native && *of == self.term() => vec![released(Some(*request))],
            _ => Vec::new(),
        }
    }

    /// Returns the worlds after a disturbance: another request, or the leader's crash.
    fn after_disturbances(&self) -> Vec<World> {
        let mut found = Vec::new();
        if self.requested < 2 {
            let mut next = World { requested: self.requested + 1, ..self.clone() };
            next.terms[usize::from(next.requested)] = if self.holder > 0 { self.transitions } else { 0 };
            found.push(next);
        }
        if self.holder > 0 && self.crashes < 2 {
            found.push(World { holder: 0, terminating: false, crashes: self.crashes + 1, ..self.clone() });
        }
        found
    }

    fn check(&self) {
        assert!(self.deposed.iter().all(|leaders| *leaders <= 1), "two leaders for one request: {self:?}");
        let term = self.terms[usize::from(self.handled)];
        let ended = self.holder == 0 || self.transitions > term || self.terminating;
        assert!(self.handled == 0 || term == 0 || ended, "handled, and its leader still leads: {self:?}");
    }
}

#[test]
fn each_request_deposes_one_leader_despite_restarts_after_any_write() {
    for native in [false, true] {
        let start = World {
            native,
            requested: 0,
            handled: 0,
            holder: 1,
            transitions: 4,
            request: None,
            terminating: false,
            deposed: [0; 3],
            terms: [0; 3],
            crashes: 0,
        };
        let resource = requesting(if native { NATIVE } else { MINIMAL }, "{}", None);
        let group = Group::check(&resource).unwrap();
        let base = (resource, group);
        let mut seen = std::collections::HashSet::from([start.clone()]);
        let mut open = vec![start];
        while let Some(world) = open.pop() {
            world.check();
            // Without disturbances it comes to rest with the request handled.
            let mut calm = world.clone();
            for step in 0.. {
                assert!(step < 20, "no rest after {world:?}, now {calm:?}");
                let Some(next) = calm.after_operator(&base).or_else(|| calm.after_candidates().pop()) else { break };
                calm = next;
            }
            assert_eq!(calm.handled, calm.requested, "{world:?} rests as {calm:?}");
            assert!(calm.holder > 0, "{calm:?}");
            let next = world.after_operator(&base).into_iter().chain(world.after_candidates());
            for next in next.chain(world.after_disturbances()) {
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
        println!("native {native}: {} states", seen.len());
        assert!(seen.len() > 100, "{}", seen.len());
    }
}

#[test]
fn status_keeps_the_last_handled_request() {
    let group = requesting(MINIMAL, "{}", Some("new"));
    let (value, why) = ("new".to_owned(), String::new());
    for step_down in [
        StepDown::None,
        StepDown::Pending { value: value.clone(), why: why.clone() },
        StepDown::Refused { value: value.clone(), why: why.clone() },
        StepDown::Carried { value, why },
    ] {
        let status = status(&group, &Findings { step_down, ..healthy() });
        assert_eq!(json!(status.last_handled_step_down_at), json!("old"));
    }
    assert_eq!(status(&super::group(MINIMAL), &healthy()).last_handled_step_down_at, None);
}
