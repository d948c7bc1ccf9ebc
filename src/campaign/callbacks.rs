//! Leadership as callbacks, like client-go's.

use std::future::Future;
use std::pin::pin;

use super::{Campaign, Holders, LeaderGuard, Term};

/// The counterpart of client-go's `LeaderCallbacks`.
pub trait Callbacks {
    /// Does the work of a leader. The future is dropped at its next `.await` when leadership is lost or shutdown was
    /// requested, like a cancelled context in Go. It must stop the tasks that it spawned: keep their handles in guards
    /// that abort on drop. Work with a step that must not be interrupted uses [`Campaign::lead`] instead.
    ///
    /// If it returns by itself, the Lease is released and [`Campaign::run`] returns.
    fn on_started_leading(&self, term: Term) -> impl Future<Output = ()> + Send;

    /// Called after the work has ended, before the Lease is released.
    fn on_stopped_leading(&self) {}

    /// Called when the Lease has a new holder, including this candidate. Not called for an empty holder.
    fn on_new_leader(&self, identity: &str) {
        let _ = identity;
    }
}

impl Campaign {
    /// Campaigns until `shutdown` completes or the work of a term returns by itself. Then the Lease is released.
    ///
    /// Unlike client-go's `Run`, it keeps campaigning after a loss of leadership, and it releases the Lease only after
    /// the work has ended.
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

    /// Runs the work until it ends or must stop. Returns whether the campaign leaves the election.
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
