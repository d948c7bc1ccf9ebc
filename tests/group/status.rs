use std::collections::BTreeSet;

use insta::assert_yaml_snapshot;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use k8sensus_api::names::ChangeReason;
use k8sensus_api::status::HISTORY_LIMIT;
use k8sensus_api::{ConditionType, ElectionGroup, ElectionGroupStatus, InjectionStatus, LeaderStatus};
use k8sensus_group::observed::lease::{Ended, LeaseView};
use k8sensus_group::observed::pod::PodView;
use k8sensus_group::observed::{DeploymentView, EndedBy, Facts, Outcome};
use k8sensus_group::status::InjectionRecord;
use k8sensus_group::{Findings, Group};
use proptest::prelude::*;
use serde_json::json;

use super::conditions::{Case, cases};
use super::{MINIMAL, group, with};

pub const RECREATED: &str = "k8sensus.dev/recreated";

fn time(text: &str) -> Time {
    serde_json::from_value(json!(text)).expect("a time")
}

fn noon() -> Time {
    time("2026-03-01T12:00:00Z")
}

fn later() -> Time {
    time("2026-03-01T12:34:56Z")
}

fn since() -> MicroTime {
    serde_json::from_value(json!("2026-03-01T11:00:00.123456Z")).expect("a time")
}

fn earlier() -> MicroTime {
    serde_json::from_value(json!("2026-03-01T10:59:58.000001Z")).expect("a time")
}

pub fn pod(number: u8) -> PodView {
    PodView {
        name: format!("billing-{number}"),
        node: Some(format!("node-{number}")),
        ip: Some(format!("10.0.0.{number}")),
        template_hash: Some("6c9f7d5b8".to_owned()),
        ready: true,
        uid: Some(format!("uid-{number}")),
        containers_ready: true,
        ..PodView::default()
    }
}

pub fn lease(holder: &str) -> LeaseView {
    LeaseView { holder: holder.to_owned(), acquire_time: Some(since()), transitions: 4, ..LeaseView::default() }
}

/// Two ready pods on two nodes. The first one leads.
pub fn healthy() -> Findings {
    let facts = Facts {
        outcome: Outcome::Applied,
        deployment: Some(DeploymentView { replicas: 2, ready: 2, updated: 2, observed: true, ..Default::default() }),
        lease: Some(lease("billing-1")),
        pods: vec![pod(1), pod(2)],
        ..Facts::default()
    };
    Findings { facts, ..Findings::default() }
}

/// [`healthy`] with one change.
pub fn but(change: impl FnOnce(&mut Findings)) -> Findings {
    changed(healthy(), change)
}

pub fn changed(mut findings: Findings, change: impl FnOnce(&mut Findings)) -> Findings {
    change(&mut findings);
    findings
}

pub fn lease_of(observed: &mut Findings) -> &mut LeaseView {
    observed.facts.lease.as_mut().expect("a lease")
}

pub fn deployment_of(observed: &mut Findings) -> &mut DeploymentView {
    observed.facts.deployment.as_mut().expect("a deployment")
}

fn status_at(group: &ElectionGroup, observed: &Findings, now: &Time) -> ElectionGroupStatus {
    let valid = Group::check(group).ok();
    k8sensus_group::status::status(group, valid.as_ref(), observed, now)
}

pub fn status(group: &ElectionGroup, observed: &Findings) -> ElectionGroupStatus {
    status_at(group, observed, &noon())
}

/// Returns `group` with its status after `observed`, at noon.
fn after(mut group: ElectionGroup, observed: &Findings) -> ElectionGroup {
    group.status = Some(status(&group, observed));
    group
}

pub fn condition(status: &ElectionGroupStatus, kind: ConditionType) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// A refused spec, with the message of the refusal.
pub fn refused() -> Findings {
    but(|it| it.facts.outcome = Outcome::Invalid("spec.replicas: must be from 0 to 100, found 101".to_owned()))
}

pub fn conflicting() -> Findings {
    but(|it| it.facts.outcome = Outcome::Conflict("Role shop/billing exists".to_owned()))
}

pub fn forbidden() -> Findings {
    but(|it| it.facts.outcome = Outcome::Forbidden("cannot create Role shop/billing".to_owned()))
}

