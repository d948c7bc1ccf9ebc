//! The replay of the kubelet's probes and hooks, on a clock of its own.

use std::sync::Arc;
use std::time::Duration;

use k8sensus_candidate::app::AppSpec;
use k8sensus_candidate::app::replay::{Event, Kind, Liveness, Order, Replay};
use k8sensus_election::Moment;
use proptest::prelude::*;
use serde_json::{Value, json};

fn at(seconds: f64) -> Moment {
    Moment::since_boot(Duration::from_secs(1000) + Duration::from_secs_f64(seconds))
}

fn replay(spec: Value) -> Replay {
    Replay::new(Arc::new(AppSpec::parse(&spec.to_string()).unwrap()))
}

fn tcp(more: Value) -> Value {
    let mut probe = json!({ "tcpSocket": { "port": 80 } });
    probe.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    probe
}

fn fails() -> Event {
    Event::Probed(Err("no listener".to_owned()))
}

const PASSES: Event = Event::Probed(Ok(()));
fn not_run() -> Event {
    Event::NotProbed("cannot run curl".to_owned())
}

const STARTUP: Order = Order::Probe(Kind::Startup);
const READINESS: Order = Order::Probe(Kind::Readiness);

#[test]
fn an_app_without_probes_is_ready_from_its_start_to_its_stop() {
    let mut replay = replay(json!({}));
    assert_eq!(replay.readiness(), Ok("standing by"));
    assert_eq!(replay.step(at(0.0), Event::Started), [Order::Ready(true)]);
    assert_eq!((replay.readiness(), replay.liveness(at(0.0))), (Ok("ready"), Liveness::Passes("running")));
    assert_eq!(replay.next_wake(), None);
    assert_eq!(replay.step(at(1.0), Event::Stopping), [Order::Ready(false)]);
    assert_eq!((replay.readiness(), replay.liveness(at(1.0))), (Err("stopping"), Liveness::Passes("stopping")));
    assert_eq!(replay.step(at(2.0), Event::Ended), []);
    assert_eq!((replay.readiness(), replay.liveness(at(2.0))), (Ok("standing by"), Liveness::Passes("standing by")));
}

#[test]
fn hook_startup_and_readiness_come_one_after_the_other() {
    let mut replay = replay(json!({
        "lifecycle": { "postStart": { "sleep": { "seconds": 1 } } },
        "startupProbe": tcp(json!({ "initialDelaySeconds": 5, "periodSeconds": 2 })),
        "readinessProbe": tcp(json!({ "initialDelaySeconds": 6, "periodSeconds": 3 })),
        "livenessProbe": tcp(json!({ "initialDelaySeconds": 20 })),
    }));
    assert_eq!(replay.step(at(0.0), Event::Started), [Order::PostStart]);
    assert_eq!((replay.next_wake(), replay.liveness(at(0.0))), (None, Liveness::Passes("starting")));
    assert_eq!(replay.readiness(), Err("starting: the postStart hook has not ended"));
    assert_eq!(replay.step(at(1.0), Event::PostStart(Ok(()))), []);
    assert_eq!(replay.next_wake(), Some(at(5.0)), "counted from the app's start, not from the hook's end");
    assert_eq!(replay.step(at(4.9), Event::Tick), []);
    assert_eq!(replay.step(at(5.0), Event::Tick), [STARTUP]);
    assert_eq!(replay.step(at(5.1), Event::Tick), [], "one at a time");
    assert_eq!(replay.step(at(5.5), fails()), []);
    assert_eq!(replay.readiness(), Err("the startup probe failed: no listener"));
    assert_eq!(replay.next_wake(), Some(at(7.0)), "a period after the last try started");
    assert_eq!(replay.step(at(7.0), Event::Tick), [STARTUP]);
    assert_eq!(replay.step(at(7.1), PASSES), [READINESS], "its delay is over");
    assert_eq!(replay.liveness(at(19.9)), Liveness::Passes("in its initial delay"));
    assert_eq!(replay.liveness(at(20.0)), Liveness::AskApp);
    assert!(replay.readiness().is_err());
    assert_eq!(replay.step(at(7.2), PASSES), [Order::Ready(true)]);
    assert_eq!(replay.next_wake(), Some(at(10.1)));
}

#[test]
fn a_try_that_takes_longer_than_the_period_is_followed_at_once() {
    let mut replay = replay(json!({ "readinessProbe": tcp(json!({ "periodSeconds": 1, "timeoutSeconds": 5 })) }));
    assert_eq!(replay.step(at(0.0), Event::Started), [READINESS]);
    assert_eq!(replay.step(at(4.0), PASSES), [Order::Ready(true), READINESS]);
}

