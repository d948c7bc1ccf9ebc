mod deletion;
mod requests;

use std::time::Duration;

use super::candidate::Candidate;
use super::event::{Action, Event, Failure, Loss, Purpose, Sight};
use super::moment::{Moment, Reading, WallTime};
use super::record::{Snapshot, Version};
use super::state::{Flight, Known, Leave, Role};
use super::timing::Timing;

/// The wait after the first failed request; it doubles up to the retry period.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// The time for a release and its retries. After that the Lease is left to expire.
const RELEASE_BUDGET: Duration = Duration::from_millis(1500);
/// The maximum random delay before a standby acquires a Lease, so that standbys do not all write at once.
const TAKEOVER_SPREAD: Duration = Duration::from_millis(4);
/// A timer that fires this late shows that the process was suspended or starved.
const LATE_TICK: Duration = Duration::from_secs(1);

/// One candidate's side of an election. See the [module](super) for its guarantees.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Elector {
    candidate: Candidate,
    timing: Timing,
    may_create: bool,
    random: u64,
    role: Role,
    known: Known,
    /// The duration of the last record that had a holder.
    last_duration: Duration,
    flight: Option<Flight>,
    requests: u64,
    failures: u32,
    /// The version at which the last write failed. A read of the same version does not prove that the server has
    /// recovered.
    failed_at: Option<Option<Version>>,
    /// The version at which the last conflict occurred.
    conflict_at: Option<Option<Version>>,
    not_before: Option<Moment>,
    must_read: bool,
    watch_forbidden: bool,
    last_read: Option<Moment>,
    /// The send of the last acknowledged write.
    renewed: Option<Moment>,
    renew_now: bool,
    /// The `renewTime` of this candidate's last write that was acknowledged or observed.
    confirmed_time: Option<WallTime>,
    /// The `renewTime` of later writes that may still be committed, and the version that they expect. At most one of
    /// them can succeed, so they share the time.
    pending: Option<(Option<Version>, WallTime)>,
    /// Counts the terms.
    term: u64,
    leave: Leave,
    release_due: bool,
    release_until: Option<Moment>,
    abstain_until: Option<Moment>,
    /// Whether the Lease was deleted while this process held it, and no other holder was observed since.
    deleted_while_held: bool,
    planned_wake: Option<Moment>,
}

impl Elector {
    /// Returns a standby that has not observed the Lease. `may_create`: whether it creates a missing Lease. `seed` only
    /// varies the random delay before a takeover.
    pub fn new(candidate: Candidate, timing: Timing, may_create: bool, seed: u64) -> Self {
        Self {
            candidate,
            may_create,
            // Similar seeds must not produce similar numbers.
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            role: Role::Standby,
            known: Known::Nothing,
            last_duration: timing.lease_duration(),
            timing,
            flight: None,
            requests: 0,
            failures: 0,
            failed_at: None,
            conflict_at: None,
            not_before: None,
            must_read: true,
            watch_forbidden: false,
            last_read: None,
            renewed: None,
            renew_now: false,
            confirmed_time: None,
            pending: None,
            term: 0,
            leave: Leave::Stay,
            release_due: false,
            release_until: None,
            abstain_until: None,
            deleted_while_held: false,
            planned_wake: None,
        }
    }

    /// Returns the candidate of this elector.
    pub fn candidate(&self) -> &Candidate {
        &self.candidate
    }

    /// Returns the last observation of the Lease, `None` if it is absent or unknown.
    pub fn lease(&self) -> Option<&Snapshot> {
        match &self.known {
            Known::Lease { snapshot, .. } => Some(snapshot),
            Known::Nothing | Known::Absent { .. } => None,
        }
    }

    /// Whether this process holds the Lease according to the last observation.
    pub fn holds(&self) -> bool {
        self.lease().is_some_and(|snapshot| self.is_mine(snapshot))
    }

    /// Returns the send of the last acknowledged write.
    pub fn renewed(&self) -> Option<Moment> {
        self.renewed
    }

