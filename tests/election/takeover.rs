//! Who takes a Lease that may be taken, and when: whom it would rather have, and whose predecessor is dead.

use k8sensus::election::{Candidate, Event, Preference, Purpose, Record, Sight, Snapshot, Timing, Version, WallTime};

use super::scenarios::{ME, OTHER, Table, held_by, lease, only_write, stop_of, writes};

fn me() -> Candidate {
    Candidate::new(ME, "uid/app/1").unwrap()
}

fn table(candidate: Candidate) -> Table {
    Table::of(candidate, Timing::default(), false)
}

fn released(version: u32) -> Snapshot {
    lease(version, Record::released(3, WallTime(1)), None)
}

fn with(snapshot: Snapshot, successor: Option<&str>, revision: Option<&str>) -> Snapshot {
    let (successor, revision) = (successor.map(str::to_owned), revision.map(str::to_owned));
    Snapshot { preference: Preference { successor, revision, suspended: false }, ..snapshot }
}

/// After how many milliseconds, by steps of 5 ms, it writes; 0 at once.
fn takes_after(table: &mut Table) -> u32 {
    for step in 0..4_000 {
        let actions = table.tell(Event::Tick);
        if writes(&actions) {
            assert_eq!(only_write(&actions).1, Purpose::Acquire);
            return step * 5;
        }
        table.after(0.005);
    }
    panic!("not within 20 s");
}

fn takes(candidate: Candidate, sight: Snapshot) -> u32 {
    let mut table = table(candidate);
    if writes(&table.first_sight(Sight::Lease(sight))) {
        return 0;
    }
    takes_after(&mut table)
}

#[test]
fn whoever_the_lease_would_rather_have_goes_first_and_the_others_follow_a_second_later() {
    let own = || me().with_revision("b");
    let other_revision = || me().with_revision("a");
    let cases = [
        (me(), None, None, true),
        (me(), Some(ME), None, true),
        (me(), Some(OTHER), None, false),
        (own(), None, Some("b"), true),
        (other_revision(), None, Some("b"), false),
        // It is of no revision that could be another one.
        (me(), None, Some("b"), true),
        // Whoever is named goes first, whatever has proved itself.
        (other_revision(), Some(ME), Some("b"), true),
        (own(), Some(OTHER), Some("b"), false),
        (own(), None, None, true),
    ];
    for (candidate, successor, revision, first) in cases {
        let text = format!("{candidate:?} {successor:?} {revision:?}");
        let after = takes(candidate.clone(), with(released(5), successor, revision));
        if first {
            assert!(after <= 5, "{text}: {after}")
        } else {
            assert!((1_000..=1_005).contains(&after), "{text}: {after}")
        }
        // The same when the Lease has run out.
        let after = takes(candidate, with(lease(5, held_by(OTHER, 3, 1), None), successor, revision));
        let wait = if first { 15_000 } else { 16_000 };
        assert!((wait..=wait + 5).contains(&after), "{text}: {after}");
    }
}

#[test]
fn while_nobody_is_to_lead_a_standby_waits_for_a_lease_duration_more_whomever_the_lease_names() {
    for (successor, revision) in [(None, None), (Some(ME), Some("b")), (Some(OTHER), Some("a"))] {
        let suspended = |mut sight: Snapshot| {
            sight.preference.suspended = true;
            sight
        };
        let me = || me().with_revision("b");
        let after = takes(me(), suspended(with(released(5), successor, revision)));
        assert!((15_000..=15_005).contains(&after), "{successor:?}: {after}");
        // The same when the Lease has run out.
        let mut late = table(me());
        late.first_sight(Sight::Lease(suspended(with(lease(5, held_by(OTHER, 3, 1), None), successor, revision))));
        assert!(!writes(&late.after(29.9).tell(Event::Tick)));
        assert!(takes_after(&mut late) <= 105);
        // Told beforehand, as it is meant; and taken back later.
        let mut table = table(me());
        table.first_sight(Sight::Lease(suspended(with(lease(5, held_by(OTHER, 3, 1), None), successor, revision))));
        table.after(1.0).tell(Event::Watched(Sight::Lease(suspended(released(6)))));
        assert!(!writes(&table.after(14.0).tell(Event::Tick)));
        let actions = table.tell(Event::Watched(Sight::Lease(released(7))));
        assert!(writes(&actions) || takes_after(&mut table) <= 5);
    }
}

