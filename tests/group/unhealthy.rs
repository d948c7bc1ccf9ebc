//! When a leader whose program is not ready must hand over.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8sensus_api::HistoryEntry;
use k8sensus_api::names::ChangeReason;
use k8sensus_group::Group;
use k8sensus_group::judge::flapping::flapping_wait;
use k8sensus_group::judge::unhealthy::decide;
use k8sensus_group::observed::lease::LeaseView;
use k8sensus_group::observed::lease::StepDownRequest;
use k8sensus_group::observed::pod::PodView;
use k8sensus_group::observed::program::Watch;
use k8sensus_group::spec::group::GroupMode;

use super::status::{healthy, pod};
use super::{MINIMAL, NATIVE, with};

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// Held by billing-1, as a candidate of ours.
fn lease(ready: bool) -> LeaseView {
    LeaseView { incarnation: Some("uid-1/app/0011".into()), ready, ..healthy().facts.lease.unwrap() }
}

fn pods() -> Vec<PodView> {
    [1, 2].map(|number| PodView { proven: Some(true), reports_readiness: true, ..pod(number) }).into()
}

fn history(reasons: &[&str]) -> Vec<HistoryEntry> {
    reasons.iter().map(|reason| HistoryEntry { reason: Some((*reason).to_owned()), ..Default::default() }).collect()
}

/// A leader that is not ready since second 100.
fn unready() -> Watch {
    Watch::observe(None, GroupMode::Exec, Some(&lease(false)), &pods(), seconds(100)).unwrap()
}

#[test]
fn readiness_comes_from_the_lease_or_the_kubelet_by_mode() {
    let observe = |mode, lease: &LeaseView, pods: &[PodView]| {
        Watch::observe(None, mode, Some(lease), pods, seconds(1)).map(|watch| watch.ready)
    };
    let change = |change: fn(&mut PodView)| {
        let mut pods = pods();
        change(&mut pods[0]);
        pods
    };
    let exec = |ready, pods: &[PodView]| observe(GroupMode::Exec, &lease(ready), pods);
    assert_eq!([exec(true, &pods()), exec(false, &pods())], [Some(Some(true)), Some(Some(false))]);
    let beside = change(|it| it.others_unready = true);
    assert_eq!([exec(true, &beside), exec(false, &beside)], [Some(Some(false)); 2], "a proxy beside it may not work");
    let late = change(|it| it.containers_ready = false);
    assert_eq!(exec(true, &late), Some(Some(true)), "the kubelet has not probed the leader's container again yet");
    let older = change(|it| (it.proven, it.reports_readiness) = (None, false));
    assert_eq!(exec(false, &older), Some(None), "an older candidate cannot report it");
    assert_eq!(exec(false, &change(|it| it.terminating = true)), Some(None));
    let beside = |ready| {
        change(if ready {
            |it| it.reports_readiness = false
        } else {
            |it| (it.reports_readiness, it.containers_ready) = (false, false)
        })
    };
    // A pod of mode Sidecar leads although the group has mode Exec by now: its candidate does not report readiness.
    for mode in [GroupMode::Sidecar, GroupMode::Exec] {
        let sidecar = |pods: &[PodView]| observe(mode, &lease(false), pods);
        assert_eq!([sidecar(&beside(true)), sidecar(&beside(false))], [Some(Some(true)), Some(Some(false))]);
    }
    let native = |ready| {
        let pods: Vec<_> = [1, 2].map(|number| PodView { ready, ..pod(number) }).into();
        observe(GroupMode::Native, &lease(false), &pods)
    };
    assert_eq!([native(true), native(false)], [Some(Some(true)), Some(Some(false))]);
    let request = StepDownRequest { value: "now".into(), of: "4/uid-1/app/0011".into(), to: None };
    let stopping = LeaseView { step_down_request: Some(request), ..lease(false) };
    assert_eq!(observe(GroupMode::Exec, &stopping, &pods()), Some(None), "it is about to stop its program");
    let request = StepDownRequest { value: "Unhealthy".into(), of: "4/billing-1".into(), to: None };
    let requested = LeaseView { step_down_request: Some(request), ..lease(false) };
    let unready: Vec<_> = [1, 2].map(|number| PodView { ready: false, ..pod(number) }).into();
    let native = observe(GroupMode::Native, &requested, &unready);
    assert_eq!(native, Some(Some(false)), "it does not know the request, and its eviction may be refused");
    for lease in [
        LeaseView { holder: String::new(), ..lease(true) },
        LeaseView { expired: true, ..lease(true) },
        LeaseView { holder: "stork".to_owned(), ..lease(true) },
        // A client that leaves the former candidate's annotation in place.
        LeaseView { holder: "billing-2".to_owned(), ..lease(true) },
    ] {
        assert_eq!(observe(GroupMode::Exec, &lease, &pods()), None, "{lease:?}");
    }
}

