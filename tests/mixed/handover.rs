//! Handovers between both kinds of candidates after each end of a leader.

use super::group::{ClientGo, Group, Kind, LEASE, Ours, now, sleep};
use super::shared;
use crate::support::namespace;

#[derive(Clone, Copy, Debug)]
enum End {
    Terminated,
    Killed,
    Frozen,
}

#[test]
fn leadership_passes_between_ours_and_client_go_after_any_end() {
    let ns = namespace(shared(), "handover");
    std::thread::scope(|scope| {
        for (from, to) in [(Ours, ClientGo), (ClientGo, Ours), (Ours, Ours)] {
            for end in [End::Terminated, End::Killed, End::Frozen] {
                let ns = &ns;
                scope.spawn(move || pass(ns, from, to, end));
            }
        }
    });
}

fn pass(ns: &str, from: Kind, to: Kind, end: End) {
    let case = format!("{from:?} {end:?}, then {to:?}");
    let group = Group::new(shared(), ns, case.to_lowercase().replace([',', ' '], ""));
    let mut old = group.start(from, "otter");
    old.wait_until_at_work();
    let mut new = group.start(to, "heron");
    // Longer than client-go's retry period.
    sleep(2.0);
    let ended = now();
    match end {
        End::Terminated => old.terminate(),
        End::Killed => old.kill(),
        End::Frozen => old.freeze(),
    }
    new.wait_until_at_work();
    if let End::Frozen = end {
        sleep((2.0 * LEASE.as_secs_f64() - (now() - ended).as_secs_f64()).max(0.0));
        old.thaw(&group);
        sleep(LEASE.as_secs_f64());
        if let Ours = from {
            new.wait_until_at_work();
        }
        old.terminate();
        // A client-go candidate that wakes may clear another's Lease and acquire it again as long as it runs.
        new.wait_until_at_work();
    }
    new.terminate();
    group.check(&case);
}

#[test]
fn a_leader_that_wakes_after_20_s_stops_for_the_new_leader() {
    let ns = namespace(shared(), "asleep");
    let scene = &|from: Kind, to: Kind| {
        let case = format!("{from:?} asleep for 20 s, then {to:?}");
        let group = Group::new(shared(), &ns, case.to_lowercase().replace([',', ' '], "")).at_defaults();
        let mut old = group.start(from, "otter");
        old.wait_until_at_work();
        let mut new = group.start(to, "heron");
        sleep(2.0);
        let asleep = now();
        old.freeze();
        new.wait_until_at_work();
        // client-go may need longer than that to take over.
        sleep((20.0 - (now() - asleep).as_secs_f64()).max(0.0));
        old.thaw(&group);
        sleep(3.0);
        assert!(new.at_work(), "{case}");
        new.terminate();
        old.terminate();
        group.check(&case);
    };
    std::thread::scope(|scope| {
        for (from, to) in [(Ours, ClientGo), (ClientGo, Ours), (Ours, Ours)] {
            scope.spawn(move || scene(from, to));
        }
    });
}
