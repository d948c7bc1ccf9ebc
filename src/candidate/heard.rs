//! What is heard of the election, by who runs a command and by who serves an app alike.

use tokio::sync::watch;
use tracing::info;

use crate::campaign::{Stop, Term};

/// The orders to end a term.
pub(super) struct Stops(watch::Receiver<Option<Stop>>);

impl Stops {
    /// Those of `term`, with the one that may have come already.
    pub(super) fn of(term: &Term) -> Self {
        let mut stops = term.stops();
        stops.mark_changed();
        Self(stops)
    }

    /// The next order, whether the first or one with an earlier end. Cancel safe.
    async fn next(&mut self) -> Stop {
        while self.0.changed().await.is_ok() {
            if let Some(stop) = *self.0.borrow_and_update() {
                return stop;
            }
        }
        std::future::pending().await
    }
}

/// The next order to end the term that is under way, if one is. Cancel safe.
pub(super) async fn told_to_stop(stops: Option<&mut Stops>) -> Stop {
    match stops {
        Some(stops) => stops.next().await,
        None => std::future::pending().await,
    }
}

/// Into the log, unless it is `me`.
pub(super) fn say_holder(holder: &str, me: &str) {
    match holder {
        "" => info!("no leader"),
        holder if holder == me => {}
        holder => info!("leader is {holder}"),
    }
}
