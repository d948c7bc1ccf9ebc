//! What can happen next, and what it does.

use std::fmt;

use super::family::{Family, Fault};
use super::world::{Ask, Body, End, Life, Message, SECOND, World, name};
use crate::subject::election::{Event, Failure, Moment, Purpose, Sight, WallTime};

/// One step of the world. Candidates and messages are named by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Happening {
    /// Time goes on to the next moment at which something is due, or to the next second.
    Pass,
    Timer(usize),
    TimeOut(usize),
    EndWork(usize),
    Arrive(usize),
    Resume(usize),
    Restart(usize),
    Recreate,
    ReleaseDead,
    /// A fault that concerns a message.
    Harm(Fault, usize),
    /// A fault that concerns a candidate.
    Befall(Fault, usize),
    /// A fault that concerns the Lease.
    Edit(Fault),
}

use Happening::*;

/// The faults that concern a candidate.
const BEFALLING: [Fault; 9] = [
    Fault::Pause,
    Fault::Crash,
    Fault::StepDown,
    Fault::Shutdown,
    Fault::Quit,
    Fault::Succeed,
    Fault::Prove,
    Fault::Silence,
    Fault::Ask,
];

/// The faults that concern the Lease.
const BY_HAND: [Fault; 6] =
    [Fault::Delete, Fault::Empty, Fault::Foreign, Fault::Mimic, Fault::Annotate, Fault::Suspend];

