//! The observer's changes for given sights of a Lease and times.

use std::time::Duration;

use k8sensus::campaign::{INCARNATION, LeaseName};
use k8sensus_candidate::observe::{Change, How, Kind, LeaseSight, Observer, Sight, TokenSource, Verdict};
use k8sensus_election::{Moment, Reading, Version, WallTime};
use serde_json::{Value, json};

/// The wall clock is wrong on purpose: nothing may depend on it.
fn at(millis: u64) -> Reading {
    let wall = WallTime(1_772_366_400_000_000 - i64::try_from(millis).unwrap());
    Reading { moment: Moment::since_boot(Duration::from_millis(5_000_000 + millis)), wall }
}

struct Weir {
    observer: Observer,
}

impl Weir {
    fn new() -> Self {
        let lease = LeaseName { namespace: "river".to_owned(), name: "weir".to_owned() };
        Self { observer: Observer::new(lease) }
    }

    fn see(&mut self, millis: u64, how: How, lease: &Value) -> Vec<Change> {
        let lease = serde_json::from_value(lease.clone()).unwrap();
        self.observer.see(at(millis), Sight::Lease(LeaseSight::of(&lease, at(millis).wall, how)))
    }

    fn listed(&mut self, millis: u64, lease: &Value) -> Vec<Change> {
        self.see(millis, How::Read, lease)
    }

    fn watched(&mut self, millis: u64, lease: &Value) -> Vec<Change> {
        self.see(millis, How::Watched, lease)
    }

    fn absent(&mut self, millis: u64) -> Vec<Change> {
        self.observer.see(at(millis), Sight::Absent)
    }

    fn tick(&mut self, millis: u64) -> Vec<Change> {
        self.observer.tick(at(millis))
    }
}

/// Returns the Lease at `version`, held by `holder` in term number `transitions`, renewed `renewed` seconds into the
/// minute.
fn held(version: u64, holder: &str, transitions: i32, renewed: u32) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": "weir", "namespace": "river", "uid": "5d7e", "resourceVersion": version.to_string(),
            "annotations": { INCARNATION: format!("uid/{holder}/{transitions}") },
        },
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": 15,
            "acquireTime": format!("2026-03-01T11:{:02}:00.000000Z", transitions.rem_euclid(60)),
            "renewTime": format!("2026-03-01T12:00:{renewed:02}.000000Z"),
            "leaseTransitions": transitions,
        },
    })
}

fn with(mut lease: Value, field: &str, value: Value) -> Value {
    lease["spec"][field] = value;
    lease
}

fn released(version: u64, transitions: i32) -> Value {
    with(held(version, "", transitions, 59), "leaseDurationSeconds", json!(1))
}

fn kinds(changes: &[Change]) -> Vec<Kind> {
    changes.iter().map(|change| change.kind).collect()
}

fn only(changes: Vec<Change>) -> Change {
    let [change] = changes.try_into().unwrap_or_else(|changes| panic!("expected one change, found {changes:#?}"));
    change
}

#[test]
fn a_handover_is_a_release_and_an_acquisition_with_its_token() {
    let mut weir = Weir::new();
    let first = only(weir.listed(0, &held(41, "otter", 3, 0)));
    assert_eq!((first.kind, first.holder_identity.as_deref()), (Kind::Held, Some("otter")));
    // The term started before, so its acquiring write had this version or a lower one.
    assert_eq!(
        (first.fencing_token.as_deref(), first.fencing_token_source),
        (Some("41"), Some(TokenSource::FirstSight))
    );

    let renewed = only(weir.watched(2_000, &held(42, "otter", 3, 2)));
    assert_eq!((renewed.kind, renewed.fencing_token.as_deref()), (Kind::Renewed, Some("41")));
    assert_eq!(renewed.observed_since, Some(at(0).wall));

    let released = only(weir.watched(3_000, &released(43, 3)));
    assert_eq!((released.kind, released.holder_identity.as_deref()), (Kind::Released, Some("")));
    assert_eq!(released.previous_holder_identity.as_deref(), Some("otter"));
    assert_eq!((released.fencing_token, released.observed_since), (None, None));

    let acquired = only(weir.watched(3_010, &held(44, "heron", 4, 3)));
    assert_eq!((acquired.kind, acquired.lease_transitions), (Kind::Acquired, Some(4)));
    let token = (acquired.fencing_token.as_deref(), acquired.fencing_token_source);
    assert_eq!(token, (Some("44"), Some(TokenSource::AcquiringWrite)));
    assert_eq!(acquired.observed_since, Some(at(3_010).wall));
    assert_eq!(acquired.warnings, [""; 0]);
}

