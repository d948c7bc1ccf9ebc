use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::election::{Loss, Moment, Version};
use crate::runtime::clock::Clock;

/// The request to stop a term's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The reason.
    pub loss: Loss,
    /// The moment at which all work must be dead, because another candidate may lead from then on. `None` while no such
    /// deadline exists: the work may take the time that it needs.
    pub kill_at: Option<Moment>,
}

/// One term of leadership. Clones are cheap and share the same state, so it can be checked from anywhere.
///
/// A `Term` does not keep the term alive; the [`LeaderGuard`](super::LeaderGuard) does.
#[derive(Clone)]
pub struct Term(Arc<Inner>);

struct Inner {
    number: u64,
    token: Version,
    transitions: i32,
    /// Nanoseconds since boot.
    valid_until: AtomicU64,
    /// The send of the last acknowledged write, in nanoseconds since boot.
    renewed: AtomicU64,
    work: AtomicU8,
    stop: watch::Sender<Option<Stop>>,
    clock: Arc<dyn Clock>,
}

/// No guard of the term was taken: no work runs under it.
const OFFERED: u8 = 0;
/// The term's guard is in use.
const TAKEN: u8 = 1;
/// The term's work has ended.
const ENDED: u8 = 2;

impl Term {
    #[doc(hidden)]
    pub fn new(
        number: u64,
        token: Version,
        transitions: i32,
        valid_until: Moment,
        renewed: Moment,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self(Arc::new(Inner {
            number,
            token,
            transitions,
            valid_until: AtomicU64::new(nanos(valid_until)),
            renewed: AtomicU64::new(nanos(renewed)),
            work: AtomicU8::new(OFFERED),
            stop: watch::Sender::new(None),
            clock,
        }))
    }

    /// Returns the fencing token: the `resourceVersion` of the acquiring write. It rises from term to term, even if the
    /// Lease is deleted in between. Send it to the protected resource with each write; the resource must remember the
    /// highest token and refuse lower ones.
    pub fn token(&self) -> &str {
        self.0.token.as_str()
    }

    /// Returns the Lease's `leaseTransitions` at the start of this term.
    pub fn transitions(&self) -> i32 {
        self.0.transitions
    }

    /// Whether this candidate may act as the leader now. Reads the clock, without a lock and without a request.
    ///
    /// Check it right before each step that must not happen twice. A process that is frozen between this check and its
    /// step still acts late: only the [`token`](Term::token) protects against that.
    pub fn is_valid(&self) -> bool {
        !self.remaining().is_zero()
    }

    /// Returns how long [`is_valid`](Term::is_valid) stays true without a further renewal; zero if it is false.
    pub fn remaining(&self) -> Duration {
        Duration::from_nanos(self.0.valid_until.load(Ordering::Acquire)).saturating_sub(self.0.clock.since_boot())
    }

    /// Waits until the work must stop. Cancel safe, on any executor.
    ///
    /// On a blocked executor it completes late: then only [`is_valid`](Term::is_valid) is in time.
    pub async fn lost(&self) -> Stop {
        let mut stops = self.stops();
        let stop = stops.wait_for(Option::is_some).await.map(|stop| *stop);
        stop.ok().flatten().unwrap_or_else(|| unreachable!("this term keeps the sender"))
    }

    /// Waits until the work has a deadline to be dead, because the Lease is lost, and returns that deadline. Does not
    /// complete on a mere request to stop, during which the Lease is renewed until the work has ended. Cancel safe, on
    /// any executor.
    pub async fn revoked(&self) -> Moment {
        let kill_at = |stop: &Option<Stop>| stop.and_then(|stop| stop.kill_at);
        let mut stops = self.stops();
        let stop = stops.wait_for(|stop| kill_at(stop).is_some()).await.map(|stop| *stop);
        stop.ok().and_then(|stop| kill_at(&stop)).unwrap_or_else(|| unreachable!("this term keeps the sender"))
    }

    /// Returns the time left until all work must be dead; `None` while there is no such deadline.
    pub fn until_kill(&self) -> Option<Duration> {
        let kill_at = (*self.0.stop.borrow()).and_then(|stop| stop.kill_at)?;
        Some(kill_at.elapsed_since_boot().saturating_sub(self.0.clock.since_boot()))
    }

    /// Returns a receiver of the request to stop the work, `None` before the first. It may be repeated with an earlier
    /// `kill_at`.
    pub fn stops(&self) -> watch::Receiver<Option<Stop>> {
        self.0.stop.subscribe()
    }

    pub(super) fn number(&self) -> u64 {
        self.0.number
    }

    pub(super) fn set_valid_until(&self, valid_until: Moment) {
        self.0.valid_until.store(nanos(valid_until), Ordering::Release);
    }

    pub(super) fn set_renewed(&self, renewed: Moment) {
        self.0.renewed.store(nanos(renewed), Ordering::Release);
    }

    pub(super) fn since_renewal(&self) -> Duration {
        self.0.clock.since_boot().saturating_sub(Duration::from_nanos(self.0.renewed.load(Ordering::Acquire)))
    }

    pub(super) fn request_stop(&self, stop: Stop) {
        self.0.stop.send_replace(Some(stop));
    }

    /// Takes the term for its guard. Returns `true` to the first caller only.
    pub(super) fn take(&self) -> bool {
        self.0.work.compare_exchange(OFFERED, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Ends the term if it was not taken. Returns whether it did.
    pub(super) fn withdraw(&self) -> bool {
        self.0.work.compare_exchange(OFFERED, ENDED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(super) fn end(&self) {
        self.0.work.store(ENDED, Ordering::Release);
    }

    pub(super) fn is_taken(&self) -> bool {
        self.0.work.load(Ordering::Acquire) == TAKEN
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Term")
            .field("token", &self.token())
            .field("transitions", &self.transitions())
            .field("remaining", &self.remaining())
            .finish()
    }
}

fn nanos(moment: Moment) -> u64 {
    u64::try_from(moment.elapsed_since_boot().as_nanos()).unwrap_or(u64::MAX)
}
