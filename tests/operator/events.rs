//! The Events of a group, as `kubectl describe` and `kubectl events` show them.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    apply, audit_position, candidate, condition, get, group, kubectl, namespace, operated, unusable, within,
    writes_since,
};

/// Returns the Events of the group kestrel, as (type, reason, related pod, count).
fn events_of(ns: &str) -> Vec<(String, String, String, i64)> {
    // kubectl prints nothing for an empty list.
    let Some(list) = get(operated(), ns, "events.events.k8s.io") else { return Vec::new() };
    let items = list["items"].as_array().unwrap().iter();
    let ours = items.filter(|event| event["regarding"]["kind"] == "ElectionGroup");
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut events: Vec<_> = ours
        .map(|event| {
            assert_eq!(event["reportingController"], "k8sensus-operator");
            assert_eq!(event["reportingInstance"], "keeper");
            let count = event["series"]["count"].as_i64().unwrap_or(1);
            (text(&event["type"]), text(&event["reason"]), text(&event["related"]["name"]), count)
        })
        .collect();
    events.sort();
    events
}

fn wait_for_event(ns: &str, kind: &str, reason: &str, pod: &str, count: i64) {
    let wanted = (kind.to_owned(), reason.to_owned(), pod.to_owned(), count);
    let what = format!("{wanted:?}");
    let mut last = Vec::new();
    let start = std::time::Instant::now();
    while !last.contains(&wanted) {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} is not in {last:?}");
        std::thread::sleep(Duration::from_millis(50));
        last = events_of(ns);
    }
}

#[test]
fn elections_and_losses_are_events_merged_by_pod() {
    let cluster = operated();
    let ns = namespace(cluster, "events");
    apply(cluster, &ns, &group("kestrel", json!({}))).unwrap();
    within(10, "the lease", || get(cluster, &ns, "lease/kestrel"));
    let lead = |name: &str| candidate(cluster, &ns, "kestrel", name, &["--create-lease=false"]);
    let limit = Duration::from_secs(5);

    let mut otter = lead("otter");
    wait_for_event(&ns, "Normal", "LeaderElected", "otter", 1);
    let heron = lead("heron");
    heron.wait_for("New leader is: otter", limit);
    otter.terminate(limit);
    wait_for_event(&ns, "Normal", "LeaderElected", "heron", 1);
    heron.signal(Signal::KILL);
    wait_for_event(&ns, "Warning", "LeaderLost", "heron", 1);
    let mut otter = lead("otter");
    let wait_for_otter = || {
        within(10, "otter in the status", || {
            (get(cluster, &ns, "electiongroup/kestrel")?["status"]["holderIdentity"] == "otter").then_some(())
        });
    };
    wait_for_otter();
    otter.terminate(limit);
    // Counted once or twice: the handover to heron may have wait_for_otter a free Lease for a moment.
    within(10, "the release", || {
        events_of(&ns).into_iter().find(|(_, reason, pod, _)| reason == "LeaderReleased" && pod == "otter")
    });
    // otter has now led as the first leader, and after an expiry. The Events that follow have the same text each time.
    for number in 1..=2 {
        let mut otter = lead("otter");
        wait_for_otter();
        wait_for_event(&ns, "Normal", "LeaderElected", "otter", number);
        otter.terminate(limit);
    }
    let described = kubectl(cluster, &["describe", "-n", &ns, "electiongroup/kestrel"]);
    println!("{described}");
    let events = described.split("Events:").nth(1).expect("it has Events");
    for line in
        ["otter leads: it is the first leader", "heron is no longer the leader: it did not renew the Lease in time"]
    {
        assert_eq!(events.matches(line).count(), 1, "{events}");
    }
    let repeated =
        events.lines().find(|line| line.contains("otter leads: its predecessor released the Lease")).unwrap();
    assert!(repeated.contains("(x2 over"), "{repeated}");

    kubectl(cluster, &["delete", "-n", &ns, "lease/kestrel"]);
    wait_for_event(&ns, "Warning", "LeaseRecreated", "-", 1);
}

