//! The Lease to create where a group has none.

use serde_json::{Value, json};

use crate::protocol::lease::RECREATED_HOLDER;

/// The kinds of a new Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewLease {
    /// The group never had a Lease, and none of its pods runs: the first candidate acquires it at once.
    First,
    /// A leader of the lost Lease may still be at work: no candidate acquires the Lease before that leader must have
    /// stopped.
    Recreated {
        /// `leaseTransitions` of the status.
        transitions: i32,
        /// How long a leader of the lost Lease may still be at work.
        seconds: i32,
    },
}

/// Returns the Lease to create. `now` is the wall clock as RFC 3339 with microseconds.
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
