//! The state: the Lease, its candidates with their work, what is on its way, and what has been seen.

use std::time::Duration;

use super::family::{Family, Fault};
use super::laws::Law;
use crate::subject::election::{
    Candidate, Elector, Event, Moment, Preference, Purpose, Reading, Record, Sight, Snapshot, Version, WallTime,
};

/// Microseconds since the model's beginning, on no candidate's clock.
pub type Micros = u64;

pub const SECOND: Micros = 1_000_000;

/// A process: which candidate, and its how-manieth incarnation.
pub type Process = (usize, u8);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub now: Micros,
    pub lease: Option<Held>,
    /// The last `resourceVersion`; deletion of the Lease does not reset it.
    pub version: u64,
    pub members: Vec<Member>,
    pub messages: Vec<Message>,
    /// How many faults may still come.
    pub faults: u8,
    pub pauses: u8,
    /// Counts the terms of all candidates.
    pub terms: u32,
    /// The token of the last term.
    pub token: u64,
    pub resource: Resource,
    /// Until when a client that took the Lease by another hand may believe that it leads.
    pub stranger_until: Micros,
    /// Whether candidates create the Lease; then nobody waits for the leader of a Lease that was deleted.
    pub may_create: bool,
    pub broken: Option<Law>,
}

/// The Lease, and the process that holds it in truth. A hand that edits it is no process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    pub snapshot: Snapshot,
    pub owner: Option<Process>,
    /// Who is to follow the term with so many transitions.
    pub successor: Option<(i32, String)>,
}

/// What the work writes to: it remembers the highest token and refuses lower ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resource {
    pub token: u64,
    /// The term, in the order in which terms began, whose write it took last.
    pub term: u32,
    pub has_refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    Up,
    Paused,
    /// Resumed, but not yet through with what it missed.
    Waking,
    Down,
    Finished,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    pub elector: Elector,
    pub life: Life,
    pub incarnation: u8,
    pub rate: u64,
    /// How long its work takes at most to end in good order.
    pub longest_stop: Duration,
    /// The timer that was asked for last, on the candidate's own clock, as are all moments here.
    pub wake: Option<Moment>,
    pub request: Option<Asked>,
    /// What the owner was told last.
    pub valid_until: Option<Moment>,
    pub work: Option<Work>,
    /// The highest version that it was shown or that was acknowledged to it.
    pub seen: u64,
    /// Faults that delayed its renewals since the last acknowledged write.
    pub hindered: u8,
    /// Whether its program asks.
    pub is_ready: bool,
}

/// The request under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    pub number: u64,
    pub writes: bool,
    pub since: Moment,
    pub until: Moment,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Work {
    /// As its elector counts.
    pub term: u64,
    /// As [`World::terms`] counts.
    pub order: u32,
    pub token: u64,
    pub end: End,
    /// Its end was ordered because the Lease had been deleted, so that no renewal was possible any more.
    pub lease_deleted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    NotAsked,
    /// Takes its time, but not for ever.
    Asked(Moment),
    /// Must be dead by then.
    By(Moment),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// A late message comes at any moment; any other before time goes on.
    pub late: bool,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    Request { from: Process, number: u64, ask: Ask },
    Answer { to: Process, event: Event, owner: Option<Process> },
    Watch { to: Process, sight: Sight, owner: Option<Process> },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    Read,
    Write { purpose: Purpose, expected: Option<Version>, record: Record, incarnation: Option<String> },
}

pub fn number(version: &Version) -> u64 {
    version.as_str().parse().expect("the model's versions are numbers")
}

pub fn incarnation(family: &Family, (i, life): Process) -> String {
    match i {
        0 => format!("uid-0/app/{life}"),
        // Without the lock it must not campaign in the container's name.
        _ if family.in_place => format!("uid-0/-/{i}{life}"),
        _ => format!("uid-{i}/app/{life}"),
    }
}

