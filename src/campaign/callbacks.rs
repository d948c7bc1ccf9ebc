//! Leadership as callbacks, for who comes from client-go.

use std::future::Future;
use std::pin::pin;

use super::{Campaign, Holders, LeaderGuard, Term};

/// What client-go's `LeaderCallbacks` are called with.
pub trait Callbacks {
    /// The work of a leader. It is dropped at its next `.await` when leadership is lost or shutdown was asked for, which
    /// is Rust's form of a cancelled context. What it spawned elsewhere is its own to stop: keep such handles in guards that abort
    /// on drop. Work with a step that must not be cut takes [`Campaign::lead`] instead.
    ///
    /// Where it returns by itself the Lease is released and [`Campaign::run`] returns.
    fn on_started_leading(&self, term: Term) -> impl Future<Output = ()> + Send;

    /// The work has ended, the Lease is not yet released.
    fn on_stopped_leading(&self) {}

    /// The Lease shows another holder than before; also this very candidate. Not called for "nobody".
    fn on_new_leader(&self, identity: &str) {
        let _ = identity;
    }
}

impl Campaign {
    /// Campaigns until `shutdown` completes or the work of a term returns by itself; then the Lease is released.
    ///
    /// Unlike client-go's `Run` it goes on campaigning when leadership was lost, and it releases only when the work has
    /// ended.
    pub async fn run(self, callbacks: impl Callbacks, shutdown: impl Future<Output = ()>) {
        let mut holders = self.holders();
        let mut shutdown = pin!(shutdown);
        let mut leaving = false;
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown, if !leaving => {
                    leaving = true;
                    self.leave();
                }
                guard = self.lead() => match guard {
                    Some(guard) => {
                        leaving |= self.serve(&guard, &callbacks, &mut holders, &mut shutdown, leaving).await;
                        callbacks.on_stopped_leading();
                        guard.end();
                    }
                    None => return,
                },
                Some(holder) = holders.next() => if !holder.is_empty() {
                    callbacks.on_new_leader(&holder);
                },
            }
        }
    }

    /// Works until told to stop. Whether the election is to be left.
    async fn serve(
        &self,
        guard: &LeaderGuard,
        callbacks: &impl Callbacks,
        holders: &mut Holders,
        mut shutdown: impl Future<Output = ()> + Unpin,
        mut leaving: bool,
    ) -> bool {
        let mut work = pin!(callbacks.on_started_leading(guard.term().clone()));
        loop {
            tokio::select! {
                biased;
                _ = guard.lost() => return leaving,
                () = &mut shutdown, if !leaving => {
                    leaving = true;
                    self.leave();
                }
                () = &mut work => {
                    self.leave();
                    return true;
                }
                Some(holder) = holders.next() => if !holder.is_empty() {
                    callbacks.on_new_leader(&holder);
                },
            }
        }
    }
}
