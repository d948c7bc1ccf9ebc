//! Single conversations with an elector, each about one rule of `election`'s documentation.

use std::time::Duration;

use k8sensus::election::{
    Action, Candidate, Elector, Event, Failure, Loss, Moment, Preference, Purpose, Reading, Record, Sight, Snapshot,
    Timing, Version, WallTime,
};

pub(super) const ME: &str = "otter";
pub(super) const OTHER: &str = "heron";

/// An elector with a clock that only the test moves.
pub(super) struct Table {
    pub(super) elector: Elector,
    now: Duration,
}

impl Table {
    fn new(may_create: bool) -> Self {
        Self::with(Timing::default(), may_create)
    }

    pub(super) fn with(timing: Timing, may_create: bool) -> Self {
        Self::of(Candidate::new(ME, "uid/app/1").unwrap(), timing, may_create)
    }

    pub(super) fn of(candidate: Candidate, timing: Timing, may_create: bool) -> Self {
        Self { elector: Elector::new(candidate, timing, may_create, 7), now: Duration::from_secs(1000) }
    }

    pub(super) fn after(&mut self, seconds: f64) -> &mut Self {
        self.now += Duration::from_secs_f64(seconds);
        self
    }

    pub(super) fn moment(&self) -> Moment {
        Moment::since_boot(self.now)
    }

    pub(super) fn tell(&mut self, event: Event) -> Vec<Action> {
        let wall = WallTime(1_700_000_000_000_000 + i64::try_from(self.now.as_micros()).unwrap());
        self.elector.step(Reading { moment: self.moment(), wall }, event)
    }

    /// Starts, answers the first read with `sight`.
    pub(super) fn first_sight(&mut self, sight: Sight) -> Vec<Action> {
        let actions = self.tell(Event::Tick);
        let request = only_read(&actions);
        self.tell(Event::Read { request, result: Ok(sight) })
    }

    /// Takes a released Lease at version 5 with a write that gets version 6.
    pub(super) fn lead(&mut self) {
        self.first_sight(Sight::Lease(lease(5, Record::released(3, WallTime(1)), None)));
        self.after(0.01);
        let actions = self.tell(Event::Tick);
        let (request, purpose, _) = only_write(&actions);
        assert_eq!(purpose, Purpose::Acquire);
        let actions = self.tell(Event::Written { request, result: Ok(Version::new("6")) });
        assert!(actions.iter().any(|action| matches!(action, Action::Lead { .. })), "{actions:?}");
    }

    /// Renews now, the write getting `version` after `latency` seconds.
    fn renew(&mut self, version: u32, latency: f64) -> Vec<Action> {
        let actions = self.tell(Event::Tick);
        let (request, purpose, _) = only_write(&actions);
        assert_eq!(purpose, Purpose::Renew);
        self.after(latency);
        self.tell(Event::Written { request, result: Ok(Version::new(version.to_string())) })
    }
}

pub(super) fn lease(version: u32, record: Record, incarnation: Option<&str>) -> Snapshot {
    let incarnation = incarnation.map(str::to_owned);
    Snapshot { version: Version::new(version.to_string()), record, incarnation, preference: Preference::default() }
}

pub(super) fn held_by(holder: &str, transitions: i32, renewed: i64) -> Record {
    Record {
        holder: holder.to_owned(),
        duration_seconds: 15,
        acquire_time: Some(WallTime(1_000_000)),
        renew_time: Some(WallTime(renewed * 1_000_000)),
        transitions,
    }
}

fn only_read(actions: &[Action]) -> u64 {
    match actions.iter().find(|action| matches!(action, Action::Read { .. } | Action::Write { .. })) {
        Some(Action::Read { request, .. }) => *request,
        other => panic!("expected a read, found {other:?} in {actions:?}"),
    }
}

pub(super) fn only_write(actions: &[Action]) -> (u64, Purpose, Record) {
    match actions.iter().find(|action| matches!(action, Action::Read { .. } | Action::Write { .. })) {
        Some(Action::Write { request, purpose, record, .. }) => (*request, *purpose, record.clone()),
        other => panic!("expected a write, found {other:?} in {actions:?}"),
    }
}

