//! A candidate's driver: passes events to its elector and performs the actions, as the campaign does.

use std::time::Duration;

use super::family::Family;
use super::laws::Law;
use super::world::{Body, End, Life, Message, Operation, PendingRequest, Process, Work, World, number};
use crate::subject::election::{Action, Event, Failure, Loss, Moment, Purpose, Sight};

/// A timer that is later than this shows that the process was paused.
const LATE_TICK: Duration = Duration::from_secs(1);

impl World {
    /// Delivers an event to candidate `i`. `owner` is the holder of the Lease that the event carries.
    pub fn deliver(&mut self, i: usize, event: Event, owner: Option<Process>) {
        let now = self.reading(i);
        let process = self.process(i);
        let member = &mut self.members[i];
        let was_paused = member.wake.is_some_and(|wake| now.moment.since(wake) > LATE_TICK);
        let answered = match event {
            Event::Read { request, .. } | Event::Written { request, .. } => {
                member.request.take_if(|pending| pending.number == request)
            }
            _ => None,
        };
        let mut acknowledged = false;
        let mut deposed = false;
        match &event {
            Event::Read { .. } | Event::Written { .. } if answered.is_none() => {} // too late
            Event::Watched(sight) | Event::Read { result: Ok(sight), .. } => {
                let version = match sight {
                    Sight::Lease(snapshot) => number(&snapshot.version),
                    Sight::Absent { deleted_at } => deleted_at.as_ref().map_or(member.seen, number),
                };
                let is_deletion = match sight {
                    Sight::Lease(snapshot) => snapshot.record.is_recreated(),
                    Sight::Absent { .. } => true,
                };
                let may_stop_gracefully = is_deletion && !self.may_create;
                deposed = owner != Some(process) && version >= member.seen && !may_stop_gracefully;
                member.seen = member.seen.max(version);
            }
            Event::Written { result: Ok(version), .. } => {
                acknowledged = true;
                // After a slow answer, less of the term is left than the next renewal needs.
                if answered.is_some_and(|pending| pending.since == now.moment) {
                    member.delays = 0;
                }
                member.seen = member.seen.max(number(version));
            }
            _ => {}
        }
        let actions = member.elector.step(now, event);
        member.wake = None;
        for action in actions {
            self.perform(i, action);
        }
        if was_paused && !acknowledged && self.believes_leading(i) {
            self.break_law(Law::InvalidAfterPause);
        }
        if deposed {
            self.check_deposed(i);
        }
        let member = &self.members[i];
        if !member.is_ready && member.work.as_ref().is_some_and(|work| work.end == End::NotRequested) {
            self.break_law(Law::OnlyReadyLead);
        }
    }

    fn perform(&mut self, i: usize, action: Action) {
        let now = self.local(i);
        match action {
            Action::Read { request, timeout } => self.send_request(i, request, timeout, Operation::Read),
            Action::Write { request, purpose, expected, record, incarnation, timeout } => {
                if matches!(purpose, Purpose::Acquire | Purpose::Create) && !self.members[i].is_ready {
                    self.break_law(Law::OnlyReadyLead);
                }
                if purpose == Purpose::Release && self.members[i].work.is_some() {
                    self.break_law(Law::WorkEndsFirst);
                }
                self.send_request(i, request, timeout, Operation::Write { purpose, expected, record, incarnation });
            }
            Action::Lead { term, token, valid_until, .. } => {
                let token = number(&token);
                if token <= self.token {
                    self.break_law(Law::TokenRises);
                }
                if self.members[i].work.is_some() {
                    self.break_law(Law::OneWork);
                }
                self.token = self.token.max(token);
                self.terms += 1;
                let work = Work { term, order: self.terms, token, end: End::NotRequested, lease_deleted: false };
                self.members[i].work = Some(work);
                self.members[i].valid_until = Some(valid_until);
            }
            Action::Valid { valid_until } => self.members[i].valid_until = Some(valid_until),
            Action::Stop { loss, kill_at } => self.stop(i, now, loss, kill_at),
            Action::Wake { at } => self.members[i].wake = Some(at),
            Action::Finish => {
                if self.members[i].work.is_some() {
                    self.break_law(Law::WorkEndsFirst);
                }
                let member = &mut self.members[i];
                (member.life, member.request, member.valid_until) = (Life::Finished, None, None);
                self.drop_messages(i);
            }
        }
    }

    fn stop(&mut self, i: usize, now: Moment, loss: Loss, kill_at: Option<Moment>) {
        let member = &mut self.members[i];
        let delays = member.delays;
        if let Some(work) = &mut member.work {
            work.end = match (work.end, kill_at) {
                (End::By(before), Some(kill_at)) => End::By(before.min(kill_at)),
                (_, Some(kill_at)) => End::By(kill_at),
                (End::NotRequested, None) => End::Requested(now),
                (end, None) => end,
            };
            work.lease_deleted |= loss == Loss::LeaseDeleted;
            if loss == Loss::DeadlinePassed && delays <= 1 && !work.lease_deleted {
                self.break_law(Law::OneFailureIsSurvived);
            }
        }
    }

    fn send_request(&mut self, i: usize, number: u64, timeout: Duration, operation: Operation) {
        let now = self.local(i);
        let left = self.members[i].valid_until.map_or(Duration::MAX, |until| until.since(now));
        if self.believes_leading(i) && timeout > left {
            self.break_law(Law::WithinTheTerm);
        }
        let writes = matches!(operation, Operation::Write { .. });
        self.members[i].request = Some(PendingRequest { number, writes, since: now, until: now + timeout });
        self.messages.push(Message { late: false, body: Body::Request { from: self.process(i), number, operation } });
    }

    /// Reports that the answer did not arrive in time.
    pub fn time_out(&mut self, i: usize) {
        let Some(PendingRequest { number: request, writes, .. }) = self.members[i].request else { return };
        let event = match writes {
            false => Event::Read { request, result: Err(Failure::Unknown) },
            true => Event::Written { request, result: Err(Failure::Unknown) },
        };
        self.deliver(i, event, None);
    }

    /// Ends the work and reports it.
    pub fn end_work(&mut self, i: usize) {
        let Some(work) = self.members[i].work.take() else { return };
        self.members[i].valid_until = None;
        self.deliver(i, Event::WorkEnded { term: work.term }, None);
    }

    /// Kills the process with its work. The kernel closes its connections.
    pub fn crash(&mut self, i: usize) {
        let member = &mut self.members[i];
        (member.life, member.work, member.valid_until, member.wake, member.request) =
            (Life::Down, None, None, None, None);
        self.drop_messages(i);
    }

    pub fn restart(&mut self, family: &Family, i: usize) {
        let member = super::world::Member::new(family, i, self.members[i].incarnation + 1);
        self.members[i] = member;
    }

    /// Drops the messages to a process that no longer exists.
    fn drop_messages(&mut self, i: usize) {
        self.messages.retain(|message| match &message.body {
            Body::Request { .. } => true,
            Body::Answer { to, .. } | Body::Watch { to, .. } => to.0 != i,
        });
    }
}
