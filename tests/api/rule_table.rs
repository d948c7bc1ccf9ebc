//! The table of cases itself: complete, and readable by our types.

use std::collections::BTreeSet;

use k8sensus::api::ElectionGroup;
use k8sensus::api::rules::RULES;
use serde_json::Value;

use super::hostile::manifests;
use super::rules::{cases, changes};

#[test]
fn every_rule_has_a_case_that_breaks_it() {
    let of_cases = cases().into_iter().map(|case| case.message);
    let of_changes = changes().into_iter().map(|change| change.message);
    let mut said: Vec<String> = of_cases.chain(of_changes).flatten().map(str::to_owned).collect();
    said.extend(manifests().into_iter().map(|manifest| manifest.expect));
    for rule in RULES {
        assert!(said.iter().any(|part| broken_by(rule.message, part)), "no case breaks: {}", rule.message);
    }
}

/// Whether a case's part of a message speaks of this rule; the numbers at the end of a message stand in no rule.
fn broken_by(message: &str, part: &str) -> bool {
    let words = part.split(": ").next().unwrap_or(part);
    message.contains(words)
}

#[test]
fn names_of_cases_are_distinct() {
    let mut seen = BTreeSet::new();
    for name in cases().iter().map(|case| case.name).chain(changes().iter().map(|change| change.name)) {
        assert!(seen.insert(name), "{name} twice");
    }
}

#[test]
fn what_is_accepted_parses() {
    for case in cases().into_iter().filter(|case| case.message.is_none()) {
        let parsed = serde_json::from_value::<ElectionGroup>(without_nulls(case.manifest));
        assert!(parsed.is_ok(), "{}: {parsed:?}", case.name);
    }
}

/// An API server drops an explicit null of the spec before it stores or hands out anything.
fn without_nulls(mut manifest: Value) -> Value {
    if let Value::Object(spec) = &mut manifest["spec"] {
        spec.retain(|_, field| !field.is_null());
    }
    manifest
}
