//! The conversion between the election's record and the Lease on the wire.

use k8sensus::campaign::{
    CANDIDATE_VERSION, INCARNATION, PROVEN_REVISION, STEP_DOWN_OF, STEP_DOWN_TO, apply_record, candidate_version,
    micro_time, snapshot_of,
};
use k8sensus_election::{Record, Version, WallTime};
use kube::api::DynamicObject;
use serde_json::{Value, json};

const ACQUIRED: WallTime = WallTime(1_772_366_400_000_000);
const RENEWED: WallTime = WallTime(1_772_366_401_000_070);

fn lease(text: Value) -> DynamicObject {
    serde_json::from_value(text).unwrap()
}

fn wire(lease: &DynamicObject) -> Value {
    serde_json::to_value(lease).unwrap()
}

fn with_spec(spec: Value) -> DynamicObject {
    lease(json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": "weir", "namespace": "river", "resourceVersion": "41" },
        "spec": spec,
    }))
}

/// Returns a Lease with many foreign fields.
fn foreign_lease() -> DynamicObject {
    lease(json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": "weir",
            "namespace": "river",
            "resourceVersion": "41",
            "uid": "5d7e",
            "labels": { "colour": "red" },
            "annotations": { "depth": "3", INCARNATION: "uid/app/0" },
            "finalizers": ["river.example/keep"],
            "ownerReferences": [{ "apiVersion": "v1", "kind": "ConfigMap", "name": "bank", "uid": "7c" }],
        },
        "spec": {
            "holderIdentity": "heron",
            "leaseDurationSeconds": 60,
            "acquireTime": "2026-03-01T11:00:00.000000Z",
            "renewTime": "2026-03-01T11:59:00.000000Z",
            "leaseTransitions": 7,
            "strategy": "OldestEmulationVersion",
            "preferredHolder": "otter",
            "tomorrow": { "field": [1, 2] },
        },
        "status": { "of": "the future" },
    }))
}

fn record() -> Record {
    Record {
        holder: "otter".to_owned(),
        duration_seconds: 15,
        acquire_time: Some(ACQUIRED),
        renew_time: Some(RENEWED),
        transitions: 8,
    }
}

#[test]
fn a_written_record_is_read_back_unchanged() {
    for record in [record(), Record { transitions: 0, ..record() }, Record::released(8, RENEWED)] {
        for mut lease in [with_spec(json!({})), with_spec(Value::Null), foreign_lease()] {
            apply_record(&mut lease, &record, Some("uid/app/1"));
            // Over the wire and back.
            let snapshot = snapshot_of(&self::lease(wire(&lease)));
            assert_eq!(snapshot.record, record);
            assert_eq!(snapshot.version, Version::new("41"));
            assert_eq!(snapshot.incarnation.as_deref(), Some("uid/app/1"));
        }
    }
}

#[test]
fn the_five_fields_have_kubernetes_names_and_formats() {
    let mut lease = with_spec(Value::Null);
    apply_record(&mut lease, &record(), Some("uid/app/1"));
    assert_eq!(
        wire(&lease),
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": "weir",
                "namespace": "river",
                "resourceVersion": "41",
                "annotations": { "k8sensus.dev/incarnation": "uid/app/1" },
            },
            "spec": {
                "holderIdentity": "otter",
                "leaseDurationSeconds": 15,
                "acquireTime": "2026-03-01T12:00:00.000000Z",
                "renewTime": "2026-03-01T12:00:01.000070Z",
                "leaseTransitions": 8,
            },
        })
    );
}

#[test]
fn a_first_term_and_a_release_have_all_five_fields_too() {
    let mut first = with_spec(json!({}));
    apply_record(&mut first, &Record { transitions: 0, ..record() }, Some("uid/app/1"));
    assert_eq!(wire(&first)["spec"]["leaseTransitions"], json!(0));

    let mut released = foreign_lease();
    apply_record(&mut released, &Record::released(0, RENEWED), None);
    let spec = &wire(&released)["spec"];
    // Empty, not null: client-go writes and expects an empty text.
    assert_eq!(spec["holderIdentity"], json!(""));
    assert_eq!(spec["leaseDurationSeconds"], json!(1));
    assert_eq!(spec["acquireTime"], json!("2026-03-01T12:00:01.000070Z"));
    assert_eq!(spec["renewTime"], spec["acquireTime"]);
    assert_eq!(spec["leaseTransitions"], json!(0));
}

#[test]
fn all_other_fields_are_preserved() {
    for (record, incarnation) in [(record(), Some("uid/app/1")), (Record::released(8, RENEWED), None)] {
        let mut lease = foreign_lease();
        apply_record(&mut lease, &record, incarnation);
        let (mut found, mut expected) = (wire(&lease), wire(&foreign_lease()));
        for text in [&mut found, &mut expected] {
            let spec = text["spec"].as_object_mut().unwrap();
            for ours in ["holderIdentity", "leaseDurationSeconds", "acquireTime", "renewTime", "leaseTransitions"] {
                assert!(spec.remove(ours).is_some(), "{ours}");
            }
            text["metadata"]["annotations"].as_object_mut().unwrap().remove(INCARNATION);
        }
        assert_eq!(found, expected);
    }
}

#[test]
fn a_release_removes_only_the_incarnation_annotation() {
    let mut lease = foreign_lease();
    apply_record(&mut lease, &Record::released(8, RENEWED), None);
    assert_eq!(snapshot_of(&lease).incarnation, None);
    assert_eq!(wire(&lease)["metadata"]["annotations"], json!({ "depth": "3" }));

    let mut bare = with_spec(json!({}));
    apply_record(&mut bare, &Record::released(8, RENEWED), None);
    assert!(wire(&bare)["metadata"].get("annotations").is_none());
}

