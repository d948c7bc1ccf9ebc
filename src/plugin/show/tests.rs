//! The screens of groups in each state, at the widths of terminals.

use insta::assert_snapshot;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{Page, history, list, span, status};
use crate::api::names::{PROVEN_GATE, annotation, label};
use crate::api::{ElectionGroup, GROUP, KIND, VERSION};
use crate::picture::{Facts, Picture, picture, summaries};

const PIPE: Page = Page { width: None, colours: false, wide: false };
const NARROW: Page = Page { width: Some(40), colours: false, wide: false };

fn object<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    // The pod template is kept as raw JSON, which only a parse from text can produce.
    serde_json::from_str(&value.to_string()).unwrap()
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({ "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-11-30T11:00:00Z" })
}

fn change(time: &str, pod: &str, reason: &str, leaderless: f64, transitions: i32) -> Value {
    json!({ "time": format!("2026-11-30T{time}.000000Z"), "holderIdentity": pod, "reason": reason,
        "leaderlessSeconds": leaderless, "leaseTransitions": transitions })
}

fn group(spec: Value, status: Value) -> ElectionGroup {
    let mut full = json!({ "replicas": 2, "image": "kestrel:1", "command": ["/kestrel"] });
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    object(&json!({ "apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND,
        "metadata": { "name": "kestrel", "namespace": "aviary", "generation": 3 }, "spec": full, "status": status }))
}

/// The status of a group that `kestrel-7d9f-b` leads.
fn led_status() -> Value {
    json!({
        "observedGeneration": 3, "replicas": 2, "readyReplicas": 2, "updatedReplicas": 2, "leaseName": "kestrel",
        "operator": "k8sensus-system/k8sensus-operator",
        "holderIdentity": "kestrel-7d9f-b", "acquireTime": "2026-11-30T11:55:00.000000Z", "leaseTransitions": 7,
        "leader": { "podName": "kestrel-7d9f-b", "nodeName": "node-2", "podIP": "10.0.0.2", "podTemplateHash": "7d9f" },
        "candidate": { "image": "registry.example/k8sensus:0.1.0", "version": "0.1.0" },
        "rollout": { "provenRevision": "5c6b" },
        "history": [
            change("11:55:00", "kestrel-7d9f-b", "SteppedDown", 0.112, 7),
            change("10:00:00", "kestrel-7d9f-a", "LeaseExpired", 14.31, 6),
            change("09:00:00", "kestrel-7d9f-b", "Elected", 0.0, 1),
        ],
        "conditions": [
            condition("Ready", "True", "LeaderElected", "kestrel-7d9f-b leads"),
            condition("LeaderElected", "True", "LeaseHeld", "kestrel-7d9f-b holds lease aviary/kestrel"),
            condition("FailoverReady", "True", "StandbyReady", "1 standby is ready"),
        ],
    })
}

fn lease(holder: &str, renewed: &str) -> Lease {
    object(&json!({ "metadata": { "name": "kestrel", "namespace": "aviary" }, "spec": {
        "holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 7,
        "acquireTime": "2026-11-30T11:55:00.000000Z", "renewTime": format!("2026-11-30T{renewed}Z") } }))
}

fn pod(name: &str, node: &str, status: Value) -> Pod {
    let labels = json!({ (label::GROUP): "kestrel", (label::REVISION): "5c6b" });
    object(&json!({ "metadata": { "name": name, "labels": labels, "creationTimestamp": "2026-11-30T09:00:00Z" },
        "spec": { "nodeName": node, "containers": [{ "name": "app" }] }, "status": status }))
}

fn ready() -> Value {
    json!({ "podIP": "10.0.0.2", "conditions": [{ "type": "Ready", "status": "True" }],
        "containerStatuses": [{ "name": "app", "ready": true, "restartCount": 1, "image": "", "imageID": "" }] })
}

fn crashed() -> Value {
    json!({ "conditions": [{ "type": "Ready", "status": "False" }], "containerStatuses": [{ "name": "app", "ready": false,
        "restartCount": 4, "image": "", "imageID": "", "state": { "waiting": { "reason": "CrashLoopBackOff" } } }] })
}

