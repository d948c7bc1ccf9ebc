//! The deletion of a leader's Lease where only the operator creates Leases: the leader stops gracefully within the time
//! for which all other candidates wait.

use std::time::Duration;

use k8sensus_election::{Action, Event, Loss, Moment, Purpose, RECREATED_HOLDER, Record, Sight, Timing, Version};

use super::scenarios::{OTHER, Setup, held_by, lease, only_write, stop_of, writes};

const WAIT: u32 = 50;

/// Returns a leader and the send of its last write. Lease 15 s, stop grace 3 s, recreation wait 50 s.
fn leader() -> (Setup, Moment) {
    let timing = Timing::default().with_recreation_wait(Duration::from_secs(WAIT.into())).unwrap();
    let mut setup = Setup::with(timing, false);
    setup.lead();
    let renewed = setup.elector.renewed().unwrap();
    (setup, renewed)
}

fn deleted(version: u32) -> Event {
    Event::Watched(Sight::Absent { deleted_at: Some(Version::new(version.to_string())) })
}

fn recreated(version: u32, seconds: u32) -> Event {
    let record =
        Record { duration_seconds: seconds.try_into().unwrap(), ..held_by(RECREATED_HOLDER, 4, version.into()) };
    Event::Watched(Sight::Lease(lease(version, record, None)))
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Advances the clock by tenths of a second until a stop has a deadline. Returns the moments of the stop and of the
/// kill.
fn wait_for_deadline(setup: &mut Setup) -> (Moment, Moment) {
    for _ in 0..1000 {
        let actions = setup.after(0.1).send(Event::Tick);
        assert!(!writes(&actions), "there is no Lease to renew: {actions:?}");
        if let Some((loss, Some(kill_at))) = stop_of(&actions) {
            assert_eq!(loss, Loss::DeadlinePassed);
            return (setup.moment(), kill_at);
        }
    }
    panic!("the work is not stopped within 100 s");
}

#[test]
fn a_deletion_stops_the_work_gracefully_without_renewals() {
    let (mut setup, _) = leader();
    let actions = setup.after(1.0).send(deleted(9));
    assert_eq!(stop_of(&actions), Some((Loss::LeaseDeleted, None)));
    assert!(!writes(&actions));
    assert!(!writes(&setup.after(2.0).send(Event::Tick)));
}

#[test]
fn a_renewal_that_finds_no_lease_is_a_deletion_too() {
    let (mut setup, _) = leader();
    let (request, purpose, _) = only_write(&setup.after(2.0).send(Event::Tick));
    assert_eq!(purpose, Purpose::Renew);
    let failure = k8sensus_election::Failure::NotFound;
    let actions = setup.send(Event::Written { request, result: Err(failure) });
    assert_eq!(stop_of(&actions), Some((Loss::LeaseDeleted, None)));
}

#[test]
fn the_work_is_killed_after_nine_tenths_of_the_recreation_wait() {
    let (mut setup, renewed) = leader();
    setup.after(1.0).send(deleted(9));
    let (at, kill_at) = wait_for_deadline(&mut setup);
    assert_eq!(kill_at, renewed + seconds(45.0));
    assert!(at.since(renewed + seconds(42.0)) < seconds(0.2));
}

#[test]
fn a_deletion_does_not_extend_the_validity() {
    let (mut setup, _) = leader();
    let actions = setup.after(1.0).send(deleted(9));
    assert!(!actions.iter().any(|action| matches!(action, Action::Valid { .. })), "{actions:?}");
}

#[test]
fn a_shorter_recreated_lease_shortens_the_time_to_stop() {
    let (mut setup, renewed) = leader();
    setup.after(1.0).send(deleted(9));
    setup.send(recreated(10, 30));
    let (_, kill_at) = wait_for_deadline(&mut setup);
    assert_eq!(kill_at, renewed + seconds(27.0));
}

#[test]
fn a_recreated_lease_below_the_lease_duration_deposes_the_leader() {
    let (mut setup, _) = leader();
    setup.after(1.0).send(deleted(9));
    let actions = setup.send(recreated(10, 14));
    assert_eq!(stop_of(&actions), Some((Loss::Deposed, Some(setup.moment()))));
}

#[test]
fn another_holder_after_a_deletion_deposes_the_leader_at_once() {
    let (mut setup, _) = leader();
    setup.after(1.0).send(deleted(9));
    let actions = setup.after(1.0).send(Event::Watched(Sight::Lease(lease(11, held_by(OTHER, 5, 11), None))));
    assert_eq!(stop_of(&actions), Some((Loss::Deposed, Some(setup.moment()))));
}

#[test]
fn the_former_leader_acquires_the_recreated_lease_at_once() {
    let (mut setup, _) = leader();
    setup.after(1.0).send(deleted(9));
    setup.after(0.1).send(recreated(10, WAIT));
    let actions = setup.after(4.0).send(Event::WorkEnded { term: 1 });
    let (_, purpose, record) = only_write(&actions);
    assert_eq!((purpose, record.transitions), (Purpose::Acquire, 5));
}

#[test]
fn a_lease_recreated_after_the_end_of_the_work_is_acquired_at_once() {
    let (mut setup, _) = leader();
    setup.after(1.0).send(deleted(9));
    assert!(!writes(&setup.after(1.0).send(Event::WorkEnded { term: 1 })));
    assert_eq!(only_write(&setup.after(1.0).send(recreated(10, WAIT))).1, Purpose::Acquire);
}

#[test]
fn a_lease_recreated_too_late_is_waited_for_in_full() {
    // Another candidate may have led unobserved, and its Lease may have been deleted as well.
    let (mut setup, _) = leader();
    setup.after(1.0).send(deleted(9));
    setup.after(1.0).send(Event::WorkEnded { term: 1 });
    assert!(!writes(&setup.after(43.5).send(recreated(10, WAIT))));
    assert!(!writes(&setup.after(49.0).send(Event::Tick)));
    assert_eq!(only_write(&setup.after(1.1).send(Event::Tick)).1, Purpose::Acquire);
}

#[test]
fn an_earlier_leader_waits_for_a_recreated_lease_in_full() {
    let (mut setup, _) = leader();
    setup.after(1.0).send(Event::Watched(Sight::Lease(lease(9, held_by(OTHER, 5, 9), None))));
    setup.send(Event::WorkEnded { term: 1 });
    setup.after(1.0).send(deleted(10));
    assert!(!writes(&setup.send(recreated(11, WAIT))));
    assert!(!writes(&setup.after(49.0).send(Event::Tick)));
}

#[test]
fn a_candidate_that_shuts_down_does_not_acquire_the_recreated_lease() {
    let (mut setup, _) = leader();
    setup.after(1.0).send(deleted(9));
    setup.send(Event::Shutdown);
    setup.send(recreated(10, WAIT));
    let actions = setup.after(1.0).send(Event::WorkEnded { term: 1 });
    assert!(!writes(&actions) && actions.contains(&Action::Finish), "{actions:?}");
}
