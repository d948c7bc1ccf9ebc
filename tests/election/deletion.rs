//! A leader whose Lease is deleted, where only the operator creates Leases: it stops in good order, within the time for which
//! all other candidates wait.

use std::time::Duration;

use k8sensus::election::{Action, Event, Loss, Moment, Purpose, RECREATED_HOLDER, Record, Sight, Timing, Version};

use super::scenarios::{OTHER, Table, held_by, lease, only_write, stop_of, writes};

const WAIT: u32 = 50;

/// Leads by a write that was sent at the returned moment. Lease 15 s, stop grace 3 s; all wait 50 s for a recreated Lease.
fn leader() -> (Table, Moment) {
    let timing = Timing::default().with_recreation_wait(Duration::from_secs(WAIT.into())).unwrap();
    let mut table = Table::with(timing, false);
    table.lead();
    let renewed = table.elector.renewed().unwrap();
    (table, renewed)
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

/// The moment of the order to stop that names an end, as the table's clock goes on by tenths of a second.
fn revoked(table: &mut Table) -> (Moment, Moment) {
    for _ in 0..1000 {
        let actions = table.after(0.1).tell(Event::Tick);
        assert!(!writes(&actions), "nothing is there to be renewed: {actions:?}");
        if let Some((loss, Some(kill_at))) = stop_of(&actions) {
            assert_eq!(loss, Loss::DeadlinePassed);
            return (table.moment(), kill_at);
        }
    }
    panic!("the leader works on for 100 s");
}

#[test]
fn its_work_ends_in_good_order_and_nothing_is_renewed_meanwhile() {
    let (mut table, _) = leader();
    let actions = table.after(1.0).tell(deleted(9));
    assert_eq!(stop_of(&actions), Some((Loss::LeaseDeleted, None)));
    assert!(!writes(&actions));
    assert!(!writes(&table.after(2.0).tell(Event::Tick)));
}

#[test]
fn a_renewal_that_finds_no_lease_is_a_deletion_too() {
    let (mut table, _) = leader();
    let (request, purpose, _) = only_write(&table.after(2.0).tell(Event::Tick));
    assert_eq!(purpose, Purpose::Renew);
    let failure = k8sensus::election::Failure::NotFound;
    let actions = table.tell(Event::Written { request, result: Err(failure) });
    assert_eq!(stop_of(&actions), Some((Loss::LeaseDeleted, None)));
}

#[test]
fn its_time_to_stop_is_nine_tenths_of_the_wait_from_the_send_of_its_last_renewal() {
    let (mut table, renewed) = leader();
    table.after(1.0).tell(deleted(9));
    let (at, kill_at) = revoked(&mut table);
    assert_eq!(kill_at, renewed + seconds(45.0));
    assert!(at.since(renewed + seconds(42.0)) < seconds(0.2));
}

#[test]
fn what_it_may_rely_on_as_leadership_is_not_extended() {
    let (mut table, _) = leader();
    let actions = table.after(1.0).tell(deleted(9));
    assert!(!actions.iter().any(|action| matches!(action, Action::Valid { .. })), "{actions:?}");
}

#[test]
fn a_lease_that_was_made_again_with_a_shorter_wait_shortens_its_time() {
    let (mut table, renewed) = leader();
    table.after(1.0).tell(deleted(9));
    table.tell(recreated(10, 30));
    let (_, kill_at) = revoked(&mut table);
    assert_eq!(kill_at, renewed + seconds(27.0));
}

#[test]
fn a_recreated_lease_that_protects_nobody_deposes_it() {
    let (mut table, _) = leader();
    table.after(1.0).tell(deleted(9));
    let actions = table.tell(recreated(10, 14));
    assert_eq!(stop_of(&actions), Some((Loss::Deposed, Some(table.moment()))));
}

#[test]
fn another_holder_deposes_it_at_once() {
    let (mut table, _) = leader();
    table.after(1.0).tell(deleted(9));
    let actions = table.after(1.0).tell(Event::Watched(Sight::Lease(lease(11, held_by(OTHER, 5, 11), None))));
    assert_eq!(stop_of(&actions), Some((Loss::Deposed, Some(table.moment()))));
}

#[test]
fn once_its_work_has_ended_it_takes_the_recreated_lease_without_a_wait() {
    let (mut table, _) = leader();
    table.after(1.0).tell(deleted(9));
    table.after(0.1).tell(recreated(10, WAIT));
    let actions = table.after(4.0).tell(Event::WorkEnded { term: 1 });
    let (_, purpose, record) = only_write(&actions);
    assert_eq!((purpose, record.transitions), (Purpose::Acquire, 5));
}

#[test]
fn it_takes_the_lease_once_that_was_made_again_after_its_work_had_ended() {
    let (mut table, _) = leader();
    table.after(1.0).tell(deleted(9));
    assert!(!writes(&table.after(1.0).tell(Event::WorkEnded { term: 1 })));
    assert_eq!(only_write(&table.after(1.0).tell(recreated(10, WAIT))).1, Purpose::Acquire);
}

#[test]
fn a_recreated_lease_that_comes_too_late_is_waited_for_like_by_everybody() {
    // Another candidate may have led meanwhile, unseen, and its Lease may have been deleted as well.
    let (mut table, _) = leader();
    table.after(1.0).tell(deleted(9));
    table.after(1.0).tell(Event::WorkEnded { term: 1 });
    assert!(!writes(&table.after(43.5).tell(recreated(10, WAIT))));
    assert!(!writes(&table.after(49.0).tell(Event::Tick)));
    assert_eq!(only_write(&table.after(1.1).tell(Event::Tick)).1, Purpose::Acquire);
}

#[test]
fn a_standby_waits_for_a_recreated_lease_though_it_led_earlier() {
    let (mut table, _) = leader();
    table.after(1.0).tell(Event::Watched(Sight::Lease(lease(9, held_by(OTHER, 5, 9), None))));
    table.tell(Event::WorkEnded { term: 1 });
    table.after(1.0).tell(deleted(10));
    assert!(!writes(&table.tell(recreated(11, WAIT))));
    assert!(!writes(&table.after(49.0).tell(Event::Tick)));
}

#[test]
fn a_candidate_that_leaves_the_election_lets_the_recreated_lease_be() {
    let (mut table, _) = leader();
    table.after(1.0).tell(deleted(9));
    table.tell(Event::Shutdown);
    table.tell(recreated(10, WAIT));
    let actions = table.after(1.0).tell(Event::WorkEnded { term: 1 });
    assert!(!writes(&actions) && actions.contains(&Action::Finish), "{actions:?}");
}
