//! The names that others match on.

use std::collections::BTreeSet;

use k8sensus_api::names::{
    ConditionType, GROUP, KIND, MAX_NAME_LENGTH, RESERVED_PREFIX, SHORTCUT_CONTAINER, VERSION, annotation, label,
};
use k8sensus_api::rules::RULES;
use k8sensus_api::status::HISTORY_LIMIT;
use k8sensus_api::{ElectionGroup, Reason, crd};
use k8sensus_protocol::lease;
use kube::Resource;

#[test]
fn derived_resource_and_constants_agree() {
    assert_eq!(ElectionGroup::group(&()), GROUP);
    assert_eq!(ElectionGroup::version(&()), VERSION);
    assert_eq!(ElectionGroup::kind(&()), KIND);
}

#[test]
fn each_condition_has_the_documented_reasons() {
    let reasons =
        |condition: ConditionType| condition.reasons().iter().map(Reason::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(reasons(ConditionType::Ready), "LeaderElected NoLeader InsufficientReplicas Suspended Invalid Conflict");
    assert_eq!(reasons(ConditionType::LeaderElected), "LeaseHeld LeaseExpired LeaseReleased NoCandidates Suspended");
    assert_eq!(
        reasons(ConditionType::FailoverReady),
        "StandbyReady SingleReplica NoReadyStandby StandbysOnSameNode LeaderFlapping"
    );
    assert_eq!(reasons(ConditionType::Reconciling), "RollingOut Scaling");
    assert_eq!(reasons(ConditionType::Stalled), "Invalid Conflict ProgressDeadlineExceeded Forbidden RevisionFailed");
    assert_eq!(
        reasons(ConditionType::CandidateOutdated),
        "InjectionNewer InjectionOlder ImageDiffers VersionDiffers UpdatePending"
    );
}

#[test]
fn condition_types_are_distinct() {
    let names: BTreeSet<_> = ConditionType::ALL.iter().map(|condition| condition.as_str()).collect();
    assert_eq!(names.len(), ConditionType::ALL.len());
}

#[test]
fn our_own_labels_and_annotations_are_reserved() {
    let ours = [
        label::GROUP,
        label::ROLE,
        label::REVISION,
        annotation::STEP_DOWN_REQUESTED_AT,
        annotation::UPDATE_CANDIDATE_REQUESTED_AT,
        annotation::RECREATED_LEASE_SECONDS,
        lease::CANDIDATE_VERSION,
        lease::INCARNATION,
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
fn limits_and_names_match_the_schema() {
    let has_rule = |text: &str| RULES.iter().any(|rule| rule.rule.contains(text));
    assert!(has_rule(&format!("self.metadata.name.size() <= {MAX_NAME_LENGTH}")));
    assert!(has_rule(&format!("self.candidate.container == '{SHORTCUT_CONTAINER}'")));
    assert!(has_rule(&format!("self.labels.all(k, !k.startsWith('{RESERVED_PREFIX}'))")));
    let crd = serde_json::to_value(crd()).expect("it is JSON");
    let status = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    assert_eq!(status["properties"]["history"]["maxItems"], HISTORY_LIMIT);
}