#[test]
fn a_preference_that_comes_or_goes_counts_at_once_and_restarts_no_wait() {
    let mut table = table(me());
    table.first_sight(Sight::Lease(lease(5, held_by(OTHER, 3, 1), None)));
    table.after(14.0).tell(Event::Watched(Sight::Lease(with(
        lease(6, held_by(OTHER, 3, 1), None),
        Some("viper"),
        None,
    ))));
    assert!(!writes(&table.after(1.9).tell(Event::Tick)));
    assert!(writes(&table.tell(Event::Watched(Sight::Lease(lease(7, held_by(OTHER, 3, 1), None))))));
}

#[test]
fn who_stepped_down_takes_part_again_once_another_leads() {
    let mut table = table(me());
    step_down(&mut table);
    // Its own renewal, seen late, is no other holder.
    table.after(1.0).tell(Event::Watched(Sight::Lease(lease(7, held_by(ME, 4, 1), Some("uid/app/1")))));
    assert!(!writes(&table.tell(Event::Tick)));
    table.after(1.0).tell(Event::Watched(Sight::Lease(lease(9, held_by(OTHER, 5, 2), None))));
    let again = lease(10, Record::released(5, WallTime(3)), None);
    table.after(1.0).tell(Event::Watched(Sight::Lease(again)));
    assert!(takes_after(&mut table) <= 5, "it still abstains");
}

#[test]
fn who_stepped_down_returns_after_a_lease_duration_if_nobody_comes() {
    let mut table = table(me());
    step_down(&mut table);
    // The one that was named is dead, and there is no other.
    let released = table.elector.lease().unwrap().clone();
    let named = with(Snapshot { version: Version::new("9"), ..released }, Some(OTHER), None);
    table.tell(Event::Watched(Sight::Lease(named)));
    let after = takes_after(&mut table);
    assert!((15_000..=15_005).contains(&after), "{after}");
}

fn step_down(table: &mut Table) {
    table.lead();
    let actions = table.after(1.0).tell(Event::StepDown);
    assert!(stop_of(&actions).is_some());
    let (request, ..) = only_write(&table.tell(Event::WorkEnded { term: 1 }));
    table.tell(Event::Written { request, result: Ok(Version::new("8")) });
}

#[test]
fn the_lease_of_a_dead_predecessor_is_taken_at_once_as_another_term() {
    let mut table = table(me().with_dead_predecessors("uid/app/").with_revision("a"));
    // No wish holds it back: to everybody else the Lease is taken.
    let held = with(lease(5, held_by(ME, 3, 1), Some("uid/app/0")), Some(OTHER), Some("b"));
    let (_, purpose, record) = only_write(&table.first_sight(Sight::Lease(held)));
    assert_eq!((purpose, record.holder.as_str(), record.transitions), (Purpose::Acquire, ME, 4));
}

#[test]
fn nothing_else_is_taken_for_a_dead_predecessor() {
    let proved = || me().with_dead_predecessors("uid/app/");
    let cases = [
        ("without the proof", me(), held_by(ME, 3, 1), Some("uid/app/0")),
        ("another name, with an annotation that it kept", proved(), held_by(OTHER, 3, 1), Some("uid/app/0")),
        ("another container", proved(), held_by(ME, 3, 1), Some("uid/ap/0")),
        ("one that has no lock", proved(), held_by(ME, 3, 1), Some("uid/-/0")),
        ("another pod of the same name", proved(), held_by(ME, 3, 1), Some("uid2/app/0")),
        ("a client without incarnations", proved(), held_by(ME, 3, 1), None),
        ("a client that renews in this process' name", proved(), held_by(ME, 3, 1), Some("uid/app/1")),
    ];
    for (what, candidate, record, incarnation) in cases {
        let after = takes(candidate, lease(5, record, incarnation));
        assert!((15_000..=15_005).contains(&after), "{what}: {after}");
    }
}
