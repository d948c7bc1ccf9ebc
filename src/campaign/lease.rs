//! The conversion between the Lease on the wire and the election's [`Snapshot`].

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

/// The longest accepted version, in bytes. Any client that may update the Lease can write arbitrary text there.
const LONGEST_VERSION: usize = 64;

/// Returns the parts of a Lease that the election uses. Absent, null or invalid fields are read as empty.
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

/// Whether the last step-down request names a term with that many transitions. Only the number can be compared: after a
/// term has ended, the Lease no longer names its process.
fn names_step_down(lease: &DynamicObject, transitions: i32) -> bool {
    let of = annotation(lease, STEP_DOWN_OF).and_then(|of| of.split_once('/'));
    of.is_some_and(|(number, _)| number.parse() == Ok(transitions))
}

/// Writes the five fields of `record` and the incarnation to `lease`, and preserves everything else.
///
/// All five are always present: kube-leader-election and fabric8 get stuck if one is missing.
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

/// Marks the work of the present term as ready, or removes the mark of any term. Also removes a successor that was
/// named for another term.
pub(super) fn apply_term(lease: &mut DynamicObject, is_ready: bool) {
    let Snapshot { record, incarnation, preference, .. } = snapshot_of(lease);
    let term = incarnation.filter(|_| is_ready).map(|incarnation| term_name(record.transitions, &incarnation));
    annotate(lease, READY_OF, term);
    annotate(lease, STEP_DOWN_TO, preference.successor);
}

/// Writes the `version` of the program that claims the present term to `lease`, or removes it if `is_claim` is false.
pub(super) fn apply_version(lease: &mut DynamicObject, version: &str, is_claim: bool) {
    let Snapshot { record, incarnation, .. } = snapshot_of(lease);
    let claimant = incarnation.filter(|_| is_claim);
    let value = claimant.map(|incarnation| format!("{version} {}", term_name(record.transitions, &incarnation)));
    annotate(lease, CANDIDATE_VERSION, value);
}

/// Returns the candidate version of the present term. `None` if there is none, or if its form is invalid.
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

/// Whether `lease` requests the present term to step down. A request that names the holder itself as the successor does
/// not count: it would gain nothing.
pub(super) fn requests_step_down(lease: &DynamicObject) -> bool {
    let Snapshot { record, incarnation, preference, .. } = snapshot_of(lease);
    let requested = annotation(lease, STEP_DOWN_OF).map(str::to_owned);
    let present = incarnation.map(|incarnation| term_name(record.transitions, &incarnation));
    let is_requested = requested.is_some() && requested == present;
    is_requested && preference.successor.is_none_or(|successor| successor != record.holder)
}

fn parse_time(text: &str) -> Option<WallTime> {
    text.parse::<Timestamp>().ok().map(|time| WallTime(time.as_microsecond()))
}

fn print_time(time: WallTime) -> String {
    micro_time(time.0)
}

/// Formats microseconds since 1970 as Kubernetes prints a `MicroTime`: UTC, always six digits.
pub fn micro_time(micros: i64) -> String {
    let time = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH);
    DateTimePrinter::new().precision(Some(6)).timestamp_to_string(&time)
}

/// Returns the `observed` Lease with the `expected` version, or a new Lease.
pub(super) fn lease_at(
    expected: Option<&Version>,
    observed: Option<&DynamicObject>,
    name: &LeaseName,
) -> DynamicObject {
    let mut lease = match (observed, expected) {
        (Some(lease), Some(_)) => lease.clone(),
        _ => DynamicObject::new(&name.name, &ApiResource::erase::<Lease>(&())).within(&name.namespace),
    };
    // Only the version of the elector's decision may be replaced, whatever was observed since.
    lease.metadata.resource_version = expected.map(|version| version.as_str().to_owned());
    lease
}
