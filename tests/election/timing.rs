use std::time::Duration;

use k8sensus_election::{Candidate, InvalidCandidate, Timing};

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn refusal(lease: u64, deadline: u64, retry: u64) -> String {
    Timing::new(seconds(lease), seconds(deadline), seconds(retry)).expect_err("must be refused").to_string()
}

#[test]
fn the_defaults_are_those_of_client_go() {
    let timing = Timing::default();
    assert_eq!(timing.lease_duration(), seconds(15));
    assert_eq!(timing.renew_deadline(), seconds(10));
    assert_eq!(timing.retry_period(), seconds(2));
    assert_eq!(timing.renew_interval(), seconds(2));
    assert_eq!(timing.stop_grace(), seconds(3));
}

#[test]
fn an_error_names_the_rule_and_both_numbers() {
    assert_eq!(refusal(10, 10, 2), "lease duration (10 s) must be greater than renew deadline (10 s)");
    assert_eq!(refusal(15, 2, 2), "renew deadline (2 s) must be greater than 1.2 x retry period (2 s)");
    assert_eq!(refusal(15, 10, 0), "retry period must be greater than 0 s");
    assert_eq!(refusal(0, 0, 0), "lease duration must be whole seconds from 1 to 2147483647, found 0 s");
    assert!(refusal(11, 10, 2).starts_with("renew deadline (10 s) + stop grace (0 s) must be at most 9/10"));
    let timing = Timing::default();
    assert!(timing.with_stop_grace(seconds(4)).unwrap_err().to_string().contains("stop grace (4 s)"));
    assert!(timing.with_renew_interval(seconds(10)).unwrap_err().to_string().contains("renew interval (10 s)"));
    assert!(Timing::new(Duration::from_millis(1500), seconds(1), Duration::from_millis(100)).is_err());
}

#[test]
fn the_limit_of_each_rule_is_accepted() {
    assert!(Timing::default().with_stop_grace(Duration::from_millis(3500)).is_ok());
    assert!(Timing::new(seconds(15), Duration::from_millis(2401), seconds(2)).is_ok());
    assert!(Timing::default().with_renew_interval(Duration::from_millis(9999)).is_ok());
}

#[test]
fn a_short_lease_leaves_less_grace() {
    let timing = Timing::new(seconds(3), seconds(2), seconds(1)).unwrap();
    assert_eq!(timing.stop_grace(), Duration::from_millis(700));
}

#[test]
fn extreme_durations_are_refused_without_a_panic() {
    assert!(Timing::new(Duration::MAX, Duration::MAX, Duration::MAX).is_err());
    assert!(Timing::new(seconds(15), seconds(10), Duration::MAX).is_err());
    assert!(Timing::default().with_stop_grace(Duration::MAX).is_err());
}

#[test]
fn a_candidate_needs_an_identity_and_an_incarnation() {
    assert_eq!(Candidate::new("", "x"), Err(InvalidCandidate::Identity));
    assert_eq!(Candidate::new("x", ""), Err(InvalidCandidate::Incarnation));
}
