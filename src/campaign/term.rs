use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::election::{Loss, Moment, Version};
use crate::runtime::clock::Clock;

/// The order to end a term's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Why.
    pub loss: Loss,
    /// When what still runs must be dead, because another candidate may lead from then on. `None` if the Lease is renewed
    /// until the work has ended by itself.
    pub kill_at: Option<Moment>,
}

/// One term of leadership, to be looked at from anywhere: clones are cheap and all show the same term.
///
/// A `Term` does not keep the term alive; that does the [`LeaderGuard`](super::LeaderGuard).
#[derive(Clone)]
pub struct Term(Arc<Inner>);

struct Inner {
    number: u64,
    token: Version,
    transitions: i32,
    /// Nanoseconds since boot.
    valid_until: AtomicU64,
    /// The send of the last acknowledged write, likewise.
    renewed: AtomicU64,
    work: AtomicU8,
    stop: watch::Sender<Option<Stop>>,
    clock: Arc<dyn Clock>,
}

/// No guard of the term was taken: nothing runs under it.
const OFFERED: u8 = 0;
/// Its guard is out.
const TAKEN: u8 = 1;
/// Nothing of its work is left.
const ENDED: u8 = 2;

impl Term {
    pub(crate) fn new(
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

    /// The fencing token: the `resourceVersion` of the acquiring write. Rises from term to term, also when the Lease
    /// was deleted in between. Hand it to the protected resource with each write; the resource remembers the highest
    /// and refuses lower ones.
    pub fn token(&self) -> &str {
        self.0.token.as_str()
    }

    /// The Lease's `leaseTransitions` at the begin of this term.
    pub fn transitions(&self) -> i32 {
        self.0.transitions
    }

    /// Whether this candidate may act as the leader now. Reads the clock; takes no lock and asks nobody.
    ///
    /// Ask right before each step that must not happen twice. A process that is frozen between this check and its step
    /// acts late all the same: only the [`token`](Term::token) protects from that.
    pub fn is_valid(&self) -> bool {
        !self.remaining().is_zero()
    }

    /// How long [`is_valid`](Term::is_valid) stays true if no renewal succeeds; zero if it is false.
    pub fn remaining(&self) -> Duration {
        Duration::from_nanos(self.0.valid_until.load(Ordering::Acquire)).saturating_sub(self.0.clock.since_boot())
    }

    /// Completes when the work is to be ended. Cancel safe, on any executor.
    ///
    /// On an executor that is blocked it completes late: then [`is_valid`](Term::is_valid) alone is in time.
    pub async fn lost(&self) -> Stop {
        let mut stops = self.stops();
        let stop = stops.wait_for(Option::is_some).await.map(|stop| *stop);
        stop.ok().flatten().unwrap_or_else(|| unreachable!("this term keeps the sender"))
    }

    /// Completes when what still runs must be cut, since the Lease is lost, and says by when. Not when an end was merely asked
    /// for: then the Lease is renewed until the work has ended. Cancel safe, on any executor.
    pub async fn revoked(&self) -> Moment {
        let kill_at = |stop: &Option<Stop>| stop.and_then(|stop| stop.kill_at);
        let mut stops = self.stops();
        let stop = stops.wait_for(|stop| kill_at(stop).is_some()).await.map(|stop| *stop);
        stop.ok().and_then(|stop| kill_at(&stop)).unwrap_or_else(|| unreachable!("this term keeps the sender"))
    }

    /// How long what still runs may go on until it must be dead; `None` while nothing must be cut.
    pub fn until_kill(&self) -> Option<Duration> {
        let kill_at = (*self.0.stop.borrow()).and_then(|stop| stop.kill_at)?;
        Some(kill_at.elapsed_since_boot().saturating_sub(self.0.clock.since_boot()))
    }

    /// The order to end the work, `None` while there is none. It may be repeated with an earlier `kill_at`.
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

    pub(super) fn order(&self, stop: Stop) {
        self.0.stop.send_replace(Some(stop));
    }

    /// Whether the caller now has the right and the duty to work; given once.
    pub(super) fn take(&self) -> bool {
        self.0.work.compare_exchange(OFFERED, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether nobody had taken the term; nobody will any more.
    pub(super) fn withdraw(&self) -> bool {
        self.0.work.compare_exchange(OFFERED, ENDED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(super) fn end(&self) {
        self.0.work.store(ENDED, Ordering::Release);
    }

    pub(super) fn is_worked_on(&self) -> bool {
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
