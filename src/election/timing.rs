use std::error::Error;
use std::fmt;
use std::time::Duration;

/// The durations of an election, validated together.
///
/// [`Timing::new`] is the only constructor, so an elector never runs with an unsafe combination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
    renew_interval: Duration,
    stop_grace: Duration,
    recreation_wait: Duration,
}

impl Timing {
    /// The maximum factor of client-go's random jitter on the retry period; the renew deadline must leave room for it.
    const JITTER_TENTHS: u32 = 12;
    /// The work must be dead after nine tenths of the lease; the last tenth is the margin for unequal clock rates.
    const DEAD_BY_TENTHS: u32 = 9;
    /// The default stop grace, if the other durations leave room for it.
    const DEFAULT_STOP_GRACE: Duration = Duration::from_secs(3);

    /// Validates the three durations. The renew interval becomes `retry_period`, the stop grace 3 s or what is left.
    ///
    /// # Errors
    /// [`InvalidTiming`] names the broken rule and both numbers:
    /// - `lease_duration` is whole seconds, 1 to 2^31 - 1, because the Lease stores an int32 of seconds;
    /// - `lease_duration` > `renew_deadline` > 1.2 x `retry_period` > 0 (client-go `NewLeaderElector`);
    /// - 10 x (`renew_deadline` + stop grace) <= 9 x `lease_duration`.
    pub fn new(
        lease_duration: Duration,
        renew_deadline: Duration,
        retry_period: Duration,
    ) -> Result<Self, InvalidTiming> {
        use InvalidTiming::*;
        if lease_duration.subsec_nanos() != 0 || lease_duration.is_zero() || lease_duration.as_secs() > i32::MAX as u64
        {
            return Err(LeaseDuration(lease_duration));
        }
        if lease_duration <= renew_deadline {
            return Err(RenewDeadlineTooLong { lease_duration, renew_deadline });
        }
        if retry_period.is_zero() {
            return Err(NoRetryPeriod);
        }
        if renew_deadline * 10 <= retry_period.saturating_mul(Self::JITTER_TENTHS) {
            return Err(RetryPeriodTooLong { renew_deadline, retry_period });
        }
        let room = (lease_duration * Self::DEAD_BY_TENTHS / 10).checked_sub(renew_deadline).ok_or(NoMargin {
            lease_duration,
            renew_deadline,
            stop_grace: Duration::ZERO,
        })?;
        let stop_grace = Self::DEFAULT_STOP_GRACE.min(room);
        Ok(Self {
            lease_duration,
            renew_deadline,
            retry_period,
            renew_interval: retry_period,
            stop_grace,
            recreation_wait: lease_duration,
        })
    }

    /// Sets the renew interval, by default the retry period. A longer interval saves requests, but leadership then
    /// survives only shorter outages.
    ///
    /// # Errors
    /// [`InvalidTiming::RenewInterval`] unless 0 < `interval` < renew deadline.
    pub fn with_renew_interval(self, interval: Duration) -> Result<Self, InvalidTiming> {
        if interval.is_zero() || interval >= self.renew_deadline {
            return Err(InvalidTiming::RenewInterval { interval, renew_deadline: self.renew_deadline });
        }
        Ok(Self { renew_interval: interval, ..self })
    }

    /// Sets the time between the stop of the work and its kill when leadership is lost.
    ///
    /// # Errors
    /// [`InvalidTiming::NoMargin`] unless 10 x (renew deadline + `stop_grace`) <= 9 x lease duration.
    pub fn with_stop_grace(self, stop_grace: Duration) -> Result<Self, InvalidTiming> {
        let Self { lease_duration, renew_deadline, .. } = self;
        if renew_deadline.saturating_add(stop_grace) > lease_duration * Self::DEAD_BY_TENTHS / 10 {
            return Err(InvalidTiming::NoMargin { lease_duration, renew_deadline, stop_grace });
        }
        Ok(Self { stop_grace, ..self })
    }

    /// Sets the minimum wait of every candidate after a deleted Lease is recreated; by default the lease duration. A
    /// leader whose Lease is deleted has nine tenths of `wait`, from the send of its last acknowledged renewal, to end
    /// its work.
    ///
    /// # Errors
    /// [`InvalidTiming::RecreationWait`] if `wait` is shorter than the lease duration.
    pub fn with_recreation_wait(self, wait: Duration) -> Result<Self, InvalidTiming> {
        if wait < self.lease_duration {
            return Err(InvalidTiming::RecreationWait { wait, lease_duration: self.lease_duration });
        }
        Ok(Self { recreation_wait: wait, ..self })
    }

