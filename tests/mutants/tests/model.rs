//! Checks the original election exhaustively within the bounds of each family of faults. `K8SENSUS_MODEL=long` widens
//! the bounds: that takes hours and gigabytes.
//!
//! It belongs to the package of the mutants because that package is compiled with optimization: the check visits
//! millions of states.

#![allow(clippy::disallowed_methods, reason = "checks are timed in real time")]

use k8sensus as subject;

#[path = "../../election/model/mod.rs"]
mod model;

use model::{Family, check};

#[test]
fn no_state_of_the_model_breaks_a_law() {
    let is_long = std::env::var("K8SENSUS_MODEL").is_ok_and(|value| value == "long");
    let reports: Vec<_> = Family::all(is_long).into_iter().map(check).inspect(|report| println!("{report}")).collect();
    for report in &reports {
        if let Some((law, trace)) = &report.broken {
            panic!("{report}\nbroken: {law}\n{}", trace.join("\n"));
        }
        assert!(report.is_lively, "{report}: the Lease never changed hands");
    }
    let states: usize = reports.iter().map(|report| report.states).sum();
    println!("{states} states in all");
    assert!(states > 1_000_000, "only {states} states");
}
