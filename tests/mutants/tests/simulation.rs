//! Simulates the original campaign with many seeds. It belongs to the package of the mutants because that package is
//! compiled with optimization.

#![allow(clippy::disallowed_methods, reason = "prints the duration")]

use std::time::Instant;

use k8sensus as subject;

#[path = "../../campaign/simulation/mod.rs"]
mod simulation;

use simulation::{Outcome, run, search};

/// The default number of seeds without `K8SENSUS_SEEDS`: in CI, and elsewhere.
const SEEDS: (u64, u64) = (100_000, 20_000);

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: expected a number, found {text}")))
}

fn fail(seed: u64, outcome: &Outcome) -> ! {
    println!("{}", outcome.history.join("\n"));
    panic!(
        "seed {seed}: {}\nrepeat it with: K8SENSUS_SEED={seed} cargo test -p k8sensus-mutants --test simulation no_seed",
        outcome.violation.as_deref().unwrap_or("no violation when repeated")
    );
}

#[test]
fn no_seed_shows_two_leaders_a_lower_token_or_no_leader() {
    if let Some(seed) = number("K8SENSUS_SEED") {
        let outcome = run(seed, true);
        if outcome.violation.is_some() {
            fail(seed, &outcome);
        }
        return println!("{}\nseed {seed}: {:#?}", outcome.history.join("\n"), outcome.counts.0);
    }
    let seeds = number("K8SENSUS_SEEDS").unwrap_or(if std::env::var_os("CI").is_some() { SEEDS.0 } else { SEEDS.1 });
    let start = Instant::now();
    let (counts, failure) = search(0..seeds);
    if let Some((seed, outcome)) = failure {
        fail(seed, &outcome);
    }
    let time = start.elapsed();
    println!("{seeds} seeds in {:.1} s, {:.0} a second", time.as_secs_f64(), seeds as f64 / time.as_secs_f64());
    for (what, times) in &counts.0 {
        println!("{times:>12} {what}");
    }
    for what in
        ["terms", "elections by expiry", "elections by release", "freezes", "silent cuts", "429", "watches ended, 410"]
    {
        assert!(counts.0.get(what).is_some_and(|times| *times > 0), "the simulation never had: {what}");
    }
}

#[test]
fn a_seed_always_produces_the_same_history() {
    for seed in 0..40 {
        assert_eq!(run(seed, true).history, run(seed, true).history, "seed {seed}");
    }
}
