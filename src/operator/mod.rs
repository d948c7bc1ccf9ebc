//! Reconciles ElectionGroups: observe -> validate -> endpoints -> release what is proved dead or awaits nobody ->
//! candidate update -> desired -> suspension ->
//! apply -> rollout -> step-down -> status -> publish -> pods, one file for each step.
//!
//! Only the replica that holds the operator's own Lease does so, and `gate` lets no write of a replica pass whose
//! leadership is not valid at that moment.

mod apply;
mod candidate_update;
mod endpoints;
mod events;
mod gate;
mod lead;
mod live_pods;
mod observe;
mod other_operator;
mod pods;
mod publish;
mod reconcile;
mod recreated;
mod release;
mod rollout;
mod status;
mod step_down;
mod suspension;

pub use lead::{Error, Options, run};
