//! `cargo rivals`: this project's library beside client-go, in one run against one API server, at equal durations.
//!
//! Writes docs/rivals.md and docs/rivals.svg. With `K8SENSUS_BENCH_N` below 24 it is a trial run and writes into the
//! target folder instead. Fails if ours had two leaders at once, or lost leadership in an outage that its durations
//! tolerate; never on a time.

#![allow(clippy::disallowed_methods, reason = "wall-clock time is what is measured")]

mod contender;
mod lanes;
mod plot;
mod process;
mod proxy;
mod report;
mod sample;
#[allow(dead_code, reason = "only the clock of the stamps is read here")]
mod stamps;
mod steady;
#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod support;
mod trial;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use contender::{Contender, Durations, Programs, World};
use k8sensus_local::Cluster;
use k8sensus_runtime::shutdown::Shutdown;
use lanes::{LANES, minutes};
use report::Results;
use trial::{Fault, Trial};

const N: usize = 50;
/// Results of fewer trials are not published.
const LEAST_TO_PUBLISH: usize = 24;

pub type Error = Box<dyn std::error::Error>;

fn main() -> Result<ExitCode, Error> {
    let n = std::env::var("K8SENSUS_BENCH_N").ok().and_then(|n| n.parse().ok()).unwrap_or(N).max(1);
    let alone = alone(n);
    let side_by_side = side_by_side(n);
    let all = lanes::estimate(&alone, 1) + lanes::estimate(&side_by_side, LANES) + steady::ESTIMATE;
    println!("{} failovers; about {} once the programs are built", alone.len() + side_by_side.len(), minutes(all));

    let programs = Programs::build()?;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("rivals-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    clean_up_on_signal(&runtime, folder.clone())?;
    let cluster = Cluster::control_plane().audit(true).controller_manager(false).start()?;
    let world = World { cluster, runtime, programs, folder };
    let measured = measure(&world, alone, side_by_side);
    fs::remove_dir_all(&world.folder)?;
    let results = measured?;

    let target = if n < LEAST_TO_PUBLISH { env!("CARGO_TARGET_TMPDIR").into() } else { support::root().join("docs") };
    let [table, plot] = ["rivals.md", "rivals.svg"].map(|name| target.join(name));
    let text = results.markdown(&world)?;
    println!("\n{text}");
    fs::write(&table, text)?;
    fs::write(&plot, plot::svg(&results)?)?;
    println!("written: {} and {}", table.display(), plot.display());
    for fault in results.verdict() {
        eprintln!("FAILED: {fault}");
    }
    Ok(if results.verdict().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(world: &World, alone: Vec<Trial>, side_by_side: Vec<Trial>) -> Result<Results, Error> {
    let mut trials = lanes::run(world, "graceful handovers", alone, 1);
    trials.extend(lanes::run(world, "crashes, cuts and outages", side_by_side, LANES));
    Ok(Results { trials, costs: steady::measure(world)? })
}

/// Returns the trials that run alone, because milliseconds matter.
fn alone(n: usize) -> Vec<Trial> {
    [Durations::DEFAULT, Durations::SHORT]
        .into_iter()
        .flat_map(|durations| alternating(Fault::Graceful, durations, n, n))
        .collect()
}

/// Returns the trials that are mostly waiting. The longest come first, so that no lane is left with them at the end.
fn side_by_side(n: usize) -> Vec<Trial> {
    let half = n.div_ceil(2);
    [
        (Fault::Cut, Durations::DEFAULT, half, half),
        (Fault::Crash, Durations::DEFAULT, n, n),
        (Fault::Outage, Durations::DEFAULT, 2 * n, half),
        (Fault::Cut, Durations::SHORT, n, n),
        (Fault::Crash, Durations::SHORT, n, n),
    ]
    .into_iter()
    .flat_map(|(fault, durations, ours, theirs)| alternating(fault, durations, ours, theirs))
    .collect()
}

/// Alternates the contenders; the trials of the one with fewer are spread evenly.
fn alternating(fault: Fault, durations: Durations, ours: usize, theirs: usize) -> Vec<Trial> {
    let trial = |contender, number, of| Trial { fault, durations, contender, number, of };
    let all = |contender, of: usize| (0..of).map(move |number| trial(contender, number, of));
    let mut trials: Vec<Trial> = all(Contender::Ours, ours).chain(all(Contender::ClientGo, theirs)).collect();
    trials.sort_by(|a, b| (a.number * b.of).cmp(&(b.number * a.of)));
    trials
}

/// Removes the files on a signal. Processes die with this one anyway, and `atexit` takes the control plane down.
fn clean_up_on_signal(runtime: &tokio::runtime::Runtime, folder: PathBuf) -> Result<(), Error> {
    let _inside = runtime.enter();
    let mut shutdown = Shutdown::listen()?;
    runtime.spawn(async move {
        let signal = shutdown.requested().await;
        eprintln!("{signal}: cleaning up");
        let _ = fs::remove_dir_all(folder);
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