pub(super) fn stop_of(actions: &[Action]) -> Option<(Loss, Option<Moment>)> {
    actions.iter().find_map(|action| match action {
        Action::Stop { loss, kill_at } => Some((*loss, *kill_at)),
        _ => None,
    })
}

pub(super) fn writes(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Write { .. }))
}

#[test]
fn a_released_lease_is_taken_at_once_with_one_more_transition() {
    let mut table = Table::new(false);
    table.first_sight(Sight::Lease(lease(5, Record::released(3, WallTime(1)), None)));
    let (_, purpose, record) = only_write(&table.after(0.005).tell(Event::Tick));
    assert_eq!(purpose, Purpose::Acquire);
    assert_eq!((record.holder.as_str(), record.duration_seconds, record.transitions), (ME, 15, 4));
    assert_eq!(record.acquire_time, record.renew_time);
}

#[test]
fn a_holder_that_was_emptied_by_hand_waits_out_the_last_duration() {
    let mut table = Table::new(false);
    table.first_sight(Sight::Lease(lease(5, held_by(OTHER, 0, 1), None)));
    let emptied = Record { holder: String::new(), ..held_by(OTHER, 0, 1) };
    table.after(5.0).tell(Event::Watched(Sight::Lease(lease(6, emptied, None))));
    assert!(!writes(&table.after(14.9).tell(Event::Tick)));
    assert!(writes(&table.after(0.2).tell(Event::Tick)));
}

#[test]
fn the_wait_restarts_with_a_changed_record_but_not_with_an_annotation() {
    let mut table = Table::new(false);
    table.first_sight(Sight::Lease(lease(5, held_by(OTHER, 0, 1), None)));
    table.after(10.0).tell(Event::Watched(Sight::Lease(lease(6, held_by(OTHER, 0, 2), None))));
    assert!(!writes(&table.after(14.0).tell(Event::Watched(Sight::Lease(lease(7, held_by(OTHER, 0, 2), Some("x")))))));
    let actions = table.after(1.1).tell(Event::Tick);
    let (_, _, record) = only_write(&actions);
    assert_eq!(record.transitions, 1);
    assert!(matches!(&actions[0], Action::Write { expected: Some(version), .. } if version.as_str() == "7"));
}

#[test]
fn ones_own_name_of_another_incarnation_is_foreign() {
    let mut table = Table::new(false);
    table.first_sight(Sight::Lease(lease(5, held_by(ME, 0, 1), Some("uid/app/0"))));
    assert!(!writes(&table.after(14.9).tell(Event::Tick)));
}

#[test]
fn the_term_is_counted_from_the_send() {
    let mut table = Table::new(false);
    table.lead();
    table.after(2.0);
    let sent = table.moment();
    let actions = table.renew(7, 1.5);
    let valid_until = actions.iter().find_map(|action| match action {
        Action::Valid { valid_until } => Some(*valid_until),
        _ => None,
    });
    assert_eq!(valid_until, Some(sent + Duration::from_secs(10)));
}

#[test]
fn an_acquisition_whose_answer_comes_too_late_does_not_lead() {
    let mut table = Table::new(false);
    table.first_sight(Sight::Lease(lease(5, Record::released(3, WallTime(1)), None)));
    let (request, ..) = only_write(&table.after(0.01).tell(Event::Tick));
    let actions = table.after(10.0).tell(Event::Written { request, result: Ok(Version::new("6")) });
    assert!(!actions.iter().any(|action| matches!(action, Action::Lead { .. })), "{actions:?}");
}

#[test]
fn without_an_acknowledged_renewal_the_work_stops_at_the_deadline_and_is_dead_after_the_grace() {
    let mut table = Table::new(false);
    table.lead();
    let led = table.moment();
    let mut stopped = None;
    for _ in 0..200 {
        let actions = table.after(0.1).tell(Event::Tick);
        if let Some(Action::Write { request, .. }) = actions.iter().find(|a| matches!(a, Action::Write { .. })) {
            table.tell(Event::Written { request: *request, result: Err(Failure::Unknown) });
        }
        if let Some(stop) = stop_of(&actions) {
            stopped = Some((table.moment(), stop));
            break;
        }
    }
    let (at, (loss, kill_at)) = stopped.expect("the work must be stopped");
    assert_eq!(loss, Loss::DeadlinePassed);
    assert!(at.since(led) <= Duration::from_millis(10_100), "stopped after {:?}", at.since(led));
    let killed_after = kill_at.unwrap().since(led);
    assert!(killed_after <= Duration::from_secs(13), "killed after {killed_after:?}");
}

