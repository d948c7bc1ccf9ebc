//! Probes, hooks and stop signal of a container, applied by the candidate to its command.
//!
//! The kubelet sees only the candidate, which also runs on a standby. So the operator removes the user's probes and
//! hooks from the pod and hands them to the candidate (variable `K8SENSUS_APP`). The candidate runs them from the start
//! of the command on, by the kubelet's own rules, and the kubelet probes the candidate instead, see [`health`].
//!
//! [`spec`] is what the user wrote, [`replay`] decides what is due and what to answer, and [`probe`] probes the app.

#![deny(missing_docs)]

mod dial;
mod grpc;
pub mod health;
mod http;
pub mod probe;
pub mod replay;
pub mod signal;
pub mod spec;
mod tls;

pub use spec::AppSpec;
