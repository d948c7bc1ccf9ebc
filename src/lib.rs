//! High availability for any program on Kubernetes: one active, the rest ready.
//!
//! The rooms of this house, from the inside out:
//!
//! - [`protocol`]: the names that programs and objects share.
//! - [`election`]: the election as a pure transition function. Start here to judge its safety.
//! - [`campaign`]: drives it against a `coordination.k8s.io` Lease. The library's public face.
//! - [`candidate`]: the candidate program on top of it.
//! - [`api`]: the ElectionGroup as it is written; [`group`]: what it means, both pure.
//! - [`operator`]: makes the cluster what the groups ask for.
//! - [`runtime`]: clocks, signals, logs, admin endpoints.

pub mod api;
pub mod campaign;
pub mod candidate;
pub mod election;
pub mod group;
pub mod operator;
pub mod protocol;
pub mod runtime;