#[test]
fn a_read_never_extends_the_term() {
    let mut table = Table::new(false);
    table.lead();
    let request = only_write(&table.after(2.0).tell(Event::Tick)).0;
    let request = only_read(&table.tell(Event::Written { request, result: Err(Failure::Conflict) }));
    let own = table.elector.lease().unwrap().clone();
    let actions =
        table.tell(Event::Read { request, result: Ok(Sight::Lease(Snapshot { version: Version::new("9"), ..own })) });
    assert!(!actions.iter().any(|action| matches!(action, Action::Valid { .. })), "{actions:?}");
    assert_eq!(only_write(&actions).1, Purpose::Renew);
}

#[test]
fn a_foreign_holder_ends_the_work_at_once() {
    let mut table = Table::new(false);
    table.lead();
    let actions = table.after(1.0).tell(Event::Watched(Sight::Lease(lease(9, held_by(OTHER, 5, 9), None))));
    assert_eq!(stop_of(&actions), Some((Loss::Deposed, Some(table.moment()))));
    assert!(!writes(&actions));
}

#[test]
fn a_stale_watch_event_deposes_nobody() {
    let mut table = Table::new(false);
    table.lead();
    let actions = table.after(1.0).tell(Event::Watched(Sight::Lease(lease(4, held_by(OTHER, 2, 9), None))));
    assert_eq!(stop_of(&actions), None);
    let actions = table.tell(Event::Watched(Sight::Absent { deleted_at: Some(Version::new("4")) }));
    assert_eq!(stop_of(&actions), None);
}

#[test]
fn a_deleted_lease_that_candidates_may_create_ends_the_work_at_once() {
    let mut table = Table::new(true);
    table.lead();
    let actions = table.after(1.0).tell(Event::Watched(Sight::Absent { deleted_at: Some(Version::new("9")) }));
    assert_eq!(stop_of(&actions).map(|(loss, _)| loss), Some(Loss::Deposed));
}

#[test]
fn renewals_in_ones_own_name_by_somebody_else_end_the_work() {
    let mut table = Table::new(false);
    table.lead();
    let mut foreign = table.elector.lease().unwrap().clone();
    foreign.version = Version::new("9");
    foreign.record.renew_time = Some(WallTime(42));
    let actions = table.after(1.0).tell(Event::Watched(Sight::Lease(foreign)));
    assert_eq!(stop_of(&actions).map(|(loss, _)| loss), Some(Loss::Deposed));
}

#[test]
fn the_lease_is_released_only_after_the_work_has_ended_and_renewed_meanwhile() {
    let mut table = Table::new(false);
    table.lead();
    let actions = table.after(1.0).tell(Event::Shutdown);
    assert_eq!(stop_of(&actions), Some((Loss::Requested, None)));
    assert!(!writes(&actions));
    table.after(1.0).renew(7, 0.01);
    let actions = table.after(0.5).tell(Event::WorkEnded { term: 1 });
    let (request, purpose, record) = only_write(&actions);
    assert_eq!(purpose, Purpose::Release);
    assert!(record.is_released());
    assert_eq!(record.transitions, 4);
    let actions = table.tell(Event::Written { request, result: Ok(Version::new("8")) });
    assert!(actions.contains(&Action::Finish), "{actions:?}");
}

#[test]
fn a_lost_term_is_not_released() {
    let mut table = Table::new(false);
    table.lead();
    table.after(1.0).tell(Event::Watched(Sight::Lease(lease(9, held_by(OTHER, 5, 9), None))));
    assert!(!writes(&table.after(1.0).tell(Event::WorkEnded { term: 1 })));
}