#[test]
fn typical_statuses_match_their_snapshots() {
    let injection = InjectionStatus {
        image: "registry.example/k8sensus:0.1.0".to_owned(),
        revision: 1,
        template_hash: Some("0011223344556677".to_owned()),
    };
    let free = LeaseView { transitions: 0, ..lease("") };
    let fresh = but(|it| {
        deployment_of(it).ready = 0;
        it.facts = Facts { lease: Some(free), pods: vec![], ..it.facts.clone() };
    });
    let led = Findings { injection: InjectionRecord::Set(injection), ..healthy() };
    let expired = but(|it| {
        lease_of(it).expired = true;
        it.facts.pods[0].ready = false;
        deployment_of(it).ready = 1;
    });
    let led_before = |more| ElectionGroup { status: Some(status(&group(MINIMAL), &led)), ..with(MINIMAL, more) };
    assert_yaml_snapshot!("just_made", status(&group(MINIMAL), &fresh));
    assert_yaml_snapshot!("led", status(&group(MINIMAL), &led));
    assert_yaml_snapshot!("leader_lost", status_at(&led_before("{}"), &expired, &later()));
    assert_yaml_snapshot!("refused", status_at(&led_before("replicas: 101"), &refused(), &later()));
    let gone = changed(led.clone(), |it| {
        it.facts = Facts {
            deployment: Some(DeploymentView { observed: true, ..Default::default() }),
            lease: Some(LeaseView { transitions: 5, ..lease("") }),
            ..Facts::default()
        };
    });
    assert_yaml_snapshot!("suspended", status_at(&led_before("suspend: true"), &gone, &later()));
}

#[test]
fn same_observation_gives_the_same_status() {
    for Case { more, observed, .. } in cases() {
        let group = after(with(MINIMAL, more), &observed);
        assert_eq!(Some(&status_at(&group, &observed, &later())), group.status.as_ref(), "{more} of {observed:?}");
    }
}

#[test]
fn transition_time_changes_with_the_status_and_not_the_reason() {
    let ready = ConditionType::Ready;
    let times = |status: &ElectionGroupStatus, kind| condition(status, kind).expect("it").last_transition_time.clone();
    let no_leader = but(|it| it.facts.lease = None);
    let no_replicas = but(|it| deployment_of(it).ready = 1);
    let group = after(group(MINIMAL), &no_leader);

    let other_reason = status_at(&group, &no_replicas, &later());
    assert_eq!(condition(&other_reason, ready).expect("Ready").reason, "InsufficientReplicas");
    assert_eq!(times(&other_reason, ready), noon(), "False before and after");
    assert_eq!(times(&other_reason, ConditionType::LeaderElected), later(), "it turned True");
    assert_eq!(times(&other_reason, ConditionType::FailoverReady), noon());
}

#[test]
fn reappearing_condition_has_a_new_transition_time() {
    let rolling = but(|it| deployment_of(it).updated = 0);
    let calm = after(after(group(MINIMAL), &rolling), &healthy());
    let again = status_at(&calm, &rolling, &later());
    let reconciling = condition(&again, ConditionType::Reconciling).expect("Reconciling");
    assert_eq!(reconciling.last_transition_time, later());
}

#[test]
fn expired_holder_is_no_holder() {
    let status = status(&after(group(MINIMAL), &healthy()), &but(|it| lease_of(it).expired = true));
    assert_eq!((status.holder_identity, status.acquire_time, status.leader), (None, None, None));
    assert_eq!(status.lease_transitions, Some(4));
}

#[test]
fn recreated_lease_has_no_holder() {
    let status = status(&group(MINIMAL), &but(|it| it.facts.lease = Some(lease(RECREATED))));
    assert_eq!((status.holder_identity, status.acquire_time, status.leader), (None, None, None));
}

#[test]
fn leader_is_described_by_its_pod() {
    let of = |observed: &Findings| status(&group(MINIMAL), observed).leader;
    let by_controller_runtime = but(|it| lease_of(it).holder.push_str("_0fb1c3a4-52f1-4a54-9b8e-5f2f6f0d7d11"));
    assert_eq!(of(&by_controller_runtime), of(&healthy()), "the pod's name is before the underscore");
    let expected = LeaderStatus {
        pod_name: "billing-2".to_owned(),
        node_name: Some("node-2".to_owned()),
        pod_ip: Some("10.0.0.2".to_owned()),
        pod_template_hash: Some("6c9f7d5b8".to_owned()),
    };
    assert_eq!(of(&but(|it| it.facts.lease = Some(lease("billing-2")))), Some(expected));
    let unknown = LeaderStatus { pod_name: "billing-0".to_owned(), ..LeaderStatus::default() };
    assert_eq!(of(&but(|it| it.facts.lease = Some(lease("billing-0")))), Some(unknown));
}

