//! The refusal of a spec: the field and the rule that it breaks.

use crate::api::names::RESERVED_PREFIX;

/// A field and the rule that it breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct Invalid {
    /// Path of the field, such as `spec.election.leaseDurationSeconds`.
    pub field: String,
    /// What was expected, and what was found.
    pub rule: String,
}

pub(crate) fn invalid(field: impl Into<String>, rule: impl Into<String>) -> Invalid {
    Invalid { field: field.into(), rule: rule.into() }
}

pub(crate) fn reserved(field: impl Into<String>, key: &str) -> Invalid {
    invalid(field, format!("keys that begin with {RESERVED_PREFIX} are reserved, found {key}"))
}
