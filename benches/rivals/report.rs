//! The results as text.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::Error;
use crate::contender::{Contender, Durations, World};
use crate::lanes::Done;
use crate::sample::{HumanTime, Sample};
use crate::steady::Cost;
use crate::support::{kubectl, root};
use crate::trial::{Fault, Outcome};

pub struct Results {
    pub trials: Vec<Done>,
    pub costs: Vec<Cost>,
}

/// A time that is reported for both contenders.
pub struct Figure {
    pub title: &'static str,
    fault: Fault,
    of: fn(&Outcome) -> Option<f64>,
}

pub const FIGURES: [Figure; 4] = [
    Figure { title: "SIGTERM: old leader stops to new leader", fault: Fault::Graceful, of: |outcome| outcome.gap },
    Figure { title: "SIGTERM: signal to new leader", fault: Fault::Graceful, of: |outcome| outcome.failover },
    Figure { title: "SIGKILL to new leader", fault: Fault::Crash, of: |outcome| outcome.failover },
    Figure { title: "Silent cut to new leader", fault: Fault::Cut, of: |outcome| outcome.failover },
];

pub const DURATIONS: [Durations; 2] = [Durations::DEFAULT, Durations::SHORT];

impl Results {
    pub fn sample(&self, figure: &Figure, durations: Durations, contender: Contender) -> Sample {
        self.outcomes(figure.fault, durations, contender).filter_map(figure.of).collect()
    }

    fn outcomes(
        &self,
        fault: Fault,
        durations: Durations,
        contender: Contender,
    ) -> impl Iterator<Item = &Outcome> + Clone {
        let wanted = self.trials.iter().filter(move |(trial, _)| {
            trial.fault == fault && trial.durations == durations && trial.contender == contender
        });
        wanted.filter_map(|(_, result)| result.as_ref().ok())
    }

    /// Returns the violations, which are counts and never times.
    pub fn verdict(&self) -> Vec<String> {
        let ours = self.trials.iter().filter(|(trial, _)| trial.contender == Contender::Ours);
        ours.filter_map(|(trial, result)| {
            let what = match result {
                Err(error) => error.clone(),
                Ok(outcome) if outcome.overlaps > 0 => {
                    format!("two leaders at once for {}", HumanTime(outcome.longest_overlap))
                }
                Ok(outcome) if outcome.lost => "leadership lost".to_owned(),
                Ok(_) => return None,
            };
            Some(format!("{} {}, trial {}: {what}", trial.fault, trial.durations, trial.number))
        })
        .collect()
    }

    pub fn markdown(&self, world: &World) -> Result<String, Error> {
        let mut text = String::new();
        text += "<!-- Written by `cargo rivals`; do not edit. -->\n# Beside client-go\n\n";
        writeln!(
            text,
            "The library of this project and unmodified client-go {}, in programs with the same flags and the same \
             work: a stamp every 5 ms while leading. They run in turn, in one run, on one API server. The durations \
             (lease duration/renew deadline/retry period, in seconds) are equal; everything else is at its default, \
             and client-go has `ReleaseOnCancel`. Each failover has its own Lease, leader and standby, and its fault \
             comes at another moment between renewals. The stamps give the times, on CLOCK_MONOTONIC.\n",
            client_go_version()?
        )?;
        text += "![Each failover as a dot on a logarithmic axis of time](rivals.svg)\n\n";
        self.times(&mut text)?;
        self.safety(&mut text)?;
        self.steady(&mut text)?;
        surroundings(&mut text, world)?;
        Ok(text)
    }

    fn times(&self, text: &mut String) -> Result<(), Error> {
        text.push_str("## Failover\n\n| | durations | | n | p50 | p90 | p99 | max | ratio of p50 |\n");
        text.push_str("|---|---|---|--:|--:|--:|--:|--:|--:|\n");
        for figure in &FIGURES {
            for durations in DURATIONS {
                let [ours, theirs] = Contender::BOTH.map(|contender| self.sample(figure, durations, contender));
                for (contender, sample) in Contender::BOTH.into_iter().zip([&ours, &theirs]) {
                    write!(text, "| {} | {durations} | {contender} | {} |", figure.title, sample.len())?;
                    for share in [0.5, 0.9, 0.99, 1.0] {
                        write!(text, " {} |", HumanTime(sample.quantile(share)))?;
                    }
                    let ratio = ours.quantile(0.5) / theirs.quantile(0.5);
                    match contender {
                        Contender::Ours if ratio.is_finite() => writeln!(text, " {} |", two_digits(ratio))?,
                        _ => text.push_str(" |\n"),
                    }
                }
            }
        }
        text.push('\n');
        Ok(())
    }

