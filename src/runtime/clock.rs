//! The only place that reads a clock; `clippy.toml` bans it everywhere else.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

#[cfg(target_os = "linux")]
use boottime as system;
#[cfg(not(target_os = "linux"))]
use portable as system;

/// A monotonic clock with its timer, and the wall clock.
pub trait Clock: Send + Sync + 'static {
    /// Returns the time since boot, suspended time included. [`SystemClock`] says what it returns off Linux.
    fn since_boot(&self) -> Duration;

    /// Returns the microseconds since 1970.
    fn wall_micros(&self) -> i64;

    /// Completes once [`since_boot`](Clock::since_boot) has reached `deadline`; immediately if it has already.
    fn sleep_until(&self, deadline: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Completes at `deadline`; never if there is none.
pub async fn sleep_until(clock: &dyn Clock, deadline: Option<Duration>) {
    match deadline {
        Some(deadline) => clock.sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The clocks of this machine.
///
/// On Linux the monotonic clock is `CLOCK_BOOTTIME`, which continues while the machine is suspended. `std::time::Instant`
/// and tokio's timers stand still, so a leader would wake up and believe that no time has passed.
///
/// # Off Linux
/// On other systems the monotonic clock is [`std::time::Instant`], with tokio's timers, and counts from its first use.
/// On some systems, such as macOS, it does not count the time for which the machine is suspended. After a suspend, a
/// leader there may act for as long as its term had left, although another candidate may lead meanwhile. It learns of
/// its loss by its next request. Lead only on machines that are never suspended, or let the protected resource compare
/// fencing tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn since_boot(&self) -> Duration {
        system::now()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn wall_micros(&self) -> i64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |elapsed| i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))
    }

    fn sleep_until(&self, deadline: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            if system::now() < deadline {
                system::sleep_until(deadline).await;
            }
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that sleeps")]
async fn tokio_timer(left: Duration) {
    tokio::time::sleep(left).await;
}

/// `CLOCK_BOOTTIME`, and a timer on it.
#[cfg(target_os = "linux")]
mod boottime {
    use std::io;
    use std::time::Duration;

    use rustix::time::{
        DynamicClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime_dynamic,
        timerfd_create, timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    pub(super) fn now() -> Duration {
        let now = clock_gettime_dynamic(DynamicClockId::Boottime).expect("Linux has had CLOCK_BOOTTIME since 2.6.39");
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    }

    pub(super) async fn sleep_until(deadline: Duration) {
        if let Err(error) = timer(deadline).await {
            // A seccomp profile may forbid timerfd. A timer that is late by the suspended time is better than none.
            tracing::warn!(%error, "no timer on CLOCK_BOOTTIME; falling back to one that stands still in suspend");
            super::tokio_timer(deadline.saturating_sub(now())).await;
        }
    }

    async fn timer(deadline: Duration) -> io::Result<()> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let at = Timespec {
            tv_sec: i64::try_from(deadline.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(deadline.subsec_nanos()).max(1),
        };
        timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval: zero, it_value: at })?;
        // SAFETY: the timer is an owned descriptor that stays open and the same until the `AsyncFd` is dropped.
        let timer = unsafe { AsyncFd::register(timer) }?;
        timer.readable().await?.retain_ready();
        Ok(())
    }
}

/// std's monotonic clock and tokio's timers, for systems other than Linux.
#[cfg(any(test, not(target_os = "linux")))]
mod portable {
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock off Linux")]
    pub(super) fn now() -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }

    pub(super) async fn sleep_until(deadline: Duration) {
        super::tokio_timer(deadline.saturating_sub(now())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(30);

    /// Checks a clock and its timer from within a longer time that the other clock measures.
    async fn check<F: Future>(now: fn() -> Duration, sleep_until: fn(Duration) -> F, other: fn() -> Duration) {
        sleep_until(Duration::ZERO).await;
        let (other_started, started) = (other(), now());
        sleep_until(started + WAIT).await;
        let (elapsed, other_elapsed) = (now() - started, other() - other_started);
        assert!(WAIT <= elapsed && elapsed <= other_elapsed, "{elapsed:?} within {other_elapsed:?}");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn boottime_clock_sleeps_until_the_deadline() {
        check(boottime::now, boottime::sleep_until, portable::now).await;
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn portable_clock_sleeps_until_the_deadline() {
        check(portable::now, portable::sleep_until, boottime::now).await;
    }

    #[tokio::test]
    async fn system_clock_does_not_sleep_until_a_time_in_the_past() {
        SystemClock.sleep_until(Duration::ZERO).await;
        SystemClock.sleep_until(SystemClock.since_boot()).await;
    }
}