#[test]
fn interruption_restart_and_new_term_reset_the_times() {
    let observe = |former: &Watch, lease: &LeaseView, pods: &[PodView], at| {
        Watch::observe(Some(former), GroupMode::Exec, Some(lease), pods, seconds(at)).unwrap()
    };
    let first = unready();
    assert_eq!((first.unready_for(seconds(130)), first.ready_for(seconds(130))), (Some(seconds(30)), None));
    let ready = observe(&first, &lease(true), &pods(), 140);
    assert_eq!((ready.ready_for(seconds(150)), ready.unready_for(seconds(150))), (Some(seconds(10)), None));
    assert_eq!(ready.began, seconds(100));
    assert_eq!(observe(&ready, &lease(true), &pods(), 150), ready, "observing again changes nothing");
    let broken = observe(&ready, &lease(false), &pods(), 160);
    assert_eq!(observe(&broken, &lease(true), &pods(), 170).ready_for(seconds(175)), Some(seconds(5)));
    let mut restarted = pods();
    restarted[0].restarts = 1;
    let again = observe(&ready, &lease(true), &restarted, 180);
    assert_eq!((again.ready_for(seconds(185)), again.first_restarts, again.restarts), (Some(seconds(5)), 0, 1));
    let still = observe(&first, &lease(false), &restarted, 120);
    assert_eq!(
        still.unready_for(seconds(130)),
        Some(seconds(30)),
        "restarts of an unready program do not reset the time"
    );
    let next = observe(&ready, &LeaseView { transitions: 5, ..lease(true) }, &restarted, 190);
    assert_eq!((next.began, next.since, next.first_restarts), (seconds(190), seconds(190), 1));
}

#[test]
fn unready_leader_hands_over_after_a_timeout_that_doubles() {
    let group = Group::check(&with(MINIMAL, "candidate: { unhealthyTimeoutSeconds: 30 }")).unwrap();
    let at = |reasons: &[&str], second| {
        let decision =
            decide(&group, Some(&lease(false)), &pods(), &history(reasons), Some(&unready()), seconds(second));
        decision.intent.map(|intent| (intent.reason, intent.of, intent.to)).ok_or(decision.wait)
    };
    let handed = Ok((ChangeReason::Unhealthy, "4/uid-1/app/0011".to_owned(), Some("billing-2".to_owned())));
    let table: [(&[&str], u64); 7] = [
        (&[], 30),
        (&["LeaseReleased", "Unhealthy"], 30),
        (&["Unhealthy"], 60),
        (&["Unhealthy", "Unhealthy", "Elected"], 120),
        (&["Unhealthy"; 5], 960),
        (&["Unhealthy"; 6], 960),
        (&["Unhealthy"; 10], 960),
    ];
    for (reasons, timeout) in table {
        assert_eq!(at(reasons, 100 + timeout - 1), Err(Some(seconds(1))), "{reasons:?}");
        assert_eq!(at(reasons, 100 + timeout), handed, "{reasons:?}");
    }
}

