//! Decisions, made from facts alone. Most have the same shape: a `Question` with all inputs, and a function `decide`.

pub mod candidate_update;
pub mod endpoints;
pub mod flapping;
pub mod other_operator;
pub mod proof;
pub mod rollout;
pub mod step_down;
pub mod successor;
pub mod suspension;
pub mod unhealthy;
