//! The operator: reconciles ElectionGroups.
//!
//! `leadership` runs the operator's own election. Only the replica that holds the operator's Lease reconciles, and its
//! gate refuses every write that is sent while that leadership is not valid.
//!
//! `cache` watches the groups and their objects, and triggers a reconcile of the group that a change concerns.
//!
//! `reconcile` calls the files of `steps` and `report` in this order:
//!
//! 1. `steps/other_operator` leaves a group alone that another operator reconciles, or takes it over.
//! 2. `Group::check` validates the spec.
//! 3. `steps/endpoints` points the leader Service to the leader, if its EndpointSlice exists; step 6 creates that.
//! 4. `steps/release` releases the Lease of a leader that is proven dead; `steps/recreated` releases a recreated Lease
//!    that no pod has to wait for.
//! 5. `steps/candidate_update` records the candidate that the pods get.
//! 6. `steps/children` applies the children: `steps/suspension` first writes onto the Lease that the group is suspended,
//!    or that it no longer is, then `steps/apply` applies one child after another.
//! 7. `report/status` reads the facts from the cache.
//! 8. `group::judge` judges them, with the leader's program as `steps/rollout` observes it: how far the newest revision
//!    is, and whether the leader has to hand over, to a new revision or because its program is not ready
//!    (`unhealthyTimeoutSeconds`).
//! 9. `steps/rollout` writes the proven revision onto the Lease. `steps/step_down` carries out a step-down: a requested
//!    one, or else the one from step 8.
//! 10. `report/status_write` writes the status, built from the results of steps 5 to 9, `report/events` the Events,
//!     `report/publish` the metrics.
//! 11. `steps/pods` opens readiness gates and writes role labels.
//!
//! `steps/apply` creates and adopts the group's Lease; every other write of it goes through `lease`.
//!
//! A paused or invalid group skips steps 4 and 6 and gets no role labels in step 11; an invalid one skips step 8, too.
//! Steps 1, 5 and 9 record Events of their own. If a request of step 6 failed, the reconcile ends after step 10 and is
//! retried. An operator may die at any point: the next one continues from what the API server stores.

use k8sensus::campaign;
use {
    k8sensus_api as api, k8sensus_election as election, k8sensus_group as group, k8sensus_protocol as protocol,
    k8sensus_runtime as runtime,
};

mod budget;
mod cache;
mod context;
mod error;
mod leadership;
mod lease;
mod name;
mod others;
mod reconcile;
mod report;
mod steps;

pub use leadership::{Error, Options, run};
