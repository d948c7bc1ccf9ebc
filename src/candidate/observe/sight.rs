//! One sight of the Lease, with warnings about oddities.

use kube::api::DynamicObject;
use serde_json::Value;

use crate::campaign::snapshot_of;
use crate::election::{Snapshot, Version, WallTime};

/// The longest pod name in Kubernetes.
const LONGEST_NAME: usize = 253;
/// A time further off than this is a mistake, not clock skew.
const DAY_MICROS: i64 = 24 * 3_600 * 1_000_000;
const DAY_SECONDS: i64 = 24 * 3_600;

/// One observation of the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It exists.
    Lease(LeaseSight),
    /// It is missing from a read or a list.
    Absent,
    /// The watch reports its deletion at this version.
    Deleted(Version),
}

/// The source of an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The watch: no version lies between this one and the previous one.
    Watched,
    /// A read or a list: any number of versions may lie between.
    Read,
}

/// An observed Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseSight {
    /// Its `metadata.uid`.
    pub uid: String,
    /// Its record at that version.
    pub snapshot: Snapshot,
    /// The source of the observation.
    pub how: How,
    /// Oddities of the record.
    pub warnings: Vec<Warning>,
}

/// A value in a record that no well-behaved elector writes, or that this program does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The field of `spec`, by its name in Kubernetes.
    pub field: &'static str,
    /// A description of its value.
    pub text: String,
}

impl LeaseSight {
    /// Reads `lease`. `wall` only serves to recognize absurd times.
    pub fn of(lease: &DynamicObject, wall: WallTime, how: How) -> Self {
        let snapshot = snapshot_of(lease);
        let warnings = warnings(&lease.data["spec"], &snapshot, wall);
        Self { uid: lease.metadata.uid.clone().unwrap_or_default(), snapshot, how, warnings }
    }
}

fn warnings(spec: &Value, snapshot: &Snapshot, wall: WallTime) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |field, text| found.push(Warning { field, text });
    if !(spec.is_null() || spec.is_object()) {
        warn("spec", format!("expected an object, found {}", brief(spec)));
        return found;
    }
    let record = &snapshot.record;
    match &spec["holderIdentity"] {
        Value::Null => {}
        Value::String(holder) if holder.len() <= LONGEST_NAME => {}
        Value::String(holder) => {
            warn("holderIdentity", format!("is {} bytes long, more than the {LONGEST_NAME} of a name", holder.len()));
        }
        other => warn("holderIdentity", format!("expected text, found {}", brief(other))),
    }
    match (&spec["leaseDurationSeconds"], spec["leaseDurationSeconds"].as_i64()) {
        (Value::Null, _) if record.holder.is_empty() => {}
        (Value::Null, _) => warn("leaseDurationSeconds", "is absent: it is unknown when the holder expires".to_owned()),
        (_, Some(1..=DAY_SECONDS)) => {}
        (_, Some(long @ 1..)) => warn("leaseDurationSeconds", format!("is {long}, more than a day")),
        (other, _) => warn("leaseDurationSeconds", format!("expected seconds from 1, found {}", brief(other))),
    }
    match (&spec["leaseTransitions"], spec["leaseTransitions"].as_i64()) {
        (Value::Null, _) | (_, Some(0..=0x7FFF_FFFF)) => {}
        (other, _) => {
            warn("leaseTransitions", format!("expected a number from 0 to 2147483647, found {}", brief(other)))
        }
    }
    for (field, time) in [("acquireTime", record.acquire_time), ("renewTime", record.renew_time)] {
        match (&spec[field], time) {
            (Value::Null, _) => {}
            (found, None) => {
                warn(field, format!("expected an RFC 3339 time before the end of 9999, found {}", brief(found)))
            }
            (found, Some(time)) if time.0.saturating_sub(wall.0) > DAY_MICROS => {
                warn(field, format!("is more than a day ahead of this clock: {}", brief(found)));
            }
            (_, Some(_)) => {}
        }
    }
    // No elector of this project uses these fields; coordinated leader election does.
    for field in ["strategy", "preferredHolder"] {
        if !spec[field].is_null() {
            warn(field, format!("is {}: only coordinated leader election uses it", brief(&spec[field])));
        }
    }
    found
}

/// Describes a value briefly: the content of a Lease must neither flood a terminal nor control it.
fn brief(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("\"{}\"", printable(text)),
        other => other.to_string(),
    }
}

/// Returns at most 64 characters of `text`, with control characters escaped.
pub(super) fn printable(text: &str) -> String {
    const LONGEST: usize = 64;
    let mut out = String::new();
    for (number, c) in text.chars().enumerate() {
        match c {
            _ if number == LONGEST => {
                out.push('…');
                break;
            }
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}
