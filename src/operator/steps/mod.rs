//! The steps of a reconcile, one file each. The docs of the operator list them in order.

pub(super) mod apply;
pub(super) mod candidate_update;
pub(super) mod children;
pub(super) mod endpoints;
pub(super) mod live_pods;
pub(super) mod other_operator;
pub(super) mod pods;
pub(super) mod recreated;
pub(super) mod release;
pub(super) mod rollout;
pub(super) mod step_down;
pub(super) mod suspension;
