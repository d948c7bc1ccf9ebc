//! A sidecar keeps its promises: no other candidate leads during one, on a real API server.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8sensus_local::Component;
use rustix::process::Signal;

use super::http::Sidecar;
use crate::support::objects::Direct;
use crate::support::{get, kubectl, namespace, shared, within};

const SOON: Duration = Duration::from_secs(5);

fn short(ns: &str, pod: &str) -> Sidecar {
    Sidecar::start(shared(), ns, pod)
}

/// Starts a sidecar with promises of 5 s, long enough to show whether a handover waits for them.
fn long(ns: &str, pod: &str) -> Sidecar {
    let mut command = Sidecar::command(shared(), ns, pod);
    command.args(["--lease-duration-seconds=15", "--renew-deadline-seconds=10", "--retry-period-seconds=5"]);
    Sidecar::from(pod, &mut command)
}

fn pair(ns: &str, start: fn(&str, &str) -> Sidecar) -> (Sidecar, Sidecar) {
    let otter = start(ns, "otter");
    otter.leads(10);
    let heron = start(ns, "heron");
    heron.program.wait_for("leader is otter", SOON);
    (otter, heron)
}

/// Waits until `sidecar` answers that it leads, and returns when that was.
fn wait_for_takeover(sidecar: &Sidecar, limit: Duration) -> Instant {
    let start = Instant::now();
    while sidecar.get("/").promise().is_none() {
        assert!(start.elapsed() < limit, "no leader within {limit:?}:\n{}", sidecar.program.output());
        std::thread::sleep(Duration::from_millis(1));
    }
    Instant::now()
}

#[test]
fn a_stop_report_of_the_app_releases_the_lease_immediately() {
    let ns = namespace(shared(), "stopped");
    let (otter, heron) = pair(&ns, long);
    let (token, _) = otter.get("/").promise().unwrap();
    let stale = otter.post("/stopped?fencingToken=1");
    assert!(stale.status == 200 && stale.body.contains("nothing to release"), "{stale:?}");
    let (again, end) = otter.get("/").promise().unwrap();
    assert_eq!(again, token, "a report for another term ends nothing");
    let reported = Instant::now();
    assert_eq!(otter.post("/stopped").status, 200);
    assert!(otter.get("/").promise().is_none());
    let takeover = wait_for_takeover(&heron, SOON);
    eprintln!(
        "taken over {:?} after /stopped, the promise had {:?} left",
        takeover - reported,
        end.duration_since(reported)
    );
    assert!(takeover + Duration::from_secs(1) < end, "{:?} after /stopped", takeover - reported);
    otter.program.wait_for("the app has stopped: releasing the lease", SOON);
}

#[test]
fn without_a_stop_report_the_lease_is_held_until_the_promise_expires() {
    for signal in [None, Some(Signal::TERM), Some(Signal::INT)] {
        let ns = namespace(shared(), "silent");
        let (mut otter, heron) = pair(&ns, short);
        let (_, end) = otter.leads(1);
        let signalled = Instant::now();
        match signal {
            Some(signal) => otter.program.signal(signal),
            None => assert_eq!(otter.post("/step-down").status, 202),
        }
        let takeover = wait_for_takeover(&heron, SOON);
        let late = takeover.saturating_duration_since(end);
        eprintln!("{signal:?}: taken over {:?} after the signal, {late:?} after the promise", takeover - signalled);
        assert!(takeover >= end, "{:?} before the promise expired", end - takeover);
        // Otherwise the Lease would have expired 3 s after its last renewal.
        assert!(late < Duration::from_secs(2), "{late:?} after the promise expired");
        otter.program.wait_for("the last promise has expired: releasing the lease", SOON);
        if signal.is_some() {
            assert!(otter.program.wait(SOON).success());
        }
    }
}

#[test]
fn a_term_without_promises_delays_no_handover() {
    let ns = namespace(shared(), "no-promise");
    let mut otter = long(&ns, "otter");
    assert!(otter.get("/").promise().is_none(), "the only request comes before it leads");
    otter.program.wait_for("leading with fencing token", SOON);
    assert_eq!(otter.post("/stopped").status, 200);
    let start = Instant::now();
    assert!(otter.program.terminate(SOON).success());
    assert!(start.elapsed() < Duration::from_secs(4), "as long as a promise: {:?}", start.elapsed());
    assert!(!otter.program.says("the app has stopped"), "the report cannot be meant for this term");
    assert_eq!(get(shared(), &ns, "lease/weir").unwrap()["spec"]["holderIdentity"], "");
}

