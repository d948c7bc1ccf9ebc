use k8sensus::api::ElectionGroup;
use k8sensus::api::names::ChangeReason;
use k8sensus::group::Observed;
use k8sensus::group::judge::step_down::{Decision, Question, Refused, StepDown, decide};
use k8sensus::group::judge::successor::StepDownIntent;
use k8sensus::group::observed::Outcome;
use k8sensus::group::observed::lease::LeaseView;
use k8sensus::group::observed::lease::StepDownRequest;
use k8sensus::group::observed::pod::PodView;
use k8sensus::group::spec::group::Group;
use serde_json::json;

use super::status::{RECREATED, but, conflicting, healthy, lease_of, status};
use super::{MINIMAL, NATIVE, with};

/// What the leader of [`healthy`] writes onto its Lease.
const INCARNATION: &str = "uid-1/app/0011";

/// `spec` with a status and this request, the last one having been handled.
fn asking(spec: &str, more: &str, value: Option<&str>) -> ElectionGroup {
    let mut group = with(spec, more);
    let mut status = status(&super::group(spec), &healthy());
    status.last_handled_step_down_at = Some("old".to_owned());
    group.status = Some(status);
    let annotations = value.map(|value| ("k8sensus.dev/step-down-requested-at".to_owned(), value.to_owned()));
    group.metadata.annotations = annotations.map(|annotation| [annotation].into());
    group
}

fn decision(group: &ElectionGroup, observed: &Observed) -> Decision {
    let valid = Group::check(group).ok();
    decide(&Question::of(group, valid.as_ref(), observed.facts(), None))
}

/// Two ready pods of which the first leads, as a candidate of ours; but for one thing.
fn led(change: impl FnOnce(&mut Observed)) -> Observed {
    but(|it| {
        lease_of(it).incarnation = Some(INCARNATION.to_owned());
        change(it);
    })
}

fn mark(value: &str, of: &str) -> StepDownRequest {
    StepDownRequest { value: value.to_owned(), of: of.to_owned(), to: None }
}

fn marked(value: &str, of: &str) -> Observed {
    led(|it| lease_of(it).step_down_request = Some(mark(value, of)))
}

/// The word for it and its sentence.
fn rested(decision: Decision) -> (&'static str, String) {
    let Decision::Rest(step_down) = decision else { panic!("{decision:?}") };
    step_down.event().map_or(("", String::new()), |(reason, why)| (reason, why.to_owned()))
}

#[test]
fn a_new_value_is_carried_to_the_term_that_leads() {
    let group = asking(MINIMAL, "{}", Some("new"));
    assert_eq!(decision(&group, &led(|_| {})), Decision::Mark(mark("new", "4/uid-1/app/0011")));
    // A former request, handled or overtaken, is no hindrance.
    for former in [mark("old", "4/uid-1/app/0011"), mark("old", "3/uid-2/app/7"), mark("older", "4/uid-1/app/0011")] {
        let observed = led(|it| lease_of(it).step_down_request = Some(former));
        assert_eq!(decision(&group, &observed), Decision::Mark(mark("new", "4/uid-1/app/0011")));
    }
    let told = rested(decision(&group, &marked("new", "4/uid-1/app/0011")));
    let why = "billing-1 was told to stop its work and to release lease shop/billing".to_owned();
    assert_eq!(told, ("StepDownRequested", why));
}

#[test]
fn a_handled_an_empty_and_a_withdrawn_value_ask_nothing() {
    for value in [Some("old"), Some(""), None] {
        let group = asking(MINIMAL, "{}", value);
        for observed in [led(|_| {}), marked("new", "4/uid-1/app/0011"), led(|it| it.pods.clear())] {
            assert_eq!(decision(&group, &observed), Decision::Rest(StepDown::None), "{value:?}");
        }
    }
}

#[test]
fn what_was_there_before_the_first_status_deposes_nobody() {
    let mut group = asking(MINIMAL, "{}", Some("restored"));
    group.status = None;
    let (reason, why) = rested(decision(&group, &led(|_| {})));
    assert_eq!(reason, "StepDownHandled");
    assert!(why.contains("before the group was first looked at"), "{why}");
}