impl World {
    /// What happens before time goes on.
    pub fn urgent(&self) -> Vec<Happening> {
        let mut urgent = Vec::new();
        let mut watching = vec![false; self.members.len()];
        for (at, Message { late, body }) in self.messages.iter().enumerate() {
            if *late || !self.can_arrive(body) {
                continue;
            }
            // A watch is a stream: its events keep their order.
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
            if due(member.request.map(|asked| asked.until)) {
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

    /// What may happen now or later, without being a fault. But for late messages that is when nothing is urgent.
    pub fn leisurely(&self, family: &Family, is_quiet: bool) -> Vec<Happening> {
        let mut may = Vec::new();
        for (at, message) in self.messages.iter().enumerate() {
            if message.late && self.can_arrive(&message.body) {
                may.push(Arrive(at));
            }
        }
        if !is_quiet {
            return may;
        }
        for (i, member) in self.members.iter().enumerate() {
            let told = member.work.as_ref().is_some_and(|work| work.end != End::NotAsked);
            match member.life {
                Life::Paused => may.push(Resume(i)),
                Life::Down if self.now.is_multiple_of(2 * SECOND) => may.push(Restart(i)),
                Life::Up | Life::Waking if told => may.push(EndWork(i)),
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

    pub fn faults(&self, family: &Family) -> Vec<Happening> {
        let mut faults = Vec::new();
        for (at, Message { late, body }) in self.messages.iter().enumerate().filter(|(_, message)| !message.late) {
            debug_assert!(!late);
            let harms: &[Fault] = match body {
                Body::Request { .. } => &[Fault::Lose, Fault::Late, Fault::Refuse],
                Body::Answer { .. } => &[Fault::Lose, Fault::Late, Fault::Twice],
                Body::Watch { .. } => &[Fault::MissWatch, Fault::LateWatch],
            };
            faults.extend(harms.iter().filter(|fault| family.allows(**fault)).map(|fault| Harm(*fault, at)));
        }
        let urgent: Vec<usize> = self.urgent().into_iter().filter_map(|happening| self.concerns(happening)).collect();
        for (i, member) in self.members.iter().enumerate().filter(|(_, member)| member.life == Life::Up) {
            let leads = member.work.as_ref().is_some_and(|work| work.end == End::NotAsked);
            for fault in BEFALLING {
                let possible = match fault {
                    Fault::Succeed => self.leader().is_some_and(|leader| leader != i),
                    Fault::Prove => self.lease.is_some(),
                    Fault::Quit => leads,
                    Fault::Silence => member.is_ready,
                    Fault::Ask => !member.is_ready,
                    Fault::Crash => leads || member.request.is_some(),
                    // Standing still shows when there is something to do.
                    Fault::Pause => self.pauses > 0 && urgent.contains(&i),
                    _ => true,
                };
                if possible && family.allows(fault) {
                    faults.push(Befall(fault, i));
                }
            }
        }
        if let Some(held) = &self.lease {
            let is_held = !held.snapshot.record.holder.is_empty();
            for fault in BY_HAND {
                // The election's documented caveat: who starts and finds no Lease creates it at once.
                if fault == Fault::Delete && family.may_create && self.is_being_created() {
                    continue;
                }
                // A released Lease that is edited to look released in another way protects nobody.
                if family.allows(fault)
                    && (is_held || matches!(fault, Fault::Delete | Fault::Annotate | Fault::Suspend))
                {
                    faults.push(Edit(fault));
                }
            }
        }
        faults
    }

    /// Whether a candidate has yet to see the Lease, or has a creation under way.
    fn is_being_created(&self) -> bool {
        let creates = |message: &Message| {
            let Body::Request { from, number, ask: Ask::Write { purpose: Purpose::Create, .. } } = &message.body else {
                return false;
            };
            self.members[from.0].request.is_some_and(|asked| asked.number == *number)
        };
        self.members.iter().any(|member| member.seen == 0) || self.messages.iter().any(creates)
    }

    /// Which candidate takes this step.
    fn concerns(&self, happening: Happening) -> Option<usize> {
        match happening {
            Timer(i) | TimeOut(i) | EndWork(i) => Some(i),
            Arrive(at) => match &self.messages[at].body {
                Body::Answer { to, .. } | Body::Watch { to, .. } => Some(to.0),
                Body::Request { .. } => None,
            },
            _ => None,
        }
    }

    /// The next moment at which something is due, at most a second from now.
    pub fn next_moment(&self) -> u64 {
        let mut next = (self.now / SECOND + 1) * SECOND;
        for (i, member) in self.members.iter().enumerate().filter(|(_, member)| member.runs()) {
            let moments = [member.wake, member.kill_at(), member.request.map(|asked| asked.until), member.valid_until];
            let later = moments.into_iter().flatten().map(|moment| self.when(i, moment));
            next = later.filter(|&at| at > self.now).fold(next, u64::min);
        }
        next
    }

    pub fn happen(&mut self, family: &Family, happening: Happening) {
        match happening {
            Pass => {
                self.now = self.next_moment();
                for member in self.members.iter_mut().filter(|member| member.life == Life::Waking) {
                    member.life = Life::Up;
                }
            }
            Timer(i) => self.tell(i, Event::Tick, None),
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
            Harm(fault, at) => self.harm(fault, at),
            Befall(fault, i) => self.befall(fault, i),
            Edit(fault) => self.edit_by_hand(fault),
        }
        if matches!(happening, Harm(..) | Befall(..) | Edit(_)) {
            self.faults -= 1;
        }
        self.judge();
    }

    fn arrive(&mut self, body: Body) {
        match body {
            Body::Request { from, number, ask } => self.serve(from, number, ask),
            Body::Answer { to, event, owner } if self.is_there(to) => self.tell(to.0, event, owner),
            Body::Watch { to, sight, owner } if self.is_there(to) => self.tell(to.0, Event::Watched(sight), owner),
            Body::Answer { .. } | Body::Watch { .. } => {}
        }
    }

    fn harm(&mut self, fault: Fault, at: usize) {
        if let Body::Request { from: (i, _), .. } | Body::Answer { to: (i, _), .. } = self.messages[at].body
            && fault != Fault::Twice
        {
            self.members[i].hindered += 1;
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
                let Body::Request { from, number: request, ask } = self.messages.remove(at).body else { return };
                let refused = Failure::Refused { retry_after: None };
                let event = match ask {
                    Ask::Read => Event::Read { request, result: Err(refused) },
                    Ask::Write { .. } => Event::Written { request, result: Err(refused) },
                };
                self.answer(from, event, None);
            }
            _ => unreachable!("{fault:?} harms no message"),
        }
    }

    fn befall(&mut self, fault: Fault, i: usize) {
        match fault {
            Fault::Pause => {
                self.pauses -= 1;
                self.members[i].life = Life::Paused;
                // A pause may last as long as any number of failures.
                self.members[i].hindered += 2;
            }
            Fault::Crash => self.crash(i),
            Fault::StepDown => self.tell(i, Event::StepDown, None),
            Fault::Shutdown => self.tell(i, Event::Shutdown, None),
            Fault::Quit => self.end_work(i),
            Fault::Silence | Fault::Ask => {
                self.members[i].is_ready = fault == Fault::Ask;
                self.tell(i, Event::ReadyToLead(fault == Fault::Ask), None);
            }
            Fault::Succeed => self.hand_over_to(i),
            Fault::Prove => {
                self.hinder_renewals();
                self.prove_revision(&name(i));
            }
            _ => unreachable!("{fault:?} befalls no candidate"),
        }
    }

    /// The candidate whose living process holds the Lease.
    fn leader(&self) -> Option<usize> {
        let owner = self.lease.as_ref()?.owner?;
        self.is_there(owner).then_some(owner.0)
    }

    fn hand_over_to(&mut self, i: usize) {
        let Some(leader) = self.leader() else { return };
        self.hinder_renewals();
        self.name_successor(&name(i));
        self.tell(leader, Event::StepDown, None);
    }

    /// The next renewal meets a conflict.
    fn hinder_renewals(&mut self) {
        for member in &mut self.members {
            member.hindered += 1;
        }
    }

    fn edit_by_hand(&mut self, fault: Fault) {
        self.hinder_renewals();
        match fault {
            Fault::Delete => self.delete(),
            Fault::Empty => self.edit(None, |record, _| record.holder.clear()),
            Fault::Foreign => {
                let term = Family::timing().renew_deadline().as_micros();
                self.stranger_until = self.now + u64::try_from(term).expect("it is short");
                self.edit(None, |record, now| {
                    "somebody".clone_into(&mut record.holder);
                    record.renew_time = Some(now);
                });
            }
            // At no moment that a candidate's own clock has shown.
            Fault::Mimic => self.edit(None, |record, now| record.renew_time = Some(WallTime(now.0 + 1))),
            Fault::Annotate => self.annotate(),
            Fault::Suspend => self.suspend(),
            _ => unreachable!("{fault:?} edits no Lease"),
        }
    }

    /// What `happening` is, in the words of a trace.
    pub fn describe(&self, happening: Happening) -> String {
        let message = |at: usize| Told(&self.messages[at].body).to_string();
        match happening {
            Pass => "time goes on".to_owned(),
            Timer(i) => format!("{}: its timer fires", name(i)),
            TimeOut(i) => format!("{}: no answer in time", name(i)),
            EndWork(i) => format!("{}: its work has ended", name(i)),
            Resume(i) => format!("{} resumes", name(i)),
            Restart(i) => format!("{} starts again", name(i)),
            Recreate => "the operator recreates the Lease".to_owned(),
            ReleaseDead => "the operator releases the dead holder's Lease".to_owned(),
            Arrive(at) if self.messages[at].late => format!("at last, {}", message(at)),
            Arrive(at) => message(at),
            Harm(fault, at) => format!("{fault:?}! {}", message(at)),
            Befall(fault, i) => format!("{fault:?}! {}", name(i)),
            Edit(fault) => format!("{fault:?}! the Lease, by hand"),
        }
    }
}

/// A message in the words of a trace.
struct Told<'a>(&'a Body);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Body::Request { from, ask: Ask::Read, .. } => write!(f, "{}'s read reaches the server", name(from.0)),
            Body::Request { from, ask: Ask::Write { purpose, expected, .. }, .. } => {
                let expected = expected.as_ref().map_or("none", |version| version.as_str());
                write!(f, "{}'s {purpose:?} of version {expected} reaches the server", name(from.0))
            }
            Body::Answer { to, event, .. } => match event {
                Event::Written { result: Ok(version), .. } => {
                    write!(f, "{} learns that its write is version {}", name(to.0), version.as_str())
                }
                Event::Read { result: Ok(_), .. } => write!(f, "{} gets what it read", name(to.0)),
                Event::Read { result: Err(failure), .. } | Event::Written { result: Err(failure), .. } => {
                    write!(f, "{} is answered {failure:?}", name(to.0))
                }
                other => write!(f, "{} is told {other:?}", name(to.0)),
            },
            Body::Watch { to, sight, .. } => match sight {
                Sight::Lease(snapshot) => {
                    write!(f, "{}'s watch shows version {}", name(to.0), snapshot.version.as_str())
                }
                Sight::Absent { .. } => write!(f, "{}'s watch shows that the Lease is gone", name(to.0)),
            },
        }
    }
}
