mod deletion;
mod requests;

use std::time::Duration;

use super::candidate::Candidate;
use super::event::{Action, Event, Failure, Loss, Purpose, Sight};
use super::moment::{Moment, Reading, WallTime};
use super::record::{Snapshot, Version};
use super::state::{Flight, Known, Leave, Role};
use super::timing::Timing;

/// The first wait after a failed request; it doubles up to the retry period.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// How long a release is tried before the Lease is left to expire.
const RELEASE_BUDGET: Duration = Duration::from_millis(1500);
/// Standbys take a free Lease in random order within this time, so that they do not all write at once.
const TAKEOVER_SPREAD: Duration = Duration::from_millis(4);
/// A timer that fires this late tells of a suspended or starved process.
const LATE_TICK: Duration = Duration::from_secs(1);

/// One candidate's side of an election. See the [module](super) for what it guarantees.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Elector {
    candidate: Candidate,
    timing: Timing,
    may_create: bool,
    random: u64,
    role: Role,
    known: Known,
    /// The protection of the last record that had a holder.
    last_duration: Duration,
    flight: Option<Flight>,
    requests: u64,
    failures: u32,
    /// The version at which the last write failed. A read that shows it still says nothing of the server's recovery.
    stuck_at: Option<Option<Version>>,
    /// The version at which the last conflict was met.
    conflict_at: Option<Option<Version>>,
    not_before: Option<Moment>,
    must_read: bool,
    watch_forbidden: bool,
    last_read: Option<Moment>,
    /// The send of the last acknowledged write.
    renewed: Option<Moment>,
    renew_now: bool,
    /// The `renewTime` of this candidate's last write that the Lease was seen to have.
    shown: Option<WallTime>,
    /// The `renewTime` of the writes since, which may still come to be, and the version that they expect: one at most of
    /// them can succeed, so they share it.
    pending: Option<(Option<Version>, WallTime)>,
    /// Counts the terms.
    term: u64,
    leave: Leave,
    release_due: bool,
    release_until: Option<Moment>,
    abstain_until: Option<Moment>,
    /// The Lease was deleted while this process held it, and no other candidate has been seen to hold it since.
    deleted_while_held: bool,
    planned_wake: Option<Moment>,
}

