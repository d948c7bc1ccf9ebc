//! The surroundings of every program here: clocks, signals, logs and the admin endpoints.
//!
//! Depends on no other crate of this workspace except `k8sensus-protocol`.

#[cfg(all(feature = "programs", not(target_os = "linux")))]
compile_error!("the programs of k8sensus, and with them the feature `programs`, are for Linux only");

#[cfg(feature = "programs")]
use k8sensus_protocol as protocol;

#[cfg(feature = "programs")]
pub mod admin;
pub mod backoff;
#[cfg(feature = "programs")]
pub mod cli;
pub mod clock;
#[cfg(feature = "programs")]
pub mod connections;
#[cfg(feature = "programs")]
pub mod end_reason;
#[cfg(feature = "programs")]
pub mod kubeconfig;
#[cfg(feature = "programs")]
pub mod memory;
#[cfg(feature = "programs")]
pub mod origin;
pub mod retry_after;
pub mod shutdown;
#[cfg(feature = "programs")]
pub mod telemetry;
pub mod tls;