#[test]
fn thresholds_count_in_a_row() {
    let mut replay = replay(
        json!({ "readinessProbe": tcp(json!({ "periodSeconds": 1, "successThreshold": 2, "failureThreshold": 3 })) }),
    );
    replay.step(at(0.0), Event::Started);
    let mut now = 0.0;
    let mut ready = Vec::new();
    for passes in [true, false, true, true, false, false, true, false, false, false, true, true] {
        now += 1.0;
        let orders = replay.step(at(now), if passes { PASSES } else { fails() });
        ready.extend(orders.into_iter().filter_map(|order| match order {
            Order::Ready(ready) => Some((now as u32, ready)),
            _ => None,
        }));
    }
    assert_eq!(ready, [(4, true), (10, false), (12, true)]);
}

#[test]
fn an_exhausted_startup_probe_fails_the_app() {
    let mut replay = replay(json!({
        "startupProbe": tcp(json!({ "periodSeconds": 1, "failureThreshold": 2, "terminationGracePeriodSeconds": 4 })),
        "terminationGracePeriodSeconds": 9,
    }));
    assert_eq!(replay.step(at(0.0), Event::Started), [STARTUP]);
    replay.step(at(0.1), fails());
    assert_eq!(replay.step(at(1.0), Event::Tick), [STARTUP]);
    let why = "the startup probe failed: no listener (the last of 2 tries in a row)".to_owned();
    let grace = Duration::from_secs(4);
    assert_eq!(replay.step(at(1.1), fails()), [Order::Fail { why, grace }], "with the probe's own grace");
    assert_eq!((replay.next_wake(), replay.liveness(at(1.1))), (None, Liveness::Passes("stopping")));
    assert_eq!(replay.step(at(1.2), Event::Stopping), [], "the order is given once");
}

#[test]
fn a_failed_hook_fails_the_app() {
    let mut replay = replay(json!({
        "lifecycle": { "postStart": { "exec": { "command": ["warm-up"] } } }, "terminationGracePeriodSeconds": 9,
    }));
    replay.step(at(0.0), Event::Started);
    let why = "the postStart hook failed: exit code 3".to_owned();
    let grace = Duration::from_secs(9);
    assert_eq!(replay.step(at(1.0), Event::PostStart(Err("exit code 3".to_owned()))), [Order::Fail { why, grace }]);
}

#[test]
fn every_term_starts_from_scratch() {
    let mut replay = replay(json!({ "startupProbe": tcp(json!({})), "readinessProbe": tcp(json!({})) }));
    for term in [0.0, 100.0] {
        assert_eq!(replay.step(at(term), Event::Started), [STARTUP]);
        assert_eq!(replay.readiness(), Err("starting: the startup probe has not passed yet"));
        assert_eq!(replay.step(at(term + 1.0), PASSES), [READINESS]);
        assert_eq!(replay.readiness(), Err("the readiness probe has not passed yet"));
        assert_eq!(replay.step(at(term + 2.0), PASSES), [Order::Ready(true)]);
        assert_eq!(replay.step(at(term + 3.0), Event::Ended), [Order::Ready(false)]);
        assert_eq!(replay.step(at(term + 4.0), PASSES), [], "a late answer is of a former term");
    }
}

/// Returns random specs.
fn any_spec() -> impl Strategy<Value = Value> {
    let probe = prop::option::of((0..4_u32, 1..4_u32, 1..4_u32, 1..4_u32)).prop_map(|probe| {
        probe.map(|(delay, period, successes, failures)| {
            tcp(json!({ "initialDelaySeconds": delay, "periodSeconds": period, "successThreshold": successes,
                        "failureThreshold": failures }))
        })
    });
    (probe.clone(), probe.clone(), probe, any::<bool>()).prop_map(|(startup, readiness, liveness, hook)| {
        let hook = hook.then(|| json!({ "sleep": { "seconds": 1 } }));
        json!({ "startupProbe": startup, "readinessProbe": readiness, "livenessProbe": liveness,
                "lifecycle": { "postStart": hook } })
    })
}

fn any_event() -> impl Strategy<Value = Event> {
    let result = || any::<bool>().prop_map(|passes| if passes { Ok(()) } else { Err("no".to_owned()) });
    prop_oneof![
        2 => Just(Event::Started),
        2 => result().prop_map(Event::PostStart),
        8 => result().prop_map(Event::Probed),
        2 => Just(not_run()),
        1 => Just(Event::Stopping),
        1 => Just(Event::Ended),
        6 => Just(Event::Tick),
    ]
}

