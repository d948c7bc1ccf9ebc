//! The comparison of a live child with the desired one.

use std::collections::HashMap;

use serde_json::Value;

use crate::api::names::annotation;

/// Whether `live` has everything that `desired` sets, and `desired` is what was applied last.
///
/// Fields that others set are ignored. A field that `desired` no longer sets changes the hash.
pub fn is_as_desired(desired: &Value, live: &Value) -> bool {
    let hash = |object: &Value| object["metadata"]["annotations"][annotation::APPLIED_HASH].clone();
    hash(desired) == hash(live) && contains(live, desired)
}

/// Lists of named items to which others may add: admission webhooks inject containers, volumes and variables.
const OPEN_LISTS: [&str; 6] = ["containers", "env", "initContainers", "ownerReferences", "volumeMounts", "volumes"];

/// The fields of a pod template that contain quantities. Other strings are compared as text.
const QUANTITIES: [&str; 5] = ["divisor", "limits", "overhead", "requests", "sizeLimit"];

/// Whether `live` has everything that `desired` has. Others may have added items to lists of containers, volumes and
/// the like.
pub fn contains(live: &Value, desired: &Value) -> bool {
    has(live, desired, "", false)
}

/// As [`contains`]. `field` is the name of the field that holds both values, and `quantities` whether it is below one
/// of [`QUANTITIES`].
fn has(live: &Value, desired: &Value, field: &str, quantities: bool) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => desired.iter().all(|(key, value)| {
            let quantities = quantities || QUANTITIES.contains(&key.as_str());
            has(live.get(key).unwrap_or(&Value::Null), value, key, quantities)
        }),
        (Value::Array(live), Value::Array(desired)) if OPEN_LISTS.contains(&field) => {
            // By name: a container may have a thousand variables.
            let mut named: HashMap<Option<&str>, Vec<&Value>> = HashMap::with_capacity(live.len());
            live.iter().for_each(|candidate| named.entry(candidate["name"].as_str()).or_default().push(candidate));
            desired.iter().all(|item| {
                let candidates = named.get(&item["name"].as_str()).map(Vec::as_slice).unwrap_or_default();
                candidates.iter().any(|candidate| has(candidate, item, "", quantities))
            })
        }
        (Value::Array(live), Value::Array(desired)) => {
            live.len() == desired.len() && live.iter().zip(desired).all(|(live, item)| has(live, item, "", quantities))
        }
        // The server drops empty values: an absent list equals an empty one.
        (Value::Null, Value::Array(desired)) => desired.is_empty(),
        (Value::Null, Value::Object(desired)) => desired.is_empty(),
        (Value::Null, Value::String(desired)) => desired.is_empty(),
        (live, desired) => live == desired || quantities && same_quantity(live, desired),
    }
}

/// Compares quantities by value, because `"0.5"` is stored as `"500m"`.
fn same_quantity(live: &Value, desired: &Value) -> bool {
    let value = |value: &Value| match value {
        Value::String(text) => quantity(text),
        Value::Number(number) => quantity(&number.to_string()),
        _ => None,
    };
    value(live).is_some_and(|live| value(desired) == Some(live))
}

/// Returns a Kubernetes quantity in thousandths, `None` if `text` is not a quantity or too fine.
fn quantity(text: &str) -> Option<i128> {
    let digits = text.find(|c: char| !matches!(c, '0'..='9' | '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (numerator, denominator): (i128, i128) = match suffix {
        "m" => (1, 1000),
        "" => (1, 1),
        "k" => (1000, 1),
        "M" => (1000_i128.pow(2), 1),
        "G" => (1000_i128.pow(3), 1),
        "T" => (1000_i128.pow(4), 1),
        "Ki" => (1024, 1),
        "Mi" => (1024_i128.pow(2), 1),
        "Gi" => (1024_i128.pow(3), 1),
        "Ti" => (1024_i128.pow(4), 1),
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let units: i128 = format!("{whole}{fraction}").parse().ok()?;
    units
        .checked_mul(1000 * numerator)
        .filter(|value| value % (scale * denominator) == 0)
        .map(|v| v / scale / denominator)
}