#[test]
fn absent_null_or_invalid_fields_are_read_as_empty() {
    let number = |value: Value| json!({ "leaseDurationSeconds": value, "leaseTransitions": value });
    let specs = [
        Value::Null,
        json!({}),
        json!("none"),
        json!([1]),
        json!({
            "holderIdentity": null, "leaseDurationSeconds": null, "acquireTime": null, "renewTime": null,
            "leaseTransitions": null,
        }),
        json!({ "holderIdentity": 7, "acquireTime": 7, "renewTime": {} }),
        json!({ "acquireTime": "", "renewTime": "soon" }),
        json!({ "acquireTime": "2026-03-01", "renewTime": "99999-01-01T00:00:00Z" }),
        number(json!("15")),
        number(json!(1.5)),
        number(json!(2_147_483_648_i64)),
        number(json!(-2_147_483_649_i64)),
        number(json!(u64::MAX)),
    ];
    for spec in specs {
        assert_eq!(snapshot_of(&with_spec(spec.clone())).record, Record::default(), "{spec}");
    }
    let nothing = lease(json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {} }));
    let snapshot = snapshot_of(&nothing);
    assert_eq!(snapshot.record, Record::default());
    assert_eq!((snapshot.version, snapshot.incarnation), (Version::new(""), None));
}

#[test]
fn a_lease_without_a_spec_can_be_acquired() {
    for mut lease in [
        with_spec(Value::Null),
        with_spec(json!("none")),
        lease(json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "weir" } })),
    ] {
        apply_record(&mut lease, &record(), Some("uid/app/1"));
        assert_eq!(snapshot_of(&lease).record, record());
    }
}

#[test]
fn the_limits_of_int32_are_accepted() {
    for extreme in [i32::MIN, -1, 0, i32::MAX] {
        let record = Record { duration_seconds: extreme, transitions: extreme, ..record() };
        let mut lease = with_spec(json!({}));
        apply_record(&mut lease, &record, None);
        assert_eq!(snapshot_of(&lease).record, record);
    }
}

#[test]
fn other_formats_of_a_time_are_parsed() {
    let renew_time = |text: &str| snapshot_of(&with_spec(json!({ "renewTime": text }))).record.renew_time;
    for text in [
        "2026-03-01T12:00:01.000070Z",
        "2026-03-01T12:00:01.00007Z",
        "2026-03-01T12:00:01.000070999Z",
        "2026-03-01T13:00:01.000070+01:00",
    ] {
        assert_eq!(renew_time(text), Some(RENEWED), "{text}");
    }
    assert_eq!(renew_time("2026-03-01T12:00:00Z"), Some(ACQUIRED));
}

#[test]
fn a_micro_time_always_has_six_digits() {
    assert_eq!(micro_time(0), "1970-01-01T00:00:00.000000Z");
    assert_eq!(micro_time(ACQUIRED.0), "2026-03-01T12:00:00.000000Z");
    assert_eq!(micro_time(ACQUIRED.0 + 500_000), "2026-03-01T12:00:00.500000Z");
    assert_eq!(micro_time(RENEWED.0), "2026-03-01T12:00:01.000070Z");
    assert_eq!(micro_time(-1), "1969-12-31T23:59:59.999999Z");
    // A clock out of range must not cause a panic.
    assert_eq!(micro_time(i64::MAX), micro_time(0));
    assert_eq!(micro_time(i64::MIN), micro_time(0));
}

#[test]
fn a_successor_counts_only_for_the_term_of_the_step_down() {
    let successor = |of: Option<&str>| {
        let mut lease = with_spec(json!({ "leaseTransitions": 4 }));
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(STEP_DOWN_TO.to_owned(), "heron".to_owned());
        annotations.insert(PROVEN_REVISION.to_owned(), "7c9".to_owned());
        if let Some(of) = of {
            annotations.insert(STEP_DOWN_OF.to_owned(), of.to_owned());
        }
        let preference = snapshot_of(&lease).preference;
        assert_eq!(preference.revision.as_deref(), Some("7c9"));
        preference.successor
    };
    assert_eq!(successor(Some("4/uid/app/1")).as_deref(), Some("heron"));
    for of in
        [None, Some("3/uid/app/1"), Some("5/uid/app/1"), Some("4"), Some(""), Some("uid/app/1"), Some("44/uid/app/1")]
    {
        assert_eq!(successor(of), None, "{of:?}");
    }
}

#[test]
fn a_candidate_version_counts_only_for_the_present_term() {
    for (annotation, version) in [
        ("0.1.0 7/uid/app/1", Some("0.1.0")),
        ("1.2.3-rc.1+build 7/uid/app/1", Some("1.2.3-rc.1+build")),
        ("0.1.0 6/uid/app/1", None),
        ("0.1.0 7/uid/app/2", None),
        ("0.1.0", None),
        (" 7/uid/app/1", None),
        ("<b> 7/uid/app/1", None),
        (format!("{} 7/uid/app/1", "9".repeat(65)).as_str(), None),
    ] {
        let mut lease = foreign_lease();
        lease.metadata.annotations = Some(
            [(INCARNATION, "uid/app/1"), (CANDIDATE_VERSION, annotation)]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        );
        assert_eq!(candidate_version(&lease), version, "{annotation}");
    }
    let mut foreign = foreign_lease();
    foreign.metadata.annotations = Some([(CANDIDATE_VERSION.to_owned(), "0.1.0 7/uid/app/1".to_owned())].into());
    assert_eq!(candidate_version(&foreign), None, "a client without incarnations");
}