fn facts(group: ElectionGroup, lease: Option<Lease>, pods: Vec<Pod>) -> Facts {
    let now: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
    Facts { group, lease: Ok(lease), pods: Ok(pods), events: Ok(Vec::new()), operator_lease: None, now }
}

fn led() -> Facts {
    let pods = vec![pod("kestrel-7d9f-a", "node-1", ready()), pod("kestrel-7d9f-b", "node-2", ready())];
    facts(group(json!({}), led_status()), Some(lease("kestrel-7d9f-b", "11:59:58.800000")), pods)
}

fn screen(facts: &Facts) -> String {
    status(&picture(facts), PIPE)
}

#[test]
fn led_group() {
    assert_snapshot!(screen(&led()));
}

#[test]
fn led_group_with_more_columns() {
    assert_snapshot!(status(&picture(&led()), Page { wide: true, ..PIPE }));
}

#[test]
fn led_group_on_a_narrow_terminal() {
    let text = status(&picture(&led()), NARROW);
    assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
    assert_snapshot!(text);
}

#[test]
fn colours_change_no_letter() {
    let coloured = status(&picture(&led()), Page { colours: true, ..PIPE });
    assert!(
        coloured.contains("\u{1b}[32mLeader\u{1b}[0m") && coloured.contains("\u{1b}[34mStandby\u{1b}[0m"),
        "{coloured}"
    );
    let mut plain = coloured;
    for code in ["\u{1b}[32m", "\u{1b}[33m", "\u{1b}[34m", "\u{1b}[31m", "\u{1b}[1m", "\u{1b}[0m"] {
        plain = plain.replace(code, "");
    }
    assert_eq!(plain, screen(&led()));
}

#[test]
fn leaderless_group_whose_pods_crash() {
    let mut status = led_status();
    status["holderIdentity"] = json!("");
    status["leader"] = Value::Null;
    status["readyReplicas"] = json!(0);
    status["leaderless"] = json!({ "since": "2026-11-30T11:58:30.000000Z", "reason": "LeaseExpired" });
    let cause = "pod kestrel-7d9f-a: container app: CrashLoopBackOff";
    let message = &format!("lease aviary/kestrel expired: kestrel-7d9f-b stopped renewing it; {cause}");
    status["conditions"] = json!([
        condition("Ready", "False", "NoLeader", message),
        condition("LeaderElected", "False", "LeaseExpired", message),
        condition("FailoverReady", "False", "NoReadyStandby", &format!("no standby is ready; {cause}")),
    ]);
    let mut leaving = pod("kestrel-7d9f-c", "node-1", json!({}));
    leaving.metadata.deletion_timestamp = leaving.metadata.creation_timestamp.clone();
    let pods = vec![pod("kestrel-7d9f-a", "node-1", crashed()), pod("kestrel-7d9f-b", "node-2", crashed()), leaving];
    assert_snapshot!(screen(&facts(group(json!({}), status), Some(lease("kestrel-7d9f-b", "11:58:15.000000")), pods)));
}

#[test]
fn stalled_group_with_pending_requests() {
    let mut status = led_status();
    status["rollout"] =
        json!({ "provenRevision": "5c6b", "failedRevision": "1a2b", "message": "its program exited with 3" });
    let failed = "revision 1a2b of the pod template failed: its program exited with 3; change spec.template or spec.image, or undo the change";
    status["conditions"].as_array_mut().unwrap().extend([
        condition("Stalled", "True", "RevisionFailed", failed),
        condition("CandidateOutdated", "True", "UpdatePending", "the requested update waits until the spec is valid"),
    ]);
    let mut group = group(json!({}), status);
    group.metadata.annotations = Some(
        [annotation::STEP_DOWN_REQUESTED_AT, annotation::UPDATE_CANDIDATE_REQUESTED_AT]
            .map(|key| (key.to_owned(), "2026-11-30T11:59:00Z".to_owned()))
            .into(),
    );
    let mut facts = Facts { group, ..led() };
    let note = "no standby is ready to follow kestrel-7d9f-b on lease aviary/kestrel";
    facts.events = Ok(vec![object(&json!({ "metadata": {}, "reason": "StepDownRefused", "note": note }))]);
    let mut unproven = pod("kestrel-1a2b-a", "node-1", ready());
    let conditions = [("Ready", "False"), ("ContainersReady", "True"), (PROVEN_GATE, "False")];
    let conditions = conditions.map(|(kind, status)| json!({ "type": kind, "status": status }));
    unproven.status = object(&json!({ "conditions": conditions }));
    facts.pods.as_mut().unwrap().push(unproven);
    assert_snapshot!(screen(&facts));
}

