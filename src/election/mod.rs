//! The leader election as a pure transition function: no Kubernetes client, no async runtime, no clock.
//!
//! [`Elector::step`] maps a [`Reading`] of the clocks and an [`Event`] to a list of [`Action`]s. The caller performs
//! the actions and reports each result as the next event. `campaign` does so against an API server; a simulation and a
//! model checker drive the same function.
//!
//! # Guarantees
//! - **At most one candidate's work runs at a time**, among candidates that follow these rules. Leadership is valid
//!   until the *send* of the last acknowledged write plus the renew deadline. A standby waits the whole lease duration
//!   from *its own* first observation of that write, which cannot precede the send.
//! - **The work ends before the Lease is released.** A leader writes the release only after [`Event::WorkEnded`].
//! - **Every write to an existing Lease is a compare-and-swap** on the last observed `resourceVersion`.
//! - **Each term has a fencing token**, the `resourceVersion` of the acquiring write. It rises from term to term, even
//!   if the Lease is deleted in between.
//! - **An identity is one incarnation.** A second process with the same name is a foreign holder.
//! - **An unexpired Lease that was not released is acquired only on proof.** The candidate still holds it itself, or
//!   the holder is a dead predecessor ([`Candidate::with_dead_predecessors`]), or all others wait for this candidate's
//!   work (see Deletion).
//! - **A [`Preference`] can only lengthen a wait.** A named successor or revision makes the others wait 1 s longer, so
//!   a dead successor costs one second. A suspension makes all candidates wait one lease duration longer.
//! - **A candidate that is not ready** ([`Event::ReadyToLead`]) acquires no Lease and delays no other candidate.
//!
//! # Assumptions
//! - All candidates of a Lease use the same durations, and the *rates* of their clocks differ by less than a tenth. The
//!   readings may differ by any amount.
//! - [`Moment`]s come from a clock that advances while the machine is suspended (`CLOCK_BOOTTIME`).
//! - [`Action::Stop`] is obeyed: the work is dead at `kill_at`.
//! - Where candidates may not create the Lease, a Lease that is recreated after a deletion has [`RECREATED_HOLDER`] as
//!   its holder, and its duration is at least the recreation wait of every leader that may still work.
//! - A prefix of dead predecessors is true: every other process with that identity and prefix is dead, now and later.
//!
//! # An election, step by step
//! At any point the process may die. Unless a step says otherwise, the Lease then keeps its last record, and every
//! other candidate waits that record's duration from its own first observation of it. A restarted process is a new
//! incarnation and waits like the others, unless it has proof of its predecessor's death.
//!
//! **Acquire**
//! 1. The candidate reads the Lease once, then follows the watch. Without permission to watch it reads every retry
//!    period. A missing Lease that it may not create is read every lease duration as well.
//! 2. Each change of the record restarts the wait: the record's duration (the candidate's own, if that is invalid), or
//!    nothing if the record is a release; and 0 to 4 ms more. A holder that was emptied by hand keeps the last
//!    duration. A changed annotation restarts nothing.
//! 3. After the wait, the candidate PUTs itself as the holder at the observed version: its identity and lease duration,
//!    both times, `leaseTransitions` + 1, and its incarnation. A process that still holds the Lease from its own
//!    earlier write keeps `acquireTime` and `leaseTransitions`.
//! 4. The acknowledgment starts the term ([`Action::Lead`]). After a conflict, or if the answer is lost, the candidate
//!    reads the Lease. If the Lease shows its own write, the candidate writes again: only an acknowledged write starts
//!    a term.
//!
//! **Renew**
//! 1. One renew interval after the send of the last acknowledged write, the leader PUTs a new `renewTime`. It differs
//!    in its whole second from the previous one. The other four fields stay the same.
//! 2. The acknowledgment moves the end of the term to the send of that PUT plus the renew deadline. Nothing else does:
//!    no read, no watch event, no late answer.
//! 3. A failed renewal is retried after 0.25 s, doubling up to the retry period, or after the server's `Retry-After`
//!    (up to the renew deadline) if that is longer. A conflict is followed by a read. No request outlasts the term, and
//!    the end of the term stays where it is.
//!
//! **Lose**
//! 1. At the end of the term the work gets [`Action::Stop`] with the stop grace, counted from that end. If the leader
//!    observes a holder that is not this process, or none, the work must stop at once: `kill_at` is now.
//! 2. The leader writes nothing until [`Event::WorkEnded`]. Then it is a standby. If the Lease is still its own, it
//!    acquires the Lease at once, or releases it if a step-down or shutdown was requested; otherwise it waits like the
//!    others.
//! 3. An event more than 1 s after the planned wake-up shows that the process was frozen. Leadership is then invalid
//!    ([`Action::Valid`]) until a renewal succeeds.
//!
//! **Release** (step-down, shutdown, lost readiness, or work that ends by itself)
//! 1. The work is asked to stop, without a deadline ([`Loss::Requested`]). The leader keeps renewing.
//! 2. After [`Event::WorkEnded`], the candidate PUTs the release at the observed version: empty holder, duration 1,
//!    both times now, transitions kept, no incarnation. Standbys acquire it at once. If the process dies first, or if
//!    the release fails for 1.5 s, the Lease expires.
//! 3. After a shutdown, the candidate leaves ([`Action::Finish`]). Otherwise it abstains until it observes another
//!    holder, for at most one lease duration.
//!
//! **Deletion and recreation, where only an operator creates the Lease**
//! 1. The leader observes the deletion by the watch or by a 404. The work is asked to stop, without a deadline
//!    ([`Loss::LeaseDeleted`]). No renewal is possible, and the term's validity is not extended.
//! 2. The operator creates the Lease with [`RECREATED_HOLDER`] as its holder. Every other candidate waits that record's
//!    duration. The work may therefore live for nine tenths of [`Timing::recreation_wait`], or of the new record's
//!    duration if that is shorter, from the send of the last acknowledged write. A duration below the lease duration
//!    protects nothing: the work must stop at once.
//! 3. Once its work has ended, the former leader acquires the recreated Lease without that wait: the others wait only
//!    for its work. A Lease that is recreated after the work's time limit is waited for in full. If the leader dies
//!    instead, the recreated Lease expires like any other.
//!
//! **Deletion, where candidates may create the Lease**
//! 1. The leader stops its work at once ([`Loss::Deposed`]).
//! 2. A candidate that observed the deletion waits one lease duration, then POSTs the Lease with 0 transitions. A
//!    candidate that never observed the Lease does so at once, as client-go does.
//!
//! # Caveats
//! - A process that is frozen between its check and its write, a paused virtual machine or a force-deleted pod can act
//!   after its term has ended. No lease can prevent that; the protected resource must compare fencing tokens. See
//!   Martin Kleppmann, "How to do distributed locking" (2016).
//! - Where candidates may create the Lease, do not delete a live leader's Lease by hand. A creation expects no version.
//!   A candidate that has not yet observed the Lease, or whose creation is still in flight, may then lead beside the
//!   old leader until that leader's next renewal. Where only an operator creates the Lease, there is no such moment.
//!
//! # How it is checked
//! `tests/mutants` explores this function exhaustively within the bounds of twelve families of faults (11.8 million
//! states) and simulates its driver with 100,000 seeds in CI (20,000 elsewhere). It does so with copies that break one
//! rule each, too: every flaw must be found.
//!
//! # Source
//! The record and its rules are those of client-go `tools/leaderelection` (v0.37). Each deviation is named where it
//! occurs.

use k8sensus_protocol as protocol;

mod candidate;
mod elector;
mod event;
mod moment;
mod record;
mod state;
mod timing;

pub use candidate::{Candidate, InvalidCandidate};
pub use elector::Elector;
pub use event::{Action, Event, Failure, Loss, Purpose, Sight};
pub use moment::{Moment, Reading, WallTime};
pub use record::{Preference, Record, Snapshot, Version};

pub use crate::protocol::lease::{RECREATED_HOLDER, term_name};
pub use timing::{InvalidTiming, Timing};
