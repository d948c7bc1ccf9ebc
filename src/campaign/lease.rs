//! Between the Lease on the wire and the election's [`Snapshot`].

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::DynamicObject;
use kube::core::ApiResource;
use serde_json::{Map, Value, json};

use super::LeaseName;
use crate::election::{Preference, Record, Snapshot, Version, WallTime};
use crate::protocol::lease::{
    CANDIDATE_VERSION, INCARNATION, PROVEN_REVISION, READY_OF, STEP_DOWN_OF, STEP_DOWN_TO, SUSPENDED, term_name,
};

/// The longest version that is accepted, in bytes. Every client that may update the Lease may write anything there.
const LONGEST_VERSION: usize = 64;

/// What the election needs to know of a Lease. Absent, null or absurd fields are read as empty.
pub fn snapshot_of(lease: &DynamicObject) -> Snapshot {
    let spec = &lease.data["spec"];
    let number = |name: &str| spec[name].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or_default();
    let time = |name: &str| spec[name].as_str().and_then(parse_time);
    let annotation = |name: &str| annotation(lease, name).map(str::to_owned);
    let record = Record {
        holder: spec["holderIdentity"].as_str().unwrap_or_default().to_owned(),
        duration_seconds: number("leaseDurationSeconds"),
        acquire_time: time("acquireTime"),
        renew_time: time("renewTime"),
        transitions: number("leaseTransitions"),
    };
    let preference = Preference {
        successor: annotation(STEP_DOWN_TO).filter(|_| names_step_down(lease, record.transitions)),
        revision: annotation(PROVEN_REVISION),
        suspended: annotation(SUSPENDED).is_some_and(|term| term.parse() == Ok(record.transitions)),
    };
    let version = Version::new(lease.metadata.resource_version.clone().unwrap_or_default());
    Snapshot { version, record, incarnation: annotation(INCARNATION), preference }
}

fn annotation<'a>(lease: &'a DynamicObject, name: &str) -> Option<&'a str> {
    lease.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Whether the step-down that was asked for last is of a term with that many transitions, whoever led it: of a term that has
/// ended, the Lease says no more.
fn names_step_down(lease: &DynamicObject, transitions: i32) -> bool {
    let of = annotation(lease, STEP_DOWN_OF).and_then(|of| of.split_once('/'));
    of.is_some_and(|(number, _)| number.parse() == Ok(transitions))
}

/// Writes the five fields and the incarnation into `lease` and leaves everything else as it is.
///
/// All five are always present: kube-leader-election and fabric8 stand still where one is missing.
pub fn apply_record(lease: &mut DynamicObject, record: &Record, incarnation: Option<&str>) {
    if !lease.data.is_object() {
        lease.data = Value::Object(Map::new());
    }
    if !lease.data["spec"].is_object() {
        lease.data["spec"] = Value::Object(Map::new());
    }
    let spec = &mut lease.data["spec"];
    spec["holderIdentity"] = json!(record.holder);
    spec["leaseDurationSeconds"] = json!(record.duration_seconds);
    spec["acquireTime"] = json!(record.acquire_time.map(print_time));
    spec["renewTime"] = json!(record.renew_time.map(print_time));
    spec["leaseTransitions"] = json!(record.transitions);
    annotate(lease, INCARNATION, incarnation.map(str::to_owned));
}

/// Says in `lease` that the work of the term that it shows is ready, or takes back what was said of any term; and takes away what
/// concerned another term only.
pub(super) fn apply_term(lease: &mut DynamicObject, is_ready: bool) {
    let Snapshot { record, incarnation, preference, .. } = snapshot_of(lease);
    let term = incarnation.filter(|_| is_ready).map(|incarnation| term_name(record.transitions, &incarnation));
    annotate(lease, READY_OF, term);
    annotate(lease, STEP_DOWN_TO, preference.successor);
}

/// States in `lease` the `version` of the program that claims the term that it shows; removes the statement where `is_claim` is
/// false.
pub(super) fn apply_version(lease: &mut DynamicObject, version: &str, is_claim: bool) {
    let Snapshot { record, incarnation, .. } = snapshot_of(lease);
    let stated = incarnation.filter(|_| is_claim);
    let stated = stated.map(|incarnation| format!("{version} {}", term_name(record.transitions, &incarnation)));
    annotate(lease, CANDIDATE_VERSION, stated);
}

/// The version that the candidate of the present term states in `lease`. `None` if it states none, or nothing that has the form
/// of a version.
pub fn candidate_version(lease: &DynamicObject) -> Option<&str> {
    let (version, term) = annotation(lease, CANDIDATE_VERSION)?.split_once(' ')?;
    let Snapshot { record, incarnation, .. } = snapshot_of(lease);
    let is_version = (1..=LONGEST_VERSION).contains(&version.len())
        && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-".contains(&byte));
    (is_version && term == term_name(record.transitions, &incarnation?)).then_some(version)
}

fn annotate(lease: &mut DynamicObject, name: &str, value: Option<String>) {
    match value {
        Some(value) => {
            lease.metadata.annotations.get_or_insert_default().insert(name.to_owned(), value);
        }
        None => {
            if let Some(annotations) = &mut lease.metadata.annotations {
                annotations.remove(name);
            }
        }
    }
}

/// Whether `lease` asks the term that it shows to end. Not if its holder is to follow itself: nothing would be gained.
pub(super) fn asks_to_step_down(lease: &DynamicObject) -> bool {
    let Snapshot { record, incarnation, preference, .. } = snapshot_of(lease);
    let asked = annotation(lease, STEP_DOWN_OF).map(str::to_owned);
    let shown = incarnation.map(|incarnation| term_name(record.transitions, &incarnation));
    let is_asked = asked.is_some() && asked == shown;
    is_asked && preference.successor.is_none_or(|successor| successor != record.holder)
}

fn parse_time(text: &str) -> Option<WallTime> {
    text.parse::<Timestamp>().ok().map(|time| WallTime(time.as_microsecond()))
}

fn print_time(time: WallTime) -> String {
    micro_time(time.0)
}

/// Microseconds since 1970 as Kubernetes prints a `MicroTime`: UTC, always six digits.
pub fn micro_time(micros: i64) -> String {
    let time = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH);
    DateTimePrinter::new().precision(Some(6)).timestamp_to_string(&time)
}

/// The Lease as it was `seen` at the version `expected`, or a new one.
pub(super) fn lease_at(expected: Option<&Version>, seen: Option<&DynamicObject>, name: &LeaseName) -> DynamicObject {
    let mut lease = match (seen, expected) {
        (Some(lease), Some(_)) => lease.clone(),
        _ => DynamicObject::new(&name.name, &ApiResource::erase::<Lease>(&())).within(&name.namespace),
    };
    // Whatever is in hand: only the version that the elector decided upon may be replaced.
    lease.metadata.resource_version = expected.map(|version| version.as_str().to_owned());
    lease
}
