//! What a handover costs, by the handovers that the group has had.

use crate::api::HistoryEntry;
use crate::api::names::ChangeReason;

/// Returns how long the last planned handovers left the group without a leader, as a sentence.
pub fn cost_of_handover(history: &[HistoryEntry]) -> String {
    // After a suspension the reason is LeaseReleased, and the time without a leader was intended.
    let planned = [ChangeReason::SteppedDown, ChangeReason::Rollout, ChangeReason::Draining, ChangeReason::Unhealthy];
    let is_planned = |entry: &&HistoryEntry| {
        entry.reason.as_deref().and_then(ChangeReason::parse).is_some_and(|reason| planned.contains(&reason))
    };
    let known = history.iter().filter(is_planned).filter_map(|entry| entry.leaderless_seconds);
    let mut seconds: Vec<f64> = known.map(|seconds| seconds.max(0.0)).collect();
    seconds.sort_by(f64::total_cmp);
    match seconds.as_slice() {
        [] => "The status has no planned handover of this group yet: how long it is without a leader depends on how \
               long its program takes to stop and to start."
            .to_owned(),
        [only] => format!("The last handover of this group left it without a leader for {}.", leaderless(*only)),
        [first, .., last] => {
            let (count, first, last) = (seconds.len(), leaderless(*first), leaderless(*last));
            let range = if first == last { format!("{first} each") } else { format!("{first} to {last}") };
            format!("The last {count} handovers of this group left it without a leader for {range}.")
        }
    }
}

/// Returns how long there was no leader. The clocks of two machines may make that negative.
pub fn leaderless(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.2} s", seconds.max(0.0)) } else { format!("{seconds:.1} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(reason: &str, seconds: Option<f64>) -> HistoryEntry {
        HistoryEntry { reason: Some(reason.to_owned()), leaderless_seconds: seconds, ..HistoryEntry::default() }
    }

    #[test]
    fn cost_is_that_of_planned_handovers_only() {
        let history = [
            change("SteppedDown", Some(0.12)),
            change("LeaseExpired", Some(14.0)),
            change("Rollout", Some(0.31)),
            change("Draining", None),
            change("LeaseReleased", Some(3600.0)),
            change("Elected", None),
        ];
        let text = cost_of_handover(&history);
        assert_eq!(text, "The last 2 handovers of this group left it without a leader for 0.12 s to 0.31 s.");
    }

    #[test]
    fn clocks_that_differ_cost_no_negative_time() {
        let text = cost_of_handover(&[change("SteppedDown", Some(-0.2))]);
        assert_eq!(text, "The last handover of this group left it without a leader for 0.00 s.");
    }

    #[test]
    fn group_without_handovers_gets_no_number() {
        assert!(
            cost_of_handover(&[change("LeaseExpired", Some(3.0))]).starts_with("The status has no planned handover")
        );
    }
}
