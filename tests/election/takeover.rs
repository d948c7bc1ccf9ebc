//! Preferences, abstention and dead predecessors: which candidate acquires an available Lease, and when.

use k8sensus_election::{Candidate, Event, Preference, Purpose, Record, Sight, Snapshot, Timing, Version, WallTime};

use super::scenarios::{ME, OTHER, Setup, held_by, lease, only_write, stop_of, writes};

fn me() -> Candidate {
    Candidate::new(ME, "uid/app/1").unwrap()
}

fn setup(candidate: Candidate) -> Setup {
    Setup::of(candidate, Timing::default(), false)
}

fn released(version: u32) -> Snapshot {
    lease(version, Record::released(3, WallTime(1)), None)
}

fn with(snapshot: Snapshot, successor: Option<&str>, revision: Option<&str>) -> Snapshot {
    let (successor, revision) = (successor.map(str::to_owned), revision.map(str::to_owned));
    Snapshot { preference: Preference { successor, revision, suspended: false }, ..snapshot }
}

/// Returns after how many milliseconds the candidate acquires the Lease, in steps of 5 ms; 0 means at once.
fn acquires_after(setup: &mut Setup) -> u32 {
    for step in 0..4_000 {
        let actions = setup.send(Event::Tick);
        if writes(&actions) {
            assert_eq!(only_write(&actions).1, Purpose::Acquire);
            return step * 5;
        }
        setup.after(0.005);
    }
    panic!("not within 20 s");
}

fn first_acquisition(candidate: Candidate, sight: Snapshot) -> u32 {
    let mut setup = setup(candidate);
    if writes(&setup.first_read(Sight::Lease(sight))) {
        return 0;
    }
    acquires_after(&mut setup)
}

#[test]
fn the_preferred_candidate_acquires_a_second_before_the_others() {
    let own = || me().with_revision("b");
    let other_revision = || me().with_revision("a");
    let cases = [
        (me(), None, None, true),
        (me(), Some(ME), None, true),
        (me(), Some(OTHER), None, false),
        (own(), None, Some("b"), true),
        (other_revision(), None, Some("b"), false),
        // A candidate without a revision never differs from the proven one.
        (me(), None, Some("b"), true),
        // A named successor outranks the proven revision.
        (other_revision(), Some(ME), Some("b"), true),
        (own(), Some(OTHER), Some("b"), false),
        (own(), None, None, true),
    ];
    for (candidate, successor, revision, first) in cases {
        let case = format!("{candidate:?} {successor:?} {revision:?}");
        let after = first_acquisition(candidate.clone(), with(released(5), successor, revision));
        if first {
            assert!(after <= 5, "{case}: {after}")
        } else {
            assert!((1_000..=1_005).contains(&after), "{case}: {after}")
        }
        // The same when the Lease has run out.
        let after = first_acquisition(candidate, with(lease(5, held_by(OTHER, 3, 1), None), successor, revision));
        let wait = if first { 15_000 } else { 16_000 };
        assert!((wait..=wait + 5).contains(&after), "{case}: {after}");
    }
}

#[test]
fn under_suspension_every_candidate_waits_a_lease_duration_longer() {
    for (successor, revision) in [(None, None), (Some(ME), Some("b")), (Some(OTHER), Some("a"))] {
        let suspended = |mut sight: Snapshot| {
            sight.preference.suspended = true;
            sight
        };
        let me = || me().with_revision("b");
        let after = first_acquisition(me(), suspended(with(released(5), successor, revision)));
        assert!((15_000..=15_005).contains(&after), "{successor:?}: {after}");
        // The same when the Lease has run out.
        let mut late = setup(me());
        late.first_read(Sight::Lease(suspended(with(lease(5, held_by(OTHER, 3, 1), None), successor, revision))));
        assert!(!writes(&late.after(29.9).send(Event::Tick)));
        assert!(acquires_after(&mut late) <= 105);
        // Suspended before the release, and resumed later.
        let mut setup = setup(me());
        setup.first_read(Sight::Lease(suspended(with(lease(5, held_by(OTHER, 3, 1), None), successor, revision))));
        setup.after(1.0).send(Event::Watched(Sight::Lease(suspended(released(6)))));
        assert!(!writes(&setup.after(14.0).send(Event::Tick)));
        let actions = setup.send(Event::Watched(Sight::Lease(released(7))));
        assert!(writes(&actions) || acquires_after(&mut setup) <= 5);
    }
}