#[test]
fn a_holder_expires_once_by_the_observers_own_clock() {
    let mut weir = Weir::new();
    // The clock in the record is years off in either direction.
    for (version, year) in [(41, "1999"), (42, "2031")] {
        let time = json!(format!("{year}-03-01T12:00:00.000000Z"));
        weir.listed(0, &with(held(version, "otter", 3, 0), "renewTime", time));
    }
    assert!(weir.tick(14_999).is_empty());
    assert_eq!(weir.observer.expires_at(), Some(at(15_000).moment));
    let expired = only(weir.tick(15_000));
    assert_eq!((expired.kind, expired.previous_holder_identity.as_deref()), (Kind::Expired, Some("otter")));
    assert_eq!(expired.message, "no renewal of otter seen for 15.000 s");
    assert_eq!(weir.observer.expires_at(), None);
    assert!(weir.tick(99_000).is_empty());
    assert_eq!(kinds(&weir.watched(99_001, &held(50, "otter", 3, 40))), [Kind::Resumed]);
    assert_eq!(weir.observer.expires_at(), Some(at(114_001).moment));
}

#[test]
fn only_a_change_of_the_record_counts_as_a_renewal() {
    let mut weir = Weir::new();
    weir.listed(0, &held(41, "otter", 3, 0));
    let mut annotated = held(42, "otter", 3, 0);
    annotated["metadata"]["annotations"]["colour"] = json!("red");
    assert!(weir.watched(14_000, &annotated).is_empty());
    assert_eq!(kinds(&weir.tick(15_000)), [Kind::Expired]);
}

#[test]
fn an_unobserved_expiry_is_printed_before_the_successor() {
    let mut weir = Weir::new();
    weir.listed(0, &held(41, "otter", 3, 0));
    assert_eq!(kinds(&weir.watched(15_004, &held(42, "heron", 4, 15))), [Kind::Expired, Kind::Acquired]);

    // The successor may have observed the last renewal a moment earlier than this program did.
    let mut weir = Weir::new();
    weir.listed(0, &held(41, "otter", 3, 0));
    let changes = weir.watched(14_990, &held(42, "heron", 4, 15));
    assert_eq!(kinds(&changes), [Kind::Expired, Kind::Acquired]);
    assert_eq!(changes[1].warnings, [""; 0]);
    assert_eq!(changes[1].previous_holder_identity.as_deref(), Some("otter"));
}

#[test]
fn a_lease_acquired_from_a_live_holder_has_a_warning() {
    let mut weir = Weir::new();
    weir.listed(0, &held(41, "otter", 3, 0));
    let taken = only(weir.watched(2_000, &with(held(42, "otter", 3, 0), "holderIdentity", json!("heron"))));
    assert_eq!(taken.kind, Kind::Acquired);
    let expected = [
        "acquired from otter only 2.000 s after its last renewal, of 15.000 s",
        "leaseTransitions did not rise: edited by hand?",
    ];
    assert_eq!(taken.warnings, expected);
}

#[test]
fn an_unobserved_handover_is_no_expiry() {
    let mut weir = Weir::new();
    weir.listed(0, &held(41, "otter", 3, 0));
    let acquired = only(weir.listed(14_900, &held(57, "heron", 5, 10)));
    assert_eq!((acquired.kind, acquired.fencing_token_source), (Kind::Acquired, Some(TokenSource::FirstSight)));
    assert_eq!((acquired.message.as_str(), acquired.warnings.len()), ("heron leads, handover not observed", 0));
}

#[test]
fn a_holder_emptied_by_hand_is_not_a_release() {
    let mut weir = Weir::new();
    weir.listed(0, &held(41, "otter", 3, 0));
    for (version, empty) in [(42, json!("")), (43, Value::Null)] {
        let lease = with(held(version, "otter", 3, 0), "holderIdentity", empty);
        let changes = weir.watched(1_000, &lease);
        if version == 42 {
            let emptied = only(changes);
            assert_eq!((emptied.kind, emptied.verdict()), (Kind::Emptied, Verdict::NotLive));
            assert_eq!(emptied.previous_holder_identity.as_deref(), Some("otter"));
        } else {
            assert!(changes.is_empty(), "{changes:?}");
        }
    }
    assert_eq!(weir.observer.expires_at(), None);
}

