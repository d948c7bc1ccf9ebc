//! What the operator reports: status, Events and metrics.

pub(super) mod events;
pub(super) mod publish;
pub(super) mod status;
pub(super) mod status_write;
