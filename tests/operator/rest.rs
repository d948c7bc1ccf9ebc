//! Helpers of tests with a proxy in front of the API server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::http_proxy::HttpProxy;
use crate::support::within;

/// Waits until the operator behind `proxy` stops writing. Returns the number of writes until then.
pub fn at_rest(proxy: &HttpProxy) -> usize {
    let (mut last, mut since) = (0, Instant::now());
    within(60, "the operator to be at rest", || {
        let now = proxy.writes().len();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_secs(4)).then_some(now)
    })
}

/// A guard that stops another thread of a test, however the test ends.
pub struct Ended<'a>(pub &'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