#[test]
fn a_changed_preference_applies_at_once_and_restarts_no_wait() {
    let mut setup = setup(me());
    setup.first_read(Sight::Lease(lease(5, held_by(OTHER, 3, 1), None)));
    setup.after(14.0).send(Event::Watched(Sight::Lease(with(
        lease(6, held_by(OTHER, 3, 1), None),
        Some("viper"),
        None,
    ))));
    assert!(!writes(&setup.after(1.9).send(Event::Tick)));
    assert!(writes(&setup.send(Event::Watched(Sight::Lease(lease(7, held_by(OTHER, 3, 1), None))))));
}

#[test]
fn a_candidate_stops_abstaining_once_another_leads() {
    let mut setup = setup(me());
    step_down(&mut setup);
    // Its own renewal, observed late, is not another holder.
    setup.after(1.0).send(Event::Watched(Sight::Lease(lease(7, held_by(ME, 4, 1), Some("uid/app/1")))));
    assert!(!writes(&setup.send(Event::Tick)));
    setup.after(1.0).send(Event::Watched(Sight::Lease(lease(9, held_by(OTHER, 5, 2), None))));
    let again = lease(10, Record::released(5, WallTime(3)), None);
    setup.after(1.0).send(Event::Watched(Sight::Lease(again)));
    assert!(acquires_after(&mut setup) <= 5, "it still abstains");
}

#[test]
fn a_candidate_leads_again_if_no_successor_comes() {
    let mut setup = setup(me());
    step_down(&mut setup);
    // The named successor is dead, and there is no other candidate.
    let released = setup.elector.lease().unwrap().clone();
    let named = with(Snapshot { version: Version::new("9"), ..released }, Some(OTHER), None);
    setup.send(Event::Watched(Sight::Lease(named)));
    let after = acquires_after(&mut setup);
    assert!((15_000..=15_005).contains(&after), "{after}");
}

fn step_down(setup: &mut Setup) {
    setup.lead();
    let actions = setup.after(1.0).send(Event::StepDown);
    assert!(stop_of(&actions).is_some());
    let (request, ..) = only_write(&setup.send(Event::WorkEnded { term: 1 }));
    setup.send(Event::Written { request, result: Ok(Version::new("8")) });
}

#[test]
fn the_lease_of_a_dead_predecessor_is_acquired_at_once() {
    let mut setup = setup(me().with_dead_predecessors("uid/app/").with_revision("a"));
    // No preference delays it: for all others the Lease is still held.
    let held = with(lease(5, held_by(ME, 3, 1), Some("uid/app/0")), Some(OTHER), Some("b"));
    let (_, purpose, record) = only_write(&setup.first_read(Sight::Lease(held)));
    assert_eq!((purpose, record.holder.as_str(), record.transitions), (Purpose::Acquire, ME, 4));
}

#[test]
fn no_other_process_counts_as_a_dead_predecessor() {
    let proven = || me().with_dead_predecessors("uid/app/");
    let cases = [
        ("without the proof", me(), held_by(ME, 3, 1), Some("uid/app/0")),
        ("another name with a kept annotation", proven(), held_by(OTHER, 3, 1), Some("uid/app/0")),
        ("another container", proven(), held_by(ME, 3, 1), Some("uid/ap/0")),
        ("a process without the lock", proven(), held_by(ME, 3, 1), Some("uid/-/0")),
        ("another pod of the same name", proven(), held_by(ME, 3, 1), Some("uid2/app/0")),
        ("a client without incarnations", proven(), held_by(ME, 3, 1), None),
        ("a foreign renewal under this process's incarnation", proven(), held_by(ME, 3, 1), Some("uid/app/1")),
    ];
    for (what, candidate, record, incarnation) in cases {
        let after = first_acquisition(candidate, lease(5, record, incarnation));
        assert!((15_000..=15_005).contains(&after), "{what}: {after}");
    }
}
