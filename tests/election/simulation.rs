//! Simulates electors on one Lease with many seeds: lost and late messages, stale watches, frozen processes, unequal
//! clocks, crashes, shutdowns and edits by hand. Prints the totals. A failing seed is printed and can be repeated with
//! `K8SENSUS_SEED=<n> cargo test simulation`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use k8sensus_election::{
    Action, Candidate, Elector, Event, Failure, Moment, Preference, Purpose, Reading, Record, Sight, Snapshot, Timing,
    Version, WallTime,
};

const SEEDS: u64 = 5_000;
const LENGTH: u64 = 150_000; // milliseconds of simulated time
const CANDIDATES: usize = 3;

/// xorshift64*: the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// An event reaches a candidate.
    Deliver(usize, u64, Event),
    /// A request reaches the server.
    Serve(usize, u64, Action),
    /// A candidate's timer fires, if it was not replaced.
    Timer(usize, u64),
    /// The work of a candidate ends or is killed.
    EndWork(usize, u64),
    /// The watch reports the server's state to a candidate.
    Watch(usize),
    /// A candidate dies with its work and restarts as another incarnation.
    Crash(usize),
    /// The Lease is edited by hand.
    Edit,
}

struct Member {
    elector: Elector,
    /// The rate of the local clock, per thousand.
    rate: u64,
    timer: u64,
    valid_until: Option<Moment>,
    working: bool,
    work: u64,
    frozen_until: u64,
    /// The number of the incarnation. Events for earlier ones are dropped.
    life: u64,
    term: u64,
    finished: bool,
}

#[derive(Default, Debug)]
struct Totals {
    terms: u64,
    lost: u64,
    late: u64,
    freezes: u64,
    crashes: u64,
    edits: u64,
    expiries: u64,
    releases: u64,
}

struct World {
    now: u64,
    random: Random,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    steps: Vec<Option<Step>>,
    members: Vec<Member>,
    lease: Option<Snapshot>,
    version: u64,
    last_token: u64,
    freezing: bool,
    editing: bool,
    calm_from: u64,
    totals: Totals,
}