#[test]
fn transitions_never_fall() {
    let group = after(group(MINIMAL), &healthy());
    let transitions = |observed: &Findings| status(&group, observed).lease_transitions;
    assert_eq!(transitions(&but(|it| it.facts.lease = None)), Some(4));
    assert_eq!(transitions(&but(|it| lease_of(it).transitions = 0)), Some(4));
    assert_eq!(transitions(&but(|it| lease_of(it).transitions = 5)), Some(5));
}

#[test]
fn group_without_a_lease_reports_none() {
    let status = status(&group(MINIMAL), &but(|it| it.facts.lease = None));
    assert_eq!((status.lease_name, status.lease_transitions), (None, None));
}

#[test]
fn lost_lease_is_still_named() {
    let group = after(with(MINIMAL, "election: { leaseName: ledger }"), &healthy());
    let status = status(&group, &but(|it| it.facts.lease = None));
    assert_eq!(status.lease_name.as_deref(), Some("ledger"), "shows that it is lost and not new");
}

#[test]
fn recorded_values_are_kept() {
    let entry = json!({
        "holderIdentity": "billing-1", "time": since(), "reason": "LeaseExpired",
        "leaderlessSeconds": 15.012, "leaseTransitions": 4,
    });
    let before = json!({
        "history": [entry],
        "leaseTransitions": 4,
        "lastHandledStepDownAt": "2026-01-01T00:00:00Z",
        "injection": { "image": "registry.example/k8sensus:0.0.9", "revision": 1, "templateHash": "ab" },
    });
    let mut group = group(MINIMAL);
    group.status = Some(serde_json::from_value(before.clone()).expect("a status"));
    let after = serde_json::to_value(status(&group, &healthy())).expect("JSON");
    for field in ["history", "lastHandledStepDownAt", "injection"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    let new = InjectionStatus { image: "registry.example/k8sensus:0.1.0".to_owned(), ..Default::default() };
    let moved = status(&group, &but(|it| it.injection = InjectionRecord::Set(new.clone())));
    assert_eq!(moved.injection, Some(new));
    let removed = status(&group, &but(|it| it.injection = InjectionRecord::Remove));
    assert_eq!(removed.injection, None);
}

#[test]
fn selector_is_what_a_horizontal_pod_autoscaler_needs() {
    assert_eq!(status(&group(MINIMAL), &healthy()).selector.as_deref(), Some("k8sensus.dev/group=billing"));
}

#[test]
fn suspended_group_is_not_reported_as_having_zero_replicas() {
    let status = status(&with(MINIMAL, "{ suspend: true, replicas: 3 }"), &healthy());
    let failover = condition(&status, ConditionType::FailoverReady).expect("FailoverReady");
    assert!(!failover.message.contains("spec.replicas is 0"), "{}", failover.message);
}

#[test]
fn one_pod_exists() {
    let status = status(&group(MINIMAL), &but(|it| deployment_of(it).replicas = 1));
    let reconciling = condition(&status, ConditionType::Reconciling);
    assert_eq!(reconciling.map(|it| it.message.as_str()), Some("1 pod exists, 2 are wanted"));
}

fn observations() -> impl Strategy<Value = Findings> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Applied),
        1 => "[a-z]{0,5}".prop_map(Outcome::Invalid),
        1 => "[a-z]{0,5}".prop_map(Outcome::Conflict),
        1 => "[a-z]{0,5}".prop_map(Outcome::Forbidden),
    ];
    let number = || prop_oneof![0..4_i32, any::<i32>()];
    let stuck = prop::option::weighted(0.2, "[a-z]{0,5}");
    let deployment = (number(), number(), number(), any::<bool>(), stuck).prop_map(
        |(replicas, ready, updated, observed, deadline_exceeded)| DeploymentView {
            replicas,
            ready,
            updated,
            observed,
            deadline_exceeded,
            ..DeploymentView::default()
        },
    );
    let holder = prop_oneof![4 => "billing-[0-3]", 1 => Just(String::new()), 1 => Just(RECREATED.to_owned())];
    let time = || prop::option::of(prop_oneof![Just(since()), Just(earlier())]);
    let reason = || prop::sample::select(ChangeReason::ALL.as_slice());
    let former = prop::option::of((reason(), time()).prop_map(|(reason, since)| Ended { reason, since }));
    let lease = (holder, time(), time(), number(), any::<bool>(), any::<bool>(), former).prop_map(
        |(holder, acquire_time, renew_time, transitions, released, expired, former)| LeaseView {
            holder,
            acquire_time,
            renew_time,
            transitions,
            released,
            expired,
            former,
            ..LeaseView::default()
        },
    );
    let ended = prop::option::of(("billing-[0-3]", reason()).prop_map(|(holder, reason)| EndedBy { holder, reason }));
    let text = || prop::option::of("[a-c]");
    let pod = ("billing-[0-3]", text(), text(), text(), any::<bool>()).prop_map(|(name, node, ip, hash, ready)| {
        PodView { name, node, ip, template_hash: hash, ready, ..PodView::default() }
    });
    (outcome, prop::option::of(deployment), prop::option::of(lease), prop::collection::vec(pod, 0..4), ended).prop_map(
        |(outcome, deployment, lease, pods, ended)| {
            let facts = Facts { outcome, deployment, lease, pods, ended, ..Facts::default() };
            Findings { facts, ..Findings::default() }
        },
    )
}

