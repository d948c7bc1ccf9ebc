//! What is told, and how it is merged.

use std::time::Duration;

use k8sensus::api::names::ChangeReason;
use k8sensus::api::{ConditionType, ElectionGroup, ElectionGroupStatus, RolloutStatus};
use k8sensus::election::Record;
use k8sensus::group::Observed;
use k8sensus::group::events::series::{CAPACITY, FORGOTTEN_AFTER, Now, REFRESH, STANDING_REFRESH};
use k8sensus::group::events::{About, Event, Series, Words, Write, between};
use k8sensus::group::observed::Outcome;
use k8sensus::group::observed::lease::{Ended, LeaseView};
use k8sensus::group::status::EndedBy;

use super::history::{at, held};
use super::status::{RECREATED, but, healthy, status};
use super::{MINIMAL, group};

/// A group of which each look tells its Events, as "Type Reason pod: note".
struct Told {
    group: ElectionGroup,
}

impl Told {
    fn new() -> Self {
        Self { group: group(MINIMAL) }
    }

    /// billing-1 leads.
    fn led() -> Self {
        let mut told = Self::new();
        told.look(&observed(held("billing-1", 1, 0, 0)));
        told
    }

    fn events(&mut self, observed: &Observed) -> Vec<Event> {
        let before = self.group.status.clone().unwrap_or_default();
        let after = status(&self.group, observed);
        self.group.status = Some(after.clone());
        assert_eq!(standing(&between(&after, &status(&self.group, observed), observed)), Vec::<String>::new());
        between(&before, &after, observed)
    }

    fn look(&mut self, observed: &Observed) -> Vec<String> {
        self.events(observed).iter().map(said).collect()
    }
}

/// What a second look tells that is not just going on.
fn standing(events: &[Event]) -> Vec<String> {
    events.iter().filter(|event| !event.goes_on).map(said).collect()
}

fn said(event: &Event) -> String {
    let Words { warning, reason, note, pod, .. } = &event.words;
    let kind = if *warning { "Warning" } else { "Normal" };
    format!("{kind} {reason} {}: {note}", pod.as_deref().unwrap_or("-"))
}

fn view(record: &Record) -> LeaseView {
    LeaseView::of(record, false, None)
}

fn observed(record: Record) -> Observed {
    but(|it| it.lease = Some(view(&record)))
}

fn lost(record: Record) -> Observed {
    but(|it| it.lease = Some(LeaseView { expired: true, ..view(&record) }))
}

fn handed_over(reason: ChangeReason) -> Observed {
    let former = Some(Ended { reason, since: None });
    but(|it| it.lease = Some(LeaseView { former, ..view(&held("billing-2", 2, 9_000, 9_000)) }))
}

#[test]
fn a_revision_is_said_to_have_led_only_where_it_led() {
    let of = |revision: &str, template: &str| {
        let mut observed = observed(held("billing-1", 1, 0, 0));
        observed.pods[0].template = Some(template.to_owned());
        observed.rollout = Some(RolloutStatus { proven_revision: Some(revision.to_owned()), ..Default::default() });
        observed
    };
    let mut told = Told::new();
    told.look(&of("a", "a"));
    let note = "revision b of the pod template has led well in billing-1: the rest of the pods follow";
    assert_eq!(told.look(&of("b", "b")), [format!("Normal RevisionProven billing-1: {note}")]);
    let note = "revision c of the pod template is rolled out without a trial: billing-1 cannot be asked to hand over";
    assert_eq!(told.look(&of("c", "b")), [format!("Normal RevisionProven billing-1: {note}")]);
}

#[test]
fn a_new_group_tells_nothing_until_it_is_led() {
    let mut told = Told::new();
    assert_eq!(told.look(&observed(Record::released(0, at(0)))), Vec::<String>::new());
    let first = told.look(&observed(held("billing-1", 1, 0, 0)));
    assert_eq!(first, ["Normal LeaderElected billing-1: billing-1 leads: it is the first"]);
    assert_eq!(told.look(&observed(held("billing-1", 1, 0, 2_000))), Vec::<String>::new(), "a renewal");
}

