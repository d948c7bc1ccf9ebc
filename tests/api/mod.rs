//! The custom resource: what goes over the wire, and what an API server makes of it.

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
