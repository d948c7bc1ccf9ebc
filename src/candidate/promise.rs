//! The promises of a sidecar to its app, and until when they must be kept. Reads no clock.
//!
//! # Guarantees
//! - A promise ends no later than the leadership it is based on, and lasts no longer than the longest promise allowed.
//! - After [`close`](Promises::close) no promise is made until the next term.
//! - [`releasable_at`](Promises::releasable_at) returns nothing while promises may still be made. Afterwards it returns
//!   when the last promise expires, or the start of time if the app has stopped.
//! - A report that the app has stopped applies only to a term that the app can know of: the term whose token it names,
//!   else the current term if any promise was made in it. So a delayed report cannot end a later term that the app does
//!   not know of yet. To be sure of that in every case, name the token.

use std::time::Duration;

use crate::election::Moment;

/// The promises of one candidate.
#[derive(Clone, Debug)]
pub struct Promises {
    longest: Duration,
    term: Option<TermPromises>,
}

/// The promises of one term.
#[derive(Clone, Debug)]
struct TermPromises {
    token: String,
    /// Whether promises may be made.
    open: bool,
    /// When the last promise expires.
    end: Option<Moment>,
    /// Whether the app has reported that it stopped.
    stopped: bool,
}

/// The effect of an app's report that it has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopOutcome {
    /// The current term has nothing left to wait for.
    Stopped,
    /// The report is for another term, or there is no current term.
    OtherTerm,
    /// Nothing was promised in the current term, so the report cannot be meant for it.
    NothingPromised,
}

impl Promises {
    /// Creates the promises of a candidate, each of at most `longest`. None can be made before a term begins.
    pub fn of_at_most(longest: Duration) -> Self {
        Self { longest, term: None }
    }

    /// Begins a term; the previous one has [ended](Promises::end).
    pub fn begin(&mut self, token: &str) {
        self.term = Some(TermPromises { token: token.to_owned(), open: true, end: None, stopped: false });
    }

    /// Promises leadership from `now` on and returns for how long, in whole milliseconds; `None` if nothing can be
    /// promised. `remaining` is how long leadership lasts without another renewal, read at `now` or later.
    pub fn make(&mut self, now: Moment, remaining: Duration) -> Option<Duration> {
        let term = self.term.as_mut().filter(|term| term.open)?;
        let millis = u64::try_from(remaining.min(self.longest).as_millis()).unwrap_or(u64::MAX);
        let promise = Duration::from_millis(millis);
        if promise.is_zero() {
            return None;
        }
        // An earlier one may last longer.
        term.end = term.end.max(Some(now + promise));
        Some(promise)
    }

    /// Makes no more promises in this term: it was ordered to end.
    pub fn close(&mut self) {
        if let Some(term) = &mut self.term {
            term.open = false;
        }
    }

    /// Records that the app has stopped, in the term of `token` if it names one.
    pub fn stopped(&mut self, token: Option<&str>) -> StopOutcome {
        match &mut self.term {
            Some(term) if token.is_none_or(|token| token == term.token) => {
                if token.is_none() && term.end.is_none() {
                    return StopOutcome::NothingPromised;
                }
                (term.open, term.stopped) = (false, true);
                StopOutcome::Stopped
            }
            _ => StopOutcome::OtherTerm,
        }
    }

    /// Returns from when on the current term may be released: `None` while promises may be made or there is no term.
    pub fn releasable_at(&self) -> Option<Moment> {
        let term = self.term.as_ref().filter(|term| !term.open)?;
        let immediately = Moment::since_boot(Duration::ZERO);
        Some(if term.stopped { immediately } else { term.end.unwrap_or(immediately) })
    }

    /// Ends the term. Returns whether the app had reported that it stopped.
    pub fn end(&mut self) -> bool {
        self.term.take().is_some_and(|term| term.stopped)
    }
}
