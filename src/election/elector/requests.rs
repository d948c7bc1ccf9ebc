//! The requests of an elector, each with the time that it may take.

use std::time::Duration;

use super::Elector;
use crate::election::event::{Action, Purpose};
use crate::election::moment::{Moment, Reading, WallTime};
use crate::election::record::Record;
use crate::election::state::Flight;

/// How long the first try of a request may take, at most a fifth of the renew deadline. The next ones get twice as long
/// each, so that a server that is only slow is not taken for one that is gone.
const FIRST_TRY: Duration = Duration::from_secs(2);

impl Elector {
    pub(super) fn send_read(&mut self, now: Moment, left: Duration, actions: &mut Vec<Action>) {
        let (request, timeout) = self.depart(now, left, None);
        actions.push(Action::Read { request, timeout });
    }

    pub(super) fn send_claim(&mut self, now: Reading, purpose: Purpose, left: Duration, actions: &mut Vec<Action>) {
        let renew_time = self.renew_time(now.wall);
        let last = self.lease().map(|lease| &lease.record);
        let (acquire_time, transitions) = match last {
            // The same incarnation goes on: client-go keeps both, too.
            Some(record) if self.holds() => (record.acquire_time.or(Some(now.wall)), record.transitions),
            Some(record) => (Some(now.wall), record.transitions.max(0).saturating_add(1)),
            None => (Some(now.wall), 0),
        };
        let record = Record {
            holder: self.candidate.identity().to_owned(),
            duration_seconds: i32::try_from(self.timing.lease_duration().as_secs()).unwrap_or(i32::MAX),
            acquire_time,
            renew_time: Some(renew_time),
            transitions,
        };
        let incarnation = Some(self.candidate.incarnation().to_owned());
        self.send_write(now.moment, purpose, record, incarnation, left, actions);
    }

    /// What the next claim writes as `renewTime`. Claims that expect the same version share it.
    fn renew_time(&mut self, wall: WallTime) -> WallTime {
        let known = self.lease().map(|lease| (lease.version.clone(), lease.record.renew_time));
        let (expected, last) = known.map_or((None, None), |(version, time)| (Some(version), time));
        match &self.pending {
            Some((version, time)) if *version == expected => return *time,
            // The version has moved on: what was pending is either what the Lease shows, or will never be.
            Some(_) if self.holds() => self.shown = last,
            _ => {}
        }
        let time = wall.in_another_second_than(last);
        self.pending = Some((expected, time));
        time
    }

    pub(super) fn send_release(&mut self, now: Reading, left: Duration, actions: &mut Vec<Action>) {
        let transitions = self.lease().map_or(0, |lease| lease.record.transitions);
        let record = Record::released(transitions, now.wall);
        self.send_write(now.moment, Purpose::Release, record, None, left, actions);
    }

    fn send_write(
        &mut self,
        now: Moment,
        purpose: Purpose,
        record: Record,
        incarnation: Option<String>,
        left: Duration,
        actions: &mut Vec<Action>,
    ) {
        let expected = self.version();
        let (request, timeout) = self.depart(now, left, Some((purpose, record.clone())));
        actions.push(Action::Write { request, purpose, expected, record, incarnation, timeout });
    }

    fn depart(&mut self, now: Moment, left: Duration, write: Option<(Purpose, Record)>) -> (u64, Duration) {
        self.requests += 1;
        self.flight = Some(Flight { request: self.requests, sent: now, write });
        let first_try = FIRST_TRY.min(self.timing.renew_deadline() / 5);
        let patience = first_try.saturating_mul(1 << self.failures.min(16));
        (self.requests, patience.min(left))
    }
}
