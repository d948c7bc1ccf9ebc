//! The custom resource: its form on the wire, and its behavior on an API server.

mod bypassed;
mod crd;
mod explain;
pub mod hostile;
mod kubectl;
mod names;
mod rule_table;
pub mod rules;
mod server;
mod wire;
