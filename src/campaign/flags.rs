use std::time::Duration;

use clap::Args;

use crate::election::{InvalidTiming, Timing};
use crate::protocol::environment;

/// The durations of the election as flags and environment variables, shared by all programs that campaign.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct TimingFlags {
    /// How long a standby waits after the leader's last renewal before it takes over, in whole seconds
    #[arg(long, env = environment::LEASE_DURATION_SECONDS, default_value = "15", value_name = "SECONDS")]
    lease_duration_seconds: u32,
    /// How long a leader may act after the send of its last acknowledged renewal
    #[arg(long, env = environment::RENEW_DEADLINE_SECONDS, default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    renew_deadline_seconds: Duration,
    /// The longest wait between retries while the API server does not answer
    #[arg(long, env = environment::RETRY_PERIOD_SECONDS, default_value = "2", value_name = "SECONDS", value_parser = seconds)]
    retry_period_seconds: Duration,
    /// The time between renewals [default: the retry period]
    #[arg(long, env = environment::RENEW_INTERVAL_SECONDS, value_name = "SECONDS", value_parser = seconds)]
    renew_interval_seconds: Option<Duration>,
    /// The time from SIGTERM to SIGKILL when leadership is lost [default: 3, or less if the lease leaves less]
    #[arg(long, env = environment::STOP_GRACE_PERIOD_SECONDS, value_name = "SECONDS", value_parser = seconds)]
    stop_grace_period_seconds: Option<Duration>,
    /// The minimum wait of every candidate after a deleted lease is recreated [default: the lease duration]
    #[arg(long, env = environment::RECREATED_LEASE_SECONDS, value_name = "SECONDS", value_parser = seconds, hide = true)]
    recreated_lease_seconds: Option<Duration>,
}

impl TimingFlags {
    /// Returns the validated durations.
    ///
    /// # Errors
    /// [`InvalidTiming`] names the broken rule.
    pub fn timing(&self) -> Result<Timing, InvalidTiming> {
        let mut timing = Timing::new(
            Duration::from_secs(self.lease_duration_seconds.into()),
            self.renew_deadline_seconds,
            self.retry_period_seconds,
        )?;
        if let Some(interval) = self.renew_interval_seconds {
            timing = timing.with_renew_interval(interval)?;
        }
        if let Some(grace) = self.stop_grace_period_seconds {
            timing = timing.with_stop_grace(grace)?;
        }
        if let Some(wait) = self.recreated_lease_seconds {
            timing = timing.with_recreation_wait(wait)?;
        }
        Ok(timing)
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "expected seconds from 0 to 1.8e19".to_owned())
}
