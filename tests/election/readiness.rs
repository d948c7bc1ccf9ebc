//! A candidate that is not ready neither acquires nor keeps a Lease.

use k8sensus_election::{Candidate, Event, Loss, Purpose, Record, Sight, Timing, Version, WallTime};

use super::scenarios::{ME, OTHER, Setup, held_by, lease, only_write, stop_of, writes};

fn released(version: u32) -> Sight {
    Sight::Lease(lease(version, Record::released(3, WallTime(1)), None))
}

fn standby(is_ready: bool) -> Setup {
    let candidate = Candidate::new(ME, "uid/app/1").unwrap();
    let candidate = if is_ready { candidate } else { candidate.not_ready() };
    Setup::of(candidate, Timing::default(), true)
}

#[test]
fn an_unready_candidate_neither_acquires_nor_creates_a_lease() {
    let held = Sight::Lease(lease(5, held_by(OTHER, 3, 1), None));
    for sight in [released(5), held, Sight::Absent { deleted_at: None }] {
        let mut setup = standby(false);
        setup.first_read(sight.clone());
        for _ in 0..10 {
            assert!(!writes(&setup.after(5.0).send(Event::Tick)), "{sight:?}");
        }
        assert!(writes(&setup.send(Event::ReadyToLead(true))), "once it is ready, at once: {sight:?}");
    }
}

#[test]
fn a_leader_that_becomes_unready_stops_and_releases() {
    let mut setup = standby(true);
    setup.lead();
    let actions = setup.after(1.0).send(Event::ReadyToLead(false));
    assert_eq!(stop_of(&actions), Some((Loss::Requested, None)));
    let (request, purpose, _) = only_write(&setup.send(Event::WorkEnded { term: 1 }));
    assert_eq!(purpose, Purpose::Release);
    setup.send(Event::Written { request, result: Ok(Version::new("8")) });
    for _ in 0..10 {
        assert!(!writes(&setup.after(5.0).send(Event::Tick)));
    }
    assert!(writes(&setup.send(Event::ReadyToLead(true))));
}

#[test]
fn a_lease_acquired_while_readiness_ends_is_released() {
    let mut setup = standby(true);
    setup.first_read(released(5));
    let (request, ..) = only_write(&setup.after(0.01).send(Event::Tick));
    setup.send(Event::ReadyToLead(false));
    let actions = setup.send(Event::Written { request, result: Ok(Version::new("6")) });
    let (_, purpose, record) = only_write(&actions);
    assert_eq!((purpose, record.holder.as_str()), (Purpose::Release, ""), "{actions:?}");
}
