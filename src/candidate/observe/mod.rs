//! Watches one Lease, writes nothing to the cluster, and prints each change of leadership.
//!
//! `kubectl get lease --watch` prints every version of the object, and none when a holder dies. `observe` measures
//! expiry by its own clock and prints that too. It compares each version with the last one and prints one line per
//! change, with its kind: acquired, released, expired, edited by hand. With `--once` its exit code shows a script
//! whether a live holder exists. It works on the Lease of any elector and needs no operator.
//!
//! [`Observer`] is pure: it gets sights of the Lease and readings of the clocks, and returns [`Change`]s.
//! [`watch`] feeds it from an API server and prints.
//!
//! # Guarantees
//! - A holder counts as expired when the duration in the record has passed since *this program* last observed a change
//!   of the record, measured by its own clock. The times in the record are only printed.
//! - Each term has one [`Kind::Acquired`] (or [`Kind::Held`], if it started before the first sight). An expiry or a
//!   release that was observed is printed before it; otherwise the change names the previous holder.
//!
//! # Caveats
//! - Changes while the API server does not answer, or between two polls, remain unknown. The next printed change shows
//!   that.
//! - A holder that renews while this program cannot observe it is printed as expired, with a warning if the watch is
//!   known to be broken, and as [`Kind::Resumed`] once a renewal is observed.

mod change;
mod flags;
mod observer;
mod sight;
pub mod watch;

pub use change::{Change, Kind, TokenSource, Verdict};
pub use flags::{ObserveFlags, Options, Output};
pub use observer::Observer;
pub use sight::{How, LeaseSight, Sight, Warning};
