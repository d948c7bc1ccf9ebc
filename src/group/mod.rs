//! What an `ElectionGroup` means, decided where IO is impossible.
//!
//! - [`valid`]: a spec becomes a [`Group`], or one [`Invalid`] that names the field.
//! - [`candidate`]: whether the pods have the candidate that this operator adds now, and the request for that.
//! - [`desired`]: a group becomes its children, as the partial objects that are applied.
//! - [`inject`]: what the pods get on top of the user's template.
//! - `pod`: the user's pod template, checked.
//! - `probe`: probes and hooks of a program that runs only on the leader.
//! - `shape`: types, bounds and forms of single fields, by the schema of the CRD.
//! - [`refusal`]: what an API server refuses of a child, in the words of the group.
//! - [`service`]: the Service that follows the leader, checked and as it is applied.
//! - [`endpoints`]: where that Service leads.
//! - [`drift`]: whether a live child still is as desired.
//! - [`other_operator`]: which of several operators reconciles a group.
//! - [`proof`]: whether the kubelet's report proves that the leader is dead.
//! - [`step_down`]: whether a step-down that was asked for is to be carried out now.
//! - [`suspension`]: whether candidates are to be told that nobody is to lead.
//! - [`rollout`]: whether a revision of the pod template has led well, so that its pods may replace the former ones.
//! - [`trouble`]: what keeps pods from being created, scheduled, started or ready.
//! - [`unhealthy`]: whether a leader whose program does not work is to give way.
//! - [`status`]: what was observed becomes the status.
//! - [`events`]: two statuses become what is told of the way from one to the other.

pub mod candidate;
pub mod desired;
pub mod drift;
pub mod endpoints;
pub mod events;
pub mod inject;
pub mod other_operator;
mod pod;
mod probe;
pub mod proof;
pub mod refusal;
pub mod rollout;
pub mod service;
mod shape;
pub mod status;
pub mod step_down;
pub mod suspension;
pub mod trouble;
pub mod unhealthy;
pub mod valid;

pub use desired::Desired;
pub use shape::prepare;
pub use status::Observed;
pub use valid::{Group, Invalid};