#[test]
fn a_handover_is_one_event_and_what_went_wrong_is_another() {
    let cases: [(ChangeReason, &[&str]); 5] = [
        (
            ChangeReason::LeaseReleased,
            &["Normal LeaderElected billing-2: billing-2 leads: its predecessor released the Lease"],
        ),
        (
            ChangeReason::LeaseExpired,
            &[
                "Warning LeaderLost billing-1: billing-1 leads no more: it did not renew the Lease in time",
                "Normal LeaderElected billing-2: billing-2 leads: its predecessor did not renew the Lease in time",
            ],
        ),
        (
            ChangeReason::SteppedDown,
            &[
                "Normal SteppedDown billing-1: billing-1 stepped down, as it was asked to",
                "Normal LeaderElected billing-2: billing-2 leads: its predecessor stepped down, as it was asked to",
            ],
        ),
        (
            ChangeReason::KubeletReported,
            &[
                "Warning LeaderLost billing-1: billing-1 leads no more: the kubelet reported the end of its container",
                "Normal LeaderElected billing-2: billing-2 leads: the kubelet reported the end of its predecessor's container",
            ],
        ),
        (
            ChangeReason::LeaseDeleted,
            &[
                "Warning LeaderLost billing-1: billing-1 leads no more: the Lease was deleted",
                "Normal LeaderElected billing-2: billing-2 leads: the Lease had been deleted",
            ],
        ),
    ];
    for (reason, events) in cases {
        assert_eq!(Told::led().look(&handed_over(reason)), events);
    }
    let unseen = Told::led().look(&observed(held("billing-2", 2, 9_000, 9_000)));
    assert_eq!(unseen, ["Normal LeaderElected billing-2: billing-2 leads: how its predecessor ended was not seen"]);
}

#[test]
fn a_loss_is_told_once_and_then_the_election() {
    let mut told = Told::led();
    let dead = || lost(held("billing-1", 1, 0, 4_000));
    let loss = "Warning LeaderLost billing-1: billing-1 leads no more: it did not renew the Lease in time";
    assert_eq!(told.look(&dead()), [loss]);
    assert_eq!(told.look(&dead()), Vec::<String>::new());
    let next = told.look(&observed(held("billing-2", 2, 19_000, 19_000)));
    let election = "Normal LeaderElected billing-2: billing-2 leads: its predecessor did not renew the Lease in time";
    assert_eq!(next, [election]);
}

#[test]
fn a_holder_that_comes_back_is_told() {
    let mut told = Told::led();
    told.look(&lost(held("billing-1", 1, 0, 4_000)));
    let back = told.look(&observed(held("billing-1", 1, 0, 20_000)));
    let note = "billing-1 leads again: it has renewed the Lease before anybody else took it";
    assert_eq!(back, [format!("Normal LeaderRecovered billing-1: {note}")]);
}

#[test]
fn a_release_that_nobody_takes_is_told() {
    let released = || observed(Record::released(1, at(9_000)));
    let note = "Normal LeaderReleased billing-1: billing-1 leads no more: it released the Lease";
    assert_eq!(Told::led().look(&released()), [note]);
    let by = EndedBy { holder: "billing-1".to_owned(), reason: ChangeReason::SteppedDown };
    let stepped_down = Observed { ended: Some(by), ..released() };
    let note = "Normal SteppedDown billing-1: billing-1 stepped down, as it was asked to";
    assert_eq!(Told::led().look(&stepped_down), [note]);
}

#[test]
fn a_lease_made_again_is_told_once() {
    let mut told = Told::led();
    let gone = told.look(&but(|it| it.lease = None));
    assert_eq!(gone, ["Warning LeaderLost billing-1: billing-1 leads no more: the Lease was deleted"]);
    let again = told.look(&observed(held(RECREATED, 1, 9_000, 9_000)));
    let note = "Lease billing was missing and is made again; nobody leads until a former leader must have stopped";
    assert_eq!(again, [format!("Warning LeaseRecreated -: {note}")]);
    assert_eq!(told.look(&lost(held(RECREATED, 1, 9_000, 9_000))), Vec::<String>::new());
}

#[test]
fn what_stalls_a_group_is_told_when_it_begins_and_goes_on() {
    let mut told = Told::led();
    let stalled = |outcome| Observed { outcome, ..observed(held("billing-1", 1, 0, 0)) };
    let conflict = || stalled(Outcome::Conflict("Role shop/billing exists".to_owned()));
    let goes_on = |events: &[Event]| events.iter().map(|event| event.goes_on).collect::<Vec<_>>();
    let begin = told.events(&conflict());
    assert_eq!(begin.iter().map(said).collect::<Vec<_>>(), ["Warning Conflict -: Role shop/billing exists"]);
    assert_eq!(goes_on(&begin), [false]);
    assert_eq!(goes_on(&told.events(&conflict())), [true]);
    let other = told.look(&stalled(Outcome::Invalid("spec.replicas: must be from 0 to 100, found 101".to_owned())));
    assert_eq!(other, ["Warning Invalid -: spec.replicas: must be from 0 to 100, found 101"]);
    let forbidden = told.look(&stalled(Outcome::Forbidden("cannot create Role".to_owned())));
    assert_eq!(forbidden, ["Warning Forbidden -: cannot create Role"]);
    assert_eq!(told.look(&stalled(Outcome::Applied)), Vec::<String>::new());
    let stuck = but(|it| {
        it.lease = Some(view(&held("billing-1", 1, 0, 0)));
        it.deployment.as_mut().unwrap().deadline_exceeded = Some("has timed out".to_owned());
    });
    assert_eq!(told.look(&stuck), ["Warning ProgressDeadlineExceeded -: has timed out"]);
}

