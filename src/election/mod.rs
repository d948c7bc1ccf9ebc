//! The election as a pure transition function: no Kubernetes client, no async runtime, no clock.
//!
//! [`Elector::step`] takes a [`Reading`] of the clocks and an [`Event`], and answers with [`Action`]s. Whoever drives
//! it (see `campaign`) performs the actions and feeds back what came. The same function can therefore be
//! driven by a real API server, by a simulation or by a model checker.
//!
//! # Guarantees
//! - **At most one work at a time among candidates that follow these rules.** Leading is valid until the *send* of
//!   the last acknowledged write plus the renew deadline. A standby waits the whole lease duration from *its own*
//!   first sight of that write, which cannot be earlier than the send.
//! - **Work ends before the Lease is released.** A release is only written after [`Event::WorkEnded`].
//! - **Every write is a compare-and-swap** on the `resourceVersion` that was seen last.
//! - **Each term has a fencing token** that rises from term to term: the `resourceVersion` of the acquiring write.
//! - **A leader whose Lease is deleted stops in good order**, where only an operator creates the Lease. All others wait for a
//!   Lease that was created again ([`Timing::recreation_wait`]), so its work may take nine tenths of that, from the send of its
//!   last acknowledged write. Then it acquires the Lease at once, since the others wait for its work only.
//! - An identity is one *incarnation*: a second process with the same name is a foreign holder.
//! - A Lease that its holder did not release is taken before its time only from a process that is known to be dead
//!   ([`Candidate::with_dead_predecessors`]).
//! - A [`Preference`] of the Lease for a successor or a revision makes the others wait 1 s longer, and never makes anybody
//!   wait less. So a successor that does not come costs a second. One that nobody is to follow makes all wait a lease
//!   duration longer.
//! - A candidate that is not ready to lead ([`Event::ReadyToLead`]) takes no Lease and hinders nobody else from it.
//! - Who stepped down abstains until it has seen another lead, for a lease duration at most.
//!
//! # Assumptions
//! - All members of a group use the same lease duration, and their clocks' *rates* differ by less than a tenth.
//!   The clocks' readings may differ by any amount.
//! - [`Moment`]s come from a clock that goes on while the machine is suspended (`CLOCK_BOOTTIME`).
//! - [`Action::Stop`] is obeyed: the work is dead at `kill_at`.
//! - Where candidates may not create the Lease, a Lease that is created again after a deletion has [`RECREATED_HOLDER`] as its holder
//!   and at least the recreation wait of every leader that may still work as its duration.
//! - What is said of dead predecessors is true: of every other process under that name and prefix, those to come included.
//!
//! # Caveats
//! A process that is frozen between its check and its write, a paused virtual machine, a force-deleted pod can act
//! after their term has ended. No lease can prevent that; the protected resource must compare fencing tokens. See
//! Martin Kleppmann, "How to do distributed locking" (2016). A candidate that may create the Lease and finds none creates
//! it, as client-go does, at once if it has seen none so far; and a creation expects no version. So whoever deletes a live
//! leader's Lease by hand before every such candidate has seen it, or while a creation is still on its way, gives up the
//! guarantee until that leader's next renewal. Where an operator makes the Lease, and candidates may not, there is no such
//! moment.
//!
//! # How it is checked
//! `tests/mutants` explores this very function exhaustively within the bounds of twelve families of faults (11.8 million states),
//! simulates its driver with 100,000 seeds, and does both to copies with a flaw for each rule, every one of which must be found.
//!
//! # Source
//! The record and its rules are those of client-go `tools/leaderelection` (v0.37); each deviation is named where it
//! is made.

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