#[test]
fn lasting_conflict_is_one_event_and_one_write() {
    let cluster = operated();
    let ns = namespace(cluster, "lasting");
    kubectl(cluster, &["create", "-n", &ns, "role", "kestrel", "--verb=get", "--resource=pods"]);
    let start = audit_position(cluster);
    apply(cluster, &ns, &group("kestrel", json!({}))).unwrap();
    wait_for_event(&ns, "Warning", "Conflict", "-", 1);
    // The operator reconciles every 10 s, and at every change of the group.
    for colour in ["red", "blue", "green"] {
        kubectl(cluster, &["label", "-n", &ns, "electiongroup/kestrel", "--overwrite", &format!("colour={colour}")]);
        std::thread::sleep(Duration::from_secs(4));
    }
    assert_eq!(events_of(&ns).len(), 1);
    let writes = writes_since(cluster, start, |event| {
        event["objectRef"]["resource"] == "events"
            && event["objectRef"]["namespace"] == ns.as_str()
            && event["objectRef"]["apiGroup"] == "events.k8s.io"
            && !event["userAgent"].as_str().unwrap_or_default().starts_with("kube")
    });
    assert_eq!(writes.len(), 1, "{writes:?}");
}

#[test]
fn repeated_refusal_is_counted() {
    let cluster = operated();
    let ns = namespace(cluster, "again");
    for count in 1..=2 {
        apply(cluster, &ns, &group("kestrel", unusable())).unwrap();
        // Reconciles of a lasting refusal are counted as well, but cause no write.
        within(10, "the Event", || {
            events_of(&ns).into_iter().find(|(_, reason, _, counted)| reason == "Invalid" && *counted >= count)
        });
        apply(cluster, &ns, &group("kestrel", json!({}))).unwrap();
        within(10, "the correction", || {
            get(cluster, &ns, "electiongroup/kestrel").filter(|group| condition(group, "Stalled").is_empty())
        });
        // Conditions have times in whole seconds.
        std::thread::sleep(Duration::from_millis(1_100));
    }
    assert_eq!(events_of(&ns).len(), 1);
}

#[test]
fn server_that_refuses_events_delays_nothing() {
    let cluster = operated();
    let ns = namespace(cluster, "mute");
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": ns },
        "spec": {
            "matchConstraints": {
                "resourceRules": [{
                    "apiGroups": ["events.k8s.io"], "apiVersions": ["v1"], "resources": ["events"], "operations": ["*"],
                }],
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": ns } },
            },
            "validations": [{ "expression": "false", "message": "no Events here" }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": ns }, "spec": { "policyName": ns, "validationActions": ["Deny"] },
    });
    apply(cluster, &ns, &policy).unwrap();
    apply(cluster, &ns, &binding).unwrap();
    let probe = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": "probe" },
        "eventTime": "2026-03-01T12:00:00.000000Z", "type": "Normal", "reason": "Probe", "action": "Probe",
        "reportingController": "probe", "reportingInstance": "probe",
        "regarding": { "kind": "Pod", "namespace": ns, "name": "probe" },
    });
    let mut number = 0;
    within(20, "the policy to be enforced", || {
        let mut probe = probe.clone();
        number += 1;
        probe["metadata"]["name"] = json!(format!("probe-{number}"));
        apply(cluster, &ns, &probe).is_err().then_some(())
    });
    apply(cluster, &ns, &group("kestrel", json!({}))).unwrap();
    within(10, "the lease", || get(cluster, &ns, "lease/kestrel"));
    let mut otter = candidate(cluster, &ns, "kestrel", "otter", &["--create-lease=false"]);
    let holder = |name: Option<&str>| {
        within(10, "the holder", || {
            let group = get(cluster, &ns, "electiongroup/kestrel")?;
            (group["status"]["holderIdentity"].as_str() == name && !group["status"]["history"].is_null()).then_some(())
        });
    };
    holder(Some("otter"));
    otter.terminate(Duration::from_secs(5));
    holder(None);
    assert_eq!(events_of(&ns), []);
}