#[test]
fn a_probe_that_could_not_run_does_not_count() {
    let mut replay = replay(json!({
        "startupProbe": tcp(json!({ "periodSeconds": 1, "failureThreshold": 2 })),
        "readinessProbe": tcp(json!({ "periodSeconds": 1, "failureThreshold": 2 })),
    }));
    assert_eq!(replay.step(at(0.0), Event::Started), [STARTUP]);
    assert_eq!(replay.step(at(0.0), fails()), []);
    for i in 1..10 {
        assert_eq!(replay.step(at(f64::from(i)), Event::Tick), [STARTUP]);
        assert_eq!(replay.step(at(f64::from(i)), not_run()), [], "no second failure");
    }
    assert_eq!(replay.readiness(), Err("the startup probe could not be run: cannot run curl"));
    assert_eq!(replay.step(at(10.0), Event::Tick), [STARTUP]);
    assert_eq!(replay.step(at(10.0), PASSES), [READINESS]);
    assert_eq!(replay.step(at(10.0), PASSES), [Order::Ready(true)]);
    for (i, answer) in [fails(), not_run(), not_run()].into_iter().enumerate() {
        let now = at(11.0 + f64::from(u32::try_from(i).unwrap()));
        assert_eq!(replay.step(now, Event::Tick), [READINESS]);
        assert_eq!(replay.step(now, answer), []);
    }
    assert_eq!(replay.readiness(), Ok("ready"));
    assert_eq!(replay.step(at(14.0), Event::Tick), [READINESS]);
    assert_eq!(replay.step(at(14.0), fails()), [Order::Ready(false)], "the row of failures goes on");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_order_fits_the_state(spec in any_spec(), events in prop::collection::vec((any_event(), 0..3_000_u64), 1..80)) {
        let mut replay = replay(spec.clone());
        let mut now = at(0.0);
        let (mut runs, mut ready, mut in_progress, mut failed, mut sent) = (false, false, None, false, None);
        for (event, wait) in events {
            now = now + Duration::from_millis(wait);
            // A result comes only for a requested probe.
            if matches!(event, Event::Probed(_) | Event::NotProbed(_)) && in_progress.is_none() {
                continue;
            }
            match event {
                Event::Started if !runs => (runs, failed, sent) = (true, false, None),
                Event::Started => continue,
                Event::Stopping | Event::Ended => {
                    runs = runs && event == Event::Stopping;
                    in_progress = None;
                    failed = failed || event == Event::Stopping;
                }
                Event::Probed(_) | Event::NotProbed(_) => in_progress = None,
                _ => {}
            }
            let answered = matches!(event, Event::Probed(_));
            for order in replay.step(now, event) {
                match order {
                    Order::Probe(kind) => {
                        prop_assert!(runs && !failed && in_progress.is_none(), "{kind:?} was ordered beside another or without need");
                        let probe = if kind == Kind::Startup { &spec["startupProbe"] } else { &spec["readinessProbe"] };
                        prop_assert!(!probe.is_null());
                        if let Some((last, before)) = sent && last == kind {
                            let period = Duration::from_secs(probe["periodSeconds"].as_u64().unwrap());
                            prop_assert!(now.since(before) >= period, "{kind:?} twice within {period:?}");
                        }
                        sent = Some((kind, now));
                        in_progress = Some(kind);
                    }
                    Order::Ready(new) => {
                        prop_assert!(new != ready, "only changes are reported");
                        prop_assert!(!new || (runs && !failed));
                        prop_assert!(!new || spec["readinessProbe"].is_null() || answered);
                        ready = new;
                    }
                    Order::Fail { .. } => failed = true,
                    Order::PostStart => prop_assert!(!spec["lifecycle"]["postStart"].is_null()),
                }
            }
            // Where no app runs, both probes pass; where one runs, readiness is the reported one.
            prop_assert_eq!(replay.readiness().is_ok(), if runs { ready } else { true });
            if !runs || failed {
                prop_assert!(matches!(replay.liveness(now), Liveness::Passes(_)));
                prop_assert!(replay.next_wake().is_none());
            }
            // No due probe is forgotten.
            prop_assert!(replay.next_wake().is_none_or(|due| due > now));
            if runs && !failed && ready && !spec["readinessProbe"].is_null() {
                prop_assert!(in_progress.is_some() || replay.next_wake().is_some());
            }
        }
    }
}
