//! Promises are kept, whatever the order of requests and stop reports.

use std::time::Duration;

use k8sensus_candidate::promise::{Promises, StopOutcome};
use k8sensus_election::Moment;
use proptest::prelude::*;

const LONGEST: Duration = Duration::from_secs(2);

fn at(millis: u64) -> Moment {
    Moment::since_boot(Duration::from_millis(millis))
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_promise_is_bounded_by_leadership_and_by_the_longest_promise() {
    let mut promises = Promises::of_at_most(LONGEST);
    assert_eq!(promises.make(at(0), millis(9_000)), None, "there is no term");
    promises.begin("7");
    assert_eq!(promises.make(at(10), millis(9_000)), Some(LONGEST));
    assert_eq!(promises.make(at(20), millis(1_500)), Some(millis(1_500)));
    assert_eq!(promises.make(at(30), Duration::from_micros(1_999)), Some(millis(1)), "never rounded up");
    assert_eq!(promises.make(at(40), Duration::from_micros(999)), None);
    assert_eq!(promises.releasable_at(), None, "more may be promised");
    promises.close();
    assert_eq!(promises.releasable_at(), Some(at(2_010)), "the last to end was not the last that was made");
    assert!(!promises.end());
    assert_eq!(promises.releasable_at(), None);
}

#[test]
fn a_term_without_promises_is_released_immediately() {
    let mut promises = Promises::of_at_most(LONGEST);
    promises.begin("7");
    promises.close();
    assert_eq!(promises.releasable_at(), Some(at(0)));
}

#[test]
fn a_stopped_app_makes_the_term_releasable_immediately() {
    for token in [None, Some("7")] {
        let mut promises = Promises::of_at_most(LONGEST);
        promises.begin("7");
        promises.make(at(10), millis(9_000));
        assert_eq!(promises.stopped(token), StopOutcome::Stopped);
        assert_eq!(promises.make(at(20), millis(9_000)), None, "a stopped app gets no promise");
        assert_eq!(promises.releasable_at(), Some(at(0)));
        assert_eq!(promises.stopped(token), StopOutcome::Stopped, "a repeated report is accepted");
        assert!(promises.end());
        assert_eq!(promises.stopped(token), StopOutcome::OtherTerm);
    }
}

#[test]
fn a_late_stop_report_ends_no_later_term() {
    let mut promises = Promises::of_at_most(LONGEST);
    promises.begin("7");
    promises.make(at(10), millis(9_000));
    promises.close();
    promises.end();
    promises.begin("8");
    assert_eq!(
        promises.stopped(None),
        StopOutcome::NothingPromised,
        "the report cannot be meant for a term without promises"
    );
    assert_eq!(promises.make(at(5_000), millis(9_000)), Some(LONGEST));
    assert_eq!(promises.stopped(Some("7")), StopOutcome::OtherTerm);
    assert_eq!(promises.releasable_at(), None);
    assert_eq!(promises.stopped(Some("8")), StopOutcome::Stopped);
}

/// An event in the life of promises.
#[derive(Clone, Debug)]
enum Event {
    Requested { remaining: u64 },
    Closed,
    Stopped { token: Option<u64> },
    TermBegins,
    Checked,
}

fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let event = prop_oneof![
        6 => (0..4_000u64).prop_map(|remaining| Event::Requested { remaining }),
        2 => Just(Event::Closed),
        2 => prop::option::of(0..6u64).prop_map(|token| Event::Stopped { token }),
        2 => Just(Event::TermBegins),
        4 => Just(Event::Checked),
    ];
    prop::collection::vec((0..800u64, event), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A term ends only when all its promises have expired, or the app has reported that it stopped in that term.
    #[test]
    fn no_promise_outlives_its_term_or_its_leadership(events in events()) {
        let mut promises = Promises::of_at_most(LONGEST);
        let (mut now, mut term) = (0, None::<u64>);
        let (mut made, mut closed, mut stopped): (Vec<u64>, bool, bool) = (vec![], false, false);
        for (passed, event) in events {
            now += passed;
            match event {
                Event::TermBegins if term.is_none() => {
                    let next = now % 6;
                    promises.begin(&next.to_string());
                    (term, made, closed, stopped) = (Some(next), vec![], false, false);
                }
                Event::TermBegins => {}
                Event::Requested { remaining } => {
                    let promise = promises.make(at(now), millis(remaining));
                    prop_assert_eq!(promise.is_some(), term.is_some() && !closed && !stopped && remaining > 0);
                    if let Some(promise) = promise {
                        prop_assert!(promise <= millis(remaining) && promise <= LONGEST);
                        made.push(now + u64::try_from(promise.as_millis()).unwrap());
                    }
                }
                Event::Closed => {
                    promises.close();
                    closed = true;
                }
                Event::Stopped { token } => {
                    let meant = term.is_some() && (token == term || token.is_none() && !made.is_empty());
                    let outcome = promises.stopped(token.map(|token| token.to_string()).as_deref());
                    prop_assert_eq!(outcome == StopOutcome::Stopped, meant);
                    stopped |= meant;
                }
                Event::Checked => match promises.releasable_at() {
                    Some(releasable_at) => {
                        prop_assert!(term.is_some() && (closed || stopped));
                        if releasable_at <= at(now) {
                            prop_assert!(stopped || made.iter().all(|end| *end <= now), "{made:?} at {now}");
                            prop_assert_eq!(promises.end(), stopped);
                            term = None;
                        } else {
                            prop_assert!(made.iter().any(|end| at(*end) == releasable_at), "not later than the last promise");
                        }
                    }
                    None => prop_assert!(term.is_none() || !closed && !stopped),
                },
            }
        }
    }
}
