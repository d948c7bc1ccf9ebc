//! One failover: a leader and a standby on their own Lease, a fault, and the outcome from their stamps.

use std::fmt;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;

use crate::Error;
use crate::contender::{Candidate, Contender, Durations, World, wait_for};
use crate::proxy::Proxy;
use crate::stamps::now;
use crate::support::overlap::{Overlap, Report};

/// How long the API server is unreachable in [`Fault::Outage`].
const OUTAGE: Duration = Duration::from_millis(7_500);
/// Long enough for a leader whose renew deadline began before the outage to lose it: the deadline minus the outage,
/// plus a margin.
const AFTERMATH: Duration = Duration::from_secs(4);
const START: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGTERM to the leader.
    Graceful,
    /// SIGKILL to the leader.
    Crash,
    /// The leader's network goes silent and stays so.
    Cut,
    /// The API server goes silent for both candidates, for a while.
    Outage,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Graceful => "graceful",
            Self::Crash => "crash",
            Self::Cut => "silent cut",
            Self::Outage => "outage of 7.5 s",
        })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Trial {
    pub fault: Fault,
    pub durations: Durations,
    pub contender: Contender,
    pub number: usize,
    /// The number of trials in this cell: their faults are spread evenly over two renewal intervals. Within one
    /// interval most standbys of client-go would still be in their first wait, which lasts 1 to 2.2 intervals.
    pub of: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// From just before the fault to the successor's first stamp.
    pub failover: Option<f64>,
    /// From the old leader's last stamp to the new leader's first, in seconds. Negative if their work overlapped.
    pub gap: Option<f64>,
    /// The number of overlaps.
    pub overlaps: usize,
    /// The longest overlap, in seconds.
    pub longest_overlap: f64,
    /// Whether leadership was lost in an outage.
    pub lost: bool,
}

impl Trial {
    fn phase(&self) -> Duration {
        (2 * self.durations.interval()).mul_f64((self.number as f64 + 0.5) / self.of as f64)
    }

    /// Returns the approximate duration.
    pub fn estimate(&self) -> Duration {
        let Durations { lease, retry, .. } = self.durations;
        let polls = if self.contender == Contender::ClientGo { retry as f64 * 0.8 } else { 0.0 };
        let fault = match self.fault {
            Fault::Graceful => polls,
            Fault::Crash => lease as f64 + polls - retry as f64 / 2.0,
            Fault::Cut => lease as f64 + polls + 1.0,
            Fault::Outage => (OUTAGE + AFTERMATH).as_secs_f64(),
        };
        Duration::from_secs_f64(0.5 + retry as f64 * 2.0 + fault)
    }

    pub fn run(&self, world: &World) -> Result<Outcome, Error> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let lease = format!("trial-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let direct = world.cluster.kubeconfig();
        let (proxy, through) = match self.fault {
            Fault::Graceful | Fault::Crash => (None, None),
            Fault::Cut | Fault::Outage => {
                let proxy = Proxy::start(&world.runtime, world.server())?;
                let through = world.kubeconfig(&lease, Some(format!("https://{}", proxy.address())), None)?;
                (Some(proxy), Some(through))
            }
        };
        let leaders = through.as_deref().unwrap_or(direct);
        let standbys = if self.fault == Fault::Outage { leaders } else { direct };
        let start = |name: &str, kubeconfig| {
            let identity = format!("{lease}-{name}");
            Candidate::start(world, self.contender, self.durations, &lease, &identity, kubeconfig, &[])
        };
        let mut old = start("old", leaders);
        wait_for("a first leader", START, || old.has_led())?;
        let new = start("new", standbys);
        // By then the standby has observed the Lease.
        sleep(self.durations.interval() + self.phase());
        if new.has_led() || old.has_stopped() {
            return Err("leadership changed before the fault".into());
        }

        let limit = Duration::from_secs(2 * self.durations.lease + 10);
        let fault = now();
        match self.fault {
            Fault::Graceful => old.program.signal(Signal::TERM),
            Fault::Crash => old.program.signal(Signal::KILL),
            Fault::Cut | Fault::Outage => proxy.iter().for_each(|proxy| proxy.set_silent(true)),
        }
        if self.fault == Fault::Outage {
            sleep(OUTAGE);
            proxy.iter().for_each(|proxy| proxy.set_silent(false));
            sleep(AFTERMATH);
        } else {
            wait_for("a successor", limit, || new.has_led())?;
        }
        match self.fault {
            Fault::Graceful => drop(old.program.wait(START)),
            // A leader that never stops counts as working for all of that time.
            Fault::Cut => drop(wait_for("the old leader's end", limit, || old.has_stopped())),
            Fault::Crash | Fault::Outage => {}
        }
        // The first stamp follows right after the file's first line.
        sleep(Duration::from_millis(50));
        let report = Report::of(&[&old.stamps, &new.stamps]);
        if let Some(through) = through {
            fs::remove_file(through)?;
        }
        Ok(self.outcome(&report, fault, old.has_stopped() || new.has_led()))
    }

    fn outcome(&self, report: &Report, fault: Duration, ended: bool) -> Outcome {
        let seconds = |from: Duration, until: Duration| until.as_secs_f64() - from.as_secs_f64();
        let of = |name: &'static str| report.stretches.iter().filter(move |stretch| stretch.identity.ends_with(name));
        let successor = of("-new").next();
        let last_stamp = of("-old").map(|stretch| stretch.until).max();
        Outcome {
            failover: successor.map(|stretch| seconds(fault, stretch.from)),
            gap: successor.zip(last_stamp).map(|(stretch, last)| seconds(last, stretch.from)),
            overlaps: report.overlaps.len(),
            longest_overlap: report.overlaps.iter().map(Overlap::length).max().unwrap_or_default().as_secs_f64(),
            lost: self.fault == Fault::Outage && ended,
        }
    }
}
