//! The other operators that statuses name, and their last known states.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::group::judge::other_operator::OtherOperator;

/// How long a state is reused: thousands of groups may name the same operator.
const KNOWN_FOR: Duration = Duration::from_secs(5);

/// The states of other operators by the names of their Leases, each with the time of its read.
#[derive(Default)]
pub(super) struct OtherOperators(Mutex<HashMap<String, (Duration, OtherOperator)>>);

impl OtherOperators {
    /// Returns the state of operator `name`, if it was read within the last 5 s. `now` is the time since boot.
    pub(super) fn get(&self, name: &str, now: Duration) -> Option<OtherOperator> {
        let known = self.lock().get(name).copied();
        known.filter(|(at, _)| now.saturating_sub(*at) < KNOWN_FOR).map(|(_, state)| state)
    }

    /// Stores the state of operator `name`, read at `now`.
    pub(super) fn set(&self, name: &str, state: OtherOperator, now: Duration) {
        self.lock().insert(name.to_owned(), (now, state));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Duration, OtherOperator)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
