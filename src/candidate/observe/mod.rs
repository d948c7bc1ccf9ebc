//! Watches one Lease, writes nothing, and prints each change of leadership.
//!
//! [`Observer`] is pure: it takes sights of the Lease and readings of the clocks in, and answers with [`Change`]s.
//! [`watch`] feeds it from an API server and prints.
//!
//! # Guarantees
//! - A holder counts as expired when the duration in the record has passed since *this program* last saw the record
//!   change, measured by its own clock. The times in the record are printed, and nothing else.
//! - Each term has one [`Kind::Acquired`] (or [`Kind::Held`], if it had begun before the first sight). An expiry or a
//!   release that was seen is printed before it; otherwise the change names the holder before.
//!
//! # Caveats
//! - What happened while the API server did not answer, or between two polls, is not known. The change that is printed
//!   then says so.
//! - A holder that renews while this program cannot see it is printed as expired, with a warning where the watch is
//!   known to be broken, and as [`Kind::Resumed`] once a renewal is seen.

mod change;
mod flags;
mod observer;
mod sight;
pub mod watch;

pub use change::{Change, Kind, TokenSource, Verdict};
pub use flags::{ObserveFlags, Options, Output};
pub use observer::Observer;
pub use sight::{How, LeaseSight, Sight, Warning};