#[test]
fn who_stepped_down_abstains_for_a_lease_duration() {
    let mut table = Table::new(false);
    table.lead();
    table.after(1.0).tell(Event::StepDown);
    let (request, ..) = only_write(&table.tell(Event::WorkEnded { term: 1 }));
    table.tell(Event::Written { request, result: Ok(Version::new("8")) });
    assert!(!writes(&table.after(14.9).tell(Event::Tick)));
    assert!(writes(&table.after(0.2).tell(Event::Tick)));
}

#[test]
fn a_candidate_that_may_create_makes_a_missing_lease_but_waits_if_it_vanished() {
    let mut table = Table::new(true);
    let (_, purpose, record) = only_write(&table.first_sight(Sight::Absent { deleted_at: None }));
    assert_eq!((purpose, record.transitions), (Purpose::Create, 0));

    let mut table = Table::new(true);
    table.first_sight(Sight::Lease(lease(5, held_by(OTHER, 0, 1), None)));
    table.tell(Event::Watched(Sight::Absent { deleted_at: Some(Version::new("6")) }));
    assert!(!writes(&table.after(14.9).tell(Event::Tick)));
    assert!(writes(&table.after(0.2).tell(Event::Tick)));
}

#[test]
fn a_candidate_that_may_not_create_never_does() {
    let mut table = Table::new(false);
    assert!(!writes(&table.first_sight(Sight::Absent { deleted_at: None })));
    assert!(!writes(&table.after(1000.0).tell(Event::Tick)));
}

#[test]
fn each_renewal_differs_from_the_last_in_its_whole_second() {
    let mut table = Table::new(false);
    table.lead();
    let first = table.elector.lease().unwrap().record.renew_time.unwrap().0.div_euclid(1_000_000);
    let request = only_write(&table.after(2.0).tell(Event::Tick)).0;
    table.tell(Event::Written { request, result: Err(Failure::Refused { retry_after: None }) });
    table.after(0.3).renew(7, 0.0);
    let second = table.elector.lease().unwrap().record.renew_time.unwrap().0.div_euclid(1_000_000);
    assert_ne!(first, second);
}

#[test]
fn without_the_right_to_watch_a_standby_polls_at_the_retry_period() {
    let mut table = Table::new(false);
    table.first_sight(Sight::Lease(lease(5, held_by(OTHER, 0, 1), None)));
    table.tell(Event::WatchForbidden);
    let request = only_read(&table.after(2.0).tell(Event::Tick));
    let actions =
        table.tell(Event::Read { request, result: Ok(Sight::Lease(lease(6, Record::released(0, WallTime(1)), None))) });
    assert!(!writes(&actions));
    assert!(writes(&table.after(0.005).tell(Event::Tick)));
}

#[test]
fn a_process_that_stood_still_is_in_doubt_until_a_fresh_write() {
    let mut table = Table::new(false);
    table.lead();
    let actions = table.after(6.0).tell(Event::Tick);
    assert_eq!(actions[0], Action::Valid { valid_until: table.moment() });
    assert!(writes(&actions), "{actions:?}");
}

#[test]
fn an_answer_with_a_number_that_was_not_asked_for_changes_nothing() {
    let mut table = Table::new(false);
    table.first_sight(Sight::Lease(lease(5, Record::released(3, WallTime(1)), None)));
    let (request, ..) = only_write(&table.after(0.01).tell(Event::Tick));
    let actions = table.tell(Event::Written { request: request + 1, result: Ok(Version::new("6")) });
    assert!(!actions.iter().any(|action| matches!(action, Action::Lead { .. })));
    table.tell(Event::Written { request, result: Err(Failure::Unknown) });
    let actions = table.tell(Event::Written { request, result: Ok(Version::new("6")) });
    assert!(!actions.iter().any(|action| matches!(action, Action::Lead { .. })));
}

#[test]
fn a_shutdown_without_an_api_server_ends_within_two_seconds() {
    let mut table = Table::new(false);
    table.lead();
    table.after(1.0).tell(Event::Shutdown);
    let mut actions = table.tell(Event::WorkEnded { term: 1 });
    for _ in 0..20 {
        if actions.contains(&Action::Finish) {
            return;
        }
        if let Some(Action::Write { request, .. }) = actions.iter().find(|a| matches!(a, Action::Write { .. })).cloned()
        {
            table.tell(Event::Written { request, result: Err(Failure::Unknown) });
        }
        actions = table.after(0.1).tell(Event::Tick);
    }
    panic!("still not finished after 2 s");
}

