//! A candidate whose program could not work takes no Lease, and keeps none.

use k8sensus::election::{Candidate, Event, Loss, Purpose, Record, Sight, Timing, Version, WallTime};

use super::scenarios::{ME, OTHER, Table, held_by, lease, only_write, stop_of, writes};

fn released(version: u32) -> Sight {
    Sight::Lease(lease(version, Record::released(3, WallTime(1)), None))
}

fn standby(is_ready: bool) -> Table {
    let candidate = Candidate::new(ME, "uid/app/1").unwrap();
    let candidate = if is_ready { candidate } else { candidate.not_ready() };
    Table::of(candidate, Timing::default(), true)
}

#[test]
fn who_is_not_ready_takes_neither_a_free_lease_nor_an_expired_one_and_makes_none() {
    let held = Sight::Lease(lease(5, held_by(OTHER, 3, 1), None));
    for sight in [released(5), held, Sight::Absent { deleted_at: None }] {
        let mut table = standby(false);
        table.first_sight(sight.clone());
        for _ in 0..10 {
            assert!(!writes(&table.after(5.0).tell(Event::Tick)), "{sight:?}");
        }
        assert!(writes(&table.tell(Event::ReadyToLead(true))), "once it is ready, at once: {sight:?}");
    }
}

#[test]
fn a_leader_that_is_not_ready_any_more_ends_its_work_releases_and_stays_a_standby() {
    let mut table = standby(true);
    table.lead();
    let actions = table.after(1.0).tell(Event::ReadyToLead(false));
    assert_eq!(stop_of(&actions), Some((Loss::Requested, None)));
    let (request, purpose, _) = only_write(&table.tell(Event::WorkEnded { term: 1 }));
    assert_eq!(purpose, Purpose::Release);
    table.tell(Event::Written { request, result: Ok(Version::new("8")) });
    for _ in 0..10 {
        assert!(!writes(&table.after(5.0).tell(Event::Tick)));
    }
    assert!(writes(&table.tell(Event::ReadyToLead(true))));
}

#[test]
fn a_lease_that_is_being_acquired_when_readiness_ends_is_given_back() {
    let mut table = standby(true);
    table.first_sight(released(5));
    let (request, ..) = only_write(&table.after(0.01).tell(Event::Tick));
    table.tell(Event::ReadyToLead(false));
    let actions = table.tell(Event::Written { request, result: Ok(Version::new("6")) });
    let (_, purpose, record) = only_write(&actions);
    assert_eq!((purpose, record.holder.as_str()), (Purpose::Release, ""), "{actions:?}");
}
