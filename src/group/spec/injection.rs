//! The injection revision: which rules the pods of a group were made by.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::group::GroupMode;
use crate::api::InjectionStatus;

/// The newest revision of these rules. Raise it with any change that would roll pods; keep what older revisions did.
///
/// 1. The candidate's program, its environment, the pods' spread.
/// 2. In mode Exec the candidate is told where the termination message is, so that it can leave its incarnation there; and it
///    heeds step-downs.
/// 3. Mode Sidecar. The candidate answers on a port of its own, carries probes and hooks out, knows its revision and proves a
///    restart in place; the pods have the readiness gate.
/// 4. The environment of the program in mode Exec, `envFrom` included, does not reach the candidate. It keeps places for its node,
///    leaves the reason of its end, and relies on a longer wait where its Lease is deleted and created again. The operator's containers
///    ask for no user of their own, unless the pod is root.
pub const REVISION: i32 = 4;

/// The first revision whose candidates heed a step-down.
pub const STEP_DOWN: i32 = 2;

/// The first revision whose candidates are told of the termination message.
pub(in crate::group) const TERMINATION_MESSAGE: i32 = 2;

/// The first revision whose candidates serve HTTP, and whose pods are proved; the first with mode Sidecar.
pub const SERVING: i32 = 3;

/// The first revision whose candidates take nothing from the program's environment.
pub(in crate::group) const OWN_SETTINGS: i32 = 4;

/// Whether `injection` can be carried out: it names an image, and a revision that this operator knows. What cannot is as good
/// as none, unless it is [newer](is_newer): a status that somebody edited must leave no group stuck.
pub fn is_known(injection: &InjectionStatus) -> bool {
    (1..=REVISION).contains(&injection.revision) && !injection.image.is_empty()
}

/// Whether a newer operator recorded `injection`, by rules that this one does not know.
pub fn is_newer(injection: &InjectionStatus) -> bool {
    injection.revision > REVISION && !injection.image.is_empty()
}

/// Whether the pods of `template`, the user's, stay as a newer operator made them: the template was not changed since. To make
/// them again by older rules would move every leader when the operator is rolled back.
pub(in crate::group) fn keeps_newer(template: &Value, recorded: &InjectionStatus) -> bool {
    is_newer(recorded) && recorded.template_hash.as_deref() == Some(hash(template).as_str())
}

/// Whether `recorded` is kept for pods of `template`, the user's: that was not changed since, and what the mode needs was there
/// already at that revision.
pub(in crate::group) fn is_kept(mode: GroupMode, template: &Value, recorded: &InjectionStatus) -> bool {
    let is_same = || recorded.template_hash.as_deref() == Some(hash(template).as_str());
    is_known(recorded) && (mode != GroupMode::Sidecar || recorded.revision >= SERVING) && is_same()
}

/// Whether the candidates of `template`'s pods serve HTTP, where the status has `recorded`.
pub(in crate::group) fn serves(mode: GroupMode, template: &Value, recorded: &InjectionStatus) -> bool {
    recorded.revision >= SERVING || !is_kept(mode, template, recorded)
}

/// The first 16 hexadecimal digits of the SHA-256 of `value`'s JSON, whose keys serde_json sorts.
pub(in crate::group) fn hash(value: &Value) -> String {
    Sha256::digest(value.to_string()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