#[test]
fn however_many_renewals_fail_the_whole_deadline_is_used() {
    let seconds = Duration::from_secs;
    let timing = Timing::new(seconds(120), seconds(100), seconds(2)).unwrap();
    let mut table = Table::with(timing, false);
    table.lead();
    let led = table.moment();
    loop {
        let actions = table.after(0.1).tell(Event::Tick);
        if let Some(Action::Write { request, .. }) = actions.iter().find(|a| matches!(a, Action::Write { .. })) {
            table.tell(Event::Written { request: *request, result: Err(Failure::Unknown) });
        }
        if let Some((loss, _)) = stop_of(&actions) {
            assert_eq!(loss, Loss::DeadlinePassed);
            assert!(table.moment().since(led) >= seconds(99), "stopped after {:?}", table.moment().since(led));
            return;
        }
    }
}

#[test]
fn a_renewal_whose_answer_was_lost_is_ones_own() {
    let mut table = Table::new(false);
    table.lead();
    let (request, _, record) = only_write(&table.after(2.0).tell(Event::Tick));
    table.tell(Event::Written { request, result: Err(Failure::Unknown) });
    let actions = table.after(0.1).tell(Event::Watched(Sight::Lease(lease(7, record, Some("uid/app/1")))));
    assert_eq!(stop_of(&actions), None);
    // It was seen, but not acknowledged: another write must extend the term.
    assert!(!actions.iter().any(|action| matches!(action, Action::Valid { .. })), "{actions:?}");
    table.after(0.2).renew(8, 0.01);
    assert!(table.elector.holds());
}

#[test]
fn a_wait_that_the_server_asks_for_is_honoured_within_reason() {
    let mut table = Table::new(false);
    table.first_sight(Sight::Lease(lease(5, Record::released(3, WallTime(1)), None)));
    let (request, ..) = only_write(&table.after(0.01).tell(Event::Tick));
    let retry_after = Some(Duration::from_secs(5));
    table.tell(Event::Written { request, result: Err(Failure::Refused { retry_after }) });
    assert!(!writes(&table.after(4.9).tell(Event::Tick)));
    let (request, ..) = only_write(&table.after(0.2).tell(Event::Tick));
    let retry_after = Some(Duration::from_secs(86_400));
    table.tell(Event::Written { request, result: Err(Failure::Refused { retry_after }) });
    assert!(writes(&table.after(10.1).tell(Event::Tick)));
}

#[test]
fn a_standby_leaves_at_once_whatever_it_waits_for() {
    let mut table = Table::new(false);
    only_read(&table.tell(Event::Tick));
    assert!(table.tell(Event::Shutdown).contains(&Action::Finish), "while a read is under way");

    let mut table = Table::new(false);
    let request = only_read(&table.tell(Event::Tick));
    table.tell(Event::Read { request, result: Err(Failure::Unknown) });
    assert!(table.tell(Event::Shutdown).contains(&Action::Finish), "between two tries");
}

#[test]
fn a_watch_that_works_again_ends_the_polling() {
    let mut table = Table::new(false);
    let other = || Sight::Lease(lease(5, held_by(OTHER, 0, 1), None));
    table.first_sight(other());
    table.tell(Event::WatchForbidden);
    only_read(&table.after(2.0).tell(Event::Tick));
    let mut table = Table::new(false);
    table.first_sight(other());
    table.tell(Event::WatchForbidden);
    table.tell(Event::Watched(other()));
    let actions = table.after(2.0).tell(Event::Tick);
    assert!(!actions.iter().any(|action| matches!(action, Action::Read { .. })), "{actions:?}");
}

