//! Single rules of the election, each tested on one elector.

use std::time::Duration;

use k8sensus_election::{
    Action, Candidate, Elector, Event, Failure, Loss, Moment, Preference, Purpose, Reading, Record, Sight, Snapshot,
    Timing, Version, WallTime,
};

pub(super) const ME: &str = "otter";
pub(super) const OTHER: &str = "heron";

/// An elector with a manual clock.
pub(super) struct Setup {
    pub(super) elector: Elector,
    now: Duration,
}

impl Setup {
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

    pub(super) fn send(&mut self, event: Event) -> Vec<Action> {
        let wall = WallTime(1_700_000_000_000_000 + i64::try_from(self.now.as_micros()).unwrap());
        self.elector.step(Reading { moment: self.moment(), wall }, event)
    }

    /// Starts the elector and answers its first read with `sight`.
    pub(super) fn first_read(&mut self, sight: Sight) -> Vec<Action> {
        let actions = self.send(Event::Tick);
        let request = only_read(&actions);
        self.send(Event::Read { request, result: Ok(sight) })
    }

    /// Acquires a released Lease at version 5 with a write that gets version 6.
    pub(super) fn lead(&mut self) {
        self.first_read(Sight::Lease(lease(5, Record::released(3, WallTime(1)), None)));
        self.after(0.01);
        let actions = self.send(Event::Tick);
        let (request, purpose, _) = only_write(&actions);
        assert_eq!(purpose, Purpose::Acquire);
        let actions = self.send(Event::Written { request, result: Ok(Version::new("6")) });
        assert!(actions.iter().any(|action| matches!(action, Action::Lead { .. })), "{actions:?}");
    }

