//! The only place that reads a clock; `clippy.toml` bans it everywhere else.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// A monotonic clock with its timer, and the wall clock.
pub trait Clock: Send + Sync + 'static {
    /// Returns the time since boot, suspended time included.
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

/// The clocks of Linux.
///
/// `CLOCK_BOOTTIME` continues while the machine is suspended. `std::time::Instant` and tokio's timers stand still, so a
/// leader would wake up and believe that no time has passed.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn since_boot(&self) -> Duration {
        let now = rustix::time::clock_gettime_dynamic(rustix::time::DynamicClockId::Boottime)
            .expect("Linux has had CLOCK_BOOTTIME since 2.6.39");
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn wall_micros(&self) -> i64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |elapsed| i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))
    }

    fn sleep_until(&self, deadline: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let clock = *self;
        Box::pin(async move {
            if clock.since_boot() >= deadline {
                return;
            }
            if let Err(error) = boottime_timer(deadline).await {
                // A seccomp profile may forbid timerfd. A timer that is late by the suspended time is better than none.
                tracing::warn!(%error, "no timer on CLOCK_BOOTTIME; falling back to one that stands still in suspend");
                fallback_timer(deadline.saturating_sub(clock.since_boot())).await;
            }
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that sleeps")]
async fn fallback_timer(left: Duration) {
    tokio::time::sleep(left).await;
}

async fn boottime_timer(deadline: Duration) -> io::Result<()> {
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
