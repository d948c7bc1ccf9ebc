//! One look at the Lease, and what is odd about it.

use kube::api::DynamicObject;
use serde_json::Value;

use crate::campaign::snapshot_of;
use crate::election::{Snapshot, Version, WallTime};

/// The longest name that Kubernetes gives a pod.
const LONGEST_NAME: usize = 253;
/// What is further off than this is a mistake, not a clock that goes wrong.
const DAY_MICROS: i64 = 24 * 3_600 * 1_000_000;
const DAY_SECONDS: i64 = 24 * 3_600;

/// What is known of the Lease from one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It exists.
    Lease(LeaseSight),
    /// A read or a list does not show it.
    Absent,
    /// The watch says that it was deleted at this version.
    Deleted(Version),
}

/// How a Lease came into sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By the watch: nothing lies between this version and the one seen before.
    Watched,
    /// By a read or a list: any number of versions may lie between.
    Read,
}

/// A Lease as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseSight {
    /// Its `metadata.uid`.
    pub uid: String,
    /// Its record at that version.
    pub snapshot: Snapshot,
    /// How it was seen.
    pub how: How,
    /// What is odd about it.
    pub warnings: Vec<Warning>,
}

/// Something in a record that no well-behaved elector writes, or that this program does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The field of `spec`, in Kubernetes' words.
    pub field: &'static str,
    /// What was found there.
    pub text: String,
}

impl LeaseSight {
    /// Reads `lease`. `wall` is only used to call a time absurd.
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
        (Value::Null, _) => {
            warn("leaseDurationSeconds", "is absent: when the holder expires cannot be told".to_owned())
        }
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
    // Nothing here elects by them; a coordinated election does.
    for field in ["strategy", "preferredHolder"] {
        if !spec[field].is_null() {
            warn(field, format!("is {}: only coordinated leader election heeds it", brief(&spec[field])));
        }
    }
    found
}

/// A value in few characters: whatever stands in a Lease must not flood a terminal or steer it.
fn brief(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("\"{}\"", printable(text)),
        other => other.to_string(),
    }
}

/// At most 64 characters of `text`, none of them a control character.
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