    /// Renews now. The write gets `version` after `latency` seconds.
    fn renew(&mut self, version: u32, latency: f64) -> Vec<Action> {
        let actions = self.send(Event::Tick);
        let (request, purpose, _) = only_write(&actions);
        assert_eq!(purpose, Purpose::Renew);
        self.after(latency);
        self.send(Event::Written { request, result: Ok(Version::new(version.to_string())) })
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
fn a_released_lease_is_acquired_at_once_with_one_more_transition() {
    let mut setup = Setup::new(false);
    setup.first_read(Sight::Lease(lease(5, Record::released(3, WallTime(1)), None)));
    let (_, purpose, record) = only_write(&setup.after(0.005).send(Event::Tick));
    assert_eq!(purpose, Purpose::Acquire);
    assert_eq!((record.holder.as_str(), record.duration_seconds, record.transitions), (ME, 15, 4));
    assert_eq!(record.acquire_time, record.renew_time);
}

#[test]
fn a_holder_emptied_by_hand_keeps_its_last_duration() {
    let mut setup = Setup::new(false);
    setup.first_read(Sight::Lease(lease(5, held_by(OTHER, 0, 1), None)));
    let emptied = Record { holder: String::new(), ..held_by(OTHER, 0, 1) };
    setup.after(5.0).send(Event::Watched(Sight::Lease(lease(6, emptied, None))));
    assert!(!writes(&setup.after(14.9).send(Event::Tick)));
    assert!(writes(&setup.after(0.2).send(Event::Tick)));
}

#[test]
fn a_changed_record_restarts_the_wait_but_an_annotation_does_not() {
    let mut setup = Setup::new(false);
    setup.first_read(Sight::Lease(lease(5, held_by(OTHER, 0, 1), None)));
    setup.after(10.0).send(Event::Watched(Sight::Lease(lease(6, held_by(OTHER, 0, 2), None))));
    assert!(!writes(&setup.after(14.0).send(Event::Watched(Sight::Lease(lease(7, held_by(OTHER, 0, 2), Some("x")))))));
    let actions = setup.after(1.1).send(Event::Tick);
    let (_, _, record) = only_write(&actions);
    assert_eq!(record.transitions, 1);
    assert!(matches!(&actions[0], Action::Write { expected: Some(version), .. } if version.as_str() == "7"));
}

#[test]
fn the_own_name_with_another_incarnation_is_foreign() {
    let mut setup = Setup::new(false);
    setup.first_read(Sight::Lease(lease(5, held_by(ME, 0, 1), Some("uid/app/0"))));
    assert!(!writes(&setup.after(14.9).send(Event::Tick)));
}

#[test]
fn the_term_is_counted_from_the_send() {
    let mut setup = Setup::new(false);
    setup.lead();
    setup.after(2.0);
    let sent = setup.moment();
    let actions = setup.renew(7, 1.5);
    let valid_until = actions.iter().find_map(|action| match action {
        Action::Valid { valid_until } => Some(*valid_until),
        _ => None,
    });
    assert_eq!(valid_until, Some(sent + Duration::from_secs(10)));
}

#[test]
fn an_acquisition_with_a_late_answer_does_not_lead() {
    let mut setup = Setup::new(false);
    setup.first_read(Sight::Lease(lease(5, Record::released(3, WallTime(1)), None)));
    let (request, ..) = only_write(&setup.after(0.01).send(Event::Tick));
    let actions = setup.after(10.0).send(Event::Written { request, result: Ok(Version::new("6")) });
    assert!(!actions.iter().any(|action| matches!(action, Action::Lead { .. })), "{actions:?}");
}

#[test]
fn without_renewals_the_work_stops_at_the_deadline_and_is_killed_after_the_grace() {
    let mut setup = Setup::new(false);
    setup.lead();
    let start = setup.moment();
    let mut stopped = None;
    for _ in 0..200 {
        let actions = setup.after(0.1).send(Event::Tick);
        if let Some(Action::Write { request, .. }) = actions.iter().find(|a| matches!(a, Action::Write { .. })) {
            setup.send(Event::Written { request: *request, result: Err(Failure::Unknown) });
        }
        if let Some(stop) = stop_of(&actions) {
            stopped = Some((setup.moment(), stop));
            break;
        }
    }
    let (at, (loss, kill_at)) = stopped.expect("the work must be stopped");
    assert_eq!(loss, Loss::DeadlinePassed);
    assert!(at.since(start) <= Duration::from_millis(10_100), "stopped after {:?}", at.since(start));
    let killed_after = kill_at.unwrap().since(start);
    assert!(killed_after <= Duration::from_secs(13), "killed after {killed_after:?}");
}

#[test]
fn a_read_never_extends_the_term() {
    let mut setup = Setup::new(false);
    setup.lead();
    let request = only_write(&setup.after(2.0).send(Event::Tick)).0;
    let request = only_read(&setup.send(Event::Written { request, result: Err(Failure::Conflict) }));
    let own = setup.elector.lease().unwrap().clone();
    let actions =
        setup.send(Event::Read { request, result: Ok(Sight::Lease(Snapshot { version: Version::new("9"), ..own })) });
    assert!(!actions.iter().any(|action| matches!(action, Action::Valid { .. })), "{actions:?}");
    assert_eq!(only_write(&actions).1, Purpose::Renew);
}

#[test]
fn a_foreign_holder_stops_the_work_at_once() {
    let mut setup = Setup::new(false);
    setup.lead();
    let actions = setup.after(1.0).send(Event::Watched(Sight::Lease(lease(9, held_by(OTHER, 5, 9), None))));
    assert_eq!(stop_of(&actions), Some((Loss::Deposed, Some(setup.moment()))));
    assert!(!writes(&actions));
}

#[test]
fn a_stale_watch_event_does_not_depose_the_leader() {
    let mut setup = Setup::new(false);
    setup.lead();
    let actions = setup.after(1.0).send(Event::Watched(Sight::Lease(lease(4, held_by(OTHER, 2, 9), None))));
    assert_eq!(stop_of(&actions), None);
    let actions = setup.send(Event::Watched(Sight::Absent { deleted_at: Some(Version::new("4")) }));
    assert_eq!(stop_of(&actions), None);
}

#[test]
fn a_deletion_stops_the_work_at_once_if_candidates_may_create() {
    let mut setup = Setup::new(true);
    setup.lead();
    let actions = setup.after(1.0).send(Event::Watched(Sight::Absent { deleted_at: Some(Version::new("9")) }));
    assert_eq!(stop_of(&actions).map(|(loss, _)| loss), Some(Loss::Deposed));
}

#[test]
fn a_foreign_renewal_in_the_own_name_stops_the_work() {
    let mut setup = Setup::new(false);
    setup.lead();
    let mut foreign = setup.elector.lease().unwrap().clone();
    foreign.version = Version::new("9");
    foreign.record.renew_time = Some(WallTime(42));
    let actions = setup.after(1.0).send(Event::Watched(Sight::Lease(foreign)));
    assert_eq!(stop_of(&actions).map(|(loss, _)| loss), Some(Loss::Deposed));
}

#[test]
fn the_lease_is_renewed_until_the_work_has_ended_then_released() {
    let mut setup = Setup::new(false);
    setup.lead();
    let actions = setup.after(1.0).send(Event::Shutdown);
    assert_eq!(stop_of(&actions), Some((Loss::Requested, None)));
    assert!(!writes(&actions));
    setup.after(1.0).renew(7, 0.01);
    let actions = setup.after(0.5).send(Event::WorkEnded { term: 1 });
    let (request, purpose, record) = only_write(&actions);
    assert_eq!(purpose, Purpose::Release);
    assert!(record.is_released());
    assert_eq!(record.transitions, 4);
    let actions = setup.send(Event::Written { request, result: Ok(Version::new("8")) });
    assert!(actions.contains(&Action::Finish), "{actions:?}");
}

#[test]
fn a_lost_term_is_not_released() {
    let mut setup = Setup::new(false);
    setup.lead();
    setup.after(1.0).send(Event::Watched(Sight::Lease(lease(9, held_by(OTHER, 5, 9), None))));
    assert!(!writes(&setup.after(1.0).send(Event::WorkEnded { term: 1 })));
}

#[test]
fn a_candidate_abstains_for_a_lease_duration_after_a_step_down() {
    let mut setup = Setup::new(false);
    setup.lead();
    setup.after(1.0).send(Event::StepDown);
    let (request, ..) = only_write(&setup.send(Event::WorkEnded { term: 1 }));
    setup.send(Event::Written { request, result: Ok(Version::new("8")) });
    assert!(!writes(&setup.after(14.9).send(Event::Tick)));
    assert!(writes(&setup.after(0.2).send(Event::Tick)));
}

#[test]
fn a_missing_lease_is_created_at_once_but_a_vanished_one_after_a_wait() {
    let mut setup = Setup::new(true);
    let (_, purpose, record) = only_write(&setup.first_read(Sight::Absent { deleted_at: None }));
    assert_eq!((purpose, record.transitions), (Purpose::Create, 0));

    let mut setup = Setup::new(true);
    setup.first_read(Sight::Lease(lease(5, held_by(OTHER, 0, 1), None)));
    setup.send(Event::Watched(Sight::Absent { deleted_at: Some(Version::new("6")) }));
    assert!(!writes(&setup.after(14.9).send(Event::Tick)));
    assert!(writes(&setup.after(0.2).send(Event::Tick)));
}

#[test]
fn a_candidate_without_create_permission_never_creates() {
    let mut setup = Setup::new(false);
    assert!(!writes(&setup.first_read(Sight::Absent { deleted_at: None })));
    assert!(!writes(&setup.after(1000.0).send(Event::Tick)));
}

#[test]
fn each_renew_time_differs_from_the_previous_in_its_whole_second() {
    let mut setup = Setup::new(false);
    setup.lead();
    let first = setup.elector.lease().unwrap().record.renew_time.unwrap().0.div_euclid(1_000_000);
    let request = only_write(&setup.after(2.0).send(Event::Tick)).0;
    setup.send(Event::Written { request, result: Err(Failure::Refused { retry_after: None }) });
    setup.after(0.3).renew(7, 0.0);
    let second = setup.elector.lease().unwrap().record.renew_time.unwrap().0.div_euclid(1_000_000);
    assert_ne!(first, second);
}

#[test]
fn a_standby_without_watch_permission_polls_every_retry_period() {
    let mut setup = Setup::new(false);
    setup.first_read(Sight::Lease(lease(5, held_by(OTHER, 0, 1), None)));
    setup.send(Event::WatchForbidden);
    let request = only_read(&setup.after(2.0).send(Event::Tick));
    let actions =
        setup.send(Event::Read { request, result: Ok(Sight::Lease(lease(6, Record::released(0, WallTime(1)), None))) });
    assert!(!writes(&actions));
    assert!(writes(&setup.after(0.005).send(Event::Tick)));
}

#[test]
fn a_frozen_process_is_not_valid_until_a_new_write() {
    let mut setup = Setup::new(false);
    setup.lead();
    let actions = setup.after(6.0).send(Event::Tick);
    assert_eq!(actions[0], Action::Valid { valid_until: setup.moment() });
    assert!(writes(&actions), "{actions:?}");
}

#[test]
fn an_answer_with_an_unknown_number_is_ignored() {
    let mut setup = Setup::new(false);
    setup.first_read(Sight::Lease(lease(5, Record::released(3, WallTime(1)), None)));
    let (request, ..) = only_write(&setup.after(0.01).send(Event::Tick));
    let actions = setup.send(Event::Written { request: request + 1, result: Ok(Version::new("6")) });
    assert!(!actions.iter().any(|action| matches!(action, Action::Lead { .. })));
    setup.send(Event::Written { request, result: Err(Failure::Unknown) });
    let actions = setup.send(Event::Written { request, result: Ok(Version::new("6")) });
    assert!(!actions.iter().any(|action| matches!(action, Action::Lead { .. })));
}

#[test]
fn a_shutdown_without_an_api_server_ends_within_two_seconds() {
    let mut setup = Setup::new(false);
    setup.lead();
    setup.after(1.0).send(Event::Shutdown);
    let mut actions = setup.send(Event::WorkEnded { term: 1 });
    for _ in 0..20 {
        if actions.contains(&Action::Finish) {
            return;
        }
        if let Some(Action::Write { request, .. }) = actions.iter().find(|a| matches!(a, Action::Write { .. })).cloned()
        {
            setup.send(Event::Written { request, result: Err(Failure::Unknown) });
        }
        actions = setup.after(0.1).send(Event::Tick);
    }
    panic!("still not finished after 2 s");
}

#[test]
fn failing_renewals_are_retried_until_the_deadline() {
    let seconds = Duration::from_secs;
    let timing = Timing::new(seconds(120), seconds(100), seconds(2)).unwrap();
    let mut setup = Setup::with(timing, false);
    setup.lead();
    let start = setup.moment();
    loop {
        let actions = setup.after(0.1).send(Event::Tick);
        if let Some(Action::Write { request, .. }) = actions.iter().find(|a| matches!(a, Action::Write { .. })) {
            setup.send(Event::Written { request: *request, result: Err(Failure::Unknown) });
        }
        if let Some((loss, _)) = stop_of(&actions) {
            assert_eq!(loss, Loss::DeadlinePassed);
            assert!(setup.moment().since(start) >= seconds(99), "stopped after {:?}", setup.moment().since(start));
            return;
        }
    }
}

#[test]
fn a_renewal_with_a_lost_answer_is_recognized() {
    let mut setup = Setup::new(false);
    setup.lead();
    let (request, _, record) = only_write(&setup.after(2.0).send(Event::Tick));
    setup.send(Event::Written { request, result: Err(Failure::Unknown) });
    let actions = setup.after(0.1).send(Event::Watched(Sight::Lease(lease(7, record, Some("uid/app/1")))));
    assert_eq!(stop_of(&actions), None);
    // It was observed, but not acknowledged: only another write extends the term.
    assert!(!actions.iter().any(|action| matches!(action, Action::Valid { .. })), "{actions:?}");
    setup.after(0.2).renew(8, 0.01);
    assert!(setup.elector.holds());
}

#[test]
fn retry_after_is_honored_up_to_the_renew_deadline() {
    let mut setup = Setup::new(false);
    setup.first_read(Sight::Lease(lease(5, Record::released(3, WallTime(1)), None)));
    let (request, ..) = only_write(&setup.after(0.01).send(Event::Tick));
    let retry_after = Some(Duration::from_secs(5));
    setup.send(Event::Written { request, result: Err(Failure::Refused { retry_after }) });
    assert!(!writes(&setup.after(4.9).send(Event::Tick)));
    let (request, ..) = only_write(&setup.after(0.2).send(Event::Tick));
    let retry_after = Some(Duration::from_secs(86_400));
    setup.send(Event::Written { request, result: Err(Failure::Refused { retry_after }) });
    assert!(writes(&setup.after(10.1).send(Event::Tick)));
}

#[test]
fn a_standby_shuts_down_at_once() {
    let mut setup = Setup::new(false);
    only_read(&setup.send(Event::Tick));
    assert!(setup.send(Event::Shutdown).contains(&Action::Finish), "while a read is in flight");

    let mut setup = Setup::new(false);
    let request = only_read(&setup.send(Event::Tick));
    setup.send(Event::Read { request, result: Err(Failure::Unknown) });
    assert!(setup.send(Event::Shutdown).contains(&Action::Finish), "between two retries");
}

#[test]
fn a_watch_that_works_again_ends_the_polling() {
    let mut setup = Setup::new(false);
    let other = || Sight::Lease(lease(5, held_by(OTHER, 0, 1), None));
    setup.first_read(other());
    setup.send(Event::WatchForbidden);
    only_read(&setup.after(2.0).send(Event::Tick));
    let mut setup = Setup::new(false);
    setup.first_read(other());
    setup.send(Event::WatchForbidden);
    setup.send(Event::Watched(other()));
    let actions = setup.after(2.0).send(Event::Tick);
    assert!(!actions.iter().any(|action| matches!(action, Action::Read { .. })), "{actions:?}");
}

#[test]
fn the_end_of_an_earlier_terms_work_is_ignored() {
    let mut setup = Setup::new(false);
    setup.lead();
    let (request, ..) = only_write(&setup.after(1.0).send(Event::WorkEnded { term: 1 }));
    setup.send(Event::Written { request, result: Ok(Version::new("8")) });
    let (request, ..) = only_write(&setup.after(15.1).send(Event::Tick));
    let actions = setup.send(Event::Written { request, result: Ok(Version::new("9")) });
    assert!(actions.iter().any(|action| matches!(action, Action::Lead { term: 2, .. })), "{actions:?}");
    assert!(!writes(&setup.send(Event::WorkEnded { term: 1 })));
    assert!(writes(&setup.send(Event::WorkEnded { term: 2 })));
}

#[test]
fn a_missing_lease_is_polled_every_lease_duration() {
    let mut setup = Setup::new(false);
    setup.first_read(Sight::Absent { deleted_at: None });
    only_read(&setup.after(15.1).send(Event::Tick));
}

/// Fails every write until the term expires. Returns when its work must be dead.
fn expire(setup: &mut Setup) -> Moment {
    for _ in 0..110 {
        let actions = setup.after(0.1).send(Event::Tick);
        if let Some(Action::Write { request, .. }) = actions.iter().find(|a| matches!(a, Action::Write { .. })) {
            setup.send(Event::Written { request: *request, result: Err(Failure::Unknown) });
        }
        if let Some((loss, kill_at)) = stop_of(&actions) {
            assert_eq!(loss, Loss::DeadlinePassed);
            return kill_at.unwrap();
        }
    }
    panic!("the term did not expire");
}

fn leads(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Lead { .. }))
}

