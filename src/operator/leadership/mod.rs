//! The operator's own election: only the replica that holds its Lease writes.

mod gate;
mod lead;

pub use lead::{Error, Options, run};
