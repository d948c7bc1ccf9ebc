//! The Lease of a group, where there is none.

use serde_json::{Value, json};

use crate::protocol::lease::RECREATED_HOLDER;

/// How a missing Lease is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewLease {
    /// The group never had one, and no pod of it runs: the first candidate takes it at once.
    First,
    /// A leader of the lost Lease may still be at work: nobody acquires before it must have stopped.
    Recreated {
        /// `leaseTransitions` as the status knows them.
        transitions: i32,
        /// For how long a leader of the lost Lease may still be at work.
        seconds: i32,
    },
}

/// The Lease to create, `now` being the wall clock as RFC 3339 with microseconds.
pub fn new_lease(lease: &Value, new: NewLease, now: &str) -> Value {
    let mut lease = lease.clone();
    let (holder, seconds, transitions) = match new {
        NewLease::First => ("", 1, 0),
        NewLease::Recreated { transitions, seconds } => (RECREATED_HOLDER, seconds, transitions),
    };
    lease["spec"] = json!({
        "holderIdentity": holder,
        "leaseDurationSeconds": seconds,
        "acquireTime": now,
        "renewTime": now,
        "leaseTransitions": transitions,
    });
    lease
}
