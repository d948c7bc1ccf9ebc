//! The waits between retries of a watch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use kube::runtime::utils::Backoff;

/// A wait of 0.25 s that doubles with each retry up to a limit, and resets when the watch has made progress.
///
/// kube's own backoffs reset at each success of the stream, and a watcher reports one before each list that it
/// requests. They would never leave the first wait.
#[derive(Debug)]
pub struct WatchBackoff {
    next: Duration,
    longest: Duration,
    progress: WatchProgress,
}

/// The progress of a watch, reported by its reader. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct WatchProgress(Arc<AtomicU8>);

const NONE: u8 = 0;
const MADE: u8 = 1;
const FORBIDDEN: u8 = 2;

impl WatchProgress {
    /// Reports that the watch delivered an object, or the end of a list.
    pub fn made(&self) {
        self.0.store(MADE, Ordering::Relaxed);
    }

    /// Reports that the watch is not permitted. The next wait is then 30 s.
    pub fn forbidden(&self) {
        self.0.store(FORBIDDEN, Ordering::Relaxed);
    }
}

impl WatchBackoff {
    const FIRST: Duration = Duration::from_millis(250);
    const FORBIDDEN: Duration = Duration::from_secs(30);

    /// Creates waits of at most `longest`, and the handle that reports progress.
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
    fn waits_double_until_the_watch_makes_progress() {
        let (mut backoff, progress) = WatchBackoff::up_to(Duration::from_secs(1));
        let mut millis = || backoff.next().unwrap().as_millis();
        assert_eq!([millis(), millis(), millis(), millis()], [250, 500, 1000, 1000]);
        progress.made();
        assert_eq!([millis(), millis()], [250, 500]);
        progress.forbidden();
        assert_eq!([millis(), millis()], [30_000, 1000]);
    }
}
