//! What every program here needs of its surroundings: clocks, signals, logs and the admin endpoints.
//!
//! Imports no other room of the house.

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