#[test]
fn the_end_of_a_former_terms_work_is_not_that_of_this_one() {
    let mut table = Table::new(false);
    table.lead();
    let (request, ..) = only_write(&table.after(1.0).tell(Event::WorkEnded { term: 1 }));
    table.tell(Event::Written { request, result: Ok(Version::new("8")) });
    let (request, ..) = only_write(&table.after(15.1).tell(Event::Tick));
    let actions = table.tell(Event::Written { request, result: Ok(Version::new("9")) });
    assert!(actions.iter().any(|action| matches!(action, Action::Lead { term: 2, .. })), "{actions:?}");
    assert!(!writes(&table.tell(Event::WorkEnded { term: 1 })));
    assert!(writes(&table.tell(Event::WorkEnded { term: 2 })));
}

#[test]
fn a_missing_lease_that_others_make_is_looked_for_now_and_then() {
    let mut table = Table::new(false);
    table.first_sight(Sight::Absent { deleted_at: None });
    only_read(&table.after(15.1).tell(Event::Tick));
}

/// Lets every write fail until the term is lost by time, and returns when its work must be dead.
fn lose_by_time(table: &mut Table) -> Moment {
    for _ in 0..110 {
        let actions = table.after(0.1).tell(Event::Tick);
        if let Some(Action::Write { request, .. }) = actions.iter().find(|a| matches!(a, Action::Write { .. })) {
            table.tell(Event::Written { request: *request, result: Err(Failure::Unknown) });
        }
        if let Some((loss, kill_at)) = stop_of(&actions) {
            assert_eq!(loss, Loss::DeadlinePassed);
            return kill_at.unwrap();
        }
    }
    panic!("the term was not lost");
}

fn leads(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Lead { .. }))
}

#[test]
fn another_incarnation_on_ones_own_record_ends_the_work() {
    let mut table = Table::new(false);
    table.lead();
    let mut foreign = table.elector.lease().unwrap().clone();
    foreign.version = Version::new("9");
    foreign.incarnation = Some("uid/app/0".to_owned());
    let actions = table.after(1.0).tell(Event::Watched(Sight::Lease(foreign)));
    assert_eq!(stop_of(&actions).map(|(loss, _)| loss), Some(Loss::Deposed));
}

#[test]
fn two_renewals_within_one_second_differ_in_their_whole_second() {
    let timing = Timing::default().with_renew_interval(Duration::from_millis(300)).unwrap();
    let mut table = Table::with(timing, false);
    table.lead();
    let second = |table: &Table| table.elector.lease().unwrap().record.renew_time.unwrap().0.div_euclid(1_000_000);
    let first = second(&table);
    table.after(0.3).renew(7, 0.0);
    assert_ne!(first, second(&table));
}

#[test]
fn a_renewal_keeps_acquire_time_and_transitions() {
    let mut table = Table::new(false);
    table.lead();
    let before = table.elector.lease().unwrap().record.clone();
    table.after(2.0).renew(7, 0.01);
    let after = &table.elector.lease().unwrap().record;
    assert_eq!((after.acquire_time, after.transitions), (before.acquire_time, before.transitions));
    assert_ne!(after.renew_time, before.renew_time);
}

#[test]
fn what_was_lost_by_time_ends_sooner_when_another_holder_shows() {
    let mut table = Table::new(false);
    table.lead();
    let kill_at = lose_by_time(&mut table);
    table.after(0.5);
    assert!(table.moment() < kill_at);
    let actions = table.tell(Event::Watched(Sight::Lease(lease(9, held_by(OTHER, 5, 9), None))));
    assert_eq!(stop_of(&actions), Some((Loss::Deposed, Some(table.moment()))));
}

#[test]
fn a_term_that_was_lost_by_time_is_followed_by_the_next_if_nobody_took_the_lease() {
    let mut table = Table::new(false);
    table.lead();
    lose_by_time(&mut table);
    // Nothing is written while something of the work may be left.
    assert!(!writes(&table.after(2.0).tell(Event::Tick)));
    let (request, purpose, record) = only_write(&table.tell(Event::WorkEnded { term: 1 }));
    assert_eq!((purpose, record.transitions), (Purpose::Acquire, 4));
    let actions = table.tell(Event::Written { request, result: Ok(Version::new("7")) });
    assert!(actions.iter().any(|action| matches!(action, Action::Lead { term: 2, .. })), "{actions:?}");
}