#[test]
fn another_incarnation_on_the_own_record_stops_the_work() {
    let mut setup = Setup::new(false);
    setup.lead();
    let mut foreign = setup.elector.lease().unwrap().clone();
    foreign.version = Version::new("9");
    foreign.incarnation = Some("uid/app/0".to_owned());
    let actions = setup.after(1.0).send(Event::Watched(Sight::Lease(foreign)));
    assert_eq!(stop_of(&actions).map(|(loss, _)| loss), Some(Loss::Deposed));
}

#[test]
fn two_renewals_within_one_second_differ_in_their_whole_second() {
    let timing = Timing::default().with_renew_interval(Duration::from_millis(300)).unwrap();
    let mut setup = Setup::with(timing, false);
    setup.lead();
    let second = |setup: &Setup| setup.elector.lease().unwrap().record.renew_time.unwrap().0.div_euclid(1_000_000);
    let first = second(&setup);
    setup.after(0.3).renew(7, 0.0);
    assert_ne!(first, second(&setup));
}

#[test]
fn a_renewal_keeps_acquire_time_and_transitions() {
    let mut setup = Setup::new(false);
    setup.lead();
    let before = setup.elector.lease().unwrap().record.clone();
    setup.after(2.0).renew(7, 0.01);
    let after = &setup.elector.lease().unwrap().record;
    assert_eq!((after.acquire_time, after.transitions), (before.acquire_time, before.transitions));
    assert_ne!(after.renew_time, before.renew_time);
}

