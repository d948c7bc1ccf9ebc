use std::ops::Deref;

use tokio::sync::mpsc::UnboundedSender;

use super::{Command, Term};

/// The right to work as the leader for one term, and the duty to report the end of that work. Dereferences to its
/// [`Term`].
///
/// # Guarantees
/// The Lease is not released while the guard exists: it is renewed until [`end`](LeaderGuard::end), or expires.
///
/// A guard that is dropped without `end` (a panic, a forgotten path) releases nothing, because work may still run. The
/// campaign then ends without a release, and the other candidates wait until the Lease expires.
#[derive(Debug)]
#[must_use = "a guard that is dropped without `end` leaves the Lease to expire"]
pub struct LeaderGuard {
    term: Term,
    commands: UnboundedSender<Command>,
    ended: bool,
}

impl LeaderGuard {
    pub(super) fn new(term: Term, commands: UnboundedSender<Command>) -> Self {
        Self { term, commands, ended: false }
    }

    /// Returns the term. A clone of it can be checked from anywhere.
    pub fn term(&self) -> &Term {
        &self.term
    }

    /// Sets whether the work is ready. While it is, the annotation [`READY_OF`](super::READY_OF) of the Lease names
    /// this term. Returns at once; a change causes an immediate renewal, which is retried until it succeeds.
    ///
    /// The work of a new term is not ready. The release removes the annotation. If another client acquires the Lease
    /// and leaves the annotation in place, it names a past term and has no effect.
    pub fn show_ready(&self, ready: bool) {
        // Fails only after the end of the campaign.
        let _ = self.commands.send(Command::ShowReady { term: self.term.number(), ready });
    }

    /// Reports that the work has ended completely, so that the Lease may be released.
    ///
    /// If leadership is not lost, this gives it up: the candidate abstains until another candidate leads, for at most
    /// one lease duration, then campaigns again.
    pub fn end(mut self) {
        self.ended = true;
        self.term.end();
        // Fails only after the end of the campaign: nothing is left to release.
        let _ = self.commands.send(Command::WorkEnded { term: self.term.number() });
    }
}

impl Deref for LeaderGuard {
    type Target = Term;

    fn deref(&self) -> &Term {
        &self.term
    }
}

impl Drop for LeaderGuard {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.commands.send(Command::Abandon);
        }
    }
}