    /// Processes one event and returns the actions to perform, in order. The first event may be an [`Event::Tick`].
    pub fn step(&mut self, now: Reading, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.role == Role::Finished {
            return actions;
        }
        self.notice_late_tick(now.moment, &mut actions);
        if let Event::ReadyToLead(is_ready) = event {
            self.candidate.set_ready(is_ready);
        }
        match event {
            Event::Watched(sight) => {
                self.watch_forbidden = false;
                self.observe(now.moment, sight, false);
            }
            Event::WatchForbidden => self.watch_forbidden = true,
            Event::Read { request, result } => self.on_read(now.moment, request, result),
            Event::Written { request, result } => self.on_written(now.moment, request, result, &mut actions),
            Event::Tick => {}
            Event::Renew => self.renew_now = true,
            Event::StepDown | Event::ReadyToLead(false) if self.takes_part() => {
                self.leave = self.leave.max(Leave::StepDown);
            }
            Event::StepDown | Event::ReadyToLead(_) => {}
            Event::Shutdown => self.leave = Leave::Shutdown,
            Event::WorkEnded { term } if term == self.term => self.on_work_ended(),
            Event::WorkEnded { .. } => {}
        }
        self.decide(now, &mut actions);
        self.planned_wake = self.next_wake(now.moment);
        if let Some(at) = self.planned_wake {
            actions.push(Action::Wake { at });
        }
        actions
    }

    /// Suspends leadership after the process was frozen, until a new write succeeds.
    fn notice_late_tick(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let late = self.planned_wake.is_some_and(|planned| now.since(planned) > LATE_TICK);
        if late && matches!(self.role, Role::Leading { .. } | Role::Leaving { .. }) {
            actions.push(Action::Valid { valid_until: now });
            self.renew_now = true;
        }
    }

    fn observe(&mut self, now: Moment, sight: Sight, authoritative: bool) {
        let known_version = self.version();
        let stale =
            |version: &Version| !authoritative && known_version.as_ref().is_some_and(|known| version.is_at_most(known));
        match sight {
            Sight::Lease(snapshot) if stale(&snapshot.version) => {}
            Sight::Lease(snapshot) => self.observe_lease(now, snapshot),
            Sight::Absent { deleted_at: Some(version) } if stale(&version) => {}
            // An empty list may be older than this process's own write.
            Sight::Absent { deleted_at: None } if !authoritative && known_version.is_some() => self.must_read = true,
            Sight::Absent { .. } => {
                if !matches!(self.known, Known::Absent { .. }) {
                    self.known = Known::Absent { since: now, was_seen: known_version.is_some() };
                }
            }
        }
    }

    fn observe_lease(&mut self, now: Moment, snapshot: Snapshot) {
        if let Known::Lease { snapshot: known, .. } = &mut self.known
            && known.record == snapshot.record
        {
            // Only a changed record restarts the wait: an annotation on a dead leader's Lease delays no candidate.
            *known = snapshot;
            return;
        }
        let record = &snapshot.record;
        let wait = if record.is_released() {
            self.spread()
        } else if record.holder.is_empty() {
            // Emptied by hand: the last holder may still work.
            self.last_duration + self.spread()
        } else {
            self.last_duration = record.duration().unwrap_or(self.timing.lease_duration());
            self.last_duration + self.spread()
        };
        let version = Some(snapshot.version.clone());
        self.deleted_while_held &= record.is_recreated();
        self.known = Known::Lease { snapshot, since: now, takeable_at: now + wait };
        if !self.holds() && self.lease().is_some_and(|lease| !lease.record.holder.is_empty()) {
            self.abstain_until = None; // another candidate leads
        }
        if !self.holds() && self.pending.as_ref().is_some_and(|(expected, _)| *expected != version) {
            self.pending = None; // its expected version is outdated: it can only conflict
        }
    }

    fn on_read(&mut self, now: Moment, request: u64, result: Result<Sight, Failure>) {
        if self.flight.take_if(|flight| flight.request == request).is_none() {
            return;
        }
        match result {
            Ok(sight) => {
                self.must_read = false;
                self.last_read = Some(now);
                self.not_before = None;
                self.observe(now, sight, true);
                if self.failed_at.as_ref() != Some(&self.version()) {
                    self.failures = 0;
                }
            }
            Err(failure) => self.back_off(now, failure),
        }
    }

