//! What a seed makes happen.

use std::time::Duration;

use crate::subject::election::Timing;

/// xorshift64*: the same on every machine.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }
}

/// Something that is done to the world at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process dies with its work and is started again as another incarnation.
    Crash {
        member: usize,
        away: u64,
    },
    /// SIGTERM: work ends, the Lease is released; it is started again as another incarnation.
    Shutdown {
        member: usize,
    },
    StepDown {
        member: usize,
    },
    /// SIGSTOP, then SIGCONT.
    Freeze {
        member: usize,
        time: u64,
    },
    /// Nothing passes between this candidate and the server: silently, or by refused connections.
    Cut {
        member: usize,
        time: u64,
        silent: bool,
    },
    /// The server stands still; what comes meanwhile is served afterwards.
    Outage {
        time: u64,
    },
    /// The wall clock jumps by so many milliseconds.
    WallStep {
        member: usize,
        by: i64,
    },
    /// All watches end; with `gone` their versions are too old to go on from.
    DropWatches {
        gone: bool,
    },
    /// Somebody deletes the Lease.
    Delete,
    /// Somebody empties the holder, but leaves the duration.
    Empty,
    /// Somebody writes another holder into it.
    Impose,
    /// A namesake that knows no incarnations takes it and keeps the annotation, as client-go would.
    Usurp,
    /// Somebody adds an annotation.
    Annotate,
    /// An operator asks the term that the Lease shows to end, perhaps for a candidate that it names.
    Ask {
        to: Option<usize>,
    },
    /// An operator names a revision as proved.
    Prove {
        revision: usize,
    },
    /// An operator says that nobody is to lead, though all go on.
    Suspend,
}

/// Percentages of what happens to a single request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub lost: u64,
    pub reply_lost: u64,
    pub slow: u64,
    pub throttled: u64,
    pub broken: u64,
    pub conflict: u64,
    pub garbage: u64,
    pub event_late: u64,
}

#[derive(Debug)]
pub struct Plan {
    pub members: usize,
    /// The first two candidates have one identity.
    pub twins: bool,
    /// Each candidate that starts again knows that its predecessor is dead; but a twin stands in the same container, without
    /// the lock that proves it.
    pub in_place: bool,
    /// Candidates create the Lease; otherwise an operator does.
    pub create: bool,
    pub timing: Timing,
    /// Local milliseconds for a thousand of the world's.
    pub rates: Vec<u64>,
    pub weather: Weather,
    /// At these milliseconds of the world.
    pub faults: Vec<(u64, Fault)>,
    /// Leadership must not be lost: nothing but outages that the deadline covers.
    pub gentle: bool,
}

/// From here on nothing goes wrong any more.
pub const CALM_FROM: u64 = 45_000;
/// The end of the run, in milliseconds.
pub const END: u64 = 98_000;

impl Plan {
    pub fn draw(random: &mut Random) -> Self {
        let gentle = random.chance(10);
        let members = random.between(2, 3) as usize;
        let create = random.chance(40);
        let seconds = Duration::from_secs;
        let mut timing = Timing::new(seconds(15), seconds(10), seconds(2)).expect("the defaults");
        if !gentle && random.chance(30) {
            timing = timing.with_renew_interval(seconds(random.between(3, 6))).expect("shorter than the deadline");
        }
        // The rule of the lease leaves a tenth: unequal by 4 % each way is within it.
        let rates = (0..members).map(|_| random.between(960, 1_040)).collect();
        let mut plan = Self {
            members,
            twins: !gentle && random.chance(15),
            in_place: false,
            create,
            timing,
            rates,
            weather: Weather::default(),
            faults: Vec::new(),
            gentle,
        };
        if gentle {
            plan.draw_outages(random)
        } else {
            plan.draw_faults(random)
        }
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }

    /// Outages of up to 7.5 s: with the last renewal 2 s before them they end before the deadline of 10 s.
    fn draw_outages(&mut self, random: &mut Random) {
        let mut at = 5_000;
        while at < CALM_FROM {
            let fault = Fault::Outage { time: random.between(500, 7_500) };
            self.faults.push((at + random.below(2_000), fault));
            at += 15_000;
        }
    }

