//! The stop orders of a term and the log of leaders, as needed both to run a command and to serve an app.

use tokio::sync::watch;
use tracing::info;

use crate::campaign::{Stop, Term};

/// The stop orders of one term.
pub(super) struct StopOrders(watch::Receiver<Option<Stop>>);

impl StopOrders {
    /// Returns the stop orders of `term`, including one that was given already.
    pub(super) fn of(term: &Term) -> Self {
        let mut stops = term.stops();
        stops.mark_changed();
        Self(stops)
    }

    /// Waits for the next order: the first one, or one with an earlier deadline. Cancel safe.
    async fn next(&mut self) -> Stop {
        while self.0.changed().await.is_ok() {
            if let Some(stop) = *self.0.borrow_and_update() {
                return stop;
            }
        }
        std::future::pending().await
    }
}

/// Waits for the next stop order of the current term; forever if there is no term. Cancel safe.
pub(super) async fn next_stop(stops: Option<&mut StopOrders>) -> Stop {
    match stops {
        Some(stops) => stops.next().await,
        None => std::future::pending().await,
    }
}

/// Logs the leader, unless it is `me`.
pub(super) fn log_holder(holder: &str, me: &str) {
    match holder {
        "" => info!("no leader"),
        holder if holder == me => {}
        holder => info!("leader is {holder}"),
    }
}
