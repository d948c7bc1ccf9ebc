//! A candidate's driver: hands events to its elector and performs what comes back, as the campaign does.

use std::time::Duration;

use super::family::Family;
use super::laws::Law;
use super::world::{Ask, Asked, Body, End, Life, Message, Process, Work, World, number};
use crate::subject::election::{Action, Event, Failure, Loss, Moment, Purpose, Sight};

/// A timer that is later than this tells of a process that stood still.
const STOOD_STILL: Duration = Duration::from_secs(1);

impl World {
    /// `owner` holds the Lease in the sight that the event carries, if it carries one.
    pub fn tell(&mut self, i: usize, event: Event, owner: Option<Process>) {
        let now = self.reading(i);
        let process = self.process(i);
        let member = &mut self.members[i];
        let stood_still = member.wake.is_some_and(|wake| now.moment.since(wake) > STOOD_STILL);
        let answered = match event {
            Event::Read { request, .. } | Event::Written { request, .. } => {
                member.request.take_if(|asked| asked.number == request)
            }
            _ => None,
        };
        let mut acknowledged = false;
        let mut deposed = false;
        match &event {
            Event::Read { .. } | Event::Written { .. } if answered.is_none() => {} // comes too late
            Event::Watched(sight) | Event::Read { result: Ok(sight), .. } => {
                let version = match sight {
                    Sight::Lease(snapshot) => number(&snapshot.version),
                    Sight::Absent { deleted_at } => deleted_at.as_ref().map_or(member.seen, number),
                };
                let is_deletion = match sight {
                    Sight::Lease(snapshot) => snapshot.record.is_recreated(),
                    Sight::Absent { .. } => true,
                };
                let may_stop_in_good_order = is_deletion && !self.may_create;
                deposed = owner != Some(process) && version >= member.seen && !may_stop_in_good_order;
                member.seen = member.seen.max(version);
            }
            Event::Written { result: Ok(version), .. } => {
                acknowledged = true;
                // An answer that took its time has left less of the term than the next renewal counts on.
                if answered.is_some_and(|asked| asked.since == now.moment) {
                    member.hindered = 0;
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
        if stood_still && !acknowledged && self.believes(i) {
            self.break_law(Law::DoubtAfterAPause);
        }
        if deposed {
            self.judge_deposed(i);
        }
        let member = &self.members[i];
        if !member.is_ready && member.work.as_ref().is_some_and(|work| work.end == End::NotAsked) {
            self.break_law(Law::OnlyTheReady);
        }
    }

    fn perform(&mut self, i: usize, action: Action) {
        let now = self.local(i);
        match action {
            Action::Read { request, timeout } => self.ask(i, request, timeout, Ask::Read),
            Action::Write { request, purpose, expected, record, incarnation, timeout } => {
                if matches!(purpose, Purpose::Acquire | Purpose::Create) && !self.members[i].is_ready {
                    self.break_law(Law::OnlyTheReady);
                }
                if purpose == Purpose::Release && self.members[i].work.is_some() {
                    self.break_law(Law::WorkEndsFirst);
                }
                self.ask(i, request, timeout, Ask::Write { purpose, expected, record, incarnation });
            }
            Action::Lead { term, token, valid_until, .. } => {
                let token = number(&token);
                if token <= self.token {
                    self.break_law(Law::TokenRises);
                }
                if self.members[i].work.is_some() {
                    self.break_law(Law::OneWorks);
                }
                self.token = self.token.max(token);
                self.terms += 1;
                let work = Work { term, order: self.terms, token, end: End::NotAsked, lease_deleted: false };
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
                self.forget(i);
            }
        }
    }

    fn stop(&mut self, i: usize, now: Moment, loss: Loss, kill_at: Option<Moment>) {
        let member = &mut self.members[i];
        let hindered = member.hindered;
        if let Some(work) = &mut member.work {
            work.end = match (work.end, kill_at) {
                (End::By(before), Some(kill_at)) => End::By(before.min(kill_at)),
                (_, Some(kill_at)) => End::By(kill_at),
                (End::NotAsked, None) => End::Asked(now),
                (asked, None) => asked,
            };
            work.lease_deleted |= loss == Loss::LeaseDeleted;
            if loss == Loss::DeadlinePassed && hindered <= 1 && !work.lease_deleted {
                self.break_law(Law::OneFailureIsSurvived);
            }
        }
    }

    fn ask(&mut self, i: usize, number: u64, timeout: Duration, ask: Ask) {
        let now = self.local(i);
        let left = self.members[i].valid_until.map_or(Duration::MAX, |until| until.since(now));
        if self.believes(i) && timeout > left {
            self.break_law(Law::WithinTheBudget);
        }
        let writes = matches!(ask, Ask::Write { .. });
        self.members[i].request = Some(Asked { number, writes, since: now, until: now + timeout });
        self.messages.push(Message { late: false, body: Body::Request { from: self.process(i), number, ask } });
    }

    /// Nobody answered in time.
    pub fn time_out(&mut self, i: usize) {
        let Some(Asked { number: request, writes, .. }) = self.members[i].request else { return };
        let event = match writes {
            false => Event::Read { request, result: Err(Failure::Unknown) },
            true => Event::Written { request, result: Err(Failure::Unknown) },
        };
        self.tell(i, event, None);
    }

    /// The work dies, and its owner confirms it.
    pub fn end_work(&mut self, i: usize) {
        let Some(work) = self.members[i].work.take() else { return };
        self.members[i].valid_until = None;
        self.tell(i, Event::WorkEnded { term: work.term }, None);
    }

    /// The process dies with its work; the kernel closes its connections.
    pub fn crash(&mut self, i: usize) {
        let member = &mut self.members[i];
        (member.life, member.work, member.valid_until, member.wake, member.request) =
            (Life::Down, None, None, None, None);
        self.forget(i);
    }

    pub fn restart(&mut self, family: &Family, i: usize) {
        let fresh = super::world::Member::new(family, i, self.members[i].incarnation + 1);
        self.members[i] = fresh;
    }

    /// What was on its way to a process that is no more reaches nobody.
    fn forget(&mut self, i: usize) {
        self.messages.retain(|message| match &message.body {
            Body::Request { .. } => true,
            Body::Answer { to, .. } | Body::Watch { to, .. } => to.0 != i,
        });
    }
}
