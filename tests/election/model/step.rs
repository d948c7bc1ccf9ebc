//! The possible steps of the model and their effects.

use std::fmt;

use super::family::{Family, Fault};
use super::world::{Body, End, Life, Message, Operation, SECOND, World, name};
use crate::subject::election::{Event, Failure, Moment, Purpose, Sight, WallTime};

/// One step of the world. Candidates and messages are identified by their indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Time advances to the next due moment or to the next second.
    Pass,
    Timer(usize),
    TimeOut(usize),
    EndWork(usize),
    Arrive(usize),
    Resume(usize),
    Restart(usize),
    Recreate,
    ReleaseDead,
    /// A fault of a message.
    HitMessage(Fault, usize),
    /// A fault of a candidate.
    HitCandidate(Fault, usize),
    /// A fault of the Lease.
    HitLease(Fault),
}

use Step::*;

/// The faults of a candidate.
const ON_CANDIDATES: [Fault; 9] = [
    Fault::Pause,
    Fault::Crash,
    Fault::StepDown,
    Fault::Shutdown,
    Fault::Quit,
    Fault::Succeed,
    Fault::Prove,
    Fault::Unready,
    Fault::Ready,
];

/// The faults of the Lease.
const ON_LEASE: [Fault; 6] =
    [Fault::Delete, Fault::Empty, Fault::Foreign, Fault::Mimic, Fault::Annotate, Fault::Suspend];

impl World {
    /// Returns the steps that must happen before time advances.
    pub fn urgent(&self) -> Vec<Step> {
        let mut urgent = Vec::new();
        let mut watching = vec![false; self.members.len()];
        for (at, Message { late, body }) in self.messages.iter().enumerate() {
            if *late || !self.can_arrive(body) {
                continue;
            }
            // A watch is a stream: its events stay in order.
            if let Body::Watch { to: (i, _), .. } = *body
                && std::mem::replace(&mut watching[i], true)
            {
                continue;
            }
            urgent.push(Arrive(at));
        }
        for (i, member) in self.members.iter().enumerate().filter(|(_, member)| member.runs()) {
            let now = self.local(i);
            let due = |moment: Option<Moment>| moment.is_some_and(|moment| moment <= now);
            if due(member.kill_at()) {
                urgent.push(EndWork(i));
            }
            if due(member.request.map(|pending| pending.until)) {
                urgent.push(TimeOut(i));
            }
            if due(member.wake) {
                urgent.push(Timer(i));
            }
        }
        urgent
    }

    fn can_arrive(&self, body: &Body) -> bool {
        match body {
            Body::Request { .. } => true,
            Body::Answer { to, .. } | Body::Watch { to, .. } => self.members[to.0].runs(),
        }
    }

    /// Returns the steps that may happen now or later and are no faults. Except for late messages, they need a moment
    /// without urgent steps.
    pub fn optional(&self, family: &Family, nothing_urgent: bool) -> Vec<Step> {
        let mut may = Vec::new();
        for (at, message) in self.messages.iter().enumerate() {
            if message.late && self.can_arrive(&message.body) {
                may.push(Arrive(at));
            }
        }
        if !nothing_urgent {
            return may;
        }
        for (i, member) in self.members.iter().enumerate() {
            let must_stop = member.work.as_ref().is_some_and(|work| work.end != End::NotRequested);
            match member.life {
                Life::Paused => may.push(Resume(i)),
                Life::Down if self.now.is_multiple_of(2 * SECOND) => may.push(Restart(i)),
                Life::Up | Life::Waking if must_stop => may.push(EndWork(i)),
                Life::Up | Life::Waking | Life::Down | Life::Finished => {}
            }
        }
        if !family.may_create && self.lease.is_none() {
            may.push(Recreate);
        }
        if !family.may_create && self.holder_is_dead(family) {
            may.push(ReleaseDead);
        }
        may
    }

    pub fn faults(&self, family: &Family) -> Vec<Step> {
        let mut faults = Vec::new();
        for (at, Message { late, body }) in self.messages.iter().enumerate().filter(|(_, message)| !message.late) {
            debug_assert!(!late);
            let kinds: &[Fault] = match body {
                Body::Request { .. } => &[Fault::Lose, Fault::Late, Fault::Refuse],
                Body::Answer { .. } => &[Fault::Lose, Fault::Late, Fault::Twice],
                Body::Watch { .. } => &[Fault::MissWatch, Fault::LateWatch],
            };
            faults.extend(kinds.iter().filter(|fault| family.allows(**fault)).map(|fault| HitMessage(*fault, at)));
        }
        let urgent: Vec<usize> = self.urgent().into_iter().filter_map(|step| self.concerns(step)).collect();
        for (i, member) in self.members.iter().enumerate().filter(|(_, member)| member.life == Life::Up) {
            let leads = member.work.as_ref().is_some_and(|work| work.end == End::NotRequested);
            for fault in ON_CANDIDATES {
                let possible = match fault {
                    Fault::Succeed => self.leader().is_some_and(|leader| leader != i),
                    Fault::Prove => self.lease.is_some(),
                    Fault::Quit => leads,
                    Fault::Unready => member.is_ready,
                    Fault::Ready => !member.is_ready,
                    Fault::Crash => leads || member.request.is_some(),
                    // A pause matters only if a step is due.
                    Fault::Pause => self.pauses > 0 && urgent.contains(&i),
                    _ => true,
                };
                if possible && family.allows(fault) {
                    faults.push(HitCandidate(fault, i));
                }
            }
        }
        if let Some(stored) = &self.lease {
            let is_held = !stored.snapshot.record.holder.is_empty();
            for fault in ON_LEASE {
                // The documented caveat of the election: a candidate that finds no Lease at its start creates it at
                // once.
                if fault == Fault::Delete && family.may_create && self.is_being_created() {
                    continue;
                }
                // An edit of a released Lease protects no leader.
                if family.allows(fault)
                    && (is_held || matches!(fault, Fault::Delete | Fault::Annotate | Fault::Suspend))
                {
                    faults.push(HitLease(fault));
                }
            }
        }
        faults
    }