#[test]
fn a_stopping_sidecar_makes_no_promises_while_it_holds_the_lease() {
    let ns = namespace(shared(), "closed");
    let otter = long(&ns, "otter");
    let (_, end) = otter.leads(10);
    otter.program.signal(Signal::TERM);
    otter.program.wait_for("leaving the election", SOON);
    let direct = Direct::to(shared());
    let mut answers = 0;
    // The Lease is released right after the promise has expired.
    while Instant::now() + Duration::from_millis(200) < end {
        let lease = direct.get(&ns, "leases", "weir").unwrap();
        let body = otter.get("/").json();
        assert_eq!((&body["is_leader"], &body["name"]), (&false.into(), &"".into()), "{body}");
        assert_eq!(lease["spec"]["holderIdentity"], "otter");
        answers += 1;
    }
    assert!(answers > 0, "the promise expired before the first request");
}

#[test]
fn without_an_api_server_no_promise_exceeds_the_renew_deadline() {
    let cluster = crate::support::control_plane();
    let otter = Sidecar::start(&cluster, "default", "otter");
    let (token, _) = otter.leads(15);
    let mut samples = 0;
    for round in 0..3 {
        otter.leads(15);
        cluster.signal(Component::ApiServer, Signal::STOP.as_raw()).unwrap();
        // Every acknowledged renewal was sent before.
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut last = None;
        while Instant::now() < deadline + Duration::from_millis(500) {
            let answer = otter.get("/");
            samples += 1;
            if let Some((_, end)) = answer.promise() {
                assert!(end <= deadline, "round {round}: {:?} beyond the deadline", end - deadline);
                last = Some(end);
            } else {
                assert_eq!((answer.json()["name"].as_str(), otter.get("/leader").status), (Some(""), 503));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let last = last.expect("it leads on for a while");
        eprintln!("round {round}: the last promise ended {:?} before the deadline", deadline - last);
        cluster.signal(Component::ApiServer, Signal::CONT.as_raw()).unwrap();
    }
    eprintln!("{samples} answers");
    assert!(samples > 300, "{samples}");
    let later = otter.leads(15).0;
    assert!(later.parse::<u64>().unwrap() > token.parse().unwrap(), "{token}, then {later}");
    otter.program.wait_for("no renewal within the renew deadline: no more promises", SOON);
}

#[test]
fn promises_of_a_killed_or_frozen_sidecar_expire_before_a_takeover() {
    for signal in [Signal::KILL, Signal::STOP] {
        let ns = namespace(shared(), "killed");
        let (otter, heron) = pair(&ns, short);
        let mut end = otter.leads(1).1;
        for _ in 0..100 {
            end = end.max(otter.get("/").promise().unwrap().1);
        }
        otter.program.signal(signal);
        let takeover = wait_for_takeover(&heron, Duration::from_secs(10));
        eprintln!("{signal:?}: taken over {:?} after the last promise had expired", takeover.duration_since(end));
        assert!(takeover >= end, "{:?} before", end - takeover);
        if signal == Signal::STOP {
            otter.program.signal(Signal::CONT);
            within(5, "the thawed one to follow", || (otter.get("/").json()["name"] == "heron").then_some(()));
        }
    }
}

#[test]
fn a_lease_with_another_holder_ends_promises_immediately() {
    let ns = namespace(shared(), "seized");
    let otter = Sidecar::start(shared(), &ns, "otter");
    otter.leads(10);
    let patch = r#"{"spec":{"holderIdentity":"kite"}}"#;
    kubectl(shared(), &["patch", "-n", &ns, "lease/weir", "--type=merge", "-p", patch]);
    within(1, "no more promises", || otter.get("/").promise().is_none().then_some(()));
    otter.program.wait_for("the lease is no longer held by this process", SOON);
    // After a lease duration the sidecar acquires it again.
    otter.leads(10);
}

#[test]
fn a_sidecar_acquires_no_lease_before_its_program_has_asked() {
    let ns = namespace(shared(), "silent-from-the-start");
    let otter = short(&ns, "otter");
    otter.get("/metrics");
    std::thread::sleep(Duration::from_secs(4));
    assert!(get(shared(), &ns, "lease/weir").is_none(), "health and metrics are not requests of the program");
    let heron = short(&ns, "heron");
    heron.leads(10);
    within(5, "the sidecar to report why it is not ready", || {
        let answer = otter.get("/readyz");
        assert_eq!(answer.status, 503, "{answer:?}");
        answer.body.contains("the program does not ask").then_some(())
    });
    // Of two standbys the one with an asking program takes over, even if the other is quicker.
    let kite = short(&ns, "kite");
    kite.get("/");
    heron.post("/stopped");
    kite.leads(5);
    assert!(!otter.program.says("leading with"), "{}", otter.program.output());
    drop(heron);
    otter.get("/leader");
    kite.post("/step-down");
    otter.leads(5);
}

#[test]
fn a_leader_with_a_silent_program_releases_the_lease() {
    let ns = namespace(shared(), "fallen-silent");
    let (otter, heron) = pair(&ns, short);
    // Longer than a second, so that the usual pause of the program is known.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2_500) {
        otter.leads(1);
        std::thread::sleep(Duration::from_millis(100));
    }
    let (silent, mut led) = (Instant::now(), None);
    within(45, "the other to lead", || {
        let leads = heron.get("/").promise().is_some();
        led = led.or(leads.then(|| silent.elapsed()));
        led
    });
    let takeover_time = led.unwrap();
    eprintln!("the other leads {takeover_time:?} after the last request");
    assert!(takeover_time > Duration::from_secs(29), "{takeover_time:?}");
    otter.program.wait_for("the program has stopped asking", SOON);
    let holder = || get(shared(), &ns, "lease/weir").unwrap()["spec"]["holderIdentity"].clone();
    assert_eq!(holder(), "heron");
    // A program that asks again takes part again.
    otter.get("/");
    heron.post("/stopped");
    otter.leads(5);
}

#[test]
fn two_sidecars_of_one_name_do_not_both_lead() {
    let ns = namespace(shared(), "twins");
    let first = Sidecar::start(shared(), &ns, "otter");
    first.leads(10);
    let second = Sidecar::start(shared(), &ns, "otter");
    second.get("/");
    within(5, "the second to see the lease", || (second.get("/readyz").status == 200).then_some(()));
    for _ in 0..50 {
        let body = second.get("/").json();
        assert_eq!(
            (&body["is_leader"], &body["name"]),
            (&false.into(), &"".into()),
            "a client that compares names must not lead"
        );
    }
}

/// The promises observed in one term.
#[derive(Clone, Copy)]
struct ObservedTerm {
    sidecar_index: usize,
    first: Instant,
    until: Instant,
    promises: usize,
}

#[test]
fn promises_never_overlap_over_fifty_handovers() {
    const HANDOVERS: usize = 50;
    let ns = namespace(shared(), "handovers");
    let sidecars: Vec<Sidecar> = ["otter", "heron", "kite", "wren"]
        .iter()
        .map(|pod| {
            let mut command = Sidecar::command(shared(), &ns, pod);
            // Promises of 0.3 s; a sidecar that stepped down is back after 2 s.
            command.args(["--lease-duration-seconds=2", "--renew-deadline-seconds=1.5", "--retry-period-seconds=0.3"]);
            Sidecar::from(pod, &mut command)
        })
        .collect();
    let terms: Mutex<BTreeMap<u64, ObservedTerm>> = Mutex::default();
    let done = AtomicBool::new(false);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for (sidecar_index, sidecar) in sidecars.iter().enumerate() {
            let (terms, done) = (&terms, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    if let Some((token, until)) = sidecar.get("/").promise() {
                        let first = Instant::now();
                        let mut terms = terms.lock().unwrap();
                        let term = terms.entry(token.parse().unwrap());
                        let term = term.or_insert(ObservedTerm { sidecar_index, first, until, promises: 0 });
                        term.until = term.until.max(until);
                        term.promises += 1;
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let mut known = 0;
        while known <= HANDOVERS && start.elapsed() < Duration::from_secs(180) {
            let (count, last) = {
                let terms = terms.lock().unwrap();
                (terms.len(), terms.last_key_value().map(|(_, led)| led.sidecar_index))
            };
            if let Some(sidecar_index) = last.filter(|_| count > known) {
                known = count;
                sidecars[sidecar_index].post("/step-down");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        done.store(true, Ordering::Relaxed);
    });
    let terms = terms.into_inner().unwrap();
    let mut gaps = Vec::new();
    let mut before: Option<(u64, ObservedTerm)> = None;
    for (token, led) in &terms {
        if let Some((earlier, previous)) = before {
            assert!(
                led.first >= previous.until,
                "term {token} began {:?} before a promise of term {earlier} had expired",
                previous.until - led.first
            );
            gaps.push(led.first - previous.until);
        }
        before = Some((*token, *led));
    }
    gaps.sort();
    let promises: usize = terms.values().map(|led| led.promises).sum();
    eprintln!(
        "{} handovers and {promises} promises in {:?}; from the last promise to the next term's first: median {:?}, longest {:?}",
        gaps.len(),
        start.elapsed(),
        gaps.get(gaps.len() / 2),
        gaps.last()
    );
    assert!(gaps.len() >= HANDOVERS, "{} handovers in {:?}", gaps.len(), start.elapsed());
}
