//! The plan of a seed: its candidates, timing and faults.

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

/// A fault, or another change of the world at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process dies with its work and restarts as another incarnation.
    Crash {
        member: usize,
        away: u64,
    },
    /// SIGTERM: the work ends, the Lease is released, and the process restarts as another incarnation.
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
    /// The connection between a candidate and the server is cut: packets vanish, or connections are refused.
    Cut {
        member: usize,
        time: u64,
        silent: bool,
    },
    /// The server pauses and serves the requests of that time afterwards.
    Outage {
        time: u64,
    },
    /// The wall clock jumps by this number of milliseconds.
    WallStep {
        member: usize,
        by: i64,
    },
    /// All watches end. With `gone`, their versions are too old to continue.
    DropWatches {
        gone: bool,
    },
    /// The Lease is deleted by hand.
    Delete,
    /// The holder is emptied by hand, but the duration stays.
    Empty,
    /// Another holder is written by hand.
    Impose,
    /// A namesake without incarnations acquires the Lease and keeps the annotation, as client-go would.
    Usurp,
    /// An annotation is added by hand.
    Annotate,
    /// An operator requests the present term to step down, possibly for a named successor.
    RequestStepDown {
        to: Option<usize>,
    },
    /// An operator names a revision as proven.
    Prove {
        revision: usize,
    },
    /// An operator suspends the Lease, although the candidates keep running.
    Suspend,
}

/// The chances of faults for a single request, in percent.
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
    /// Whether the first two candidates have one identity.
    pub twins: bool,
    /// Whether restarted candidates know that their predecessors are dead. A twin runs in the same container without
    /// the lock that proves it.
    pub in_place: bool,
    /// Whether candidates create the Lease. Otherwise an operator does.
    pub create: bool,
    pub timing: Timing,
    /// The rates of the local clocks, per thousand.
    pub rates: Vec<u64>,
    pub weather: Weather,
    /// The faults, each with its millisecond of the world.
    pub faults: Vec<(u64, Fault)>,
    /// Whether all faults are outages within the deadline, so that leadership must not be lost.
    pub gentle: bool,
}

/// The end of all faults, in milliseconds.
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
        // The margin of a tenth covers rates that differ by 4 % in each direction.
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

    /// Draws outages of up to 7.5 s. Even if the last renewal was 2 s earlier, they end before the deadline of 10 s.
    fn draw_outages(&mut self, random: &mut Random) {
        let mut at = 5_000;
        while at < CALM_FROM {
            let fault = Fault::Outage { time: random.between(500, 7_500) };
            self.faults.push((at + random.below(2_000), fault));
            at += 15_000;
        }
    }

    /// Draws faults. Each kind has its own chance, so that a run has few kinds but many faults.
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
        // Harmless, so it continues in the calm.
        if random.chance(15) {
            let every = random.between(1_000, 6_000);
            self.faults.extend((1..END / every).map(|n| (n * every, Fault::Annotate)));
        }
        // A separate random stream, so that these requests do not change the other faults of a seed.
        let mut requesting = Random::new(random.0);
        let count = if requesting.chance(30) { requesting.between(1, 3) } else { 0 };
        let times: Vec<u64> = (0..count).map(|_| requesting.between(1_000, CALM_FROM - 1_000)).collect();
        let mut naming = Random::new(requesting.0);
        let members = self.members as u64;
        for at in times {
            // One past the last candidate: a pod that no longer exists.
            let to = naming.chance(60).then(|| naming.below(members + 1) as usize);
            self.faults.push((at, Fault::RequestStepDown { to }));
        }
        if naming.chance(30) {
            let at = naming.between(1_000, CALM_FROM - 1_000);
            self.faults.push((at, Fault::Prove { revision: naming.below(2) as usize }));
        }
        // Documented: a namesake that keeps a dead process's annotation counts as that process.
        self.in_place = naming.chance(50) && !self.faults.iter().any(|(_, fault)| *fault == Fault::Usurp);
        if naming.chance(20) {
            self.faults.push((naming.between(1_000, CALM_FROM - 1_000), Fault::Suspend));
        }
        // Documented: no guarantee if the Lease is deleted while a candidate that may create it starts.
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