    /// Whether a candidate has not observed the Lease yet, or has a creation in flight.
    fn is_being_created(&self) -> bool {
        let creates = |message: &Message| {
            let Body::Request { from, number, operation: Operation::Write { purpose: Purpose::Create, .. } } =
                &message.body
            else {
                return false;
            };
            self.members[from.0].request.is_some_and(|pending| pending.number == *number)
        };
        self.members.iter().any(|member| member.seen == 0) || self.messages.iter().any(creates)
    }

    /// Returns the candidate of this step.
    fn concerns(&self, step: Step) -> Option<usize> {
        match step {
            Timer(i) | TimeOut(i) | EndWork(i) => Some(i),
            Arrive(at) => match &self.messages[at].body {
                Body::Answer { to, .. } | Body::Watch { to, .. } => Some(to.0),
                Body::Request { .. } => None,
            },
            _ => None,
        }
    }

    /// Returns the next due moment, at most the next full second.
    pub fn next_moment(&self) -> u64 {
        let mut next = (self.now / SECOND + 1) * SECOND;
        for (i, member) in self.members.iter().enumerate().filter(|(_, member)| member.runs()) {
            let timeout = member.request.map(|pending| pending.until);
            let moments = [member.wake, member.kill_at(), timeout, member.valid_until];
            let later = moments.into_iter().flatten().map(|moment| self.when(i, moment));
            next = later.filter(|&at| at > self.now).fold(next, u64::min);
        }
        next
    }

    pub fn advance(&mut self, family: &Family, step: Step) {
        match step {
            Pass => {
                self.now = self.next_moment();
                for member in self.members.iter_mut().filter(|member| member.life == Life::Waking) {
                    member.life = Life::Up;
                }
            }
            Timer(i) => self.deliver(i, Event::Tick, None),
            TimeOut(i) => self.time_out(i),
            EndWork(i) => self.end_work(i),
            Resume(i) => self.members[i].life = Life::Waking,
            Restart(i) => self.restart(family, i),
            Recreate => self.recreate(),
            ReleaseDead => self.release_dead(),
            Arrive(at) => {
                let Message { body, .. } = self.messages.remove(at);
                self.arrive(body);
            }
            HitMessage(fault, at) => self.hit_message(fault, at),
            HitCandidate(fault, i) => self.hit_candidate(fault, i),
            HitLease(fault) => self.hit_lease(fault),
        }
        if matches!(step, HitMessage(..) | HitCandidate(..) | HitLease(_)) {
            self.faults -= 1;
        }
        self.check_state();
    }

    fn arrive(&mut self, body: Body) {
        match body {
            Body::Request { from, number, operation } => self.serve(from, number, operation),
            Body::Answer { to, event, owner } if self.is_current(to) => self.deliver(to.0, event, owner),
            Body::Watch { to, sight, owner } if self.is_current(to) => self.deliver(to.0, Event::Watched(sight), owner),
            Body::Answer { .. } | Body::Watch { .. } => {}
        }
    }

    fn hit_message(&mut self, fault: Fault, at: usize) {
        if let Body::Request { from: (i, _), .. } | Body::Answer { to: (i, _), .. } = self.messages[at].body
            && fault != Fault::Twice
        {
            self.members[i].delays += 1;
        }
        match fault {
            Fault::Lose | Fault::MissWatch => {
                self.messages.remove(at);
            }
            Fault::Late | Fault::LateWatch => self.messages[at].late = true,
            Fault::Twice => {
                let again = Message { late: true, ..self.messages[at].clone() };
                self.messages.push(again);
            }
            Fault::Refuse => {
                let Body::Request { from, number: request, operation } = self.messages.remove(at).body else { return };
                let failure = Failure::Refused { retry_after: None };
                let event = match operation {
                    Operation::Read => Event::Read { request, result: Err(failure) },
                    Operation::Write { .. } => Event::Written { request, result: Err(failure) },
                };
                self.answer(from, event, None);
            }
            _ => unreachable!("{fault:?} is no fault of a message"),
        }
    }

