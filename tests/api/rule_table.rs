//! The table of cases itself: it is complete, and our types can parse it.

use std::collections::BTreeSet;

use k8sensus_api::ElectionGroup;
use k8sensus_api::rules::RULES;
use serde_json::Value;

use super::hostile::manifests;
use super::rules::{cases, changes};

#[test]
fn every_rule_has_a_case_that_breaks_it() {
    let of_cases = cases().into_iter().map(|case| case.message);
    let of_changes = changes().into_iter().map(|change| change.message);
    let mut expected: Vec<String> = of_cases.chain(of_changes).flatten().map(str::to_owned).collect();
    expected.extend(manifests().into_iter().map(|manifest| manifest.expect));
    for rule in RULES {
        assert!(expected.iter().any(|part| broken_by(rule.message, part)), "no case breaks: {}", rule.message);
    }
}

/// Whether the expected part of a message belongs to this rule. The numbers at the end of a message are not part of the
/// rule.
fn broken_by(message: &str, part: &str) -> bool {
    let text = part.split(": ").next().unwrap_or(part);
    message.contains(text)
}

#[test]
fn names_of_cases_are_distinct() {
    let mut seen = BTreeSet::new();
    for name in cases().iter().map(|case| case.name).chain(changes().iter().map(|change| change.name)) {
        assert!(seen.insert(name), "{name} twice");
    }
}

#[test]
fn accepted_manifests_can_be_parsed() {
    for case in cases().into_iter().filter(|case| case.message.is_none()) {
        let parsed = serde_json::from_value::<ElectionGroup>(without_nulls(case.manifest));
        assert!(parsed.is_ok(), "{}: {parsed:?}", case.name);
    }
}

/// Removes explicit nulls from the spec, as an API server does before it stores or returns an object.
fn without_nulls(mut manifest: Value) -> Value {
    if let Value::Object(spec) = &mut manifest["spec"] {
        spec.retain(|_, field| !field.is_null());
    }
    manifest
}
