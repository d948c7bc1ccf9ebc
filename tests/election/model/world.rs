//! The state of the model: the Lease, the candidates and their work, and the messages in flight.

use std::time::Duration;

use super::family::{Family, Fault};
use super::laws::Law;
use crate::subject::election::{
    Candidate, Elector, Event, Moment, Preference, Purpose, Reading, Record, Sight, Snapshot, Version, WallTime,
};

/// Microseconds since the start of the model, independent of the candidates' clocks.
pub type Micros = u64;

pub const SECOND: Micros = 1_000_000;

/// A process: the index of its candidate, and the number of its incarnation.
pub type Process = (usize, u8);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub now: Micros,
    pub lease: Option<StoredLease>,
    /// The last `resourceVersion`. A deletion of the Lease does not reset it.
    pub version: u64,
    pub members: Vec<Member>,
    pub messages: Vec<Message>,
    /// The number of faults that may still occur.
    pub faults: u8,
    pub pauses: u8,
    /// Counts the terms of all candidates.
    pub terms: u32,
    /// The token of the last term.
    pub token: u64,
    pub resource: Resource,
    /// The time until which a foreign client that acquired the Lease may lead.
    pub foreign_until: Micros,
    /// Whether candidates create the Lease. Then no candidate waits for the leader of a deleted Lease.
    pub may_create: bool,
    pub broken: Option<Law>,
}

/// The Lease, and the process that really holds it: `None` after an edit by hand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoredLease {
    pub snapshot: Snapshot,
    pub owner: Option<Process>,
    /// The number of a term, and the candidate that should lead after it.
    pub successor: Option<(i32, String)>,
}

/// The protected resource: it remembers the highest token and refuses lower ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resource {
    pub token: u64,
    /// The term of the last accepted write, as [`World::terms`] counts.
    pub term: u32,
    pub has_refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    Up,
    Paused,
    /// Resumed, but still processing what it missed.
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
    /// The maximum time of a graceful stop of its work.
    pub longest_stop: Duration,
    /// The last requested timer. All moments of a candidate are on its own clock.
    pub wake: Option<Moment>,
    pub request: Option<PendingRequest>,
    /// The last reported end of the leadership.
    pub valid_until: Option<Moment>,
    pub work: Option<Work>,
    /// The highest version that it observed or that was acknowledged to it.
    pub seen: u64,
    /// Faults that delayed its renewals since the last acknowledged write.
    pub delays: u8,
    /// Whether its program is ready to lead.
    pub is_ready: bool,
}

/// The request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PendingRequest {
    pub number: u64,
    pub writes: bool,
    pub since: Moment,
    pub until: Moment,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Work {
    /// The number that its elector gave to the term.
    pub term: u64,
    /// The number of the term, as [`World::terms`] counts.
    pub order: u32,
    pub token: u64,
    pub end: End,
    /// Whether it must stop because the Lease was deleted, so that no renewal was possible.
    pub lease_deleted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    NotRequested,
    /// May take its time, up to [`Member::longest_stop`].
    Requested(Moment),
    /// Must be dead by then.
    By(Moment),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// Whether it may arrive at any later moment. Otherwise it arrives before time advances.
    pub late: bool,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    Request { from: Process, number: u64, operation: Operation },
    Answer { to: Process, event: Event, owner: Option<Process> },
    Watch { to: Process, sight: Sight, owner: Option<Process> },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
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

/// Returns the name of a candidate. Twins differ by it in traces only.
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
            delays: 0,
            is_ready: true,
        }
    }

    pub fn runs(&self) -> bool {
        matches!(self.life, Life::Up | Life::Waking)
    }

    /// Returns when the work must be dead.
    pub fn kill_at(&self) -> Option<Moment> {
        match self.work.as_ref()?.end {
            End::NotRequested => None,
            End::Requested(since) => Some(since + self.longest_stop),
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
            lease: (!family.may_create).then_some(StoredLease { snapshot, owner: None, successor: None }),
            version: 1,
            members: (0..family.rates.len()).map(|i| Member::new(family, i, 0)).collect(),
            messages: Vec::new(),
            faults: family.budget,
            pauses: family.pauses,
            terms: 0,
            token: 0,
            resource: Resource::default(),
            foreign_until: 0,
            may_create: family.may_create,
            broken: None,
        }
    }

    /// Returns the time on the candidate's own clock. The clocks are not synchronized.
    pub fn local(&self, i: usize) -> Moment {
        let boot = (i as u64 + 1) * 100 * SECOND;
        Moment::since_boot(Duration::from_micros(boot + self.now * self.members[i].rate / 1000))
    }

    /// Returns the first microsecond at which the candidate's clock has reached `moment`.
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

    /// Whether messages still reach this process.
    pub fn is_current(&self, (i, incarnation): Process) -> bool {
        let member = &self.members[i];
        member.incarnation == incarnation && !matches!(member.life, Life::Down | Life::Finished)
    }

    /// Whether this candidate may act as the leader, by its own clock.
    pub fn believes_leading(&self, i: usize) -> bool {
        self.members[i].valid_until.is_some_and(|until| self.local(i) < until)
    }

    pub fn break_law(&mut self, law: Law) {
        self.broken.get_or_insert(law);
    }
}