impl Elector {
    /// A standby that knows nothing yet. `may_create`: whether it creates the Lease if there is none.
    /// `seed` only spreads the order in which standbys take a free Lease.
    pub fn new(candidate: Candidate, timing: Timing, may_create: bool, seed: u64) -> Self {
        Self {
            candidate,
            may_create,
            // Neighbouring seeds must not draw neighbouring numbers.
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            role: Role::Standby,
            known: Known::Nothing,
            last_duration: timing.lease_duration(),
            timing,
            flight: None,
            requests: 0,
            failures: 0,
            stuck_at: None,
            conflict_at: None,
            not_before: None,
            must_read: true,
            watch_forbidden: false,
            last_read: None,
            renewed: None,
            renew_now: false,
            shown: None,
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

    /// Who this elector acts for.
    pub fn candidate(&self) -> &Candidate {
        &self.candidate
    }

    /// The Lease as it was seen last.
    pub fn lease(&self) -> Option<&Snapshot> {
        match &self.known {
            Known::Lease { snapshot, .. } => Some(snapshot),
            Known::Nothing | Known::Absent { .. } => None,
        }
    }

    /// Whether the Lease, as it was seen last, is held by this very process.
    pub fn holds(&self) -> bool {
        self.lease().is_some_and(|snapshot| self.is_mine(snapshot))
    }

    /// The send of the last write that was acknowledged.
    pub fn renewed(&self) -> Option<Moment> {
        self.renewed
    }

    /// Takes one event in and says what is to be done, in that order. The first call may be a [`Event::Tick`].
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
                self.see(now.moment, sight, false);
            }
            Event::WatchForbidden => self.watch_forbidden = true,
            Event::Read { request, result } => self.read(now.moment, request, result),
            Event::Written { request, result } => self.written(now.moment, request, result, &mut actions),
            Event::Tick => {}
            Event::Renew => self.renew_now = true,
            Event::StepDown | Event::ReadyToLead(false) if self.takes_part() => {
                self.leave = self.leave.max(Leave::StepDown);
            }
            Event::StepDown | Event::ReadyToLead(_) => {}
            Event::Shutdown => self.leave = Leave::Shutdown,
            Event::WorkEnded { term } if term == self.term => self.work_ended(),
            Event::WorkEnded { .. } => {}
        }
        self.decide(now, &mut actions);
        self.planned_wake = self.next_wake(now.moment);
        if let Some(at) = self.planned_wake {
            actions.push(Action::Wake { at });
        }
        actions
    }

    /// The process stood still: leadership counts as doubtful until a fresh write succeeds.
    fn notice_late_tick(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let late = self.planned_wake.is_some_and(|planned| now.since(planned) > LATE_TICK);
        if late && matches!(self.role, Role::Leading { .. } | Role::Leaving { .. }) {
            actions.push(Action::Valid { valid_until: now });
            self.renew_now = true;
        }
    }

    fn see(&mut self, now: Moment, sight: Sight, authoritative: bool) {
        let known_version = self.version();
        let stale =
            |version: &Version| !authoritative && known_version.as_ref().is_some_and(|known| version.is_at_most(known));
        match sight {
            Sight::Lease(snapshot) if stale(&snapshot.version) => {}
            Sight::Lease(snapshot) => self.see_lease(now, snapshot),
            Sight::Absent { deleted_at: Some(version) } if stale(&version) => {}
            // A list that shows nothing may be older than a write of ours.
            Sight::Absent { deleted_at: None } if !authoritative && known_version.is_some() => self.must_read = true,
            Sight::Absent { .. } => {
                if !matches!(self.known, Known::Absent { .. }) {
                    self.known = Known::Absent { since: now, was_seen: known_version.is_some() };
                }
            }
        }
    }

    fn see_lease(&mut self, now: Moment, snapshot: Snapshot) {
        if let Known::Lease { snapshot: known, .. } = &mut self.known
            && known.record == snapshot.record
        {
            // Only a change of the record restarts the timer: an annotation on a dead leader's Lease delays nobody.
            *known = snapshot;
            return;
        }
        let record = &snapshot.record;
        let wait = if record.is_released() {
            self.spread()
        } else if record.holder.is_empty() {
            // Emptied by hand: the last holder may still be at work.
            self.last_duration + self.spread()
        } else {
            self.last_duration = record.duration().unwrap_or(self.timing.lease_duration());
            self.last_duration + self.spread()
        };
        let version = Some(snapshot.version.clone());
        self.deleted_while_held &= record.is_recreated();
        self.known = Known::Lease { snapshot, since: now, takeable_at: now + wait };
        if !self.holds() && self.lease().is_some_and(|lease| !lease.record.holder.is_empty()) {
            self.abstain_until = None; // it was for another to lead, and one does
        }
        if !self.holds() && self.pending.as_ref().is_some_and(|(expected, _)| *expected != version) {
            self.pending = None; // it would meet a conflict
        }
    }

    fn read(&mut self, now: Moment, request: u64, result: Result<Sight, Failure>) {
        if self.flight.take_if(|flight| flight.request == request).is_none() {
            return;
        }
        match result {
            Ok(sight) => {
                self.must_read = false;
                self.last_read = Some(now);
                self.not_before = None;
                self.see(now, sight, true);
                if self.stuck_at.as_ref() != Some(&self.version()) {
                    self.failures = 0;
                }
            }
            Err(failure) => self.failed(now, failure),
        }
    }

    fn written(&mut self, now: Moment, request: u64, result: Result<Version, Failure>, actions: &mut Vec<Action>) {
        let Some(flight) = self.flight.take_if(|flight| flight.request == request) else {
            return; // a late or repeated answer extends nothing
        };
        let Some((purpose, record)) = flight.write else {
            return;
        };
        let version = match result {
            Ok(version) => version,
            Err(failure) => return self.not_written(now, purpose, failure),
        };
        self.succeeded();
        let transitions = record.transitions;
        let incarnation = (purpose != Purpose::Release).then(|| self.candidate.incarnation().to_owned());
        self.shown = record.renew_time;
        self.pending = None;
        if !self.lease().is_some_and(|known| known.version != version && version.is_at_most(&known.version)) {
            let preference = self.lease().map(|known| known.preference.clone()).unwrap_or_default();
            self.see_lease(flight.sent, Snapshot { version: version.clone(), record, incarnation, preference });
        }
        if purpose == Purpose::Release {
            self.release_due = false;
            return;
        }
        self.renewed = Some(flight.sent);
        self.renew_now = false;
        // Counted from the send, not from the answer: a standby's wait cannot have begun before the send.
        let valid_until = flight.sent + self.timing.renew_deadline();
        let leads = self.leave == Leave::Stay && now < valid_until && self.holds();
        match &mut self.role {
            Role::Standby if leads => {
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

    fn not_written(&mut self, now: Moment, purpose: Purpose, failure: Failure) {
        let version = self.version();
        self.stuck_at = Some(version.clone());
        match failure {
            // A lost race is no fault of the server's, and an earlier write of ours may have won it: read again at once.
            // But an admission webhook may say 409, too.
            Failure::Conflict => {
                self.must_read = true;
                if self.conflict_at.replace(version.clone()) == Some(version) {
                    self.failed(now, failure);
                }
            }
            Failure::NotFound if purpose != Purpose::Create => {
                self.see(now, Sight::Absent { deleted_at: None }, true);
            }
            Failure::NotFound | Failure::Refused { .. } => self.failed(now, failure),
            Failure::Unknown => {
                self.must_read |= matches!(purpose, Purpose::Create | Purpose::Acquire);
                self.failed(now, failure);
            }
        }
    }

    fn version(&self) -> Option<Version> {
        self.lease().map(|lease| lease.version.clone())
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        self.stuck_at = None;
        self.conflict_at = None;
        self.not_before = None;
    }

    fn failed(&mut self, now: Moment, failure: Failure) {
        let doubled = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(16));
        let asked_for = match failure {
            // Whatever stands in front of the API server may ask for years.
            Failure::Refused { retry_after } => retry_after.unwrap_or_default().min(self.timing.renew_deadline()),
            Failure::Conflict | Failure::NotFound | Failure::Unknown => Duration::ZERO,
        };
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + doubled.min(self.timing.retry_period()).max(asked_for));
    }

    fn work_ended(&mut self) {
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
                // Neither the answer to a read nor the end of a wait is worth staying for.
                self.flight = None;
                return self.left(now.moment, actions);
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

    /// Whether leadership ends now, and when the work must be dead. What was lost by time ends sooner when another
    /// holder shows.
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

    /// Whether the Lease is this process's, or may come to be by a write whose fate is not known.
    fn may_hold(&self) -> bool {
        self.holds() || self.pending.is_some() || self.is_writing()
    }

    /// Whether there is leadership to give up, or soon may be.
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
                // An acquisition whose answer was lost may have succeeded.
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
            return self.left(now.moment, actions);
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

    /// A release that the server does not take is given up: the Lease then expires by itself.
    fn give_up_release_in_time(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if self.role == Role::Standby && self.release_until.is_some_and(|until| now >= until) {
            self.flight = None;
            self.left(now, actions);
        }
    }

    /// Nothing is held any more: leave for good or abstain for a while.
    fn left(&mut self, now: Moment, actions: &mut Vec<Action>) {
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

    /// The moment from which a standby may take the Lease, `None` while there is nothing that it may take.
    fn takeable_at(&self, now: Moment) -> Option<Moment> {
        match &self.known {
            _ if !self.candidate.is_ready() => None,
            Known::Nothing => None,
            Known::Absent { since, was_seen } if self.may_create => {
                // A Lease that vanished may have had a holder who does not know it yet.
                Some(if *was_seen { *since + self.timing.lease_duration() } else { *since })
            }
            Known::Absent { .. } => None,
            // This process's own work has ended, and nobody has taken the Lease since.
            Known::Lease { snapshot, since, .. } if self.is_mine(snapshot) => Some(*since),
            Known::Lease { snapshot, since, .. } if self.candidate.has_outlived(snapshot) => Some(*since),
            // All candidates wait for this process's work, which has ended.
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
        // No timer of the Lease's own would end a wait for one that a broken watch does not show.
        let absent = matches!(self.known, Known::Absent { .. }) && !self.may_create;
        absent.then(|| last + self.timing.lease_duration())
    }

    fn is_mine(&self, snapshot: &Snapshot) -> bool {
        snapshot.record.holder == self.candidate.identity()
            && snapshot.incarnation.as_deref() == Some(self.candidate.incarnation())
            // A client that knows no incarnations keeps the annotation; but these times are none of ours.
            && snapshot.record.renew_time.is_some_and(|time| {
                Some(time) == self.shown || self.pending.as_ref().is_some_and(|(_, pending)| *pending == time)
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

    /// A random wait within [`TAKEOVER_SPREAD`] (xorshift64; evenness matters little).
    fn spread(&mut self) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        TAKEOVER_SPREAD.mul_f64((self.random >> 11) as f64 / (1u64 << 53) as f64)
    }
}