#[test]
fn a_record_changed_under_its_holder_without_a_renewal_is_an_edit() {
    let mut weir = Weir::new();
    weir.listed(0, &held(41, "otter", 3, 0));
    let edited = only(weir.watched(1_000, &with(held(42, "otter", 3, 0), "leaseTransitions", json!(1))));
    assert_eq!((edited.kind, edited.verdict()), (Kind::Edited, Verdict::Open));
    assert_eq!(edited.warnings, ["leaseTransitions fell from 3 to 1"]);
    assert_eq!(edited.fencing_token.as_deref(), Some("41"));
}

#[test]
fn another_process_of_the_same_name_is_another_term() {
    let mut ours = held(42, "otter", 4, 1);
    ours["spec"]["acquireTime"] = held(41, "otter", 3, 0)["spec"]["acquireTime"].clone();
    let mut foreign = held(42, "otter", 4, 1);
    foreign["metadata"]["annotations"] = held(41, "otter", 3, 0)["metadata"]["annotations"].clone();
    // The incarnation shows that for a candidate of this project, the time for others.
    for (lease, incarnation) in [(ours, "uid/otter/4"), (foreign, "uid/otter/3")] {
        let mut weir = Weir::new();
        weir.listed(0, &held(41, "otter", 3, 0));
        let again = only(weir.watched(1_000, &lease));
        assert_eq!((again.kind, again.fencing_token.as_deref()), (Kind::Acquired, Some("42")));
        assert_eq!(again.incarnation.as_deref(), Some(incarnation));
    }
}

#[test]
fn deletion_and_creation_are_printed_with_the_new_term() {
    let mut weir = Weir::new();
    assert_eq!(kinds(&weir.absent(0)), [Kind::Absent]);
    assert!(weir.absent(1).is_empty());
    let created = weir.watched(10, &held(41, "otter", 0, 0));
    assert_eq!(kinds(&created), [Kind::Created, Kind::Acquired]);
    assert_eq!(created[1].fencing_token_source, Some(TokenSource::AcquiringWrite));

    let deleted = only(weir.observer.see(at(20), Sight::Deleted(Version::new("42"))));
    assert_eq!((deleted.kind, deleted.previous_holder_identity.as_deref()), (Kind::Deleted, Some("otter")));
    assert_eq!((deleted.holder_identity, weir.observer.expires_at()), (None, None));
    let mut recreation = held(43, "heron", 0, 1);
    recreation["metadata"]["uid"] = json!("9a01");
    assert_eq!(kinds(&weir.watched(30, &recreation)), [Kind::Recreated, Kind::Acquired]);

    // Deleted and created again between two reads.
    recreation["metadata"]["uid"] = json!("9a02");
    recreation["metadata"]["resourceVersion"] = json!("60");
    let recreated = weir.listed(40, &recreation);
    assert_eq!(kinds(&recreated), [Kind::Recreated, Kind::Acquired]);
    assert_eq!(recreated[0].previous_holder_identity.as_deref(), Some("heron"));
    assert_eq!(recreated[1].fencing_token_source, Some(TokenSource::FirstSight));
}

#[test]
fn late_watch_events_change_nothing() {
    let mut weir = Weir::new();
    weir.listed(0, &held(41, "otter", 3, 0));
    weir.listed(10, &held(44, "heron", 4, 1));
    for late in [held(41, "otter", 3, 0), held(44, "heron", 4, 1), released(43, 3)] {
        assert!(weir.watched(20, &late).is_empty());
    }
    assert!(weir.observer.see(at(30), Sight::Deleted(Version::new("44"))).is_empty());
    assert_eq!(weir.observer.expires_at(), Some(at(15_010).moment));
    // But a read always counts, even with an old version: etcd may have been restored.
    assert_eq!(kinds(&weir.listed(40, &held(9, "otter", 2, 0))), [Kind::Acquired]);
}

