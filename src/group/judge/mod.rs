//! What to do, decided from facts alone. Each decision has the same shape: a `Question` with all that it rests on, and `decide`.

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
