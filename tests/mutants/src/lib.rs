//! Election and campaign of `k8sensus`, copied at build time with flaws for each rule of its contract built in, each asleep until
//! it is switched on. A check that finds none of them proves nothing about the original.

use std::sync::atomic::{AtomicUsize, Ordering};

mod flaw;
mod flaws;

/// As it is: what the copies read clocks and wait by.
pub use k8sensus::{protocol, runtime};

pub use flaw::{Flaw, FoundBy};
pub use flaws::FLAWS;

include!(concat!(env!("OUT_DIR"), "/rooms.rs"));

const NONE: usize = usize::MAX;
static ACTIVE: AtomicUsize = AtomicUsize::new(NONE);

/// Switches one flaw of [`FLAWS`] on and all others off, in the whole process.
pub fn switch_on(flaw: &Flaw) {
    let number = FLAWS.iter().position(|other| other.name == flaw.name);
    ACTIVE.store(number.expect("flaws come from the table"), Ordering::SeqCst);
}

/// Switches all flaws off: the copy then does what the original does.
pub fn switch_off() {
    ACTIVE.store(NONE, Ordering::SeqCst);
}

fn is_active(number: usize) -> bool {
    ACTIVE.load(Ordering::Relaxed) == number
}
