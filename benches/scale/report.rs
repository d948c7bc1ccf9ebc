//! The results as text.

use std::fmt::Write;
use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::Error;
use crate::audit::Requests;
use crate::contender::Contender;
use crate::sample::{HumanTime, Sample};
use crate::support::root;
use crate::trial::{Outcome, Plan, Trial};

pub struct Results {
    pub plan: Plan,
    /// An error names what was expected and did not happen.
    pub trials: Vec<(Trial, Result<Outcome, String>)>,
}

/// One line of a size's table.
struct Row {
    title: &'static str,
    format: fn(&Outcome, usize, Plan) -> String,
    /// The value for the ratio to the others; `None` where a ratio is meaningless.
    value: Option<fn(&Outcome) -> f64>,
}

const ROWS: [Row; 15] = [
    Row {
        title: "start to the last group's status, with its children",
        format: |o, _, _| HumanTime(o.converged).to_string(),
        value: Some(|o| o.converged),
    },
    Row {
        title: "until then and at rest: writes per group",
        format: |o, groups, _| per(o.converging.writes(), groups),
        value: Some(|o| o.converging.writes() as f64),
    },
    Row { title: "until then and at rest: reads", format: |o, _, _| o.converging.reads().to_string(), value: None },
    Row {
        title: "until then and at rest: processor time",
        format: |o, _, _| time(o.processor_time),
        value: Some(|o| o.processor_time.as_secs_f64()),
    },
    Row {
        title: "resident without groups",
        format: |o, _, _| megabytes(o.resident_without_groups),
        value: Some(|o| o.resident_without_groups as f64),
    },
    Row {
        title: "resident, converged",
        format: |o, _, _| megabytes(o.resident_without_pods),
        value: Some(|o| o.resident_without_pods as f64),
    },
    Row {
        title: "resident, two pods for each group",
        format: |o, _, _| megabytes(o.resident),
        value: Some(|o| o.resident as f64),
    },
    Row { title: "resident, maximum until then", format: |o, _, _| megabytes(o.peak), value: Some(|o| o.peak as f64) },
    Row {
        title: "reconciles per change of holder",
        format: |o, _, plan| per(o.reconciles_changing, plan.changes),
        value: None,
    },
    Row {
        title: "writes per change of holder",
        format: |o, _, plan| per(o.changing.writes(), plan.changes),
        value: None,
    },
    Row {
        title: "reconciles per renewal of a Lease",
        format: |o, _, plan| per(o.reconciles_renewing, plan.renewals),
        value: None,
    },
    Row {
        title: "writes per renewal of a Lease",
        format: |o, _, plan| per(o.renewing.writes(), plan.renewals),
        value: None,
    },
    Row {
        title: "idle: writes, own renewals, reads, processor time",
        format: |o, _, _| {
            let Requests { own_renewals, .. } = o.idling;
            format!("{}, {own_renewals}, {}, {}", o.idling.writes(), o.idling.reads(), time(o.idle_processor_time))
        },
        value: None,
    },
    Row {
        title: "restart to a reconcile of each group",
        format: |o, _, _| HumanTime(o.restarted).to_string(),
        value: Some(|o| o.restarted),
    },
    Row {
        title: "restart: writes, reads",
        format: |o, _, _| format!("{}, {}", o.restarting.writes(), o.restarting.reads()),
        value: None,
    },
];

