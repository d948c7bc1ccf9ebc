//! High availability for any program on Kubernetes: one active, the rest ready.
//!
//! A Rust program that needs one leader uses [`campaign`], which runs the [`election`] on a `coordination.k8s.io`
//! Lease. The operator and the candidate program use the same two modules.
//!
//! The modules, from the inside out. Each imports only modules above it; a test checks that:
//!
//! - [`protocol`]: the names that programs and objects share. Constants only.
//! - [`election`]: the election as a pure transition function. Start here to judge its safety.
//! - [`api`]: the wire types of the ElectionGroup and its CRD. Pure.
//! - [`group`]: the meaning of an ElectionGroup: the desired objects, the decisions, the status. Pure.
//! - [`runtime`]: clocks, signals, logs, admin endpoints.
//! - [`campaign`]: runs the election on a Lease. The public face of the library.
//! - [`candidate`]: the program in the pods, on top of a campaign.
//! - [`operator`]: reconciles ElectionGroups.

pub mod api;
pub mod campaign;
pub mod candidate;
pub mod election;
pub mod group;
pub mod operator;
pub mod protocol;
pub mod runtime;
