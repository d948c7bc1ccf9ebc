//! The watch of one Lease.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};
use kube::Client;
use kube::api::DynamicObject;
use kube::runtime::{WatchStreamExt, watcher};
use tracing::{debug, info, warn};

use super::LeaseName;
use super::answer::{describe_watch_error, is_forbidden};
use super::client::leases;
use crate::election::Timing;
use crate::runtime::backoff::{WatchBackoff, WatchProgress};
use crate::runtime::clock::Clock;

/// A result of the watch.
pub(super) enum Observation {
    Present(DynamicObject),
    Deleted(DynamicObject),
    /// A list does not contain the Lease.
    NotListed,
    Forbidden,
}

type Stream = BoxStream<'static, watcher::Result<watcher::Event<DynamicObject>>>;

pub(super) struct LeaseWatch {
    client: Client,
    lease: LeaseName,
    timing: Timing,
    clock: Arc<dyn Clock>,
    stream: Stream,
    progress: WatchProgress,
    listed: Option<DynamicObject>,
    state: State,
    /// The last event or error, since boot.
    last_event_at: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Fine,
    Failing,
    /// Restarted after a failure, before its backoff was over.
    Restarted,
    Forbidden,
}

fn start(client: &Client, lease: &LeaseName, timing: &Timing) -> (Stream, WatchProgress) {
    let selector = watcher::Config::default().fields(&format!("metadata.name={}", lease.name));
    // Backs off no longer than the retry period: a standby without a watch observes a release too late.
    let (backoff, progress) = WatchBackoff::up_to(timing.retry_period());
    (watcher(leases(client.clone(), lease), selector).backoff(backoff).boxed(), progress)
}

impl LeaseWatch {
    pub(super) fn new(client: Client, lease: LeaseName, timing: Timing, clock: Arc<dyn Clock>) -> Self {
        let (stream, progress) = start(&client, &lease, &timing);
        let last_event_at = clock.since_boot();
        Self { client, lease, timing, clock, stream, progress, listed: None, state: State::Fine, last_event_at }
    }

    /// Waits for the next observation. Cancel safe.
    pub(super) async fn next(&mut self) -> Observation {
        loop {
            let Some(event) = self.stream.next().await else { return std::future::pending().await };
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    self.last_event_at = self.clock.since_boot();
                    match self.on_error(&error) {
                        Some(observation) => return observation,
                        None => continue,
                    }
                }
            };
            // The list is only about to be requested.
            if matches!(event, watcher::Event::Init) {
                self.listed = None;
                continue;
            }
            self.last_event_at = self.clock.since_boot();
            self.progress.made();
            // After a failed watch, a successful list does not prove that the next watch works.
            let listed = matches!(event, watcher::Event::InitApply(_) | watcher::Event::InitDone);
            if self.state != State::Fine && !(listed && self.state == State::Restarted) {
                self.state = State::Fine;
                info!("watching lease {} again", self.lease);
            }
            return match event {
                watcher::Event::Init => continue,
                watcher::Event::InitApply(lease) => {
                    self.listed = Some(lease);
                    continue;
                }
                watcher::Event::InitDone => self.listed.take().map_or(Observation::NotListed, Observation::Present),
                watcher::Event::Apply(lease) => Observation::Present(lease),
                watcher::Event::Delete(lease) => Observation::Deleted(lease),
            };
        }
    }

    fn on_error(&mut self, error: &watcher::Error) -> Option<Observation> {
        if self.state == State::Fine {
            warn!("cannot watch lease {}: {}; will keep trying", self.lease, describe_watch_error(error));
        }
        if is_forbidden(error) {
            self.state = State::Forbidden;
            self.progress.forbidden();
            return Some(Observation::Forbidden);
        }
        if self.state != State::Restarted {
            self.state = State::Failing;
        }
        None
    }

    /// Restarts the watch if necessary after the server has answered another request. `lagged`: the answer has a
    /// version that the watch had not reported. A watch that waits for its next try is restarted once. A watch that
    /// lags and was silent for a whole lease duration hangs on a dead connection until its read timeout: it is
    /// restarted too.
    pub(super) fn server_answers(&mut self, lagged: bool) {
        let now = self.clock.since_boot();
        let silent = now.saturating_sub(self.last_event_at) > self.timing.lease_duration();
        self.state = match self.state {
            State::Failing => State::Restarted,
            state @ (State::Fine | State::Restarted) if lagged && silent => state,
            State::Fine | State::Restarted | State::Forbidden => return,
        };
        debug!("restarting the watch of lease {}", self.lease);
        (self.stream, self.progress) = start(&self.client, &self.lease, &self.timing);
        self.last_event_at = now;
    }
}