    /// Of each kind with a chance of its own, so that a run has few kinds but many of them.
    fn draw_faults(&mut self, random: &mut Random) {
        let mut some = |percent: u64, most: u64| if random.chance(percent) { random.between(1, most) } else { 0 };
        self.weather = Weather {
            lost: some(40, 30),
            reply_lost: some(40, 30),
            slow: some(40, 40),
            throttled: some(20, 20),
            broken: some(20, 20),
            conflict: some(15, 10),
            garbage: some(15, 10),
            event_late: some(40, 60),
        };
        let kinds: [(u64, u64); 13] = [
            (40, 3), // crash
            (40, 3), // shutdown
            (30, 3), // step-down
            (30, 3), // freeze
            (50, 4), // cut
            (30, 3), // outage
            (30, 3), // wall clock
            (40, 4), // watches
            (20, 2), // delete
            (15, 2), // empty
            (15, 2), // impose
            (15, 2), // usurp
            (20, 4), // annotate
        ];
        for (kind, (percent, most)) in kinds.into_iter().enumerate() {
            let count = if random.chance(percent) { random.between(1, most) } else { 0 };
            for _ in 0..count {
                let fault = self.fault(kind, random);
                self.faults.push((random.between(1_000, CALM_FROM - 1_000), fault));
            }
        }
        // Of no concern to anybody, so it goes on when all is calm.
        if random.chance(15) {
            let every = random.between(1_000, 6_000);
            self.faults.extend((1..END / every).map(|n| (n * every, Fault::Annotate)));
        }
        // From a stream of its own: runs without requests are what they would be if there were none.
        let mut asking = Random::new(random.0);
        let asks = if asking.chance(30) { asking.between(1, 3) } else { 0 };
        let asks: Vec<u64> = (0..asks).map(|_| asking.between(1_000, CALM_FROM - 1_000)).collect();
        let mut naming = Random::new(asking.0);
        let members = self.members as u64;
        for at in asks {
            // One past the last is nobody: a pod that is gone.
            let to = naming.chance(60).then(|| naming.below(members + 1) as usize);
            self.faults.push((at, Fault::Ask { to }));
        }
        if naming.chance(30) {
            let at = naming.between(1_000, CALM_FROM - 1_000);
            self.faults.push((at, Fault::Prove { revision: naming.below(2) as usize }));
        }
        // Documented: a namesake that knows no incarnations, and keeps a dead one's, is taken for it.
        self.in_place = naming.chance(50) && !self.faults.iter().any(|(_, fault)| *fault == Fault::Usurp);
        if naming.chance(20) {
            self.faults.push((naming.between(1_000, CALM_FROM - 1_000), Fault::Suspend));
        }
        // Whoever deletes the Lease just when a candidate that may create it starts gives up the guarantee (documented).
        let starts = |fault: &Fault| matches!(fault, Fault::Crash { .. } | Fault::Shutdown { .. });
        if self.create && self.faults.iter().any(|(_, fault)| starts(fault)) {
            self.faults.retain(|(_, fault)| *fault != Fault::Delete);
        }
    }

    fn fault(&self, kind: usize, random: &mut Random) -> Fault {
        let member = random.below(self.members as u64) as usize;
        match kind {
            0 => Fault::Crash { member, away: random.between(0, 20_000) },
            1 => Fault::Shutdown { member },
            2 => Fault::StepDown { member },
            3 => Fault::Freeze { member, time: random.between(100, 30_000) },
            4 => Fault::Cut { member, time: random.between(100, 30_000), silent: random.chance(60) },
            5 => Fault::Outage { time: random.between(100, 20_000) },
            6 => Fault::WallStep { member, by: random.below(7_200_000) as i64 - 3_600_000 },
            7 => Fault::DropWatches { gone: random.chance(50) },
            8 => Fault::Delete,
            9 => Fault::Empty,
            10 => Fault::Impose,
            11 => Fault::Usurp,
            _ => Fault::Annotate,
        }
    }
}