#[test]
fn it_is_handled_once_another_term_leads_or_none() {
    let group = asking(MINIMAL, "{}", Some("new"));
    let handled = |observed: &Observed, expected: &str| {
        let told = rested(decision(&group, observed));
        assert_eq!((told.0, told.1.as_str()), ("StepDownHandled", expected));
        assert_eq!(
            status(
                &group,
                &Observed { step_down: StepDown::Done { value: "new".into(), why: String::new() }, ..observed.clone() }
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
    handled(&successor, "the leader that was asked leads no more: billing-2 does");
    // The same process again, in a later term; and a client that keeps the annotations.
    let again = marked("new", "3/uid-1/app/0011");
    handled(&again, "the leader that was asked leads no more: billing-1 does");
    let foreign = but(|it| {
        let asked = Some(mark("new", "4/uid-1/app/0011"));
        *lease_of(it) =
            LeaseView { transitions: 5, holder: "stork".into(), step_down_request: asked, ..lease_of(it).clone() };
    });
    handled(&foreign, "the leader that was asked leads no more: stork does");
    for holder in ["", RECREATED] {
        handled(&led(|it| lease_of(it).holder = holder.to_owned()), "nobody leads: there is nobody to step down");
    }
    handled(&led(|it| lease_of(it).expired = true), "nobody leads: there is nobody to step down");
    handled(&led(|it| it.lease = None), "nobody leads: there is nobody to step down");
    let mut released = marked("new", "4/uid-1/app/0011");
    lease_of(&mut released).holder = String::new();
    handled(&released, "the leader that was asked leads no more");
}

#[test]
fn nobody_is_asked_whom_nobody_would_follow() {
    let group = asking(MINIMAL, "{}", Some("new"));
    let alone: [fn(&mut Observed); 4] = [
        |it| it.pods[1].ready = false,
        |it| drop(it.pods.pop()),
        |it| it.pods.clear(),
        |it| it.pods.retain(|pod| pod.name == "billing-1"),
    ];
    for change in alone {
        let (reason, why) = rested(decision(&group, &led(change)));
        assert_eq!(reason, "StepDownRefused");
        assert!(why.starts_with("no standby is ready to follow billing-1 on lease shop/billing; "), "{why}");
        // Told already, it goes on.
        let carried = led(|it| {
            change(it);
            lease_of(it).step_down_request = Some(mark("new", "4/uid-1/app/0011"));
        });
        assert_eq!(rested(decision(&group, &carried)).0, "StepDownRequested");
    }
}

#[test]
fn a_request_that_was_refused_is_done_once_another_leads() {
    let group = asking(MINIMAL, "{}", Some("new"));
    let valid = Group::check(&group).unwrap();
    let refused = |value: &str, holder: &str| Refused { value: value.to_owned(), holder: holder.to_owned() };
    let after = |refused: &Refused, observed: &Observed| {
        let question =
            Question { refused: Some(refused), ..Question::of(&group, Some(&valid), observed.facts(), None) };
        (decide(&question), question.to_be_remembered())
    };
    let others = refused("new", "billing-2");
    let (done, kept) = after(&others, &led(|_| {}));
    let why = "billing-2, which could not step down at that time, leads no more: billing-1 does".to_owned();
    assert_eq!((rested(done), kept), (("StepDownHandled", why), Some(others.clone())));
    // It waits for a standby of that leader, another request is another one, and what is carried out goes on.
    for former in [refused("new", "billing-1"), refused("older", "billing-2")] {
        assert_eq!(after(&former, &led(|_| {})).0, Decision::Mark(mark("new", "4/uid-1/app/0011")), "{former:?}");
    }
    assert_eq!(rested(after(&others, &marked("new", "4/uid-1/app/0011")).0).0, "StepDownRequested");
    let alone = led(|it| it.pods[1].ready = false);
    let question = Question::of(&group, Some(&valid), alone.facts(), None);
    assert_eq!(question.to_be_remembered(), Some(refused("new", "billing-1")));
    // Though the operator has a intent of its own.
    let intent = intent(ChangeReason::Rollout);
    let wishing = Question::of(&group, Some(&valid), alone.facts(), Some(&intent));
    assert!(matches!(decide(&wishing), Decision::Mark(_)));
    assert_eq!(wishing.to_be_remembered(), Some(refused("new", "billing-1")));
    let withdrawn = asking(MINIMAL, "{}", None);
    let question = Question { refused: Some(&others), ..Question::of(&withdrawn, Some(&valid), alone.facts(), None) };
    assert_eq!(question.to_be_remembered(), None);
}

#[test]
fn a_holder_that_knows_no_requests_is_named() {
    let group = asking(MINIMAL, "{}", Some("new"));
    let foreign = rested(decision(&group, &but(|_| {})));
    assert_eq!(foreign.0, "StepDownRefused");
    assert!(foreign.1.contains("expected its annotation k8sensus.dev/incarnation, found none"), "{}", foreign.1);
    // It took over from a candidate of ours and has kept what that had written.
    let kept = led(|it| lease_of(it).holder = "billing-2".to_owned());
    let (reason, why) = rested(decision(&group, &kept));
    assert_eq!(reason, "StepDownRefused");
    assert!(why.contains("found uid-1/app/0011"), "{why}");
    // A candidate that was not told its pod's uid.
    let unknown = led(|it| lease_of(it).incarnation = Some("-/-/0011".to_owned()));
    assert_eq!(decision(&group, &unknown), Decision::Mark(mark("new", "4/-/-/0011")));
}

#[test]
fn what_the_owner_has_stopped_waits_and_says_for_what() {
    for (more, expected) in [("paused: true", "spec.paused is true: "), ("suspend: true", "spec.suspend is true: ")] {
        let group = asking(MINIMAL, more, Some("new"));
        let (reason, why) = rested(decision(&group, &led(|_| {})));
        assert_eq!(reason, "StepDownPending");
        assert!(why.starts_with(expected), "{why}");
        assert_eq!(rested(decision(&group, &led(|it| lease_of(it).holder.clear()))).0, "StepDownHandled");
        assert_eq!(rested(decision(&group, &marked("new", "4/uid-1/app/0011"))).0, "StepDownRequested");
    }
    let group = asking(MINIMAL, "{}", Some("new"));
    let (reason, why) = rested(decision(&group, &conflicting()));
    assert_eq!((reason, why.as_str()), ("StepDownPending", "the group is not applied: Role shop/billing exists"));
    let invalid = asking(MINIMAL, "replicas: 101", Some("new"));
    let (reason, why) = rested(decision(&invalid, &led(|it| it.outcome = Outcome::Invalid("spec.replicas: …".into()))));
    assert_eq!((reason, why.as_str()), ("StepDownPending", "the group is not applied: spec.replicas: …"));
}

#[test]
fn a_native_leader_is_marked_and_then_evicted() {
    let group = asking(NATIVE, "{}", Some("new"));
    // client-go names the pod, controller-runtime adds a number.
    for holder in ["billing-1", "billing-1_5e0c"] {
        let of = format!("4/{holder}");
        let held = |asked: Option<StepDownRequest>, change: fn(&mut Observed)| {
            but(|it| {
                (lease_of(it).holder, lease_of(it).step_down_request) = (holder.to_owned(), asked);
                change(it);
            })
        };
        let carried = Some(mark("new", &of));
        assert_eq!(decision(&group, &held(None, |_| {})), Decision::Mark(mark("new", &of)));
        let evict = Decision::Evict { value: "new".into(), pod: "billing-1".into(), uid: Some("uid-1".into()) };
        assert_eq!(decision(&group, &held(carried.clone(), |_| {})), evict);
        // On its way already, or gone: its Lease is awaited.
        for gone in [(|it| it.pods[0].terminating = true) as fn(&mut Observed), |it| drop(it.pods.remove(0))] {
            assert_eq!(rested(decision(&group, &held(carried.clone(), gone))).0, "StepDownRequested");
        }
        assert_eq!(rested(decision(&group, &held(None, |it| it.pods[1].ready = false))).0, "StepDownRefused");
        assert_eq!(rested(decision(&group, &held(carried, |it| it.pods[1].ready = false))).0, "StepDownRefused");
    }
    let stranger = but(|it| lease_of(it).holder = "stork".to_owned());
    let (reason, why) = rested(decision(&group, &stranger));
    assert_eq!(reason, "StepDownRefused");
    assert!(why.contains("stork holds lease shop/billing-leader, and no pod of this group has that name"), "{why}");
}

/// What the operator itself wants of the leader of [`led`].
fn intent(reason: ChangeReason) -> StepDownIntent {
    let (of, to) = ("4/uid-1/app/0011".to_owned(), Some("billing-2".to_owned()));
    StepDownIntent { reason, of, to, why: "it is to hand over".to_owned(), trial: None }
}

fn wishing(group: &ElectionGroup, observed: &Observed, intent: &StepDownIntent) -> Decision {
    let valid = Group::check(group).ok();
    decide(&Question::of(group, valid.as_ref(), observed.facts(), Some(intent)))
}

#[test]
fn the_operators_own_wish_goes_the_same_road_with_its_reason_and_a_successor() {
    let group = asking(MINIMAL, "{}", None);
    for reason in [ChangeReason::Rollout, ChangeReason::Unhealthy, ChangeReason::Draining] {
        let intent = intent(reason);
        let to = intent.to.clone();
        let asked = StepDownRequest { value: reason.as_str().to_owned(), of: intent.of.clone(), to };
        assert_eq!(asked.reason(), reason);
        assert_eq!(wishing(&group, &led(|_| {}), &intent), Decision::Mark(asked.clone()));
        // Told once, whoever wanted it; of a term that is over, never.
        let told = led(|it| lease_of(it).step_down_request = Some(asked.clone()));
        let word = if reason == ChangeReason::Unhealthy { "LeaderUnhealthy" } else { "StepDownRequested" };
        assert_eq!(rested(wishing(&group, &told, &intent)), (word, "it is to hand over".to_owned()));
        let other = StepDownIntent { reason: ChangeReason::Rollout, ..intent.clone() };
        assert!(matches!(wishing(&group, &told, &other), Decision::Rest(StepDown::Intended { .. })));
        let over: [fn(&mut Observed); 4] = [
            |it| lease_of(it).transitions = 5,
            |it| lease_of(it).expired = true,
            |it| lease_of(it).holder = "billing-2".to_owned(),
            |it| it.lease = None,
        ];
        for change in over {
            assert_eq!(wishing(&group, &led(change), &intent), Decision::Rest(StepDown::None));
        }
        for more in ["paused: true", "suspend: true"] {
            let still = wishing(&asking(MINIMAL, more, None), &led(|_| {}), &intent);
            assert_eq!(still, Decision::Rest(StepDown::None), "{more}");
        }
        assert_eq!(wishing(&group, &conflicting(), &intent), Decision::Rest(StepDown::None));
    }
}

#[test]
fn a_request_goes_before_a_wish_and_keeps_its_successor() {
    let group = asking(MINIMAL, "{}", Some("new"));
    let intent = intent(ChangeReason::Rollout);
    assert_eq!(wishing(&group, &led(|_| {}), &intent), Decision::Mark(mark("new", "4/uid-1/app/0011")));
    let to = Some("billing-2".to_owned());
    let wished = StepDownRequest { value: "Rollout".to_owned(), of: intent.of.clone(), to: to.clone() };
    let both = StepDownRequest { to, ..mark("new", "4/uid-1/app/0011") };
    let told = led(|it| lease_of(it).step_down_request = Some(wished.clone()));
    assert_eq!(wishing(&group, &told, &intent), Decision::Mark(both.clone()));
    assert_eq!(both.reason(), ChangeReason::SteppedDown);
    // It is acknowledged before the next intent overwrites it.
    let next = led(|it| (lease_of(it).transitions, lease_of(it).step_down_request) = (5, Some(both.clone())));
    let of = "5/uid-1/app/0011".to_owned();
    assert_eq!(rested(wishing(&group, &next, &StepDownIntent { of, ..intent.clone() })).0, "StepDownHandled");
    // A request that would leave nobody to lead does not keep the operator from handing over to a pod on trial.
    let alone = led(|it| it.pods[1].ready = false);
    assert_eq!(wishing(&group, &alone, &intent), Decision::Mark(wished));
}

#[test]
fn a_native_leader_is_evicted_for_a_wish_too() {
    let group = asking(NATIVE, "{}", None);
    let (of, to) = ("4/billing-1".to_owned(), Some("billing-2".to_owned()));
    let intent = StepDownIntent {
        reason: ChangeReason::Unhealthy,
        of: of.clone(),
        to: to.clone(),
        why: String::new(),
        trial: None,
    };
    let asked = StepDownRequest { value: "Unhealthy".to_owned(), of, to };
    assert_eq!(wishing(&group, &but(|_| {}), &intent), Decision::Mark(asked.clone()));
    let told = but(|it| lease_of(it).step_down_request = Some(asked.clone()));
    let evict = Decision::Evict { value: "Unhealthy".into(), pod: "billing-1".into(), uid: Some("uid-1".into()) };
    assert_eq!(wishing(&group, &told, &intent), evict);
    let going = but(|it| {
        (lease_of(it).step_down_request, it.pods[0].terminating) = (Some(asked), true);
    });
    assert!(matches!(wishing(&group, &going, &intent), Decision::Rest(StepDown::Intended { .. })));
}

/// A small world, walked through exhaustively. An operator forgets everything between any two of its writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    native: bool,
    /// The request that stands, and the one that is handled. 0 is none.
    requested: u8,
    handled: u8,
    /// Who leads, 0 for nobody, in which term, and what the Lease carries.
    holder: u8,
    transitions: i32,
    asked: Option<(u8, String)>,
    /// The holder's pod is being deleted.
    terminating: bool,
    /// How many leaders were brought down for each request.
    deposed: [u8; 3],
    /// The term that led when each request was made, 0 if nobody did.
    meant: [i32; 3],
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

    fn observed(&self) -> Observed {
        but(|it| {
            *lease_of(it) = LeaseView {
                holder: if self.holder == 0 { String::new() } else { format!("billing-{}", self.holder) },
                transitions: self.transitions,
                incarnation: (self.holder > 0 && !self.native).then(|| format!("uid-{}/app/0011", self.holder)),
                step_down_request: self.asked.clone().map(|(value, of)| mark(&value.to_string(), &of)),
                ..lease_of(it).clone()
            };
            if self.terminating {
                let pod: &mut PodView = &mut it.pods[usize::from(self.holder) - 1];
                (pod.terminating, pod.ready) = (true, false);
            }
        })
    }

    /// The next write of the operator, `None` if it has none. `base`: the group without a request.
    fn operated(&self, base: &(ElectionGroup, Group)) -> Option<World> {
        let (mut resource, group) = (base.0.clone(), &base.1);
        resource.status.as_mut().unwrap().last_handled_step_down_at =
            (self.handled > 0).then(|| self.handled.to_string());
        resource.metadata.annotations = (self.requested > 0)
            .then(|| [("k8sensus.dev/step-down-requested-at".to_owned(), self.requested.to_string())].into());
        let mut next = self.clone();
        let observed = self.observed();
        match decide(&Question::of(&resource, Some(group), observed.facts(), None)) {
            Decision::Mark(asked) => next.asked = Some((asked.value.parse().unwrap(), asked.of)),
            Decision::Evict { pod, .. } => {
                assert_eq!(pod, format!("billing-{}", self.holder));
                next.terminating = true;
                next.deposed[usize::from(self.asked.as_ref().unwrap().0)] += 1;
            }
            Decision::Rest(StepDown::Done { value, .. }) => next.handled = value.parse().unwrap(),
            Decision::Rest(_) => return None,
        }
        assert_ne!(next, *self, "a write that changes nothing");
        Some(next)
    }

    /// What candidates do by themselves: obey, leave with their pod, and take a free Lease.
    fn elected(&self) -> Vec<World> {
        let released = |by_request: Option<u8>| {
            let mut next = World { holder: 0, terminating: false, ..self.clone() };
            by_request.into_iter().for_each(|request| next.deposed[usize::from(request)] += 1);
            next
        };
        match (self.holder, &self.asked) {
            (0, _) => {
                (1..=2).map(|holder| World { holder, transitions: self.transitions + 1, ..self.clone() }).collect()
            }
            _ if self.terminating => vec![released(None)],
            (_, Some((request, of))) if !self.native && *of == self.term() => vec![released(Some(*request))],
            _ => Vec::new(),
        }
    }

    /// What else happens: another request, a leader's death.
    fn disturbed(&self) -> Vec<World> {
        let mut found = Vec::new();
        if self.requested < 2 {
            let mut next = World { requested: self.requested + 1, ..self.clone() };
            next.meant[usize::from(next.requested)] = if self.holder > 0 { self.transitions } else { 0 };
            found.push(next);
        }
        if self.holder > 0 && self.crashes < 2 {
            found.push(World { holder: 0, terminating: false, crashes: self.crashes + 1, ..self.clone() });
        }
        found
    }

    fn check(&self) {
        assert!(self.deposed.iter().all(|leaders| *leaders <= 1), "two leaders for one request: {self:?}");
        let meant = self.meant[usize::from(self.handled)];
        let ended = self.holder == 0 || self.transitions > meant || self.terminating;
        assert!(self.handled == 0 || meant == 0 || ended, "handled, and its leader leads on: {self:?}");
    }
}

#[test]
fn whichever_write_the_operator_dies_after_each_request_brings_one_leader_down_and_is_handled() {
    for native in [false, true] {
        let start = World {
            native,
            requested: 0,
            handled: 0,
            holder: 1,
            transitions: 4,
            asked: None,
            terminating: false,
            deposed: [0; 3],
            meant: [0; 3],
            crashes: 0,
        };
        let resource = asking(if native { NATIVE } else { MINIMAL }, "{}", None);
        let group = Group::check(&resource).unwrap();
        let base = (resource, group);
        let mut seen = std::collections::HashSet::from([start.clone()]);
        let mut open = vec![start];
        while let Some(world) = open.pop() {
            world.check();
            // Left alone, it comes to rest with the request handled.
            let mut calm = world.clone();
            for step in 0.. {
                assert!(step < 20, "no rest after {world:?}, now {calm:?}");
                let Some(next) = calm.operated(&base).or_else(|| calm.elected().pop()) else { break };
                calm = next;
            }
            assert_eq!(calm.handled, calm.requested, "{world:?} rests as {calm:?}");
            assert!(calm.holder > 0, "{calm:?}");
            for next in world.operated(&base).into_iter().chain(world.elected()).chain(world.disturbed()) {
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
fn the_status_keeps_the_last_request_that_was_handled() {
    let group = asking(MINIMAL, "{}", Some("new"));
    let (value, why) = ("new".to_owned(), String::new());
    for step_down in [
        StepDown::None,
        StepDown::Pending { value: value.clone(), why: why.clone() },
        StepDown::Refused { value: value.clone(), why: why.clone() },
        StepDown::Carried { value, why },
    ] {
        let status = status(&group, &Observed { step_down, ..healthy() });
        assert_eq!(json!(status.last_handled_step_down_at), json!("old"));
    }
    assert_eq!(status(&super::group(MINIMAL), &healthy()).last_handled_step_down_at, None);
}
