//! What was promised is kept, whatever is asked and said in which order.

use std::time::Duration;

use k8sensus::candidate::promise::{Heard, Promises};
use k8sensus::election::Moment;
use proptest::prelude::*;

const LONGEST: Duration = Duration::from_secs(2);

fn at(millis: u64) -> Moment {
    Moment::since_boot(Duration::from_millis(millis))
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_promise_lasts_as_long_as_leadership_but_no_longer_than_the_longest() {
    let mut promises = Promises::of_at_most(LONGEST);
    assert_eq!(promises.make(at(0), millis(9_000)), None, "there is no term");
    promises.begin("7");
    assert_eq!(promises.make(at(10), millis(9_000)), Some(LONGEST));
    assert_eq!(promises.make(at(20), millis(1_500)), Some(millis(1_500)));
    assert_eq!(promises.make(at(30), Duration::from_micros(1_999)), Some(millis(1)), "never rounded up");
    assert_eq!(promises.make(at(40), Duration::from_micros(999)), None);
    assert_eq!(promises.kept_at(), None, "more may be promised");
    promises.close();
    assert_eq!(promises.kept_at(), Some(at(2_010)), "the last to end was not the last that was made");
    assert!(!promises.end());
    assert_eq!(promises.kept_at(), None);
}

#[test]
fn a_term_that_nobody_was_told_of_is_given_up_at_once() {
    let mut promises = Promises::of_at_most(LONGEST);
    promises.begin("7");
    promises.close();
    assert_eq!(promises.kept_at(), Some(at(0)));
}

#[test]
fn an_app_that_has_stopped_is_waited_for_no_longer() {
    for token in [None, Some("7")] {
        let mut promises = Promises::of_at_most(LONGEST);
        promises.begin("7");
        promises.make(at(10), millis(9_000));
        assert_eq!(promises.stopped(token), Heard::Stopped);
        assert_eq!(promises.make(at(20), millis(9_000)), None, "it has stopped: nothing is promised to it");
        assert_eq!(promises.kept_at(), Some(at(0)));
        assert_eq!(promises.stopped(token), Heard::Stopped, "it may say so twice");
        assert!(promises.end());
        assert_eq!(promises.stopped(token), Heard::OtherTerm);
    }
}

#[test]
fn a_late_word_ends_no_later_term() {
    let mut promises = Promises::of_at_most(LONGEST);
    promises.begin("7");
    promises.make(at(10), millis(9_000));
    promises.close();
    promises.end();
    promises.begin("8");
    assert_eq!(promises.stopped(None), Heard::Untold, "it cannot mean what nobody knows of");
    assert_eq!(promises.make(at(5_000), millis(9_000)), Some(LONGEST));
    assert_eq!(promises.stopped(Some("7")), Heard::OtherTerm);
    assert_eq!(promises.kept_at(), None);
    assert_eq!(promises.stopped(Some("8")), Heard::Stopped);
}

/// What may happen to promises, at some time.
#[derive(Clone, Debug)]
enum Event {
    Asked { remaining: u64 },
    Ordered,
    Stopped { token: Option<u64> },
    Begun,
    Waited,
}

fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let event = prop_oneof![
        6 => (0..4_000u64).prop_map(|remaining| Event::Asked { remaining }),
        2 => Just(Event::Ordered),
        2 => prop::option::of(0..6u64).prop_map(|token| Event::Stopped { token }),
        2 => Just(Event::Begun),
        4 => Just(Event::Waited),
    ];
    prop::collection::vec((0..800u64, event), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A term is given up only when every promise of it has run out, or the app said that it stopped in that very term.
    #[test]
    fn no_promise_outlives_its_term_or_its_leadership(events in events()) {
        let mut promises = Promises::of_at_most(LONGEST);
        let (mut now, mut term) = (0, None::<u64>);
        let (mut made, mut ordered, mut stopped): (Vec<u64>, bool, bool) = (vec![], false, false);
        for (passed, event) in events {
            now += passed;
            match event {
                Event::Begun if term.is_none() => {
                    let next = now % 6;
                    promises.begin(&next.to_string());
                    (term, made, ordered, stopped) = (Some(next), vec![], false, false);
                }
                Event::Begun => {}
                Event::Asked { remaining } => {
                    let promise = promises.make(at(now), millis(remaining));
                    prop_assert_eq!(promise.is_some(), term.is_some() && !ordered && !stopped && remaining > 0);
                    if let Some(promise) = promise {
                        prop_assert!(promise <= millis(remaining) && promise <= LONGEST);
                        made.push(now + u64::try_from(promise.as_millis()).unwrap());
                    }
                }
                Event::Ordered => {
                    promises.close();
                    ordered = true;
                }
                Event::Stopped { token } => {
                    let meant = term.is_some() && (token == term || token.is_none() && !made.is_empty());
                    let heard = promises.stopped(token.map(|token| token.to_string()).as_deref());
                    prop_assert_eq!(heard == Heard::Stopped, meant);
                    stopped |= meant;
                }
                Event::Waited => match promises.kept_at() {
                    Some(kept_at) => {
                        prop_assert!(term.is_some() && (ordered || stopped));
                        if kept_at <= at(now) {
                            prop_assert!(stopped || made.iter().all(|end| *end <= now), "{made:?} at {now}");
                            prop_assert_eq!(promises.end(), stopped);
                            term = None;
                        } else {
                            prop_assert!(made.iter().any(|end| at(*end) == kept_at), "not later than need be");
                        }
                    }
                    None => prop_assert!(term.is_none() || !ordered && !stopped),
                },
            }
        }
    }
}