    fn hit_candidate(&mut self, fault: Fault, i: usize) {
        match fault {
            Fault::Pause => {
                self.pauses -= 1;
                self.members[i].life = Life::Paused;
                // A pause may outlast any number of failures.
                self.members[i].delays += 2;
            }
            Fault::Crash => self.crash(i),
            Fault::StepDown => self.deliver(i, Event::StepDown, None),
            Fault::Shutdown => self.deliver(i, Event::Shutdown, None),
            Fault::Quit => self.end_work(i),
            Fault::Unready | Fault::Ready => {
                self.members[i].is_ready = fault == Fault::Ready;
                self.deliver(i, Event::ReadyToLead(fault == Fault::Ready), None);
            }
            Fault::Succeed => self.hand_over_to(i),
            Fault::Prove => {
                self.delay_renewals();
                self.prove_revision(&name(i));
            }
            _ => unreachable!("{fault:?} is no fault of a candidate"),
        }
    }

    /// Returns the candidate whose living process holds the Lease.
    fn leader(&self) -> Option<usize> {
        let owner = self.lease.as_ref()?.owner?;
        self.is_current(owner).then_some(owner.0)
    }

    fn hand_over_to(&mut self, i: usize) {
        let Some(leader) = self.leader() else { return };
        self.delay_renewals();
        self.name_successor(&name(i));
        self.deliver(leader, Event::StepDown, None);
    }

    /// Counts a conflict of the next renewal.
    fn delay_renewals(&mut self) {
        for member in &mut self.members {
            member.delays += 1;
        }
    }

    fn hit_lease(&mut self, fault: Fault) {
        self.delay_renewals();
        match fault {
            Fault::Delete => self.delete(),
            Fault::Empty => self.edit(None, |record, _| record.holder.clear()),
            Fault::Foreign => {
                let term = Family::timing().renew_deadline().as_micros();
                self.foreign_until = self.now + u64::try_from(term).expect("it is short");
                self.edit(None, |record, now| {
                    "stranger".clone_into(&mut record.holder);
                    record.renew_time = Some(now);
                });
            }
            // A time that no candidate's clock has shown.
            Fault::Mimic => self.edit(None, |record, now| record.renew_time = Some(WallTime(now.0 + 1))),
            Fault::Annotate => self.annotate(),
            Fault::Suspend => self.suspend(),
            _ => unreachable!("{fault:?} is no fault of the Lease"),
        }
    }

    /// Describes `step` for a trace.
    pub fn describe(&self, step: Step) -> String {
        let message = |at: usize| Description(&self.messages[at].body).to_string();
        match step {
            Pass => "time advances".to_owned(),
            Timer(i) => format!("{}: its timer fires", name(i)),
            TimeOut(i) => format!("{}: no answer in time", name(i)),
            EndWork(i) => format!("{}: its work has ended", name(i)),
            Resume(i) => format!("{} resumes", name(i)),
            Restart(i) => format!("{} restarts", name(i)),
            Recreate => "the operator recreates the Lease".to_owned(),
            ReleaseDead => "the operator releases the dead holder's Lease".to_owned(),
            Arrive(at) if self.messages[at].late => format!("late: {}", message(at)),
            Arrive(at) => message(at),
            HitMessage(fault, at) => format!("{fault:?}! {}", message(at)),
            HitCandidate(fault, i) => format!("{fault:?}! {}", name(i)),
            HitLease(fault) => format!("{fault:?}! the Lease, by hand"),
        }
    }
}

/// The description of a message for a trace.
struct Description<'a>(&'a Body);

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Body::Request { from, operation: Operation::Read, .. } => {
                write!(f, "{}'s read reaches the server", name(from.0))
            }
            Body::Request { from, operation: Operation::Write { purpose, expected, .. }, .. } => {
                let expected = expected.as_ref().map_or("none", |version| version.as_str());
                write!(f, "{}'s {purpose:?} of version {expected} reaches the server", name(from.0))
            }
            Body::Answer { to, event, .. } => match event {
                Event::Written { result: Ok(version), .. } => {
                    write!(f, "{}'s write is acknowledged as version {}", name(to.0), version.as_str())
                }
                Event::Read { result: Ok(_), .. } => write!(f, "{} gets the answer to its read", name(to.0)),
                Event::Read { result: Err(failure), .. } | Event::Written { result: Err(failure), .. } => {
                    write!(f, "{} gets {failure:?}", name(to.0))
                }
                other => write!(f, "{} gets {other:?}", name(to.0)),
            },
            Body::Watch { to, sight, .. } => match sight {
                Sight::Lease(snapshot) => {
                    write!(f, "{}'s watch reports version {}", name(to.0), snapshot.version.as_str())
                }
                Sight::Absent { .. } => write!(f, "{}'s watch reports the deletion", name(to.0)),
            },
        }
    }
}
