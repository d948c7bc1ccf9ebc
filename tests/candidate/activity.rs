//! When a program beside a sidecar counts as at work.

use std::time::Duration;

use k8sensus::candidate::activity::Activity;
use k8sensus::election::Moment;

fn at(seconds: f64) -> Moment {
    Moment::since_boot(Duration::from_secs_f64(1_000.0 + seconds))
}

/// Of a program that has asked at these seconds.
fn asked(retry_period: u64, seconds: impl IntoIterator<Item = f64>) -> Activity {
    let mut activity = Activity::new(Duration::from_secs(retry_period));
    seconds.into_iter().for_each(|second| activity.asked(at(second)));
    activity
}

#[test]
fn a_program_that_has_never_asked_is_not_at_work() {
    let never = asked(2, []);
    assert_eq!((never.is_active(at(0.0)), never.silent_at()), (false, None));
}

#[test]
fn a_program_that_asks_often_counts_as_silent_after_half_a_minute() {
    for step in [0.01, 0.3, 2.0, 5.0] {
        let activity = asked(2, (0..1_000).map(|n| f64::from(n) * step));
        let last = 999.0 * step;
        assert!(activity.is_active(at(last + 29.9)), "every {step} s");
        assert!(!activity.is_active(at(last + 30.1)), "every {step} s");
    }
}

#[test]
fn a_program_that_asks_rarely_stays_at_work_from_its_second_question_on() {
    for step in [10.0, 60.0, 600.0] {
        let mut activity = asked(2, [0.0, step]);
        for n in 1..50_u32 {
            let next = f64::from(n + 1) * step;
            assert!(activity.is_active(at(next - 0.1)), "question {n}, every {step} s");
            activity.asked(at(next));
        }
        assert!(!activity.is_active(at(50.0 * step + 3.1 * step.max(10.0))), "it fell silent; every {step} s");
    }
}

#[test]
fn a_program_that_has_asked_once_is_waited_for_two_minutes() {
    let once = asked(2, [0.0]);
    assert!(once.is_active(at(119.9)) && !once.is_active(at(120.1)));
    let several_at_once = asked(2, [0.0, 0.1, 0.9]);
    assert!(several_at_once.is_active(at(119.9)), "nothing is known of its pauses");
}

#[test]
fn bursts_of_questions_count_as_one() {
    let bursts = (0..4).flat_map(|n| (0..20).map(move |k| f64::from(n) * 60.0 + f64::from(k) * 0.01));
    assert!(asked(2, bursts).is_active(at(180.0 + 170.0)));
}

#[test]
fn a_long_pause_is_forgotten_after_eight_more_questions() {
    let mut activity = asked(2, [0.0, 1.0, 1_000.0]);
    assert!(activity.is_active(at(2_000.0)));
    (1..=8).for_each(|n| activity.asked(at(1_000.0 + f64::from(n) * 2.0)));
    assert!(!activity.is_active(at(1_016.0 + 30.1)));
}

#[test]
fn a_slow_election_is_patient_for_ten_retry_periods() {
    let activity = asked(10, [0.0, 5.0, 10.0]);
    assert!(activity.is_active(at(109.9)) && !activity.is_active(at(110.1)));
}
