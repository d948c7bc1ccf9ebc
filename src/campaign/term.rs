use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::election::{Moment, Version};
use crate::runtime::clock::Clock;

/// One term of leadership: from [`Notice::Lead`](super::Notice::Lead) to the end of the work.
#[derive(Clone)]
pub struct Term {
    number: u64,
    token: Version,
    transitions: i32,
    valid_until: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
}

impl Term {
    pub(crate) fn new(
        number: u64,
        token: Version,
        transitions: i32,
        valid_until: Moment,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let term = Self { number, token, transitions, valid_until: Arc::new(AtomicU64::new(0)), clock };
        term.set_valid_until(valid_until);
        term
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn set_valid_until(&self, valid_until: Moment) {
        let nanos = u64::try_from(valid_until.elapsed_since_boot().as_nanos()).unwrap_or(u64::MAX);
        self.valid_until.store(nanos, Ordering::Release);
    }

    /// The fencing token: the `resourceVersion` of the acquiring write. Rises from term to term, also when the Lease
    /// was deleted in between. Hand it to the protected resource with each write; the resource remembers the highest
    /// and refuses lower ones.
    pub fn token(&self) -> &str {
        self.token.as_str()
    }

    /// The Lease's `leaseTransitions` at the begin of this term.
    pub fn transitions(&self) -> i32 {
        self.transitions
    }

    /// Whether this candidate may act as the leader now. Reads the clock; takes no lock and asks nobody.
    pub fn is_valid(&self) -> bool {
        !self.remaining().is_zero()
    }

    /// How long [`is_valid`](Term::is_valid) stays true if no renewal succeeds; zero if it is false.
    pub fn remaining(&self) -> Duration {
        Duration::from_nanos(self.valid_until.load(Ordering::Acquire)).saturating_sub(self.clock.since_boot())
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Term")
            .field("token", &self.token.as_str())
            .field("transitions", &self.transitions)
            .field("remaining", &self.remaining())
            .finish()
    }
}
