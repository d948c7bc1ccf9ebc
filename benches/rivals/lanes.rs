//! Runs trials, one at a time or many side by side, and reports the progress.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::contender::World;
use crate::stamps::now;
use crate::trial::{Outcome, Trial};

/// Most of a trial is waiting, so two cores carry many.
pub const LANES: usize = 16;
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// A trial and its result.
pub type Done = (Trial, Result<Outcome, String>);

/// Estimates the duration of all trials: at least that of the longest.
pub fn estimate(trials: &[Trial], lanes: usize) -> Duration {
    let total: Duration = trials.iter().map(Trial::estimate).sum();
    let longest = trials.iter().map(Trial::estimate).max().unwrap_or_default();
    longest.max(total / u32::try_from(lanes).unwrap_or(u32::MAX))
}

/// Runs the trials in their order, `lanes` at a time. A failed trial has an error as its result and stops no other.
pub fn run(world: &World, what: &str, trials: Vec<Trial>, lanes: usize) -> Vec<Done> {
    let total = trials.len();
    println!("{what}: {total} trials, {lanes} at a time, about {}", minutes(estimate(&trials, lanes)));
    let queue = Mutex::new(VecDeque::from(trials));
    let done = Mutex::new(Vec::with_capacity(total));
    thread::scope(|scope| {
        for _ in 0..lanes.min(total) {
            scope.spawn(|| {
                loop {
                    let Some(trial) = lock(&queue).pop_front() else { break };
                    let result = catch_unwind(AssertUnwindSafe(|| trial.run(world).map_err(|error| error.to_string())));
                    let result = result.unwrap_or_else(|_| Err("it panicked, see above".to_owned()));
                    if let Err(error) = &result {
                        eprintln!("  {} {}, {}: {error}", trial.fault, trial.durations, trial.contender);
                    }
                    lock(&done).push((trial, result));
                }
            });
        }
        let mut next = now() + REPORT_EVERY;
        loop {
            let finished = lock(&done).len();
            if finished == total {
                break;
            }
            if now() >= next {
                next += REPORT_EVERY;
                let left: Vec<Trial> = lock(&queue).iter().copied().collect();
                let under_way = total - finished - left.len();
                let left = match left.is_empty() {
                    true => "the last ones".to_owned(),
                    false => format!("about {} left", minutes(estimate(&left, lanes))),
                };
                println!("  {finished} of {total} done, {under_way} under way, {left}");
            }
            thread::sleep(Duration::from_millis(50));
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn minutes(time: Duration) -> String {
    format!("{}:{:02} min", time.as_secs() / 60, time.as_secs() % 60)
}
