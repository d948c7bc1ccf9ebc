//! The health of the watches, for the readiness endpoint and the log.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::runtime::watcher;
use tracing::{debug, info, warn};

use crate::runtime::backoff::WatchProgress;
use crate::runtime::clock::Clock;

/// A watch that continues from a list and has not failed again for this long is established, even without an event.
/// Longer than the longest backoff and the connection's timeout.
const ESTABLISHED_AFTER: Duration = Duration::from_secs(16);

/// The health of each watch, by its name. All clones share it.
#[derive(Clone)]
pub(crate) struct WatchHealth {
    watches: Arc<Mutex<HashMap<String, Watch>>>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Watch {
    failing: Option<Trouble>,
    /// Whether it continues from a complete list.
    listed: bool,
}

impl Watch {
    fn trouble(&self, now: Duration) -> Option<&Trouble> {
        self.failing.as_ref().filter(|trouble| trouble.over_at.is_none_or(|at| now < at))
    }
}

struct Trouble {
    why: String,
    /// When silence counts as recovery, since boot. `None` if only a list does.
    over_at: Option<Duration>,
}

impl WatchHealth {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { watches: Arc::default(), clock }
    }

    /// Returns why the operator is not ready, `None` if all watches work.
    pub(crate) fn problem(&self) -> Option<String> {
        let (now, watches) = (self.clock.since_boot(), self.lock());
        let mut texts: Vec<String> = watches
            .iter()
            .filter_map(|(what, watch)| Some((what, watch.trouble(now)?)))
            .map(|(what, trouble)| format!("cannot watch {what}: {}", trouble.why))
            .collect();
        texts.sort();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    /// Whether the watch of `what` is failing, so that it may miss changes.
    pub(super) fn is_failing(&self, what: &str) -> bool {
        let now = self.clock.since_boot();
        self.lock().get(what).is_some_and(|watch| watch.trouble(now).is_some())
    }

    /// Forgets the state of all watches, which have been stopped.
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Watch>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the result of the watch of `what`.
    pub(super) fn note<T>(&self, what: &str, progress: &WatchProgress, event: &watcher::Result<watcher::Event<T>>) {
        let mut watches = self.lock();
        let watch = watches.entry(what.to_owned()).or_default();
        match event {
            // A list is about to be requested.
            Ok(watcher::Event::Init) => watch.listed = false,
            Ok(event) => {
                progress.made();
                watch.listed |= matches!(event, watcher::Event::InitDone);
                if watch.failing.take().is_some() {
                    info!("watching {what} again");
                }
            }
            // Some kinds have no event for long, and no API server guarantees bookmarks: the watch continues where it
            // was.
            Err(error) if watch.listed && is_silence(error) => {
                progress.made();
                debug!("the watch of {what} brought neither an event nor a bookmark: restarting it");
            }
            Err(error) => {
                let why = explain(what, error);
                if watch.failing.as_ref().is_none_or(|trouble| trouble.why != why) {
                    warn!("cannot watch {what}, will keep trying: {why}");
                }
                watch.listed &= !matches!(error, watcher::Error::WatchError(status) if status.code == 410);
                // kube continues from its list, and a watch that works again is silent until the next event.
                let continues = watch.listed && !matches!(error, watcher::Error::InitialListFailed(_));
                let over_at = continues.then(|| self.clock.since_boot() + ESTABLISHED_AFTER);
                watch.failing = Some(Trouble { why, over_at });
            }
        }
    }
}

/// Whether the connection timed out without any data.
fn is_silence(error: &watcher::Error) -> bool {
    let watcher::Error::WatchFailed(error) = error else { return false };
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn explain(what: &str, error: &watcher::Error) -> String {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        _ => return error.to_string(),
    };
    match status.code {
        404 if what.starts_with("electiongroups") => {
            "the CustomResourceDefinition electiongroups.k8sensus.dev is not installed, \
             or serves no v1alpha1: apply crds/ of this version"
                .to_owned()
        }
        _ => format!("{} ({})", status.message, status.code),
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A clock that a test sets, in seconds.
    #[derive(Default)]
    struct ManualClock(AtomicU64);

    impl Clock for ManualClock {
        fn since_boot(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }

        fn wall_micros(&self) -> i64 {
            0
        }

        fn sleep_until(&self, _: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(std::future::pending())
        }
    }

    fn error() -> kube::Error {
        kube::Error::LinesCodecMaxLineLengthExceeded
    }

    fn problem_after(event: watcher::Result<watcher::Event<()>>, seconds: u64) -> Option<String> {
        let clock = Arc::new(ManualClock::default());
        let health = WatchHealth::new(clock.clone());
        health.note("pods", &WatchProgress::default(), &Ok(watcher::Event::<()>::InitDone));
        health.note("pods", &WatchProgress::default(), &event);
        clock.0.store(seconds, Ordering::Relaxed);
        health.problem()
    }

    #[test]
    fn failed_start_counts_as_recovered_after_16_s_of_silence() {
        let refused = || Err(watcher::Error::WatchStartFailed(error()));
        assert!(problem_after(refused(), 15).is_some_and(|problem| problem.starts_with("cannot watch pods: ")));
        assert_eq!(problem_after(refused(), 16), None);
    }

    #[test]
    fn watch_refused_before_its_first_list_is_a_problem_until_the_list() {
        let clock = Arc::new(ManualClock::default());
        let health = WatchHealth::new(clock.clone());
        let refused = Err::<watcher::Event<()>, _>(watcher::Error::WatchStartFailed(error()));
        health.note("pods", &WatchProgress::default(), &refused);
        clock.0.store(1_000, Ordering::Relaxed);
        assert!(health.problem().is_some());
        health.note("pods", &WatchProgress::default(), &Ok(watcher::Event::<()>::Init));
        assert!(health.problem().is_some());
        health.note("pods", &WatchProgress::default(), &Ok(watcher::Event::<()>::InitDone));
        assert_eq!(health.problem(), None);
    }

    #[test]
    fn silent_watch_is_a_problem_only_if_its_restart_fails() {
        let timed_out = || io::Error::from(io::ErrorKind::TimedOut);
        let silent = || Err(watcher::Error::WatchFailed(kube::Error::ReadEvents(io::Error::other(Outer(timed_out())))));
        assert_eq!(problem_after(silent(), 0), None);
        let refused = Err(watcher::Error::WatchStartFailed(kube::Error::Service(timed_out().into())));
        assert!(problem_after(refused, 0).is_some());
        // Without a complete list, there is nothing to continue from.
        let health = WatchHealth::new(Arc::new(ManualClock::default()));
        health.note("pods", &WatchProgress::default(), &Ok(watcher::Event::<()>::Init));
        health.note::<()>("pods", &WatchProgress::default(), &silent());
        assert!(health.problem().is_some());
    }

    /// An error of the connection as hyper wraps it.
    #[derive(Debug, thiserror::Error)]
    #[error("error reading a body from connection")]
    struct Outer(#[source] io::Error);

    #[test]
    fn failed_list_is_a_problem_until_an_event_arrives() {
        assert!(problem_after(Err(watcher::Error::InitialListFailed(error())), 1_000).is_some());
        assert_eq!(problem_after(Ok(watcher::Event::Apply(())), 0), None);
    }
}