#[test]
fn a_note_is_no_longer_than_an_event_may_have() {
    // 3 bytes each, so that no cut at a fixed byte is right.
    let long = "\u{2026}".repeat(800);
    let events = Told::new().events(&Observed { outcome: Outcome::Invalid(long), ..healthy() });
    let note = &events.iter().find(|event| event.words.reason == "Invalid").expect("it is told").words.note;
    assert!(note.len() <= 1024 && note.ends_with(" ..."), "{}", note.len());
}

#[test]
fn every_stall_has_its_word() {
    for reason in ConditionType::Stalled.reasons() {
        let before = ElectionGroupStatus::default();
        let outcome = match reason.as_str() {
            "Invalid" => Outcome::Invalid("x".to_owned()),
            "Conflict" => Outcome::Conflict("x".to_owned()),
            "Forbidden" => Outcome::Forbidden("x".to_owned()),
            _ => Outcome::Applied,
        };
        let observed = but(|it| {
            it.lease = None;
            it.outcome = outcome;
            it.deployment.as_mut().unwrap().deadline_exceeded = Some("x".to_owned());
            if reason.as_str() == "RevisionFailed" {
                it.rollout = Some(RolloutStatus { failed_revision: Some("b".to_owned()), ..Default::default() });
            }
        });
        let events = between(&before, &status(&group(MINIMAL), &observed), &observed);
        assert_eq!(events.iter().map(|event| event.words.reason.as_str()).collect::<Vec<_>>(), [reason.as_str()]);
    }
}

fn about(name: &str) -> About {
    About { namespace: "shop".to_owned(), name: name.to_owned(), uid: format!("uid of {name}") }
}

fn now(seconds: u64) -> Now {
    Now { since_boot: Duration::from_secs(seconds), wall_micros: 1_000_000 * i64::try_from(seconds).unwrap() }
}

fn happening(note: &str, pod: &str, occurrence: u64) -> Event {
    let words = Words {
        warning: false,
        reason: "LeaderElected".to_owned(),
        action: "Elect",
        note: note.to_owned(),
        pod: Some(pod.to_owned()),
    };
    Event { words, occurrence: occurrence.to_string(), goes_on: false }
}

fn going_on(note: &str) -> Event {
    Event { goes_on: true, ..happening(note, "-", 0) }
}

/// (create, count) of what is written.
fn brief(write: Option<Write>) -> Option<(bool, i32)> {
    write.map(|write| (write.create, write.count))
}

#[test]
fn ten_elections_of_different_pods_are_ten_events() {
    let mut series = Series::default();
    let names: std::collections::BTreeSet<String> = (0..10)
        .map(|number| {
            let event = happening("leads", &format!("billing-{number}"), number);
            let write = series.see(&about("billing"), event, now(5)).expect("it is written at once");
            assert_eq!((write.create, write.count), (true, 1));
            write.name
        })
        .collect();
    assert_eq!(names.len(), 10, "{names:?}");
}

#[test]
fn the_same_pod_elected_again_and_again_is_one_event_with_a_count() {
    let mut series = Series::default();
    let mut elected =
        |occurrence| brief(series.see(&about("billing"), happening("x", "a", occurrence), now(occurrence)));
    assert_eq!(elected(0), Some((true, 1)));
    assert_eq!(elected(0), None, "a second look at the same election");
    assert_eq!(elected(2), Some((false, 2)), "that it is a series is told at once");
    assert!((3..60).all(|second| elected(second).is_none()), "then at most once a minute");
    assert_eq!(elected(62), Some((false, 60)));
}

#[test]
fn what_begins_again_is_told_at_once_though_it_was_looked_at_meanwhile() {
    let mut series = Series::default();
    let begin = |occurrence| happening("Role exists", "-", occurrence);
    assert_eq!(brief(series.see(&about("billing"), begin(1), now(0))), Some((true, 1)));
    assert_eq!(series.see(&about("billing"), going_on("Role exists"), now(1)), None);
    assert_eq!(brief(series.see(&about("billing"), begin(2), now(2))), Some((false, 3)));
}

