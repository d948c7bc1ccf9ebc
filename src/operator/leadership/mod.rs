//! The operator's own election: only the replica that holds the operator's Lease writes.

mod gate;
mod lead;

pub use lead::{Error, Options, run};
