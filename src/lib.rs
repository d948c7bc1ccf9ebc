//! Leader election by a `coordination.k8s.io` Lease, with client-go's semantics, for Rust programs.
//!
//! Start with [`campaign`]: it runs the [`election`] on a Lease and hands out a guard for each term. The operator and
//! the candidate program of k8sensus lead through these two modules.
//!
//! Like every library, this one chooses no version of Kubernetes for `k8s-openapi`: your program does, with one of its
//! features.
//!
//! Features, none of them on by default: `metrics` has client-go's two metrics for `prometheus-client`; `clap` has the
//! durations of the election as flags.

pub mod campaign;

pub use k8sensus_election as election;
#[doc(hidden)]
pub use k8sensus_protocol as protocol;
#[doc(hidden)]
pub use k8sensus_runtime as runtime;
pub use k8sensus_runtime::shutdown;
