//! Whether a live child still is as desired.

use serde_json::Value;

use crate::api::names::annotation;

/// Whether everything that `desired` sets stands in `live`, and `desired` is what was applied last.
///
/// What others set beside it is theirs. A field that `desired` no longer sets shows in the hash.
pub fn is_as_desired(desired: &Value, live: &Value) -> bool {
    let hash = |object: &Value| object["metadata"]["annotations"][annotation::APPLIED_HASH].clone();
    hash(desired) == hash(live) && contains(live, desired)
}

/// Whether `live` has all that `desired` has. In lists of named things others may have added some.
pub fn contains(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => {
            desired.iter().all(|(key, value)| contains(live.get(key).unwrap_or(&Value::Null), value))
        }
        (Value::Array(live), Value::Array(desired)) => {
            if desired.iter().all(|item| item["name"].is_string()) {
                desired.iter().all(|item| {
                    live.iter().any(|candidate| candidate["name"] == item["name"] && contains(candidate, item))
                })
            } else {
                live.len() == desired.len() && live.iter().zip(desired).all(|(live, item)| contains(live, item))
            }
        }
        // The server drops what is empty: an absent list and an empty one are the same.
        (Value::Null, Value::Array(desired)) => desired.is_empty(),
        (Value::Null, Value::Object(desired)) => desired.is_empty(),
        (Value::Null, Value::String(desired)) => desired.is_empty(),
        (live, desired) => live == desired || same_quantity(live, desired),
    }
}

/// `"0.5"` is stored as `"500m"`: quantities that are spelled otherwise are compared by value.
fn same_quantity(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::String(live), Value::String(desired)) => {
            matches!((quantity(live), quantity(desired)), (Some(a), Some(b)) if a == b)
        }
        (Value::String(live), Value::Number(desired)) => quantity(live) == quantity(&desired.to_string()),
        _ => false,
    }
}

/// A Kubernetes quantity in thousandths, `None` if `text` is none or too fine.
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
