//! The waits between tries of a watch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use kube::runtime::utils::Backoff;

/// From a quarter of a second, doubled up to a longest wait, until the watch brought something.
///
/// kube's own backoffs start anew with each success of the stream, and a watcher reports one before each list that it
/// asks for: they would never leave the first wait.
#[derive(Debug)]
pub struct WatchBackoff {
    next: Duration,
    longest: Duration,
    progress: WatchProgress,
}

/// Where the reader of a watch says how it goes. All clones are one.
#[derive(Clone, Debug, Default)]
pub struct WatchProgress(Arc<AtomicU8>);

const NONE: u8 = 0;
const MADE: u8 = 1;
const FORBIDDEN: u8 = 2;

impl WatchProgress {
    /// The watch brought an object, or the end of a list.
    pub fn made(&self) {
        self.0.store(MADE, Ordering::Relaxed);
    }

    /// The watch is not permitted: it is tried again only now and then.
    pub fn forbidden(&self) {
        self.0.store(FORBIDDEN, Ordering::Relaxed);
    }
}

impl WatchBackoff {
    const FIRST: Duration = Duration::from_millis(250);
    const FORBIDDEN: Duration = Duration::from_secs(30);

    /// Waits of at most `longest`, and where to report what the watch brought.
    pub fn up_to(longest: Duration) -> (Self, WatchProgress) {
        let progress = WatchProgress::default();
        (Self { next: Self::FIRST.min(longest), longest, progress: progress.clone() }, progress)
    }
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        match self.progress.0.swap(NONE, Ordering::Relaxed) {
            FORBIDDEN => return Some(Self::FORBIDDEN),
            MADE => self.next = Self::FIRST.min(self.longest),
            _ => {}
        }
        let wait = self.next;
        self.next = (wait * 2).min(self.longest);
        Some(wait)
    }
}

impl Backoff for WatchBackoff {
    /// Does nothing: see [`WatchBackoff`].
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_until_the_watch_brings_something() {
        let (mut backoff, progress) = WatchBackoff::up_to(Duration::from_secs(1));
        let mut millis = || backoff.next().unwrap().as_millis();
        assert_eq!([millis(), millis(), millis(), millis()], [250, 500, 1000, 1000]);
        progress.made();
        assert_eq!([millis(), millis()], [250, 500]);
        progress.forbidden();
        assert_eq!([millis(), millis()], [30_000, 1000]);
    }
}
