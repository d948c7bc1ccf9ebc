//! The output of `kubectl explain` for each of our objects. It shows a changed description as the user reads it.

use crate::support::{kubectl, shared, within};

/// The objects of the resource, except for those of Kubernetes.
const OBJECTS: &[&str] = &[
    "electiongroup",
    "electiongroup.spec",
    "electiongroup.spec.candidate",
    "electiongroup.spec.election",
    "electiongroup.spec.serviceAccount",
    "electiongroup.spec.leaderService",
    "electiongroup.spec.leaderService.ports",
    "electiongroup.spec.podDisruptionBudget",
    "electiongroup.status",
    "electiongroup.status.leader",
    "electiongroup.status.candidate",
    "electiongroup.status.leaderless",
    "electiongroup.status.history",
    "electiongroup.status.injection",
    "electiongroup.status.rollout",
];

/// The API server publishes the schemas of CRDs a moment after it serves them. If it fails to collect them while it
/// starts, it tries again after one minute, then after two (kube-aggregator's OpenAPI v3 controller).
fn wait_until_explain_works() {
    within(240, "kubectl explain electiongroup", || {
        shared().kubectl().args(["explain", "electiongroup"]).output().unwrap().status.success().then_some(())
    });
}

#[test]
fn explain_output_of_each_object_matches_its_snapshot() {
    wait_until_explain_works();
    let texts: Vec<String> = OBJECTS.iter().map(|object| kubectl(shared(), &["explain", object])).collect();
    insta::assert_snapshot!("explain", texts.join("\n----\n\n"));
}

#[test]
fn explain_lists_every_field_with_its_type() {
    wait_until_explain_works();
    let text = kubectl(shared(), &["explain", "electiongroup", "--recursive"]);
    let depth = |line: &str| line.len() - line.trim_start().len();
    let mut template = None;
    let ours = text.lines().filter(|line| {
        if template.is_some_and(|outer| depth(line) > outer) {
            return false;
        }
        template = line.trim_start().starts_with("template\t").then(|| depth(line));
        true
    });
    insta::assert_snapshot!("fields", ours.collect::<Vec<_>>().join("\n"));
}
