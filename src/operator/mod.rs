//! Reconciles ElectionGroups: observe -> validate -> endpoints -> release what is proved dead or awaits nobody ->
//! candidate update -> desired -> suspension ->
//! apply -> rollout -> step-down -> status -> publish -> pods, one file for each step.
//!
//! Only the replica that holds the operator's own Lease does so, and `gate` lets no write of a replica pass whose
//! leadership is not valid at that moment.

mod cache;
mod context;
mod error;
mod leadership;
mod name;
mod others;
mod reconcile;
mod report;
mod steps;

pub use leadership::{Error, Options, run};