#[test]
fn each_try_gets_twice_the_time_of_the_last_but_never_more_than_is_left() {
    let mut table = Table::new(false);
    table.lead();
    let timeout = |actions: &[Action]| {
        let found = actions.iter().find_map(|action| match action {
            Action::Write { request, timeout, .. } => Some((*request, *timeout)),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no write in {actions:?}"))
    };
    let mut found = Vec::new();
    table.after(2.0);
    for _ in 0..3 {
        let (request, timeout) = timeout(&table.tell(Event::Tick));
        found.push(timeout);
        table.tell(Event::Written { request, result: Err(Failure::Unknown) });
        table.after(1.0);
    }
    // Sent 2 s, 3 s and 4 s after the last acknowledged write, whose term is 10 s.
    assert_eq!(found, [2, 4, 6].map(Duration::from_secs));
}

#[test]
fn the_holders_own_duration_counts_and_where_there_is_none_ones_own() {
    for (seconds, wait) in [(60, 60.0), (0, 15.0), (-5, 15.0)] {
        let mut table = Table::new(false);
        let record = Record { duration_seconds: seconds, ..held_by(OTHER, 0, 1) };
        table.first_sight(Sight::Lease(lease(5, record, None)));
        assert!(!writes(&table.after(wait - 0.1).tell(Event::Tick)), "{seconds} s");
        assert!(writes(&table.after(0.2).tell(Event::Tick)), "{seconds} s");
    }
}

#[test]
fn either_of_two_renewals_whose_answers_were_lost_is_ones_own() {
    let mut table = Table::new(false);
    table.lead();
    let (request, _, first) = only_write(&table.after(2.0).tell(Event::Tick));
    table.tell(Event::Written { request, result: Err(Failure::Unknown) });
    let (request, _, second) = only_write(&table.after(1.5).tell(Event::Tick));
    table.tell(Event::Written { request, result: Err(Failure::Unknown) });
    assert_eq!(first.renew_time, second.renew_time);
    let actions = table.tell(Event::Watched(Sight::Lease(lease(7, first, Some("uid/app/1")))));
    assert_eq!(stop_of(&actions), None);
    // Nor is it forgotten while the next one is under way.
    only_write(&table.after(2.0).tell(Event::Tick));
    assert_eq!(stop_of(&table.after(0.1).tell(Event::Tick)), None);
    assert!(table.elector.holds());
}

#[test]
fn a_lease_that_was_taken_while_one_was_told_to_leave_is_released_without_a_term() {
    let mut table = Table::new(false);
    table.first_sight(Sight::Lease(lease(5, Record::released(3, WallTime(1)), None)));
    let (request, ..) = only_write(&table.after(0.01).tell(Event::Tick));
    assert!(!table.tell(Event::Shutdown).contains(&Action::Finish));
    let actions = table.after(0.1).tell(Event::Written { request, result: Ok(Version::new("6")) });
    assert!(!leads(&actions), "{actions:?}");
    assert_eq!(only_write(&actions).1, Purpose::Release);
}

#[test]
fn a_list_that_shows_nothing_deposes_nobody_but_is_looked_into() {
    let mut table = Table::new(false);
    table.lead();
    let actions = table.after(1.0).tell(Event::Watched(Sight::Absent { deleted_at: None }));
    assert_eq!(stop_of(&actions), None);
    let request = only_read(&actions);
    let actions = table.tell(Event::Read { request, result: Ok(Sight::Absent { deleted_at: None }) });
    assert_eq!(stop_of(&actions), Some((Loss::LeaseDeleted, None)));
}

#[test]
fn a_renewal_of_a_lease_that_is_gone_and_that_others_may_create_ends_the_work_at_once() {
    let mut table = Table::new(true);
    table.lead();
    let (request, ..) = only_write(&table.after(2.0).tell(Event::Tick));
    let actions = table.tell(Event::Written { request, result: Err(Failure::NotFound) });
    assert_eq!(stop_of(&actions), Some((Loss::Deposed, Some(table.moment()))));
}

#[test]
fn a_standby_that_has_nothing_to_give_up_does_not_abstain() {
    let mut table = Table::new(false);
    table.first_sight(Sight::Lease(lease(5, held_by(OTHER, 0, 1), None)));
    table.tell(Event::StepDown);
    table.after(1.0).tell(Event::Watched(Sight::Lease(lease(6, Record::released(0, WallTime(1)), None))));
    assert!(writes(&table.after(0.005).tell(Event::Tick)));
}

#[test]
fn an_acquisition_whose_answer_was_lost_is_looked_up_and_leads_only_after_another_write() {
    let mut table = Table::new(false);
    table.first_sight(Sight::Lease(lease(5, Record::released(3, WallTime(1)), None)));
    let (request, _, record) = only_write(&table.after(0.01).tell(Event::Tick));
    table.tell(Event::Written { request, result: Err(Failure::Unknown) });
    let request = only_read(&table.after(0.3).tell(Event::Tick));
    let own = Sight::Lease(lease(6, record, Some("uid/app/1")));
    let actions = table.tell(Event::Read { request, result: Ok(own) });
    assert!(!leads(&actions), "{actions:?}");
    let (request, _, record) = only_write(&actions);
    assert_eq!(record.transitions, 4);
    let actions = table.tell(Event::Written { request, result: Ok(Version::new("7")) });
    assert!(leads(&actions), "{actions:?}");
}

#[test]
fn an_acquisition_that_can_no_longer_succeed_keeps_nobody() {
    let mut table = Table::new(false);
    table.first_sight(Sight::Lease(lease(5, Record::released(3, WallTime(1)), None)));
    let (request, ..) = only_write(&table.after(0.01).tell(Event::Tick));
    table.tell(Event::Written { request, result: Err(Failure::Unknown) });
    table.tell(Event::Watched(Sight::Lease(lease(6, held_by(OTHER, 4, 1), None))));
    assert!(table.tell(Event::Shutdown).contains(&Action::Finish));
}

#[test]
fn an_acquisition_that_was_overwritten_before_its_answer_came_does_not_lead() {
    let mut table = Table::new(false);
    table.first_sight(Sight::Lease(lease(5, Record::released(3, WallTime(1)), None)));
    let (request, ..) = only_write(&table.after(0.01).tell(Event::Tick));
    table.tell(Event::Watched(Sight::Lease(lease(9, held_by(OTHER, 5, 1), None))));
    let actions = table.tell(Event::Written { request, result: Ok(Version::new("6")) });
    assert!(!leads(&actions), "{actions:?}");
}

/// How often a free Lease is written, in this many steps of 5 ms, to a server that reads but fails each write so.
fn writes_to_a_failing_server(steps: usize, failure: Failure) -> usize {
    let mut table = Table::new(false);
    let released = || Sight::Lease(lease(5, Record::released(3, WallTime(1)), None));
    table.first_sight(released());
    let mut writes = 0;
    let mut actions = table.after(0.01).tell(Event::Tick);
    for _ in 0..steps {
        let next = actions.iter().find(|action| matches!(action, Action::Read { .. } | Action::Write { .. })).cloned();
        let event = match next {
            Some(Action::Read { request, .. }) => Event::Read { request, result: Ok(released()) },
            Some(Action::Write { request, .. }) => {
                writes += 1;
                Event::Written { request, result: Err(failure) }
            }
            _ => Event::Tick,
        };
        actions = table.after(0.005).tell(event);
    }
    writes
}

#[test]
fn a_conflict_about_the_very_version_that_was_read_is_not_repeated_at_once() {
    // An admission webhook may say 409, too, and mean it.
    let writes = writes_to_a_failing_server(400, Failure::Conflict);
    // 2 s: now, at once again after the first read, and then less and less often.
    assert!(writes <= 5, "{writes} writes in 2 s");
}

#[test]
fn reads_that_succeed_between_writes_that_fail_shorten_no_wait() {
    // An etcd that is full still answers reads.
    let writes = writes_to_a_failing_server(2_000, Failure::Unknown);
    // 10 s: after 0.25 s, 0.5 s, 1 s, and then every retry period of 2 s.
    assert!(writes <= 9, "{writes} writes in 10 s");
}