    /// Returns how long a standby waits from its first observation of a renewal before it takes over.
    pub fn lease_duration(&self) -> Duration {
        self.lease_duration
    }

    /// Returns how long leadership is valid after the send of the last acknowledged write.
    pub fn renew_deadline(&self) -> Duration {
        self.renew_deadline
    }

    /// Returns the longest wait between retries while the API server does not answer.
    pub fn retry_period(&self) -> Duration {
        self.retry_period
    }

    /// Returns the time between renewals without failures.
    pub fn renew_interval(&self) -> Duration {
        self.renew_interval
    }

    /// Returns the time between the stop of the work and its kill when leadership is lost.
    pub fn stop_grace(&self) -> Duration {
        self.stop_grace
    }

    /// Returns the minimum wait of every candidate after a deleted Lease is recreated.
    pub fn recreation_wait(&self) -> Duration {
        self.recreation_wait
    }

    /// Returns how long the work may live after the send of the last acknowledged write, if every other candidate waits
    /// at least `wait` from then on: nine tenths, because clock rates differ.
    pub(super) fn work_limit(wait: Duration) -> Duration {
        wait * Self::DEAD_BY_TENTHS / 10
    }
}

impl Default for Timing {
    /// Returns client-go's defaults: 15 s, 10 s, 2 s; stop grace 3 s.
    fn default() -> Self {
        Self::new(Duration::from_secs(15), Duration::from_secs(10), Duration::from_secs(2))
            .expect("the defaults obey the rules")
    }
}

/// The rule that a combination of durations breaks. The message names both numbers, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidTiming {
    /// The lease duration is not whole seconds from 1 to 2^31 - 1.
    LeaseDuration(Duration),
    /// lease duration > renew deadline is broken.
    RenewDeadlineTooLong { lease_duration: Duration, renew_deadline: Duration },
    /// The retry period is zero.
    NoRetryPeriod,
    /// renew deadline > 1.2 x retry period is broken.
    RetryPeriodTooLong { renew_deadline: Duration, retry_period: Duration },
    /// 0 < renew interval < renew deadline is broken.
    RenewInterval { interval: Duration, renew_deadline: Duration },
    /// recreation wait >= lease duration is broken.
    RecreationWait { wait: Duration, lease_duration: Duration },
    /// 10 x (renew deadline + stop grace) <= 9 x lease duration is broken.
    NoMargin { lease_duration: Duration, renew_deadline: Duration, stop_grace: Duration },
}

impl fmt::Display for InvalidTiming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::LeaseDuration(found) => {
                write!(f, "lease duration must be whole seconds from 1 to 2147483647, found {}", Seconds(found))
            }
            Self::RenewDeadlineTooLong { lease_duration, renew_deadline } => write!(
                f,
                "lease duration ({}) must be greater than renew deadline ({})",
                Seconds(lease_duration),
                Seconds(renew_deadline)
            ),
            Self::NoRetryPeriod => write!(f, "retry period must be greater than 0 s"),
            Self::RetryPeriodTooLong { renew_deadline, retry_period } => write!(
                f,
                "renew deadline ({}) must be greater than 1.2 x retry period ({})",
                Seconds(renew_deadline),
                Seconds(retry_period)
            ),
            Self::RenewInterval { interval, renew_deadline } => write!(
                f,
                "renew interval ({}) must be greater than 0 s and less than renew deadline ({})",
                Seconds(interval),
                Seconds(renew_deadline)
            ),
            Self::RecreationWait { wait, lease_duration } => write!(
                f,
                "the wait for a recreated lease ({}) must be at least the lease duration ({})",
                Seconds(wait),
                Seconds(lease_duration)
            ),
            Self::NoMargin { lease_duration, renew_deadline, stop_grace } => write!(
                f,
                "renew deadline ({}) + stop grace ({}) must be at most 9/10 of lease duration ({}): the last tenth is \
                 the margin for unequal clock rates",
                Seconds(renew_deadline),
                Seconds(stop_grace),
                Seconds(lease_duration)
            ),
        }
    }
}

impl Error for InvalidTiming {}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_secs_f64())
    }
}
