//! The check of the election's durations by the rules of its mode.

use std::time::Duration;

use super::group::{GroupMode, GroupTiming};
use super::invalid::{Invalid, invalid};
use crate::api::ElectionGroupSpec;
use crate::election::{InvalidTiming, Timing};

/// Checks the timing. In mode Native the pods bring their own election, so only client-go's rules apply; in the other
/// modes all of ours do.
pub(super) fn checked_timing(spec: &ElectionGroupSpec, mode: GroupMode) -> Result<GroupTiming, Invalid> {
    let election = &spec.election;
    let mut checked = GroupTiming {
        lease_duration: election.lease_duration_seconds,
        renew_deadline: election.renew_deadline_seconds,
        retry_period: election.retry_period_seconds,
        renew_interval: election.effective_renew_interval_seconds(),
        stop_grace: None,
    };
    match mode {
        GroupMode::Native => check_native_timing(&checked)?,
        GroupMode::Exec | GroupMode::Sidecar => {
            let refused = |rule: InvalidTiming| invalid("spec.election", rule.to_string());
            let timing = Timing::new(
                seconds(checked.lease_duration),
                seconds(checked.renew_deadline),
                seconds(checked.retry_period),
            );
            let timing = timing.and_then(|timing| timing.with_renew_interval(seconds(checked.renew_interval)));
            let mut timing = timing.map_err(refused)?;
            if let Some(grace) = spec.candidate.stop_grace_period_seconds {
                timing = timing
                    .with_stop_grace(seconds(grace))
                    .map_err(|rule| invalid("spec.candidate.stopGracePeriodSeconds", rule.to_string()))?;
            }
            checked.stop_grace = Some(timing.stop_grace());
        }
    }
    Ok(checked)
}

pub(super) fn seconds(number: i32) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or(0))
}

/// Checks what client-go's `NewLeaderElector` requires, and that a renewal comes before its deadline.
fn check_native_timing(timing: &GroupTiming) -> Result<(), Invalid> {
    let GroupTiming { lease_duration, renew_deadline, retry_period, renew_interval, .. } = *timing;
    if lease_duration <= renew_deadline {
        let rule =
            format!("lease duration ({lease_duration} s) must be greater than renew deadline ({renew_deadline} s)");
        return Err(invalid("spec.election", rule));
    }
    if 10 * i64::from(renew_deadline) <= 12 * i64::from(retry_period) {
        let rule =
            format!("renew deadline ({renew_deadline} s) must be greater than 1.2 x retry period ({retry_period} s)");
        return Err(invalid("spec.election", rule));
    }
    if renew_interval >= renew_deadline {
        let rule = format!("renew interval ({renew_interval} s) must be less than renew deadline ({renew_deadline} s)");
        return Err(invalid("spec.election", rule));
    }
    Ok(())
}