    fn safety(&self, text: &mut String) -> Result<(), Error> {
        text.push_str(
            "## Two leaders at once, leadership lost\n\n| | durations | | failovers | with two leaders | longest |\n",
        );
        text.push_str("|---|---|---|--:|--:|--:|\n");
        let cells = [Fault::Graceful, Fault::Crash, Fault::Cut].map(|fault| DURATIONS.map(|d| (fault, d)));
        for (fault, durations) in cells.into_iter().flatten() {
            for contender in Contender::BOTH {
                let outcomes = self.outcomes(fault, durations, contender);
                let overlaps = outcomes.clone().filter(|outcome| outcome.overlaps > 0);
                let longest = overlaps.clone().map(|outcome| outcome.longest_overlap).fold(f64::NAN, f64::max);
                let (n, found) = (outcomes.count(), overlaps.count());
                writeln!(text, "| {fault} | {durations} | {contender} | {n} | {found} | {} |", HumanTime(longest))?;
            }
        }
        writeln!(text, "\n| {} | durations | outages | leadership lost |\n|---|---|--:|--:|", Fault::Outage)?;
        for contender in Contender::BOTH {
            let outcomes = self.outcomes(Fault::Outage, Durations::DEFAULT, contender);
            let lost = outcomes.clone().filter(|outcome| outcome.lost).count();
            writeln!(text, "| {contender} | {} | {} | {lost} |", Durations::DEFAULT, outcomes.count())?;
        }
        let failed = self.trials.iter().filter(|(_, result)| result.is_err()).count();
        if failed > 0 {
            writeln!(text, "\n{failed} of {} trials have no result.", self.trials.len())?;
        }
        text.push('\n');
        Ok(())
    }

    fn steady(&self, text: &mut String) -> Result<(), Error> {
        text.push_str("## While nothing happens\n\nOver 60 s at 15/10/2. A group has a leader and two standbys.\n\n");
        text.push_str("| requests a second | leader | a standby | group |\n|---|--:|--:|--:|\n");
        for cost in &self.costs {
            if let (Some([leader, standby]), Some(group)) = (cost.requests, cost.group_requests) {
                writeln!(text, "| {} | {leader:.2} | {standby:.2} | {group:.2} |", cost.name)?;
            }
        }
        text.push_str("\n| | program | leader, resident | standby, resident | leader, processor time | standby |\n");
        text.push_str("|---|--:|--:|--:|--:|--:|\n");
        for cost in &self.costs {
            let [leader, standby] = cost.resident.map(megabytes);
            let [leaders_time, standbys_time] = cost.processor_time.map(|time| HumanTime(time.as_secs_f64()));
            let (name, size) = (cost.name, megabytes(cost.program_size));
            writeln!(text, "| {name} | {size} | {leader} | {standby} | {leaders_time} | {standbys_time} |")?;
        }
        text.push_str(
            "\nThe leaders of the libraries stamp a file every 5 ms, which is most of their processor time; the \
             released programs do not.\n\n",
        );
        Ok(())
    }
}

fn surroundings(text: &mut String, world: &World) -> Result<(), Error> {
    let version: Value = serde_json::from_str(&kubectl(&world.cluster, &["version", "-o", "json"]))?;
    let server = version["serverVersion"]["gitVersion"].as_str().unwrap_or("unknown");
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let cpu = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let uname = rustix::system::uname();
    let go = output_of(Command::new("go").arg("version"));
    let rust = output_of(Command::new("rustc").arg("--version"));
    let revision = output_of(Command::new("git").args(["rev-parse", "--short", "HEAD"]).current_dir(root()));
    let changed = output_of(Command::new("git").args(["status", "--porcelain", "src"]).current_dir(root()));
    writeln!(text, "## How it was measured\n")?;
    writeln!(
        text,
        "- {}, {} cores ({}), Linux {}, everything on this machine's loopback",
        jiff::Timestamp::now().strftime("%Y-%m-%d"),
        std::thread::available_parallelism()?,
        cpu.trim_start_matches([' ', '\t', ':']),
        uname.release().to_string_lossy(),
    )?;
    writeln!(text, "- kube-apiserver {server} and etcd without fsync, audit log at Metadata")?;
    writeln!(
        text,
        "- k8sensus {} at {revision}{}, {rust}, profile `dist`, linked statically",
        env!("CARGO_PKG_VERSION"),
        if changed.is_empty() { "" } else { " with changes" },
    )?;
    writeln!(text, "- client-go {}, {}, stripped", client_go_version()?, go.trim_start_matches("go version "))?;
    writeln!(
        text,
        "- Graceful handovers ran one at a time with nothing else under way, the other failovers {} at a time.",
        crate::lanes::LANES
    )?;
    text.push_str(
        "- A cut is a TCP proxy that goes silent: connections stay open, new ones are accepted, nothing passes. An \
         outage cuts off leader and standby.\n- p99 and max are the same where n is below 100.\n\n",
    );
    text.push_str(
        "`cargo rivals` repeats this; `K8SENSUS_BENCH_N=3 cargo rivals` takes a few minutes and leaves this file \
         alone.\n",
    );
    Ok(())
}

fn output_of(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

fn client_go_version() -> Result<String, Error> {
    let module = fs::read_to_string(root().join("tests/fixtures/client-go/go.mod"))?;
    let version = module.lines().find_map(|line| line.trim().strip_prefix("k8s.io/client-go "));
    Ok(version.ok_or("go.mod names no client-go")?.to_owned())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn two_digits(ratio: f64) -> String {
    let digits = (1.0 - ratio.abs().log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{ratio:.digits$}")
}