fn groups() -> impl Strategy<Value = ElectionGroup> {
    (-1..5_i32, prop::bool::weighted(0.2), any::<bool>()).prop_map(|(replicas, suspend, paused)| {
        with(MINIMAL, &format!("{{ replicas: {replicas}, suspend: {suspend}, paused: {paused} }}"))
    })
}

/// Checks the invariants of a status, given the former status.
fn check(before: &ElectionGroupStatus, now: &ElectionGroupStatus, at: &Time) {
    let types: Vec<&str> = now.conditions.iter().map(|condition| condition.type_.as_str()).collect();
    let unique: BTreeSet<&str> = types.iter().copied().collect();
    assert_eq!(unique.len(), types.len(), "{types:?}");
    for always in [ConditionType::Ready, ConditionType::LeaderElected, ConditionType::FailoverReady] {
        assert!(unique.contains(always.as_str()), "{always}");
    }
    assert_eq!(now.observed_generation, Some(7));
    assert!(now.lease_transitions >= before.lease_transitions);
    assert_eq!(now.holder_identity.is_some(), now.leader.is_some());
    assert!(now.acquire_time.is_none() || now.leader.is_some());
    assert!(now.leader.is_none() || now.leaderless.is_none());
    assert!(now.history.len() <= HISTORY_LIMIT);
    let common = now.history.len().min(before.history.len());
    assert!(now.history == before.history || now.history[1..] == before.history[..common.min(HISTORY_LIMIT - 1)]);
    assert!(now.history.iter().all(|entry| entry.leaderless_seconds.is_none_or(|seconds| seconds >= 0.0)));
    for condition in &now.conditions {
        let kind = ConditionType::ALL.into_iter().find(|kind| kind.as_str() == condition.type_).expect("a known type");
        let reasons: Vec<&str> = kind.reasons().iter().map(|reason| reason.as_str()).collect();
        assert!(reasons.contains(&condition.reason.as_str()), "{condition:?}");
        assert_eq!(condition.observed_generation, Some(7));
        let old = before.conditions.iter().find(|old| old.type_ == condition.type_);
        match old.filter(|old| old.status == condition.status) {
            Some(old) => assert_eq!(condition.last_transition_time, old.last_transition_time),
            None => assert_eq!(&condition.last_transition_time, at),
        }
    }
    let elected = condition(now, ConditionType::LeaderElected).expect("LeaderElected");
    assert_eq!(elected.status == "True", now.leader.is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_of_the_status_hold_for_any_observation(
        mut group in groups(),
        story in prop::collection::vec(observations(), 1..6),
    ) {
        for (minute, observed) in story.iter().enumerate() {
            let now = time(&format!("2026-03-01T12:{minute:02}:00Z"));
            let new = status_at(&group, observed, &now);
            check(&group.status.clone().unwrap_or_default(), &new, &now);
            // As the API server returns it, reconciled again.
            let stored = serde_json::from_str(&serde_json::to_string(&new).expect("JSON")).expect("a status");
            group.status = Some(stored);
            prop_assert_eq!(&status_at(&group, observed, &later()), &new);
        }
    }
}
