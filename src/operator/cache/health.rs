//! How the watches go: readiness and the log tell.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::runtime::watcher;
use tracing::{debug, info, warn};

use crate::runtime::backoff::WatchProgress;
use crate::runtime::clock::Clock;

/// A watch of a known list that has not failed again for so long is established, though it may have nothing to show: longer
/// than the longest wait and the connection's timeout.
const ESTABLISHED_AFTER: Duration = Duration::from_secs(16);

/// How each watch goes. Readiness and the log tell.
#[derive(Clone)]
pub(in crate::operator) struct WatchHealth {
    watches: Arc<Mutex<HashMap<String, Watch>>>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Watch {
    failing: Option<Trouble>,
    /// Whether it goes on from a whole list.
    listed: bool,
}

impl Watch {
    fn trouble(&self, now: Duration) -> Option<&Trouble> {
        self.failing.as_ref().filter(|trouble| trouble.over_at.is_none_or(|at| now < at))
    }
}

struct Trouble {
    why: String,
    /// When silence means that it is over, since boot. `None` if only a list can tell.
    over_at: Option<Duration>,
}

impl WatchHealth {
    pub(in crate::operator) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { watches: Arc::default(), clock }
    }

    /// Why readiness must be false, `None` if all is well.
    pub(in crate::operator) fn problem(&self) -> Option<String> {
        let (now, watches) = (self.clock.since_boot(), self.lock());
        let mut texts: Vec<String> = watches
            .iter()
            .filter_map(|(what, watch)| Some((what, watch.trouble(now)?)))
            .map(|(what, trouble)| format!("cannot watch {what}: {}", trouble.why))
            .collect();
        texts.sort();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    /// Whether the watch of `what` fails at the moment, so that what it does not show may be there.
    pub(super) fn is_failing(&self, what: &str) -> bool {
        let now = self.clock.since_boot();
        self.lock().get(what).is_some_and(|watch| watch.trouble(now).is_some())
    }

    /// The watches have been stopped: what they brought says nothing any more.
    pub(in crate::operator) fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Watch>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in how the watch of `what` went.
    pub(super) fn note<T>(&self, what: &str, progress: &WatchProgress, event: &watcher::Result<watcher::Event<T>>) {
        let mut watches = self.lock();
        let watch = watches.entry(what.to_owned()).or_default();
        match event {
            // Says only that a list is about to be asked for.
            Ok(watcher::Event::Init) => watch.listed = false,
            Ok(event) => {
                progress.made();
                watch.listed |= matches!(event, watcher::Event::InitDone);
                if watch.failing.take().is_some() {
                    info!("watching {what} again");
                }
            }
            // Quiet kinds have no event, and no API server promises bookmarks: the watch goes on where it was.
            Err(error) if watch.listed && is_silence(error) => {
                progress.made();
                debug!("the watch of {what} brought neither an event nor a bookmark: starting it again");
            }
            Err(error) => {
                let why = explain(what, error);
                if watch.failing.as_ref().is_none_or(|trouble| trouble.why != why) {
                    warn!("cannot watch {what}, will keep trying: {why}");
                }
                watch.listed &= !matches!(error, watcher::Error::WatchError(status) if status.code == 410);
                // From a list that it has kube goes on, and a watch without events says nothing when it works.
                let goes_on = watch.listed && !matches!(error, watcher::Error::InitialListFailed(_));
                let over_at = goes_on.then(|| self.clock.since_boot() + ESTABLISHED_AFTER);
                watch.failing = Some(Trouble { why, over_at });
            }
        }
    }
}

/// Whether the connection brought nothing for as long as it may.
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

    /// Shows the seconds that the test says.
    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
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
        let clock = Arc::new(Hand::default());
        let health = WatchHealth::new(clock.clone());
        health.note("pods", &WatchProgress::default(), &Ok(watcher::Event::<()>::InitDone));
        health.note("pods", &WatchProgress::default(), &event);
        clock.0.store(seconds, Ordering::Relaxed);
        health.problem()
    }

    #[test]
    fn a_watch_that_could_not_start_and_is_silent_since_has_started() {
        let refused = || Err(watcher::Error::WatchStartFailed(error()));
        assert!(problem_after(refused(), 15).is_some_and(|problem| problem.starts_with("cannot watch pods: ")));
        assert_eq!(problem_after(refused(), 16), None);
    }

    #[test]
    fn a_watch_that_was_refused_before_it_brought_a_list_is_a_problem_until_it_does() {
        let clock = Arc::new(Hand::default());
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
    fn a_watch_that_was_silent_is_started_again_and_no_problem_unless_that_fails() {
        let timed_out = || io::Error::from(io::ErrorKind::TimedOut);
        let silent = || Err(watcher::Error::WatchFailed(kube::Error::ReadEvents(io::Error::other(Outer(timed_out())))));
        assert_eq!(problem_after(silent(), 0), None);
        let refused = Err(watcher::Error::WatchStartFailed(kube::Error::Service(timed_out().into())));
        assert!(problem_after(refused, 0).is_some());
        // Before the list was whole, nothing goes on where it was.
        let health = WatchHealth::new(Arc::new(Hand::default()));
        health.note("pods", &WatchProgress::default(), &Ok(watcher::Event::<()>::Init));
        health.note::<()>("pods", &WatchProgress::default(), &silent());
        assert!(health.problem().is_some());
    }

    /// As hyper wraps an error of the connection.
    #[derive(Debug, thiserror::Error)]
    #[error("error reading a body from connection")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_list_that_failed_is_a_problem_until_one_comes() {
        assert!(problem_after(Err(watcher::Error::InitialListFailed(error())), 1_000).is_some());
        assert_eq!(problem_after(Ok(watcher::Event::Apply(())), 0), None);
    }
}
