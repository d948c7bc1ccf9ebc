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

/// What a watch tells.
pub(super) enum News {
    Shown(DynamicObject),
    Deleted(DynamicObject),
    /// A list that does not have it.
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
    /// When anything was heard last, since boot.
    heard_at: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Fine,
    Failing,
    /// Begun anew before its wait was over, since it failed.
    Retried,
    Forbidden,
}

fn begin(client: &Client, lease: &LeaseName, timing: &Timing) -> (Stream, WatchProgress) {
    let selector = watcher::Config::default().fields(&format!("metadata.name={}", lease.name));
    // A standby that does not watch learns of a release too late: up to the retry period only.
    let (backoff, progress) = WatchBackoff::up_to(timing.retry_period());
    (watcher(leases(client.clone(), lease), selector).backoff(backoff).boxed(), progress)
}

impl LeaseWatch {
    pub(super) fn new(client: Client, lease: LeaseName, timing: Timing, clock: Arc<dyn Clock>) -> Self {
        let (stream, progress) = begin(&client, &lease, &timing);
        let heard_at = clock.since_boot();
        Self { client, lease, timing, clock, stream, progress, listed: None, state: State::Fine, heard_at }
    }

    /// Waits for the next news. Cancel safe.
    pub(super) async fn next(&mut self) -> News {
        loop {
            let Some(event) = self.stream.next().await else { return std::future::pending().await };
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    self.heard_at = self.clock.since_boot();
                    match self.failed(&error) {
                        Some(news) => return news,
                        None => continue,
                    }
                }
            };
            // Says only that a list is about to be asked for.
            if matches!(event, watcher::Event::Init) {
                self.listed = None;
                continue;
            }
            self.heard_at = self.clock.since_boot();
            self.progress.made();
            // After a watch that failed, a list does not prove that the next one is better.
            let listed = matches!(event, watcher::Event::InitApply(_) | watcher::Event::InitDone);
            if self.state != State::Fine && !(listed && self.state == State::Retried) {
                self.state = State::Fine;
                info!("watching lease {} again", self.lease);
            }
            return match event {
                watcher::Event::Init => continue,
                watcher::Event::InitApply(lease) => {
                    self.listed = Some(lease);
                    continue;
                }
                watcher::Event::InitDone => self.listed.take().map_or(News::NotListed, News::Shown),
                watcher::Event::Apply(lease) => News::Shown(lease),
                watcher::Event::Delete(lease) => News::Deleted(lease),
            };
        }
    }

    fn failed(&mut self, error: &watcher::Error) -> Option<News> {
        if self.state == State::Fine {
            warn!("cannot watch lease {}: {}; will keep trying", self.lease, describe_watch_error(error));
        }
        if is_forbidden(error) {
            self.state = State::Forbidden;
            self.progress.forbidden();
            return Some(News::Forbidden);
        }
        if self.state != State::Retried {
            self.state = State::Failing;
        }
        None
    }

    /// The server has answered another request; `lagged`: with something that the watch had not shown. A watch that waits for
    /// its next try is begun anew, once. One that has lagged and was silent for a whole lease hangs on a dead connection, and would
    /// until its own read times out: it is begun anew, too.
    pub(super) fn server_answers(&mut self, lagged: bool) {
        let now = self.clock.since_boot();
        let silent = now.saturating_sub(self.heard_at) > self.timing.lease_duration();
        self.state = match self.state {
            State::Failing => State::Retried,
            state @ (State::Fine | State::Retried) if lagged && silent => state,
            State::Fine | State::Retried | State::Forbidden => return,
        };
        debug!("watching lease {} anew", self.lease);
        (self.stream, self.progress) = begin(&self.client, &self.lease, &self.timing);
        self.heard_at = now;
    }
}