fn elector(i: usize, life: u64) -> Elector {
    let candidate = Candidate::new(format!("pod-{i}"), format!("uid-{i}/app/{life}")).unwrap();
    Elector::new(candidate, Timing::default(), false, i as u64 * 7919 + life)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let released = Record::released(0, WallTime(0));
        let members = (0..CANDIDATES).map(|i| Member {
            elector: elector(i, 0),
            rate: 970 + random.below(60),
            timer: 0,
            valid_until: None,
            working: false,
            work: 0,
            frozen_until: 0,
            life: 0,
            term: 0,
            finished: false,
        });
        let members = members.collect();
        let mut world = Self {
            now: 1_000,
            queue: BinaryHeap::new(),
            steps: Vec::new(),
            members,
            lease: Some(Snapshot {
                version: Version::new("1"),
                record: released,
                incarnation: None,
                preference: Preference::default(),
            }),
            version: 1,
            last_token: 0,
            freezing: random.chance(30),
            editing: random.chance(20),
            calm_from: LENGTH * 2 / 3,
            random,
            totals: Totals::default(),
        };
        for i in 0..CANDIDATES {
            let at = world.now + world.random.below(3_000);
            world.at(at, Step::Deliver(i, 0, Event::Tick));
            let at = world.random.below(world.calm_from * 2);
            if at < world.calm_from {
                world.at(at, Step::Crash(i));
            }
        }
        if world.editing {
            let at = world.random.below(world.calm_from);
            world.at(at, Step::Edit);
        }
        world
    }

    fn at(&mut self, time: u64, step: Step) {
        self.steps.push(Some(step));
        self.queue.push(Reverse((time.max(self.now), self.steps.len() as u64 - 1)));
    }

    fn calm(&self) -> bool {
        self.now >= self.calm_from
    }

    fn local(&self, i: usize, now: u64) -> Moment {
        Moment::since_boot(Duration::from_micros(now * self.members[i].rate))
    }

    /// Returns the first global millisecond at which the candidate's clock has reached `moment`.
    fn global(&self, i: usize, moment: Moment) -> u64 {
        let micros = u64::try_from(moment.elapsed_since_boot().as_micros()).unwrap();
        micros.div_ceil(self.members[i].rate)
    }

    fn run(mut self) -> Totals {
        while let Some(Reverse((time, index))) = self.queue.pop() {
            if time > LENGTH {
                break;
            }
            self.now = time;
            self.check();
            let step = self.steps[index as usize].take().unwrap();
            self.advance(step);
            self.check();
        }
        assert!(
            self.members.iter().any(|member| member.working) || self.members.iter().all(|member| member.finished),
            "no leader at the end of a minute without faults: {:?}",
            self.lease
        );
        self.totals
    }

    /// Requires that at most one candidate believes that it leads, and that the work of at most one runs.
    fn check(&self) {
        let believes_leading = |i: &usize| {
            let member = &self.members[*i];
            member.working && member.valid_until.is_some_and(|until| self.local(*i, self.now) < until)
        };
        let believers: Vec<usize> = (0..CANDIDATES).filter(believes_leading).collect();
        assert!(believers.len() <= 1, "two leaders at {} ms: {believers:?}, lease {:?}", self.now, self.lease);
        if !self.freezing && !self.editing {
            let working: Vec<usize> = (0..CANDIDATES).filter(|i| self.members[*i].working).collect();
            assert!(working.len() <= 1, "two works at {} ms: {working:?}, lease {:?}", self.now, self.lease);
        }
    }

    fn advance(&mut self, step: Step) {
        match step {
            Step::Deliver(i, life, event) if self.members[i].life == life => self.deliver(i, event),
            Step::Deliver(..) => {}
            Step::Timer(i, timer) if self.members[i].timer == timer => self.deliver(i, Event::Tick),
            Step::Timer(..) => {}
            Step::EndWork(i, work) if self.members[i].working && self.members[i].work == work => {
                self.members[i].working = false;
                let term = self.members[i].term;
                self.deliver(i, Event::WorkEnded { term });
            }
            Step::EndWork(..) => {}
            Step::Serve(i, life, action) => self.serve(i, life, action),
            Step::Crash(i) => {
                self.totals.crashes += 1;
                let member = &mut self.members[i];
                member.life += 1;
                member.elector = elector(i, member.life);
                member.timer += 1;
                member.working = false;
                member.finished = false;
                member.valid_until = None;
                let (life, start) = (member.life, self.now + self.random.below(5_000));
                self.at(start, Step::Deliver(i, life, Event::Tick));
            }
            Step::Watch(i) => {
                let sight = match &self.lease {
                    Some(lease) => Sight::Lease(lease.clone()),
                    None => Sight::Absent { deleted_at: Some(Version::new(self.version.to_string())) },
                };
                self.deliver(i, Event::Watched(sight));
            }
            Step::Edit => {
                self.totals.edits += 1;
                self.version += 1;
                if let Some(lease) = &mut self.lease {
                    lease.version = Version::new(self.version.to_string());
                    if self.random.chance(50) {
                        lease.record.holder = String::new();
                    } else {
                        lease.record.transitions = 0;
                    }
                }
                self.broadcast();
            }
        }
    }

    fn deliver(&mut self, i: usize, event: Event) {
        let life = self.members[i].life;
        if self.members[i].frozen_until > self.now {
            let at = self.members[i].frozen_until;
            return self.at(at, Step::Deliver(i, life, event));
        }
        if self.freezing && !self.calm() && self.random.chance(1) {
            self.totals.freezes += 1;
            let length = self.random.below(25_000);
            self.members[i].frozen_until = self.now + length;
            return self.at(self.now + length, Step::Deliver(i, life, event));
        }
        let moment = self.local(i, self.now);
        let wall = WallTime(1_700_000_000_000_000 + self.now as i64 * 1000);
        let actions = self.members[i].elector.step(Reading { moment, wall }, event);
        for action in actions {
            self.perform(i, action);
        }
        if !self.calm() && self.random.below(4_000) == 0 && !self.members[i].finished {
            let event = if self.random.chance(70) { Event::StepDown } else { Event::Shutdown };
            self.at(self.now, Step::Deliver(i, life, event));
        }
    }

    fn perform(&mut self, i: usize, action: Action) {
        match action {
            Action::Read { request, timeout } => self.send_request(i, request, timeout, action.clone()),
            Action::Write { request, timeout, purpose, .. } => {
                assert!(
                    purpose != Purpose::Release || !self.members[i].working,
                    "pod-{i} releases while its work runs at {} ms",
                    self.now
                );
                self.send_request(i, request, timeout, action.clone());
            }
            Action::Lead { term, token, valid_until, .. } => {
                let token: u64 = token.as_str().parse().unwrap();
                assert!(token > self.last_token, "token {token} after {}", self.last_token);
                self.last_token = token;
                self.totals.terms += 1;
                let member = &mut self.members[i];
                assert!(!member.working, "pod-{i} starts to lead while its work runs");
                member.valid_until = Some(valid_until);
                member.working = true;
                member.term = term;
                member.work += 1;
                if self.random.chance(5) && !self.calm() {
                    // The work ends by itself.
                    let at = self.now + self.random.below(20_000);
                    let work = self.members[i].work;
                    self.at(at, Step::EndWork(i, work));
                }
            }
            Action::Valid { valid_until } => self.members[i].valid_until = Some(valid_until),
            Action::Stop { kill_at, .. } => {
                let work = self.members[i].work;
                let own_time = self.now + self.random.below(12_000);
                let at = kill_at.map_or(own_time, |kill_at| own_time.min(self.global(i, kill_at)));
                self.at(at, Step::EndWork(i, work));
            }
            Action::Wake { at } => {
                self.members[i].timer += 1;
                let (timer, at) = (self.members[i].timer, self.global(i, at));
                self.at(at, Step::Timer(i, timer));
            }
            Action::Finish => {
                assert!(!self.members[i].working, "pod-{i} finishes while its work runs");
                self.members[i].finished = true;
            }
        }
    }

    fn send_request(&mut self, i: usize, request: u64, timeout: Duration, action: Action) {
        let unknown = match action {
            Action::Read { .. } => Event::Read { request, result: Err(Failure::Unknown) },
            _ => Event::Written { request, result: Err(Failure::Unknown) },
        };
        let life = self.members[i].life;
        let limit = self.now + u64::try_from(timeout.as_millis()).unwrap();
        self.at(limit, Step::Deliver(i, life, unknown));
        let faulty = !self.calm();
        if faulty && self.random.chance(8) {
            self.totals.lost += 1;
            return;
        }
        let delay = self.delay();
        self.at(self.now + delay, Step::Serve(i, life, action));
    }

    fn delay(&mut self) -> u64 {
        if !self.calm() && self.random.chance(10) {
            self.totals.late += 1;
            self.random.below(14_000)
        } else {
            1 + self.random.below(20)
        }
    }

    fn serve(&mut self, i: usize, life: u64, action: Action) {
        let event = match action {
            Action::Read { request, .. } => {
                let sight = match &self.lease {
                    Some(lease) => Sight::Lease(lease.clone()),
                    None => Sight::Absent { deleted_at: None },
                };
                Event::Read { request, result: Ok(sight) }
            }
            Action::Write { request, expected, record, incarnation, purpose, .. } => {
                let current = self.lease.as_ref().map(|lease| lease.version.clone());
                let result = if current != expected {
                    Err(Failure::Conflict)
                } else {
                    self.totals.releases += u64::from(purpose == Purpose::Release);
                    let before = self.lease.as_ref().map(|lease| &lease.record);
                    let expired =
                        before.is_some_and(|before| !before.holder.is_empty() && before.holder != record.holder);
                    self.totals.expiries += u64::from(expired && purpose == Purpose::Acquire);
                    self.version += 1;
                    let version = Version::new(self.version.to_string());
                    self.lease = Some(Snapshot {
                        version: version.clone(),
                        record,
                        incarnation,
                        preference: Preference::default(),
                    });
                    self.broadcast();
                    Ok(version)
                };
                Event::Written { request, result }
            }
            _ => unreachable!("only requests are served"),
        };
        if !self.calm() && self.random.chance(5) {
            self.totals.lost += 1;
            return;
        }
        let delay = self.delay();
        self.at(self.now + delay, Step::Deliver(i, life, event));
    }

    fn broadcast(&mut self) {
        for i in 0..CANDIDATES {
            if self.calm() || !self.random.chance(15) {
                let delay = self.delay();
                self.at(self.now + delay, Step::Watch(i));
            }
        }
    }
}

#[test]
fn no_seed_breaks_the_safety_of_the_election() {
    if let Ok(seed) = std::env::var("K8SENSUS_SEED") {
        println!("{:?}", World::new(seed.parse().expect("K8SENSUS_SEED must be a number")).run());
        return;
    }
    let mut total = Totals::default();
    for seed in 0..SEEDS {
        let result = std::panic::catch_unwind(|| World::new(seed).run());
        let Ok(totals) = result else { panic!("seed {seed}; repeat with K8SENSUS_SEED={seed} cargo test simulation") };
        total.terms += totals.terms;
        total.lost += totals.lost;
        total.late += totals.late;
        total.freezes += totals.freezes;
        total.crashes += totals.crashes;
        total.edits += totals.edits;
        total.expiries += totals.expiries;
        total.releases += totals.releases;
    }
    println!("{SEEDS} seeds of {} s: {total:?}", LENGTH / 1000);
    assert!(total.terms > SEEDS && total.expiries > SEEDS / 5 && total.releases > SEEDS / 20, "{total:?}");
}