    fn on_written(&mut self, now: Moment, request: u64, result: Result<Version, Failure>, actions: &mut Vec<Action>) {
        let Some(flight) = self.flight.take_if(|flight| flight.request == request) else {
            return; // a late or duplicate answer extends nothing
        };
        let Some((purpose, record)) = flight.write else {
            return;
        };
        let version = match result {
            Ok(version) => version,
            Err(failure) => return self.on_write_failed(now, purpose, failure),
        };
        self.reset_failures();
        let transitions = record.transitions;
        let incarnation = (purpose != Purpose::Release).then(|| self.candidate.incarnation().to_owned());
        self.confirmed_time = record.renew_time;
        self.pending = None;
        if !self.lease().is_some_and(|known| known.version != version && version.is_at_most(&known.version)) {
            let preference = self.lease().map(|known| known.preference.clone()).unwrap_or_default();
            self.observe_lease(flight.sent, Snapshot { version: version.clone(), record, incarnation, preference });
        }
        if purpose == Purpose::Release {
            self.release_due = false;
            return;
        }
        self.renewed = Some(flight.sent);
        self.renew_now = false;
        // Counted from the send, not from the answer: a standby's wait cannot start before the send.
        let valid_until = flight.sent + self.timing.renew_deadline();
        let starts_term = self.leave == Leave::Stay && now < valid_until && self.holds();
        match &mut self.role {
            Role::Standby if starts_term => {
                self.role = Role::Leading { valid_until };
                self.term += 1;
                actions.push(Action::Lead { term: self.term, token: version, transitions, valid_until });
            }
            Role::Leading { valid_until: until } | Role::Leaving { valid_until: until } => {
                *until = valid_until;
                actions.push(Action::Valid { valid_until });
            }
            Role::Standby | Role::Lost { .. } | Role::Finished => {}
        }
    }

    fn on_write_failed(&mut self, now: Moment, purpose: Purpose, failure: Failure) {
        let version = self.version();
        self.failed_at = Some(version.clone());
        match failure {
            // The server works, and an earlier write of this process may have won: read again at once. But an admission
            // webhook may answer 409 too, so a second conflict at the same version backs off.
            Failure::Conflict => {
                self.must_read = true;
                if self.conflict_at.replace(version.clone()) == Some(version) {
                    self.back_off(now, failure);
                }
            }
            Failure::NotFound if purpose != Purpose::Create => {
                self.observe(now, Sight::Absent { deleted_at: None }, true);
            }
            Failure::NotFound | Failure::Refused { .. } => self.back_off(now, failure),
            Failure::Unknown => {
                self.must_read |= matches!(purpose, Purpose::Create | Purpose::Acquire);
                self.back_off(now, failure);
            }
        }
    }

    fn version(&self) -> Option<Version> {
        self.lease().map(|lease| lease.version.clone())
    }

    fn reset_failures(&mut self) {
        self.failures = 0;
        self.failed_at = None;
        self.conflict_at = None;
        self.not_before = None;
    }