#[test]
fn another_holder_cuts_the_stop_grace_short() {
    let mut setup = Setup::new(false);
    setup.lead();
    let kill_at = expire(&mut setup);
    setup.after(0.5);
    assert!(setup.moment() < kill_at);
    let actions = setup.send(Event::Watched(Sight::Lease(lease(9, held_by(OTHER, 5, 9), None))));
    assert_eq!(stop_of(&actions), Some((Loss::Deposed, Some(setup.moment()))));
}

#[test]
fn an_expired_term_is_followed_by_another_if_the_lease_is_unchanged() {
    let mut setup = Setup::new(false);
    setup.lead();
    expire(&mut setup);
    // Nothing is written while work may still run.
    assert!(!writes(&setup.after(2.0).send(Event::Tick)));
    let (request, purpose, record) = only_write(&setup.send(Event::WorkEnded { term: 1 }));
    assert_eq!((purpose, record.transitions), (Purpose::Acquire, 4));
    let actions = setup.send(Event::Written { request, result: Ok(Version::new("7")) });
    assert!(actions.iter().any(|action| matches!(action, Action::Lead { term: 2, .. })), "{actions:?}");
}

#[test]
fn request_timeouts_double_within_the_remaining_term() {
    let mut setup = Setup::new(false);
    setup.lead();
    let timeout = |actions: &[Action]| {
        let found = actions.iter().find_map(|action| match action {
            Action::Write { request, timeout, .. } => Some((*request, *timeout)),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no write in {actions:?}"))
    };
    let mut found = Vec::new();
    setup.after(2.0);
    for _ in 0..3 {
        let (request, timeout) = timeout(&setup.send(Event::Tick));
        found.push(timeout);
        setup.send(Event::Written { request, result: Err(Failure::Unknown) });
        setup.after(1.0);
    }
    // Sent 2 s, 3 s and 4 s after the last acknowledged write, whose term is 10 s.
    assert_eq!(found, [2, 4, 6].map(Duration::from_secs));
}

#[test]
fn the_holders_duration_counts_or_the_own_if_it_has_none() {
    for (seconds, wait) in [(60, 60.0), (0, 15.0), (-5, 15.0)] {
        let mut setup = Setup::new(false);
        let record = Record { duration_seconds: seconds, ..held_by(OTHER, 0, 1) };
        setup.first_read(Sight::Lease(lease(5, record, None)));
        assert!(!writes(&setup.after(wait - 0.1).send(Event::Tick)), "{seconds} s");
        assert!(writes(&setup.after(0.2).send(Event::Tick)), "{seconds} s");
    }
}

#[test]
fn either_of_two_renewals_with_lost_answers_is_recognized() {
    let mut setup = Setup::new(false);
    setup.lead();
    let (request, _, first) = only_write(&setup.after(2.0).send(Event::Tick));
    setup.send(Event::Written { request, result: Err(Failure::Unknown) });
    let (request, _, second) = only_write(&setup.after(1.5).send(Event::Tick));
    setup.send(Event::Written { request, result: Err(Failure::Unknown) });
    assert_eq!(first.renew_time, second.renew_time);
    let actions = setup.send(Event::Watched(Sight::Lease(lease(7, first, Some("uid/app/1")))));
    assert_eq!(stop_of(&actions), None);
    // The first one is still recognized while the next one is in flight.
    only_write(&setup.after(2.0).send(Event::Tick));
    assert_eq!(stop_of(&setup.after(0.1).send(Event::Tick)), None);
    assert!(setup.elector.holds());
}

#[test]
fn a_lease_acquired_during_shutdown_is_released_without_a_term() {
    let mut setup = Setup::new(false);
    setup.first_read(Sight::Lease(lease(5, Record::released(3, WallTime(1)), None)));
    let (request, ..) = only_write(&setup.after(0.01).send(Event::Tick));
    assert!(!setup.send(Event::Shutdown).contains(&Action::Finish));
    let actions = setup.after(0.1).send(Event::Written { request, result: Ok(Version::new("6")) });
    assert!(!leads(&actions), "{actions:?}");
    assert_eq!(only_write(&actions).1, Purpose::Release);
}

#[test]
fn an_empty_list_is_confirmed_by_a_read() {
    let mut setup = Setup::new(false);
    setup.lead();
    let actions = setup.after(1.0).send(Event::Watched(Sight::Absent { deleted_at: None }));
    assert_eq!(stop_of(&actions), None);
    let request = only_read(&actions);
    let actions = setup.send(Event::Read { request, result: Ok(Sight::Absent { deleted_at: None }) });
    assert_eq!(stop_of(&actions), Some((Loss::LeaseDeleted, None)));
}

#[test]
fn a_404_stops_the_work_at_once_if_candidates_may_create() {
    let mut setup = Setup::new(true);
    setup.lead();
    let (request, ..) = only_write(&setup.after(2.0).send(Event::Tick));
    let actions = setup.send(Event::Written { request, result: Err(Failure::NotFound) });
    assert_eq!(stop_of(&actions), Some((Loss::Deposed, Some(setup.moment()))));
}

#[test]
fn a_step_down_of_a_standby_has_no_effect() {
    let mut setup = Setup::new(false);
    setup.first_read(Sight::Lease(lease(5, held_by(OTHER, 0, 1), None)));
    setup.send(Event::StepDown);
    setup.after(1.0).send(Event::Watched(Sight::Lease(lease(6, Record::released(0, WallTime(1)), None))));
    assert!(writes(&setup.after(0.005).send(Event::Tick)));
}

#[test]
fn an_acquisition_with_a_lost_answer_leads_only_after_another_write() {
    let mut setup = Setup::new(false);
    setup.first_read(Sight::Lease(lease(5, Record::released(3, WallTime(1)), None)));
    let (request, _, record) = only_write(&setup.after(0.01).send(Event::Tick));
    setup.send(Event::Written { request, result: Err(Failure::Unknown) });
    let request = only_read(&setup.after(0.3).send(Event::Tick));
    let own = Sight::Lease(lease(6, record, Some("uid/app/1")));
    let actions = setup.send(Event::Read { request, result: Ok(own) });
    assert!(!leads(&actions), "{actions:?}");
    let (request, _, record) = only_write(&actions);
    assert_eq!(record.transitions, 4);
    let actions = setup.send(Event::Written { request, result: Ok(Version::new("7")) });
    assert!(leads(&actions), "{actions:?}");
}

#[test]
fn an_acquisition_that_can_no_longer_succeed_does_not_delay_shutdown() {
    let mut setup = Setup::new(false);
    setup.first_read(Sight::Lease(lease(5, Record::released(3, WallTime(1)), None)));
    let (request, ..) = only_write(&setup.after(0.01).send(Event::Tick));
    setup.send(Event::Written { request, result: Err(Failure::Unknown) });
    setup.send(Event::Watched(Sight::Lease(lease(6, held_by(OTHER, 4, 1), None))));
    assert!(setup.send(Event::Shutdown).contains(&Action::Finish));
}

#[test]
fn an_overwritten_acquisition_does_not_lead() {
    let mut setup = Setup::new(false);
    setup.first_read(Sight::Lease(lease(5, Record::released(3, WallTime(1)), None)));
    let (request, ..) = only_write(&setup.after(0.01).send(Event::Tick));
    setup.send(Event::Watched(Sight::Lease(lease(9, held_by(OTHER, 5, 1), None))));
    let actions = setup.send(Event::Written { request, result: Ok(Version::new("6")) });
    assert!(!leads(&actions), "{actions:?}");
}

/// Returns the number of writes in `steps` of 5 ms to a server that answers reads but fails each write with `failure`.
fn writes_to_a_failing_server(steps: usize, failure: Failure) -> usize {
    let mut setup = Setup::new(false);
    let released = || Sight::Lease(lease(5, Record::released(3, WallTime(1)), None));
    setup.first_read(released());
    let mut writes = 0;
    let mut actions = setup.after(0.01).send(Event::Tick);
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
        actions = setup.after(0.005).send(event);
    }
    writes
}

#[test]
fn a_repeated_conflict_at_the_same_version_backs_off() {
    // An admission webhook may answer 409 every time.
    let writes = writes_to_a_failing_server(400, Failure::Conflict);
    // In 2 s: at once, again after the first read, then with a growing backoff.
    assert!(writes <= 5, "{writes} writes in 2 s");
}

#[test]
fn successful_reads_do_not_shorten_the_backoff_of_failing_writes() {
    // A full etcd still answers reads.
    let writes = writes_to_a_failing_server(2_000, Failure::Unknown);
    // In 10 s: after 0.25 s, 0.5 s and 1 s, then every retry period of 2 s.
    assert!(writes <= 9, "{writes} writes in 10 s");
}
