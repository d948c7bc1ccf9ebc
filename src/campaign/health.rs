use std::time::Duration;

use tokio::sync::watch;

use super::{Leadership, LeaseName};
use crate::election::Loss;

/// A check for a liveness probe that no work outlives its Lease, like client-go's `HealthzAdaptor`.
#[derive(Clone, Debug)]
pub struct Health {
    pub(super) lease: LeaseName,
    pub(super) lease_duration: Duration,
    pub(super) recreation_wait: Duration,
    pub(super) leadership: watch::Receiver<Leadership>,
}

/// The error of work that outlives its Lease: another candidate may lead by now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "work still runs {}.{:03} s after the last renewal of lease {lease}, which lasts {} s: it did not stop in time, restart this process",
    since_renewal.as_secs(), since_renewal.subsec_millis(), lease_duration.as_secs()
)]
pub struct Unhealthy {
    /// The Lease.
    pub lease: LeaseName,
    /// The time since the send of the last acknowledged renewal.
    pub since_renewal: Duration,
    /// The lease duration, or after a deletion the time that all candidates wait.
    pub lease_duration: Duration,
}

impl Health {
    /// Checks the last renewal against the clock, without a request.
    ///
    /// # Errors
    /// [`Unhealthy`] if a [`LeaderGuard`](super::LeaderGuard) is in use and the last renewal is older than the lease
    /// duration. A standby is healthy, and so is a leader that could not renew but has ended its work.
    pub fn check(&self) -> Result<(), Unhealthy> {
        let leadership = self.leadership.borrow();
        let Some(term) = leadership.term.as_ref().filter(|term| term.is_taken()) else { return Ok(()) };
        let since_renewal = term.since_renewal();
        // All candidates wait longer for a leader whose Lease was deleted.
        let is_deleted = term.stops().borrow().is_some_and(|stop| stop.loss == Loss::LeaseDeleted);
        let lease_duration = if is_deleted { self.recreation_wait } else { self.lease_duration };
        if since_renewal <= lease_duration {
            return Ok(());
        }
        Err(Unhealthy { lease: self.lease.clone(), since_renewal, lease_duration })
    }
}