#[test]
fn leader_keeps_leading_if_ready_or_without_successor_or_limit() {
    let is_idle = |more: &str, change: fn(&mut Vec<PodView>), ready: bool| {
        let group = Group::check(&with(MINIMAL, more)).unwrap();
        let mut pods = pods();
        change(&mut pods);
        let lease = lease(ready);
        let watch = Watch::observe(None, group.mode, Some(&lease), &pods, seconds(100));
        decide(&group, Some(&lease), &pods, &[], watch.as_ref(), seconds(5_000)) == Default::default()
    };
    assert!(!is_idle("{}", |_| {}, false));
    assert!(is_idle("{}", |_| {}, true));
    assert!(is_idle("{}", |pods| pods[1].ready = false, false));
    assert!(is_idle("{}", |pods| drop(pods.pop()), false));
    assert!(is_idle("{}", |pods| drop(pods.remove(0)), false));
    assert!(is_idle("{}", |pods| pods[0].terminating = true, false), "its candidate hands over by itself");
    assert!(is_idle("candidate: { unhealthyTimeoutSeconds: 0 }", |_| {}, false));
}

#[test]
fn deleted_leader_hands_over_first_only_in_mode_sidecar() {
    let decision_in = |group: &str, more: &str| {
        let group = Group::check(&with(group, more)).unwrap();
        let mut pods = pods();
        (pods[0].terminating, pods[0].ready, pods[0].containers_ready) = (true, false, false);
        let watch = Watch::observe(None, group.mode, Some(&lease(false)), &pods, seconds(100));
        let decision = decide(&group, Some(&lease(false)), &pods, &[], watch.as_ref(), seconds(100));
        decision.intent.map(|intent| (intent.reason, intent.to.unwrap()))
    };
    let sidecar = decision_in(MINIMAL, "candidate: { mode: Sidecar }");
    assert_eq!(sidecar, Some((ChangeReason::Draining, "billing-2".to_owned())));
    assert_eq!(decision_in(MINIMAL, "{}"), None);
    assert_eq!(decision_in(NATIVE, "{}"), None);
}

#[test]
fn successor_is_preferably_on_another_node_without_restarts() {
    let group = Group::check(&with(MINIMAL, "{}")).unwrap();
    let next = |change: fn(&mut Vec<PodView>)| {
        let mut pods: Vec<PodView> = [4, 3, 2, 1].map(|number| PodView { proven: Some(true), ..pod(number) }).into();
        change(&mut pods);
        decide(&group, Some(&lease(false)), &pods, &[], Some(&unready()), seconds(500)).intent.unwrap().to.unwrap()
    };
    assert_eq!(next(|_| {}), "billing-2");
    assert_eq!(next(|pods| pods[2].restarts = 1), "billing-3");
    assert_eq!(next(|pods| pods[2].node = Some("node-1".to_owned())), "billing-3");
    assert_eq!(next(|pods| (0..3).for_each(|at| pods[at].node = Some("node-1".to_owned()))), "billing-2");
    assert_eq!(next(|pods| (1..3).for_each(|at| pods[at].ready = false)), "billing-4");
}

#[test]
fn flapping_ends_when_the_third_failure_is_two_minutes_old() {
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
    let entries = |times: &[&str]| -> Vec<HistoryEntry> {
        let entry = |time: &&str| HistoryEntry {
            time: Some(MicroTime(at(time))),
            reason: Some("KubeletReported".to_owned()),
            ..Default::default()
        };
        times.iter().map(entry).collect()
    };
    let three = ["2026-03-01T12:01:00Z", "2026-03-01T12:00:30Z", "2026-03-01T12:00:10Z"];
    let now = at("2026-03-01T12:01:10Z");
    assert_eq!(flapping_wait(&entries(&three), &[], now), Some(seconds(61)));
    assert_eq!(flapping_wait(&entries(&three[1..]), &[], now), None);
    assert_eq!(flapping_wait(&entries(&three), &[], at("2026-03-01T12:02:11Z")), None);
}
