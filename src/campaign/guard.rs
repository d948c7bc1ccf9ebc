use std::ops::Deref;

use tokio::sync::mpsc::UnboundedSender;

use super::{Command, Term};

/// The right to work as the leader, and the duty to say when that work has ended. There is one for each term.
///
/// It derefs to its [`Term`].
///
/// # Guarantees
/// The Lease is not released while the guard is out: it is renewed until [`end`](LeaderGuard::end), or expires.
///
/// A guard that is dropped without `end` (a panic, a forgotten path) releases nothing, since work may still run. The campaign
/// then ends without a release, and the others wait until the Lease has expired.
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

    /// The term, to be looked at from elsewhere.
    pub fn term(&self) -> &Term {
        &self.term
    }

    /// Says on the Lease, for everybody to see, whether the work is ready: the annotation
    /// [`READY_OF`](super::READY_OF) names this term as long as it is. Returns at once; a change is written with a renewal of
    /// its own, and again until one succeeds. At a term's begin nothing is ready; its end and its release take the word back,
    /// and whoever acquires the Lease without one leaves a word that names no present term.
    pub fn show_ready(&self, ready: bool) {
        // A campaign that is over writes nothing any more.
        let _ = self.commands.send(Command::ShowReady { term: self.term.number(), ready });
    }

    /// The work has ended and nothing of it is left: the Lease may be released.
    ///
    /// Said while leadership is not lost, it gives leadership up: this candidate abstains until another leads, for a lease
    /// duration at most, then campaigns again.
    pub fn end(mut self) {
        self.ended = true;
        self.term.end();
        // A campaign that is over has nothing left to release.
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