#[test]
fn the_last_count_is_written_though_nothing_more_happens() {
    let mut series = Series::default();
    for second in 0..5 {
        series.see(&about("billing"), happening("x", "a", second), now(second));
    }
    assert_eq!(series.due(Duration::from_secs(30)), []);
    let due = series.due(REFRESH + Duration::from_secs(1));
    assert_eq!(
        due.iter().map(|write| (write.create, write.count, write.last)).collect::<Vec<_>>(),
        [(false, 5, 4_000_000)]
    );
    assert_eq!(series.due(REFRESH * 3), [], "once");
}

#[test]
fn a_conflict_every_ten_seconds_is_one_event_written_every_half_hour() {
    let mut series = Series::default();
    let begin = Event { goes_on: false, ..going_on("Role exists") };
    assert_eq!(brief(series.see(&about("billing"), begin, now(0))), Some((true, 1)));
    let mut writes = Vec::new();
    for look in 1..=360 {
        writes.extend(brief(series.see(&about("billing"), going_on("Role exists"), now(look * 10))));
        writes.extend(series.due(now(look * 10 + 5).since_boot).into_iter().map(|it| (it.create, it.count)));
    }
    assert_eq!(writes, [(false, 181), (false, 361)]);
    // One with other words is another.
    let other = Event { goes_on: false, ..going_on("ServiceAccount exists") };
    assert_eq!(brief(series.see(&about("billing"), other, now(3_601))), Some((true, 1)));
}

#[test]
fn an_operator_that_just_began_repeats_nothing_that_goes_on() {
    let mut series = Series::default();
    let limit = STANDING_REFRESH.as_secs();
    for second in (0..limit).step_by(10) {
        assert_eq!(series.see(&about("billing"), going_on("Role exists"), now(second)), None);
    }
    let count = i32::try_from(limit / 10).unwrap() + 1;
    assert_eq!(brief(series.see(&about("billing"), going_on("Role exists"), now(limit))), Some((true, count)));
}

#[test]
fn what_was_not_seen_for_long_begins_anew() {
    let mut series = Series::default();
    let first = series.see(&about("billing"), happening("x", "a", 1), now(0)).unwrap();
    let later = FORGOTTEN_AFTER.as_secs() + 1;
    let again = series.see(&about("billing"), happening("x", "a", 2), now(later)).unwrap();
    assert!(again.create && again.name != first.name && again.count == 1);
    series.due(now(2 * later + 1).since_boot);
    assert!(series.is_empty());
}

#[test]
fn what_could_not_be_written_begins_anew() {
    let mut series = Series::default();
    let first = series.see(&about("billing"), happening("x", "a", 1), now(0)).unwrap();
    series.forget(&first);
    assert_eq!(brief(series.see(&about("billing"), happening("x", "a", 1), now(1))), Some((true, 1)));
}

#[test]
fn groups_are_told_apart_also_those_of_one_name() {
    let mut series = Series::default();
    let later = About { uid: "another".to_owned(), ..about("billing") };
    for about in [about("billing"), about("ledger"), later] {
        assert_eq!(brief(series.see(&about, happening("x", "a", 1), now(0))), Some((true, 1)));
    }
}

#[test]
fn memory_is_bounded() {
    let mut series = Series::default();
    for number in 0..2 * CAPACITY {
        let second = u64::try_from(number / 10).unwrap();
        series.see(&about(&format!("group-{number}")), happening("x", "a", 1), now(second));
        assert!(series.len() <= CAPACITY);
    }
    // The newest are those that are kept.
    let newest = about(&format!("group-{}", 2 * CAPACITY - 1));
    assert_eq!(brief(series.see(&newest, happening("x", "a", 2), now(300))), Some((false, 2)));
    assert_eq!(brief(series.see(&about("group-0"), happening("x", "a", 2), now(300))), Some((true, 1)));
}

#[test]
fn a_name_is_one_that_an_object_may_have() {
    let mut series = Series::default();
    let long = format!("{}.{}", "a".repeat(199), "b".repeat(53));
    let name = series.see(&about(&long), happening("x", "a", 1), now(1_772_366_400)).unwrap().name;
    assert!(name.len() <= 253 && name.starts_with(&format!("{}.", "a".repeat(199))), "{name}");
    assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.'), "{name}");
    assert!(!name.contains(".."), "{name}");
}
