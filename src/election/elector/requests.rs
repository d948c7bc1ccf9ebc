//! The requests of an elector and their timeouts.

use std::time::Duration;

use super::super::event::{Action, Purpose};
use super::super::moment::{Moment, Reading, WallTime};
use super::super::record::Record;
use super::super::state::Flight;
use super::Elector;

/// The timeout of the first try of a request, at most a fifth of the renew deadline. It doubles with each retry, so
/// that a slow server is not mistaken for an unreachable one.
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
            // The same incarnation still holds the Lease: client-go keeps both fields too.
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

    /// Returns the `renewTime` of the next claim. Claims that expect the same version share it.
    fn renew_time(&mut self, wall: WallTime) -> WallTime {
        let known = self.lease().map(|lease| (lease.version.clone(), lease.record.renew_time));
        let (expected, last) = known.map_or((None, None), |(version, time)| (Some(version), time));
        match &self.pending {
            Some((version, time)) if *version == expected => return *time,
            // The version has changed: the pending write is the one that the Lease shows, or can never succeed.
            Some(_) if self.holds() => self.confirmed_time = last,
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