fn elector(family: &Family, (i, life): Process) -> Elector {
    let identity = if family.twins { "otter".to_owned() } else { name(i) };
    let mut candidate = Candidate::new(identity, incarnation(family, (i, life))).expect("neither is empty");
    if family.in_place && i == 0 {
        candidate = candidate.with_dead_predecessors("uid-0/app/");
    }
    if family.allows(Fault::Prove) {
        candidate = candidate.with_revision(name(i));
    }
    Elector::new(candidate, Family::timing(), family.may_create, i as u64 * 2 + u64::from(life))
}

/// Twins are told apart in traces only.
pub fn name(i: usize) -> String {
    ["otter", "heron", "viper"][i].to_owned()
}

impl Member {
    pub fn new(family: &Family, i: usize, incarnation: u8) -> Self {
        Self {
            elector: elector(family, (i, incarnation)),
            life: Life::Up,
            incarnation,
            rate: family.rates[i],
            longest_stop: family.longest_stop,
            wake: Some(Moment::since_boot(Duration::ZERO)),
            request: None,
            valid_until: None,
            work: None,
            seen: 0,
            hindered: 0,
            is_ready: true,
        }
    }

    pub fn runs(&self) -> bool {
        matches!(self.life, Life::Up | Life::Waking)
    }

    /// When the work must be dead.
    pub fn kill_at(&self) -> Option<Moment> {
        match self.work.as_ref()?.end {
            End::NotAsked => None,
            End::Asked(since) => Some(since + self.longest_stop),
            End::By(kill_at) => Some(kill_at),
        }
    }
}

impl World {
    pub fn new(family: &Family) -> Self {
        let released = Record::released(0, WallTime(0));
        let snapshot = Snapshot {
            version: Version::new("1"),
            record: released,
            incarnation: None,
            preference: Preference::default(),
        };
        Self {
            now: 0,
            lease: (!family.may_create).then_some(Held { snapshot, owner: None, successor: None }),
            version: 1,
            members: (0..family.rates.len()).map(|i| Member::new(family, i, 0)).collect(),
            messages: Vec::new(),
            faults: family.budget,
            pauses: family.pauses,
            terms: 0,
            token: 0,
            resource: Resource::default(),
            stranger_until: 0,
            may_create: family.may_create,
            broken: None,
        }
    }

    /// What the candidate's own clock shows. The clocks were never set alike.
    pub fn local(&self, i: usize) -> Moment {
        let boot = (i as u64 + 1) * 100 * SECOND;
        Moment::since_boot(Duration::from_micros(boot + self.now * self.members[i].rate / 1000))
    }

    /// The first microsecond at which the candidate's clock shows `moment` or later.
    pub fn when(&self, i: usize, moment: Moment) -> Micros {
        let boot = (i as u64 + 1) * 100 * SECOND;
        let local = moment.elapsed_since_boot().as_nanos().div_ceil(1000) as u64;
        (local.saturating_sub(boot) * 1000).div_ceil(self.members[i].rate)
    }

    pub fn reading(&self, i: usize) -> Reading {
        let skew = i as i64 * 7_300_000;
        Reading { moment: self.local(i), wall: WallTime(1_700_000_000_000_000 + self.now as i64 - skew) }
    }

    pub fn process(&self, i: usize) -> Process {
        (i, self.members[i].incarnation)
    }

    /// Whether what is meant for this process still reaches it.
    pub fn is_there(&self, (i, incarnation): Process) -> bool {
        let member = &self.members[i];
        member.incarnation == incarnation && !matches!(member.life, Life::Down | Life::Finished)
    }

    /// Whether this candidate's owner may act as the leader, by its own clock.
    pub fn believes(&self, i: usize) -> bool {
        self.members[i].valid_until.is_some_and(|until| self.local(i) < until)
    }

    pub fn break_law(&mut self, law: Law) {
        self.broken.get_or_insert(law);
    }
}
