//! Manifests and statuses on the wire.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8sensus_api::{ElectionGroup, ElectionGroupStatus, Mode, ServiceType};
use kube::core::{ObjectList, WatchEvent};
use serde_json::{Value, json};

fn group(spec: Value) -> ElectionGroup {
    let manifest = json!({
        "apiVersion": "k8sensus.dev/v1alpha1", "kind": "ElectionGroup", "metadata": { "name": "ledger" }, "spec": spec,
    });
    serde_json::from_value(manifest).expect("the manifest parses")
}

fn with_template() -> Value {
    json!({ "template": { "spec": { "containers": [{ "name": "main", "image": "ledger:1", "command": ["/ledger"] }] } } })
}

#[test]
fn minimal_manifest_gets_the_documented_defaults() {
    let spec = group(json!({ "image": "ledger:1", "command": ["/ledger"] })).spec;
    assert_eq!(spec.replicas, 2);
    assert_eq!(spec.candidate.mode, Mode::Exec);
    assert_eq!(spec.candidate.http_port, 4040);
    assert_eq!(spec.candidate.unhealthy_timeout_seconds, 30);
    assert_eq!(spec.candidate.stop_grace_period_seconds, None);
    assert_eq!(spec.election.lease_duration_seconds, 15);
    assert_eq!(spec.election.renew_deadline_seconds, 10);
    assert_eq!(spec.election.retry_period_seconds, 2);
    assert_eq!(spec.pod_disruption_budget.max_unavailable, IntOrString::Int(1));
    assert!(!spec.suspend && !spec.paused);
    assert!(spec.template.is_none() && spec.leader_service.is_none() && spec.service_account.is_none());
}

#[test]
fn partially_set_object_gets_the_other_defaults() {
    let spec = group(json!({
        "image": "ledger:1",
        "candidate": { "mode": "Native" },
        "election": { "leaseDurationSeconds": 60 },
        "leaderService": { "ports": [{ "port": 80 }] },
    }))
    .spec;
    assert_eq!((spec.candidate.mode, spec.candidate.http_port), (Mode::Native, 4040));
    assert_eq!((spec.election.lease_duration_seconds, spec.election.renew_deadline_seconds), (60, 10));
    assert_eq!(spec.leader_service.expect("it is set").type_, ServiceType::ClusterIP);
}

#[test]
fn computed_defaults_follow_their_fields() {
    let defaults = group(json!({ "image": "ledger:1" }));
    assert_eq!(defaults.effective_lease_name(), "ledger");
    assert_eq!(defaults.spec.election.effective_renew_interval_seconds(), 2);

    let set = group(json!({
        "image": "ledger:1",
        "candidate": { "stopGracePeriodSeconds": 1 },
        "election": { "leaseName": "books", "renewIntervalSeconds": 5 },
    }));
    assert_eq!(set.effective_lease_name(), "books");
    assert_eq!(set.spec.election.effective_renew_interval_seconds(), 5);
}

#[test]
fn template_keeps_its_json_from_text_and_from_a_value() {
    let from_value = group(with_template());
    let text = serde_json::to_string(&from_value).expect("it serialises");
    let from_text: ElectionGroup = serde_json::from_str(&text).expect("its own text parses");
    for parsed in [&from_value, &from_text] {
        let raw = parsed.spec.template.as_ref().expect("it is set").get();
        assert_eq!(serde_json::from_str::<Value>(raw).expect("it is JSON"), with_template()["template"]);
    }
}

#[test]
fn template_survives_lists_and_watch_events() {
    let object = serde_json::to_string(&group(with_template())).expect("it serialises");
    let list = format!(
        r#"{{"apiVersion":"k8sensus.dev/v1alpha1","kind":"ElectionGroupList","metadata":{{"resourceVersion":"7"}},"items":[{object}]}}"#
    );
    let list: ObjectList<ElectionGroup> = serde_json::from_str(&list).expect("a list parses");
    assert!(list.items[0].spec.template.is_some());

    let event = format!(r#"{{"type":"ADDED","object":{object}}}"#);
    let event: WatchEvent<ElectionGroup> = serde_json::from_str(&event).expect("a watch event parses");
    assert!(matches!(event, WatchEvent::Added(group) if group.spec.template.is_some()));
}

#[test]
fn unset_fields_are_not_sent() {
    let sent = serde_json::to_value(group(json!({ "image": "ledger:1" })).spec).expect("it serialises");
    let nulls = sent.as_object().expect("it is an object").values().filter(|value| value.is_null()).count();
    assert_eq!(nulls, 0, "{sent}");
    assert_eq!(sent["election"].as_object().expect("it is an object").len(), 3, "{sent}");
}

#[test]
fn group_of_a_newer_version_can_be_parsed() {
    let spec = group(json!({
        "image": "ledger:1",
        "candidate": { "mode": "Telepathy", "distance": 3 },
        "leaderService": { "type": "Carrier", "ports": [] },
        "colour": "green",
    }))
    .spec;
    assert_eq!(spec.candidate.mode, Mode::Unknown);
    assert_eq!(spec.leader_service.expect("it is set").type_, ServiceType::Unknown);
}

#[test]
fn empty_status_can_be_parsed_and_foreign_fields_are_ignored() {
    let empty: ElectionGroupStatus = serde_json::from_value(json!({})).expect("an empty status parses");
    assert_eq!(empty, ElectionGroupStatus::default());
    let foreign = json!({ "leader": { "shoeSize": 44 }, "history": [{}], "injection": {}, "mood": "good" });
    let foreign: ElectionGroupStatus = serde_json::from_value(foreign).expect("a foreign status parses");
    assert_eq!(foreign.history.len(), 1);
}

#[test]
fn status_round_trips_with_the_documented_names() {
    let status = json!({
        "observedGeneration": 3,
        "replicas": 2, "readyReplicas": 2, "updatedReplicas": 1,
        "selector": "k8sensus.dev/group=ledger",
        "leaseName": "ledger",
        "holderIdentity": "ledger-6c9f7d5b8-x2x7q",
        "acquireTime": "2026-11-22T15:00:00.123456Z",
        "leaseTransitions": 4,
        "leader": { "podName": "ledger-6c9f7d5b8-x2x7q", "nodeName": "n1", "podIP": "10.0.0.7", "podTemplateHash": "6c9f7d5b8" },
        "history": [{
            "time": "2026-11-22T15:00:00.123456Z", "holderIdentity": "ledger-6c9f7d5b8-x2x7q",
            "reason": "LeaseReleased", "leaderlessSeconds": 0.012,
        }],
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "LeaderElected", "message": "",
            "lastTransitionTime": "2026-11-22T15:00:01Z",
        }],
        "injection": { "image": "k8sensus:0.1", "revision": 1, "templateHash": "abc" },
        "lastHandledStepDownAt": "2026-11-22T14:59:00Z",
    });
    let parsed: ElectionGroupStatus = serde_json::from_value(status.clone()).expect("it parses");
    assert_eq!(serde_json::to_value(parsed).expect("it serialises"), status);
}
