//! The limit of an optional request's time.

use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};

use crate::runtime::clock::Clock;

/// How long a reconcile may wait for an optional request.
const BUDGET: Duration = Duration::from_secs(2);

/// An optional request that took too long.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not answer within {} s", BUDGET.as_secs())]
pub(super) struct Late;

/// Awaits `work` for at most [`BUDGET`], so that an optional request cannot stall a reconcile.
///
/// # Errors
/// The time was over.
pub(super) async fn within_budget<T>(clock: &dyn Clock, work: impl Future<Output = T>) -> Result<T, Late> {
    let late = clock.sleep_until(clock.since_boot() + BUDGET);
    match select(pin!(work), late).await {
        Either::Left((result, _)) => Ok(result),
        Either::Right(_) => Err(Late),
    }
}