#[test]
fn absurd_records_are_warned_of_once_and_never_live() {
    type Case = (&'static str, Value, &'static str);
    let cases: [Case; 14] = [
        ("leaseDurationSeconds", Value::Null, "is absent"),
        ("leaseDurationSeconds", json!(-7), "expected seconds from 1, found -7"),
        ("leaseDurationSeconds", json!(0), "expected seconds from 1, found 0"),
        ("leaseDurationSeconds", json!("15"), "expected seconds from 1, found \"15\""),
        ("leaseDurationSeconds", json!(i32::MAX), "is 2147483647, more than a day"),
        ("leaseDurationSeconds", json!(1_u64 << 40), "is 1099511627776, more than a day"),
        ("leaseTransitions", json!(-1), "expected a number from 0 to 2147483647, found -1"),
        ("leaseTransitions", json!(1.5), "expected a number from 0 to 2147483647, found 1.5"),
        (
            "acquireTime",
            json!("soon\u{1b}[2J"),
            "expected an RFC 3339 time before the end of 9999, found \"soon\\u{1b}[2J\"",
        ),
        ("renewTime", json!("9000-12-31T23:59:59.999999Z"), "is more than a day ahead of this clock"),
        ("renewTime", json!("9999-12-31T23:59:59.999999Z"), "expected an RFC 3339 time before the end of 9999"),
        ("renewTime", json!({}), "expected an RFC 3339 time before the end of 9999, found an object"),
        ("strategy", json!("Bully"), "is \"Bully\": only coordinated leader election uses it"),
        ("preferredHolder", json!([7]), "is a list: only coordinated leader election uses it"),
    ];
    for (field, value, expected) in cases {
        let mut weir = Weir::new();
        weir.listed(0, &held(40, "otter", 3, 0));
        let changes = weir.watched(1_000, &with(held(41, "otter", 3, 1), field, value.clone()));
        let warnings: Vec<&String> = changes.iter().flat_map(|change| &change.warnings).collect();
        assert!(warnings.iter().any(|text| text.starts_with(&format!("{field} {expected}"))), "{warnings:?}");
        // Warned of once, however often the Lease is renewed.
        let again = weir.watched(2_000, &with(held(42, "otter", 3, 2), field, value));
        assert!(again.iter().all(|change| change.warnings.is_empty()), "{field}: {again:?}");
    }
}

#[test]
fn an_empty_lease_has_no_holder() {
    for spec in [Value::Null, json!({}), json!("none"), json!([1])] {
        let mut weir = Weir::new();
        let mut lease = held(41, "", 0, 0);
        lease["spec"] = spec;
        let first = only(weir.listed(0, &lease));
        assert_eq!((first.kind, first.verdict()), (Kind::Unheld, Verdict::NotLive));
        assert_eq!(weir.observer.expires_at(), None);
    }
}

#[test]
fn once_does_not_wait_for_a_record_that_never_expires() {
    let mut weir = Weir::new();
    let first = only(weir.listed(0, &with(held(41, "otter", 3, 0), "leaseDurationSeconds", Value::Null)));
    assert_eq!((first.kind, first.verdict()), (Kind::Held, Verdict::NotLive));
    assert_eq!(weir.observer.expires_at(), None);
    assert_eq!(only(Weir::new().listed(0, &held(41, "otter", 3, 0))).verdict(), Verdict::Open);
}

#[test]
fn an_expiry_while_the_api_server_is_silent_has_a_warning() {
    let mut weir = Weir::new();
    weir.listed(0, &held(41, "otter", 3, 0));
    weir.observer.set_blind(true);
    let expired = only(weir.tick(15_000));
    assert_eq!(expired.warnings, ["the API server does not answer this program: the holder may have renewed"]);
}

#[test]
fn a_text_line_stays_one_line_for_any_holder_name() {
    let mut weir = Weir::new();
    let name = format!("ot\nter\u{1b}[31m{}", "x".repeat(1_000_000));
    let change = only(weir.listed(0, &held(41, &name, 3, 0)));
    let text = change.to_string();
    assert!(text.len() < 500 && !text.contains(char::is_control), "{text}");
    assert_eq!(change.warnings, ["holderIdentity is 1000011 bytes long, more than the 253 of a name"]);
    // JSON contains the whole name.
    let parsed: Value = serde_json::from_str(&change.json()).unwrap();
    assert_eq!(parsed["holderIdentity"], name);
    assert!(!change.json().contains('\n'));
}

#[test]
fn printed_lines_match_the_documentation() {
    let mut weir = Weir::new();
    let mut changes = weir.listed(0, &held(41, "otter", 3, 0));
    changes.extend(weir.watched(3_000, &released(43, 3)));
    changes.extend(weir.watched(3_010, &held(44, "heron", 4, 3)));
    changes.extend(weir.tick(18_010));
    changes.extend(weir.absent(20_000));
    let text: Vec<String> = changes.iter().map(Change::to_string).collect();
    insta::assert_snapshot!("observe_text", text.join("\n"));
    let json: Vec<String> = changes.iter().map(Change::json).collect();
    insta::assert_snapshot!("observe_json", json.join("\n"));
}
