//! When a program beside a sidecar counts as active.

use std::time::Duration;

use k8sensus_candidate::activity::Activity;
use k8sensus_election::Moment;

fn at(seconds: f64) -> Moment {
    Moment::since_boot(Duration::from_secs_f64(1_000.0 + seconds))
}

/// Returns the activity of a program with requests at these seconds.
fn requests_at(retry_period: u64, seconds: impl IntoIterator<Item = f64>) -> Activity {
    let mut activity = Activity::new(Duration::from_secs(retry_period));
    seconds.into_iter().for_each(|second| activity.record(at(second)));
    activity
}

#[test]
fn a_program_that_never_asked_is_inactive() {
    let never = requests_at(2, []);
    assert_eq!((never.is_active(at(0.0)), never.silent_at()), (false, None));
}

#[test]
fn a_frequent_program_counts_as_silent_after_30_seconds() {
    for step in [0.01, 0.3, 2.0, 5.0] {
        let activity = requests_at(2, (0..1_000).map(|n| f64::from(n) * step));
        let last = 999.0 * step;
        assert!(activity.is_active(at(last + 29.9)), "every {step} s");
        assert!(!activity.is_active(at(last + 30.1)), "every {step} s");
    }
}

#[test]
fn a_rare_program_stays_active_from_its_second_request() {
    for step in [10.0, 60.0, 600.0] {
        let mut activity = requests_at(2, [0.0, step]);
        for n in 1..50_u32 {
            let next = f64::from(n + 1) * step;
            assert!(activity.is_active(at(next - 0.1)), "request {n}, every {step} s");
            activity.record(at(next));
        }
        assert!(!activity.is_active(at(50.0 * step + 3.1 * step.max(10.0))), "it fell silent; every {step} s");
    }
}

#[test]
fn a_program_stays_active_two_minutes_after_its_only_request() {
    let once = requests_at(2, [0.0]);
    assert!(once.is_active(at(119.9)) && !once.is_active(at(120.1)));
    let several_at_once = requests_at(2, [0.0, 0.1, 0.9]);
    assert!(several_at_once.is_active(at(119.9)), "its pauses are unknown");
}

#[test]
fn a_burst_of_requests_counts_as_one() {
    let bursts = (0..4).flat_map(|n| (0..20).map(move |k| f64::from(n) * 60.0 + f64::from(k) * 0.01));
    assert!(requests_at(2, bursts).is_active(at(180.0 + 170.0)));
}

#[test]
fn a_long_pause_is_forgotten_after_eight_more_requests() {
    let mut activity = requests_at(2, [0.0, 1.0, 1_000.0]);
    assert!(activity.is_active(at(2_000.0)));
    (1..=8).for_each(|n| activity.record(at(1_000.0 + f64::from(n) * 2.0)));
    assert!(!activity.is_active(at(1_016.0 + 30.1)));
}

#[test]
fn silence_lasts_at_least_ten_retry_periods() {
    let activity = requests_at(10, [0.0, 5.0, 10.0]);
    assert!(activity.is_active(at(109.9)) && !activity.is_active(at(110.1)));
}
