//! Copies of `k8sensus`'s election and campaign, created at build time, with flaws for each [`Rule`] of the election.
//! Each flaw is inactive until it is switched on. A check that misses them proves nothing about the original.

use std::sync::atomic::{AtomicUsize, Ordering};

mod flaw;
mod flaws;

/// Unchanged modules that the copies use.
pub use {k8sensus_protocol as protocol, k8sensus_runtime as runtime};

pub use flaw::{Flaw, FoundBy, Rule};
pub use flaws::FLAWS;

include!(concat!(env!("OUT_DIR"), "/modules.rs"));

const NONE: usize = usize::MAX;
static ACTIVE: AtomicUsize = AtomicUsize::new(NONE);

/// Switches one flaw of [`FLAWS`] on and all others off, for the whole process.
pub fn switch_on(flaw: &Flaw) {
    let number = FLAWS.iter().position(|other| other.name == flaw.name);
    ACTIVE.store(number.expect("flaws come from the table"), Ordering::SeqCst);
}

/// Switches all flaws off: the copies then behave like the original.
pub fn switch_off() {
    ACTIVE.store(NONE, Ordering::SeqCst);
}

fn is_active(number: usize) -> bool {
    ACTIVE.load(Ordering::Relaxed) == number
}
