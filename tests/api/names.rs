//! The words that others match on.

use std::collections::BTreeSet;

use k8sensus::api::names::{
    ConditionType, GROUP, KIND, MAX_NAME_LENGTH, RESERVED_PREFIX, SHORTCUT_CONTAINER, VERSION, annotation, label,
};
use k8sensus::api::rules::RULES;
use k8sensus::api::status::HISTORY_LIMIT;
use k8sensus::api::{ElectionGroup, Reason, crd};
use k8sensus::protocol::lease;
use kube::Resource;

#[test]
fn the_derived_resource_and_the_constants_agree() {
    assert_eq!(ElectionGroup::group(&()), GROUP);
    assert_eq!(ElectionGroup::version(&()), VERSION);
    assert_eq!(ElectionGroup::kind(&()), KIND);
}

#[test]
fn a_condition_has_the_reasons_of_the_design() {
    let words =
        |condition: ConditionType| condition.reasons().iter().map(Reason::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(words(ConditionType::Ready), "LeaderElected NoLeader InsufficientReplicas Suspended Invalid Conflict");
    assert_eq!(words(ConditionType::LeaderElected), "LeaseHeld LeaseExpired LeaseReleased NoCandidates Suspended");
    assert_eq!(
        words(ConditionType::FailoverReady),
        "StandbyReady SingleReplica NoReadyStandby StandbysOnSameNode LeaderFlapping"
    );
    assert_eq!(words(ConditionType::Reconciling), "RollingOut Scaling");
    assert_eq!(words(ConditionType::Stalled), "Invalid Conflict ProgressDeadlineExceeded Forbidden RevisionFailed");
    assert_eq!(
        words(ConditionType::CandidateOutdated),
        "InjectionNewer InjectionOlder ImageDiffers VersionDiffers UpdatePending"
    );
}

#[test]
fn condition_types_are_distinct() {
    let words: BTreeSet<_> = ConditionType::ALL.iter().map(|condition| condition.as_str()).collect();
    assert_eq!(words.len(), ConditionType::ALL.len());
}

#[test]
fn our_own_labels_and_annotations_are_reserved() {
    let ours = [
        label::GROUP,
        label::ROLE,
        label::REVISION,
        annotation::STEP_DOWN_REQUESTED_AT,
        annotation::UPDATE_CANDIDATE_REQUESTED_AT,
        lease::STEP_DOWN_OF,
        lease::STEP_DOWN_TO,
        lease::PROVEN_REVISION,
        lease::TRIAL,
        lease::SUSPENDED,
        lease::READY_OF,
        annotation::APPLIED_HASH,
    ];
    for name in ours {
        assert!(name.starts_with(RESERVED_PREFIX), "{name}");
    }
}

#[test]
fn limits_and_names_are_those_of_the_schema() {
    let said = |words: &str| RULES.iter().any(|rule| rule.rule.contains(words));
    assert!(said(&format!("self.metadata.name.size() <= {MAX_NAME_LENGTH}")));
    assert!(said(&format!("self.candidate.container == '{SHORTCUT_CONTAINER}'")));
    assert!(said(&format!("self.labels.all(k, !k.startsWith('{RESERVED_PREFIX}'))")));
    let crd = serde_json::to_value(crd()).expect("it is JSON");
    let status = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    assert_eq!(status["properties"]["history"]["maxItems"], HISTORY_LIMIT);
}