#[test]
fn suspended_group() {
    let mut status = led_status();
    for field in ["holderIdentity", "leader", "acquireTime", "history", "rollout", "candidate"] {
        status.as_object_mut().unwrap().remove(field);
    }
    status["readyReplicas"] = json!(0);
    status["updatedReplicas"] = json!(0);
    status["conditions"] = json!([
        condition("Ready", "False", "Suspended", "spec.suspend is true"),
        condition("LeaderElected", "False", "Suspended", "spec.suspend is true"),
        condition("FailoverReady", "False", "SingleReplica", "spec.suspend is true: there is no standby"),
    ]);
    let group = group(json!({ "suspend": true }), status);
    assert_snapshot!(screen(&facts(group, Some(lease("", "11:50:00.000000")), Vec::new())));
}

#[test]
fn group_that_no_operator_has_reconciled() {
    assert_snapshot!(screen(&facts(group(json!({}), json!({ "observedGeneration": -1 })), None, Vec::new())));
}

/// Without the right to read Leases and pods, and with an operator that is away, the rest is still shown.
#[test]
fn unreadable_parts_are_named() {
    let mut facts = led();
    facts.lease = Err("you may not get leases in namespace aviary".to_owned());
    facts.pods = Err("you may not list pods in namespace aviary".to_owned());
    facts.operator_lease = Some(lease("keeper", "11:00:00.000000"));
    facts.group.metadata.generation = Some(4);
    assert_snapshot!(screen(&facts));
}

#[test]
fn status_that_is_older_than_the_lease_is_not_shown_as_live() {
    let facts = Facts { lease: Ok(Some(lease("kestrel-7d9f-a", "11:59:59.000000"))), ..led() };
    let text = screen(&facts);
    assert!(text.contains("Leader       kestrel-7d9f-a on node node-1\n"), "{text}");
    assert!(text.contains("the status still names kestrel-7d9f-b as the leader"), "{text}");
}

#[test]
fn timeline_shows_gaps() {
    assert_snapshot!(history(&picture(&led()), PIPE));
}

#[test]
fn timeline_on_a_narrow_terminal() {
    assert_snapshot!(history(&picture(&led()), NARROW));
}

#[test]
fn list_of_all_namespaces() {
    let mut stalled = group(json!({ "paused": true }), led_status());
    stalled.metadata.name = Some("owl".to_owned());
    let failed = condition("Stalled", "True", "RevisionFailed", "it failed");
    stalled.status.as_mut().unwrap().conditions.push(object(&failed));
    let groups = [led().group, stalled];
    let leases = Ok(vec![lease("kestrel-7d9f-b", "11:59:58.800000")]);
    let lines = summaries(&groups, &leases, led().now);
    assert_snapshot!(list(&lines, Page { wide: true, ..PIPE }, true));
    assert_snapshot!(list(&lines, NARROW, true));
}

#[test]
fn machine_readable_status() {
    let picture: Picture = picture(&led());
    assert_snapshot!(serde_json::to_string_pretty(&picture).unwrap());
}

/// No input may panic, however strange a Lease another client writes.
#[test]
fn hostile_lease_is_shown_in_one_line() {
    let mut hostile = lease("evil\u{1b}[2J\nname", "23:59:59.000000");
    hostile.spec.as_mut().unwrap().lease_duration_seconds = Some(i32::MIN);
    let text = screen(&Facts { lease: Ok(Some(hostile)), ..led() });
    assert!(!text.contains('\u{1b}') && text.contains("evil [2J name"), "{text}");
}

#[test]
fn span_is_that_of_kubectl() {
    let spans = [
        (-3.0, "0s"),
        (119.0, "119s"),
        (120.0, "2m"),
        (312.0, "5m12s"),
        (600.0, "10m"),
        (11_100.0, "3h5m"),
        (100_000.0, "27h"),
        (180_000.0, "2d2h"),
        (1e9, "11574d"),
    ];
    for (seconds, text) in spans {
        assert_eq!(span(seconds), text, "{seconds}");
    }
}
