//! `cargo scale`: the operator with 100 and 1,000 groups on a real API server, beside a naive controller for the same
//! groups in the same run.
//!
//! Writes docs/scale.md. With any of these variables set it is a trial run and writes into the target folder instead:
//! `K8SENSUS_BENCH_GROUPS=10,100`, `K8SENSUS_BENCH_N` (changes of holders), `K8SENSUS_BENCH_IDLE_SECONDS`,
//! `K8SENSUS_BENCH_ONLY=k8sensus` (one contender). Fails on counts of requests and reconciles, never on a time.

#![allow(clippy::disallowed_methods, reason = "wall-clock time is what is measured")]

mod audit;
mod contender;
#[path = "../rivals/process.rs"]
mod process;
mod report;
#[path = "../rivals/sample.rs"]
#[allow(dead_code, reason = "rivals also plots the values")]
mod sample;
#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod support;
mod trial;
mod world;

use std::env;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use contender::{Contender, Programs};
use k8sensus_runtime::shutdown::Shutdown;
use report::Results;
use trial::{Plan, Trial};

const SIZES: [usize; 2] = [100, 1_000];
const CHANGES: usize = 100;
const IDLE_SECONDS: usize = 60;

pub type Error = Box<dyn std::error::Error>;

fn main() -> Result<ExitCode, Error> {
    let (sizes, changes, idle) = ("K8SENSUS_BENCH_GROUPS", "K8SENSUS_BENCH_N", "K8SENSUS_BENCH_IDLE_SECONDS");
    let only = env::var("K8SENSUS_BENCH_ONLY").ok();
    let is_trial_run = only.is_some() || [sizes, changes, idle].iter().any(|name| env::var_os(name).is_some());
    let sizes = numbers(sizes, &SIZES)?;
    let plan = Plan {
        changes: numbers(changes, &[CHANGES])?[0],
        renewals: numbers(changes, &[CHANGES])?[0],
        idle: Duration::from_secs(numbers(idle, &[IDLE_SECONDS])?[0] as u64),
    };
    let trials = trials(&sizes, only.as_deref())?;
    let all: Duration = trials.iter().map(|trial| trial.estimate(plan)).sum();
    println!("{} trials; about {:.0} min once the programs are built", trials.len(), all.as_secs_f64() / 60.0);

    let programs = Programs::build()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    clean_up_on_signal(&runtime)?;
    k8sensus_runtime::tls::use_ring();
    let mut results = Results { plan, trials: Vec::new() };
    let mut left = all;
    for trial in trials {
        println!("{:.0} min left", left.as_secs_f64() / 60.0);
        left = left.saturating_sub(trial.estimate(plan));
        let outcome = runtime.block_on(trial.run(plan, &programs)).map_err(|error| error.to_string());
        if let Err(error) = &outcome {
            println!("[{}, {} groups] {error}", trial.contender, trial.groups);
        }
        results.trials.push((trial, outcome));
    }

    let text = results.markdown()?;
    println!("\n{text}");
    let folder = if is_trial_run { env!("CARGO_TARGET_TMPDIR").into() } else { support::root().join("docs") };
    let path = folder.join("scale.md");
    fs::write(&path, text)?;
    println!("written: {}", path.display());
    let verdict = results.verdict();
    for fault in &verdict {
        eprintln!("FAILED: {fault}");
    }
    Ok(if verdict.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the trials: contenders in turn, in reverse order for every other size.
fn trials(sizes: &[usize], only: Option<&str>) -> Result<Vec<Trial>, Error> {
    let mut trials = Vec::new();
    for (turn, groups) in sizes.iter().copied().enumerate() {
        let mut contenders = Contender::ALL;
        if turn % 2 == 1 {
            contenders.reverse();
        }
        let wanted = contenders.into_iter().filter(|contender| only.is_none_or(|only| contender.to_string() == only));
        trials.extend(wanted.map(|contender| Trial { contender, groups }));
    }
    if trials.is_empty() {
        let names = Contender::ALL.map(|contender| contender.to_string()).join(", ");
        return Err(format!("K8SENSUS_BENCH_ONLY must be one of {names}; found {}", only.unwrap_or_default()).into());
    }
    Ok(trials)
}

fn numbers(variable: &str, default: &[usize]) -> Result<Vec<usize>, Error> {
    let Ok(text) = env::var(variable) else { return Ok(default.to_vec()) };
    let numbers: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
    let numbers = numbers.ok().filter(|numbers| !numbers.contains(&0));
    numbers.ok_or_else(|| format!("{variable} must be numbers above 0, separated by commas; found {text:?}").into())
}

/// Removes the logs on a signal. Processes die with this one anyway, and `atexit` takes the control plane down.
fn clean_up_on_signal(runtime: &tokio::runtime::Runtime) -> Result<(), Error> {
    let _inside = runtime.enter();
    let mut shutdown = Shutdown::listen()?;
    runtime.spawn(async move {
        let signal = shutdown.requested().await;
        eprintln!("{signal}: cleaning up");
        let logs = format!("{}-", std::process::id());
        for entry in fs::read_dir(env!("CARGO_TARGET_TMPDIR")).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&logs) {
                let _ = fs::remove_file(entry.path());
            }
        }
        std::process::exit(130);
    });
    Ok(())
}
