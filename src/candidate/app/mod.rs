//! What Kubernetes does around a container's own process, done by the candidate around its command: probes, hooks and the signal
//! to stop.
//!
//! The kubelet sees the candidate, which runs on a standby too. So the user's probes and hooks are taken out of the pod and handed
//! to the candidate (variable `K8SENSUS_APP`), which carries them out from the start of the command on, by the kubelet's own
//! rules. The kubelet asks the candidate instead, see [`health`].
//!
//! [`spec`] is what the user wrote, [`replay`] decides what is due and what to answer, and [`probe`] asks the app.

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
