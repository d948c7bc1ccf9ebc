//! The simulation must find every flaw that it can show within [`SEEDS`] seeds.

#![allow(clippy::disallowed_methods, reason = "prints the duration")]

use std::time::Instant;

use k8sensus_mutants as subject;

#[path = "../../campaign/simulation/mod.rs"]
mod simulation;

use simulation::search;
use subject::{FLAWS, Flaw, FoundBy};

const SEEDS: u64 = 1_000;
/// The number of history lines that are printed before a violation.
const LAST: usize = 12;

/// `K8SENSUS_FLAW=<part of a name>` selects flaws. A single test, because only one flaw at a time can be switched on.
#[test]
fn every_flaw_is_found_within_a_thousand_seeds() {
    let wanted = std::env::var("K8SENSUS_FLAW").unwrap_or_default();
    assert!(FLAWS.iter().any(|flaw| flaw.name.contains(&wanted)), "K8SENSUS_FLAW={wanted:?} is in no flaw's name");
    let mut survivors = Vec::new();
    let can_be_shown = |flaw: &&Flaw| !matches!(flaw.found_by, FoundBy::ModelAlone(_));
    for flaw in FLAWS.iter().filter(|flaw| flaw.name.contains(&wanted)).filter(can_be_shown) {
        let start = Instant::now();
        subject::switch_on(flaw);
        let (_, failure) = search(0..SEEDS);
        subject::switch_off();
        let time = start.elapsed().as_secs_f64();
        match failure {
            Some((seed, outcome)) => {
                let violation = outcome.violation.unwrap_or_default();
                println!("{:?}: {}: seed {seed}, {time:.1} s: {violation}", flaw.rule, flaw.name);
                let last = outcome.history.len().saturating_sub(LAST);
                outcome.history[last..].iter().for_each(|line| println!("    {line}"));
            }
            None => {
                println!("{:?}: {}: SURVIVES {SEEDS} seeds, {time:.1} s", flaw.rule, flaw.name);
                survivors.push(flaw.name);
            }
        }
    }
    assert!(survivors.is_empty(), "not found within {SEEDS} seeds: {survivors:#?}");
}
