//! The surroundings of every program here: clocks, signals, logs and the admin endpoints.
//!
//! Imports no other module of this crate except `protocol`.

pub mod admin;
pub mod backoff;
pub mod cli;
pub mod clock;
pub mod connections;
pub mod end_reason;
pub mod kubeconfig;
pub mod memory;
pub mod origin;
pub mod retry_after;
pub mod shutdown;
pub mod telemetry;
