//! The model must find every flaw that the table assigns to it. Otherwise its verdict on the original means little.

#![allow(clippy::disallowed_methods, reason = "checks are timed in real time")]

use k8sensus_mutants as subject;

#[path = "../../election/model/mod.rs"]
mod model;

use model::{Family, check};
use subject::{FLAWS, FoundBy, Rule};

/// `K8SENSUS_FLAW=<part of a name>` selects flaws. A single test, because only one flaw at a time can be switched on.
#[test]
fn every_flaw_is_found_by_its_model() {
    let mut survivors = Vec::new();
    let wanted = std::env::var("K8SENSUS_FLAW").unwrap_or_default();
    assert!(FLAWS.iter().any(|flaw| flaw.name.contains(&wanted)), "K8SENSUS_FLAW={wanted:?} is in no flaw's name");
    for flaw in FLAWS.iter().filter(|flaw| flaw.name.contains(&wanted)) {
        let (FoundBy::Model(name) | FoundBy::ModelAlone(name)) = flaw.found_by else { continue };
        let family = Family::all(false).into_iter().find(|family| family.name == name);
        subject::switch_on(flaw);
        let report = check(family.unwrap_or_else(|| panic!("unknown family {name:?}")));
        subject::switch_off();
        println!("{:?}: {}\n  in {report}", flaw.rule, flaw.name);
        match &report.broken {
            Some((law, trace)) => println!("  broke {law:?}\n  {}", trace.join("\n  ")),
            None => survivors.push(flaw.name),
        }
    }
    assert!(survivors.is_empty(), "found by no model: {survivors:#?}");
}

#[test]
fn every_rule_has_a_flaw() {
    for rule in Rule::ALL {
        assert!(FLAWS.iter().any(|flaw| flaw.rule == rule), "{rule:?} has none");
    }
}
