//! The injection revision: the version of the rules by which the operator adds to pods.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::group::GroupMode;
use crate::api::InjectionStatus;

/// The newest revision of these rules. Raise it with any change that would roll pods, and keep the behavior of older
/// revisions.
///
/// 1. The candidate's program, its environment, the pods' spread.
/// 2. In mode Exec the candidate knows the path of the termination message, so that it can write its incarnation there,
///    and supports step-downs.
/// 3. Mode Sidecar. The candidate has an HTTP port, carries out probes and hooks, knows its revision and proves a
///    restart in place. The pods have the readiness gate.
/// 4. The environment of the program in mode Exec, `envFrom` included, does not reach the candidate. It keeps places
///    for its node, leaves the reason of its end, and relies on a longer wait where its Lease is deleted and created
///    again. The operator's containers request no user of their own, unless the pod is root.
pub const REVISION: i32 = 4;

/// The first revision whose candidates support step-downs.
pub const STEP_DOWN: i32 = 2;

/// The first revision whose candidates know the path of the termination message.
pub(crate) const TERMINATION_MESSAGE: i32 = 2;

/// The first revision whose candidates serve HTTP and whose pods have the readiness gate. The first with mode Sidecar.
pub const SERVING: i32 = 3;

/// The first revision whose candidates read nothing from the program's environment.
pub(crate) const OWN_SETTINGS: i32 = 4;

/// Whether `injection` is valid: it names an image, and a revision that this operator knows. Any other is ignored,
/// unless it is [newer](is_newer), so that an edited status leaves no group stuck.
pub fn is_known(injection: &InjectionStatus) -> bool {
    (1..=REVISION).contains(&injection.revision) && !injection.image.is_empty()
}

/// Whether a newer operator recorded `injection`, with a revision that this operator does not know.
pub fn is_newer(injection: &InjectionStatus) -> bool {
    injection.revision > REVISION && !injection.image.is_empty()
}

/// Whether pods of the user's `template` stay as a newer operator made them, because the template has not changed
/// since. To recreate them by older rules would move every leader when the operator is rolled back.
pub(crate) fn keeps_newer(template: &Value, recorded: &InjectionStatus) -> bool {
    is_newer(recorded) && recorded.template_hash.as_deref() == Some(hash(template).as_str())
}

/// Whether `recorded` is kept for pods of the user's `template`: the template has not changed since, and the mode is
/// supported at that revision.
pub(crate) fn is_kept(mode: GroupMode, template: &Value, recorded: &InjectionStatus) -> bool {
    let is_same = || recorded.template_hash.as_deref() == Some(hash(template).as_str());
    is_known(recorded) && (mode != GroupMode::Sidecar || recorded.revision >= SERVING) && is_same()
}

/// Whether the candidates of `template`'s pods serve HTTP, given `recorded` in the status.
pub(crate) fn serves(mode: GroupMode, template: &Value, recorded: &InjectionStatus) -> bool {
    recorded.revision >= SERVING || !is_kept(mode, template, recorded)
}

/// Returns the first 16 hexadecimal digits of the SHA-256 of `value` as JSON, whose keys serde_json sorts.
pub(crate) fn hash(value: &Value) -> String {
    Sha256::digest(value.to_string()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