    fn back_off(&mut self, now: Moment, failure: Failure) {
        let doubled = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(16));
        let server_wait = match failure {
            // A proxy may send an absurdly long Retry-After.
            Failure::Refused { retry_after } => retry_after.unwrap_or_default().min(self.timing.renew_deadline()),
            Failure::Conflict | Failure::NotFound | Failure::Unknown => Duration::ZERO,
        };
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + doubled.min(self.timing.retry_period()).max(server_wait));
    }

    fn on_work_ended(&mut self) {
        match self.role {
            Role::Leading { .. } => {
                self.role = Role::Standby;
                self.release_due = true;
                self.leave = self.leave.max(Leave::StepDown);
            }
            Role::Leaving { .. } => {
                self.role = Role::Standby;
                self.release_due = self.leave > Leave::Stay;
            }
            Role::Lost { .. } => self.role = Role::Standby,
            Role::Standby | Role::Finished => {}
        }
    }

    fn decide(&mut self, now: Reading, actions: &mut Vec<Action>) {
        self.notice_deletion(actions);
        if let Some((loss, kill_at)) = self.loss(now.moment) {
            self.role = Role::Lost { kill_at };
            actions.push(Action::Valid { valid_until: now.moment });
            actions.push(Action::Stop { loss, kill_at: Some(kill_at) });
            return;
        }
        if self.leave > Leave::Stay
            && let Role::Leading { valid_until } = self.role
        {
            self.role = Role::Leaving { valid_until };
            actions.push(Action::Stop { loss: Loss::Requested, kill_at: None });
        }
        if self.role == Role::Standby && self.leave == Leave::Shutdown {
            if !self.may_hold() {
                // A pending read or wait no longer matters.
                self.flight = None;
                return self.finish_leaving(now.moment, actions);
            }
            self.release_until.get_or_insert(now.moment + RELEASE_BUDGET);
        }
        if self.flight.is_some() || self.not_before.is_some_and(|at| now.moment < at) {
            return self.give_up_release_in_time(now.moment, actions);
        }
        match self.role {
            Role::Leading { valid_until } | Role::Leaving { valid_until } => {
                let left = valid_until.since(now.moment);
                if self.must_read {
                    self.send_read(now.moment, left, actions);
                } else if self.holds() && self.renewal_due().is_some_and(|due| now.moment >= due) {
                    self.send_claim(now, Purpose::Renew, left, actions);
                }
            }
            Role::Standby => self.decide_standby(now, actions),
            Role::Lost { .. } | Role::Finished => {}
        }
    }

    /// Returns the loss of leadership that is due, and when the work must be dead. A stop grace ends early when another
    /// holder is observed.
    fn loss(&self, now: Moment) -> Option<(Loss, Moment)> {
        match self.role {
            Role::Leading { .. } | Role::Leaving { .. } if self.is_deposed() => Some((Loss::Deposed, now)),
            Role::Leading { valid_until } | Role::Leaving { valid_until } if now >= valid_until => {
                Some((Loss::DeadlinePassed, valid_until + self.timing.stop_grace()))
            }
            Role::Lost { kill_at } if kill_at > now && self.is_deposed() => Some((Loss::Deposed, now)),
            _ => None,
        }
    }

    /// Whether this process holds the Lease, or may hold it by a write with an unknown result.
    fn may_hold(&self) -> bool {
        self.holds() || self.pending.is_some() || self.is_writing()
    }

    /// Whether this candidate leads, or may be about to.
    fn takes_part(&self) -> bool {
        self.role != Role::Standby || self.may_hold()
    }

    fn is_writing(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.write.is_some())
    }

    fn decide_standby(&mut self, now: Reading, actions: &mut Vec<Action>) {
        let unlimited = self.timing.renew_deadline();
        if self.leave > Leave::Stay {
            if self.must_read && (self.release_due || self.pending.is_some()) {
                // An acquisition with a lost answer may have succeeded.
                self.release_until.get_or_insert(now.moment + RELEASE_BUDGET);
                self.send_read(now.moment, RELEASE_BUDGET, actions);
                return self.give_up_release_in_time(now.moment, actions);
            }
            if self.holds() {
                let until = *self.release_until.get_or_insert(now.moment + RELEASE_BUDGET);
                if now.moment < until {
                    return self.send_release(now, until.since(now.moment), actions);
                }
            }
            return self.finish_leaving(now.moment, actions);
        }
        if self.abstain_until.is_some_and(|until| now.moment < until) {
            return;
        }
        self.abstain_until = None;
        if self.must_read || self.poll_due().is_some_and(|due| now.moment >= due) {
            return self.send_read(now.moment, unlimited, actions);
        }
        if self.takeable_at(now.moment).is_some_and(|at| now.moment >= at) {
            let purpose = if self.lease().is_some() { Purpose::Acquire } else { Purpose::Create };
            self.send_claim(now, purpose, unlimited, actions);
        }
    }

    /// Gives up a release that does not succeed in time: the Lease then expires.
    fn give_up_release_in_time(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if self.role == Role::Standby && self.release_until.is_some_and(|until| now >= until) {
            self.flight = None;
            self.finish_leaving(now, actions);
        }
    }

    /// Leaves the election, or starts to abstain, once nothing is held.
    fn finish_leaving(&mut self, now: Moment, actions: &mut Vec<Action>) {
        self.release_due = false;
        self.release_until = None;
        if self.leave == Leave::Shutdown {
            self.role = Role::Finished;
            actions.push(Action::Finish);
        } else {
            self.leave = Leave::Stay;
            self.abstain_until = Some(now + self.timing.lease_duration());
        }
    }

    /// Returns the moment from which a standby may acquire or create the Lease, `None` if it may not.
    fn takeable_at(&self, now: Moment) -> Option<Moment> {
        match &self.known {
            _ if !self.candidate.is_ready() => None,
            Known::Nothing => None,
            Known::Absent { since, was_seen } if self.may_create => {
                // The holder of a Lease that vanished may not have observed the deletion yet.
                Some(if *was_seen { *since + self.timing.lease_duration() } else { *since })
            }
            Known::Absent { .. } => None,
            // Its own work has ended, and the Lease is still its own.
            Known::Lease { snapshot, since, .. } if self.is_mine(snapshot) => Some(*since),
            Known::Lease { snapshot, since, .. } if self.candidate.has_outlived(snapshot) => Some(*since),
            // All candidates wait for this process's work only, and it has ended.
            Known::Lease { snapshot, since, .. } if self.is_awaited(now) => {
                Some(*since + self.candidate.hold_back(&snapshot.preference, &self.timing))
            }
            Known::Lease { snapshot, takeable_at, .. } => {
                Some(*takeable_at + self.candidate.hold_back(&snapshot.preference, &self.timing))
            }
        }
    }

    fn renewal_due(&self) -> Option<Moment> {
        let renewed = self.renewed?;
        if self.renew_now || self.failures > 0 { Some(renewed) } else { Some(renewed + self.timing.renew_interval()) }
    }

    fn poll_due(&self) -> Option<Moment> {
        let last = self.last_read?;
        if self.watch_forbidden {
            return Some(last + self.timing.retry_period());
        }
        // Without a Lease no timer ends the wait if the watch is broken.
        let absent = matches!(self.known, Known::Absent { .. }) && !self.may_create;
        absent.then(|| last + self.timing.lease_duration())
    }

    fn is_mine(&self, snapshot: &Snapshot) -> bool {
        snapshot.record.holder == self.candidate.identity()
            && snapshot.incarnation.as_deref() == Some(self.candidate.incarnation())
            // A client that knows no incarnations keeps the annotation, but its renewTime is not this process's.
            && snapshot.record.renew_time.is_some_and(|time| {
                Some(time) == self.confirmed_time || self.pending.as_ref().is_some_and(|(_, pending)| *pending == time)
            })
    }

    fn next_wake(&self, now: Moment) -> Option<Moment> {
        let soonest = |a: Option<Moment>, b: Option<Moment>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let work = match self.role {
            Role::Finished | Role::Lost { .. } => return None,
            _ if self.flight.is_some() => None,
            Role::Leading { .. } | Role::Leaving { .. } => {
                if self.must_read {
                    Some(now)
                } else {
                    self.renewal_due().filter(|_| self.holds())
                }
            }
            Role::Standby if self.leave > Leave::Stay => Some(now),
            Role::Standby => match self.abstain_until {
                Some(until) => Some(until),
                None if self.must_read => Some(now),
                None => soonest(self.takeable_at(now), self.poll_due()),
            },
        };
        let work = match (work, self.not_before) {
            (Some(at), Some(not_before)) => Some(at.max(not_before)),
            (at, _) => at,
        };
        let end = match self.role {
            Role::Leading { valid_until } | Role::Leaving { valid_until } => Some(valid_until),
            _ => self.release_until,
        };
        soonest(work, end)
    }

    /// Returns a random delay up to [`TAKEOVER_SPREAD`] (xorshift64; its distribution hardly matters).
    fn spread(&mut self) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        TAKEOVER_SPREAD.mul_f64((self.random >> 11) as f64 / (1u64 << 53) as f64)
    }
}
