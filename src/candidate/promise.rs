//! What a sidecar has promised its app, and until when it must be kept. Reads no clock.
//!
//! # Guarantees
//! - A promise ends with the leadership that it is made of at the latest, and lasts no longer than the longest one may.
//! - After [`close`](Promises::close) none is made until the next term.
//! - [`kept_at`](Promises::kept_at) says nothing while promises may still be made; then it says when the last one has run out,
//!   or that the app has stopped.
//! - Whoever says that it has stopped is heard for a term that it can have been told of: for the one whose token it names, else
//!   for the present one if that was promised to anybody. A word that was long on its way ends no later term that nobody knows
//!   of yet; to be sure of that in every case, name the token.

use std::time::Duration;

use crate::election::Moment;

/// The promises of one candidate.
#[derive(Clone, Debug)]
pub struct Promises {
    longest: Duration,
    term: Option<Told>,
}

/// What was said in a term.
#[derive(Clone, Debug)]
struct Told {
    token: String,
    /// Promises may be made.
    open: bool,
    /// When the last one ends.
    end: Option<Moment>,
    /// The app says that it has stopped.
    stopped: bool,
}

/// What an app's word that it has stopped brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The present term has nothing left to wait for.
    Stopped,
    /// It is of another term than the present one, or there is none.
    OtherTerm,
    /// Nobody was told of the present term, so it cannot be meant.
    Untold,
}

impl Promises {
    /// Promises of `longest` at most; none can be made yet.
    pub fn of_at_most(longest: Duration) -> Self {
        Self { longest, term: None }
    }

    /// A term begins; the one before has [ended](Promises::end).
    pub fn begin(&mut self, token: &str) {
        self.term = Some(Told { token: token.to_owned(), open: true, end: None, stopped: false });
    }

    /// Promises leadership from `now` on: for how long, in whole milliseconds. `None` if none can be promised. `remaining`
    /// is what leadership lasts without another renewal, read at `now` or later.
    pub fn make(&mut self, now: Moment, remaining: Duration) -> Option<Duration> {
        let told = self.term.as_mut().filter(|told| told.open)?;
        let millis = u64::try_from(remaining.min(self.longest).as_millis()).unwrap_or(u64::MAX);
        let promise = Duration::from_millis(millis);
        if promise.is_zero() {
            return None;
        }
        // An earlier one may last longer.
        told.end = told.end.max(Some(now + promise));
        Some(promise)
    }

    /// No more promises in this term: its end was ordered.
    pub fn close(&mut self) {
        if let Some(told) = &mut self.term {
            told.open = false;
        }
    }

    /// The app says that it has stopped, in the term of `token` if it names one.
    pub fn stopped(&mut self, token: Option<&str>) -> Heard {
        match &mut self.term {
            Some(told) if token.is_none_or(|token| token == told.token) => {
                if token.is_none() && told.end.is_none() {
                    return Heard::Untold;
                }
                (told.open, told.stopped) = (false, true);
                Heard::Stopped
            }
            _ => Heard::OtherTerm,
        }
    }

    /// From when on the present term may be given up: `None` while promises may be made or there is no term.
    pub fn kept_at(&self) -> Option<Moment> {
        let told = self.term.as_ref().filter(|told| !told.open)?;
        let at_once = Moment::since_boot(Duration::ZERO);
        Some(if told.stopped { at_once } else { told.end.unwrap_or(at_once) })
    }

    /// The term is given up. Returns whether the app had said that it has stopped.
    pub fn end(&mut self) -> bool {
        self.term.take().is_some_and(|told| told.stopped)
    }
}