/// A time from the write of a Lease to the status, with its title.
type Shown = (&'static str, fn(&Outcome) -> &Sample);

const SHOWN: [Shown; 2] =
    [("write sent to status seen", |o| &o.from_sent), ("answer to status seen", |o| &o.from_answer)];

impl Results {
    /// Returns the violations, which are counts and never times.
    pub fn verdict(&self) -> Vec<String> {
        let ours = self.trials.iter().filter(|(trial, _)| trial.contender == Contender::Ours);
        ours.flat_map(|(trial, outcome)| {
            let faults = match outcome {
                Err(error) => vec![error.clone()],
                Ok(outcome) => self.faults(outcome),
            };
            faults.into_iter().map(|fault| format!("{} groups: {fault}", trial.groups))
        })
        .collect()
    }

    fn faults(&self, outcome: &Outcome) -> Vec<String> {
        let mut faults = Vec::new();
        let mut expect = |what: &str, wanted: usize, found: usize, requests: &Requests| {
            if wanted != found {
                faults.push(format!("{what}: expected {wanted}, found {found} ({})", requests.summary()));
            }
        };
        let changes = self.plan.changes;
        expect("writes after a restart", 0, outcome.restarting.writes(), &outcome.restarting);
        expect("idle writes", 0, outcome.idling.writes(), &outcome.idling);
        // A status and an Event for each change.
        expect("writes for changed holders", 2 * changes, outcome.changing.writes(), &outcome.changing);
        expect("reconciles for changed holders", changes, outcome.reconciles_changing, &outcome.changing);
        expect("writes for renewals", 0, outcome.renewing.writes(), &outcome.renewing);
        expect("reconciles for renewals", 0, outcome.reconciles_renewing, &outcome.renewing);
        faults
    }

    pub fn markdown(&self) -> Result<String, Error> {
        let mut text = String::from("<!-- Written by `cargo scale`; do not edit. -->\n# With many groups\n\n");
        text.push_str(
            "The operator beside two controllers for the same ElectionGroups on kube-rs \
             ([naive.rs](../benches/scale/naive.rs)). *Naive* is the result of a first tutorial: it owns the five \
             children, and applies each of them and the status in every reconcile. *Naive with caches* is one step \
             further: it keeps typed copies of what it watches and writes only differences. Neither elects, injects \
             health probes, shows conditions or recognizes foreign objects, and the one with caches does not repair an \
             edit by hand.\n\n",
        );
        let mut sizes: Vec<usize> = self.trials.iter().map(|(trial, _)| trial.groups).collect();
        sizes.dedup();
        for groups in sizes {
            self.size(&mut text, groups)?;
        }
        self.surroundings(&mut text)?;
        Ok(text)
    }

    fn of(&self, contender: Contender, groups: usize) -> Option<&Outcome> {
        let mut trials = self.trials.iter();
        let found = trials.find(|(trial, _)| trial.contender == contender && trial.groups == groups);
        found.and_then(|(_, outcome)| outcome.as_ref().ok())
    }

    fn size(&self, text: &mut String, groups: usize) -> Result<(), Error> {
        writeln!(text, "## {groups} groups\n")?;
        let [ours, others @ ..] = Contender::ALL;
        let names = Contender::ALL.map(|contender| contender.to_string());
        let ratios = others.map(|other| format!("{ours}/{other}"));
        writeln!(text, "| | {} | {} |\n|---|--:|--:|--:|--:|--:|", names.join(" | "), ratios.join(" | "))?;
        for row in &ROWS {
            write!(text, "| {} |", row.title)?;
            for contender in Contender::ALL {
                let cell = self.of(contender, groups).map(|outcome| (row.format)(outcome, groups, self.plan));
                write!(text, " {} |", cell.as_deref().unwrap_or("-"))?;
            }
            for other in others {
                let both = self.of(ours, groups).zip(self.of(other, groups)).zip(row.value);
                let ratio = both.map(|((ours, other), value)| value(ours) / value(other));
                write!(text, " {} |", ratio.map(two_digits).unwrap_or_default())?;
            }
            text.push('\n');
        }
        text.push_str("\n| another holder takes the Lease | | n | p50 | p90 | p99 | max | ratio of p50 |\n");
        text.push_str("|---|---|--:|--:|--:|--:|--:|--:|\n");
        for (title, times) in SHOWN {
            let p50 = |contender| self.of(contender, groups).map(|outcome| times(outcome).quantile(0.5));
            for contender in Contender::ALL {
                let Some(sample) = self.of(contender, groups).map(times) else { continue };
                write!(text, "| {title} | {contender} | {} |", sample.len())?;
                for share in [0.5, 0.9, 0.99, 1.0] {
                    write!(text, " {} |", HumanTime(sample.quantile(share)))?;
                }
                let ratio = p50(ours).zip(p50(contender)).filter(|_| contender != ours);
                writeln!(text, " {} |", ratio.map(|(ours, other)| two_digits(ours / other)).unwrap_or_default())?;
            }
        }
        for (trial, outcome) in &self.trials {
            if let (true, Err(error)) = (trial.groups == groups, outcome) {
                writeln!(text, "\n{} has no result: {error}.", trial.contender)?;
            }
        }
        text.push('\n');
        Ok(())
    }

    fn surroundings(&self, text: &mut String) -> Result<(), Error> {
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let cpu = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
        let uname = rustix::system::uname();
        let rust = output_of(Command::new("rustc").arg("--version"));
        let revision = output_of(Command::new("git").args(["rev-parse", "--short", "HEAD"]).current_dir(root()));
        let changed = output_of(Command::new("git").args(["status", "--porcelain", "src"]).current_dir(root()));
        writeln!(
            text,
            "## How it was measured\n\n\
             - {}, {} cores ({}), Linux {}, everything on this machine's loopback\n\
             - k8sensus {} at {revision}{}, {rust}; all programs profile `dist`, linked statically; 16 groups at a \
             time\n\
             - Each contender has a fresh etcd (without fsync) and kube-apiserver, audit log at Metadata, and a user \
             of its own, whose requests are counted in that log. They run one after the other, in reverse order for \
             every other size.\n\
             - There is no controller manager, because its rate limits and its requests would be measured too. So no \
             Deployment creates pods. The benchmark creates two pods for each group, from the Deployment's template, \
             and nothing starts them.\n\
             - The groups exist when the program starts. {} changes of holders, one every 0.1 s or more, each in the \
             next group; {} renewals, one every 0.05 s; then {} s idle, with Leases that last an hour.\n\
             - Own renewals are those of the Lease by which the operator's replicas elect; the others do not elect. \
             With fewer than 100 values p99 and max are the same.\n",
            jiff::Timestamp::now().strftime("%Y-%m-%d"),
            std::thread::available_parallelism()?,
            cpu.trim_start_matches([' ', '\t', ':']),
            uname.release().to_string_lossy(),
            env!("CARGO_PKG_VERSION"),
            if changed.is_empty() { "" } else { " with changes" },
            self.plan.changes,
            self.plan.renewals,
            self.plan.idle.as_secs(),
        )?;
        text.push_str(
            "`cargo scale` repeats this. `K8SENSUS_BENCH_GROUPS=10 cargo scale` takes a few minutes and leaves this \
             file alone.\n",
        );
        Ok(())
    }
}

fn output_of(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

fn per(count: usize, of: usize) -> String {
    format!("{:.2}", count as f64 / of as f64)
}

fn time(time: Duration) -> String {
    HumanTime(time.as_secs_f64()).to_string()
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn two_digits(ratio: f64) -> String {
    let digits = (1.0 - ratio.abs().log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{ratio:.digits$}")
}
