//! Which Events are reported, and how they are merged.

use std::time::Duration;

use k8sensus_api::names::ChangeReason;
use k8sensus_api::{ConditionType, ElectionGroup, ElectionGroupStatus, RolloutStatus};
use k8sensus_election::Record;
use k8sensus_group::Findings;
use k8sensus_group::events::series::{CAPACITY, FORGOTTEN_AFTER, Now, REFRESH, STANDING_REFRESH};
use k8sensus_group::events::{About, Event, Series, Words, Write, between};
use k8sensus_group::observed::lease::{Ended, LeaseView};
use k8sensus_group::observed::{EndedBy, Outcome};

use super::history::{at, held};
use super::status::{RECREATED, but, changed, status};
use super::{MINIMAL, group};

/// A group whose reconciles return their Events, as "Type Reason pod: note".
struct Reporter {
    group: ElectionGroup,
}

impl Reporter {
    fn new() -> Self {
        Self { group: group(MINIMAL) }
    }

    /// billing-1 leads.
    fn led() -> Self {
        let mut reporter = Self::new();
        reporter.reconcile(&observed(held("billing-1", 1, 0, 0)));
        reporter
    }

    fn events(&mut self, observed: &Findings) -> Vec<Event> {
        let before = self.group.status.clone().unwrap_or_default();
        let after = status(&self.group, observed);
        self.group.status = Some(after.clone());
        assert_eq!(new_events(&between(&after, &status(&self.group, observed), &observed.facts)), Vec::<String>::new());
        between(&before, &after, &observed.facts)
    }

    fn reconcile(&mut self, observed: &Findings) -> Vec<String> {
        self.events(observed).iter().map(text_of).collect()
    }
}

/// Returns the Events that do not just go on.
fn new_events(events: &[Event]) -> Vec<String> {
    events.iter().filter(|event| !event.goes_on).map(text_of).collect()
}

fn text_of(event: &Event) -> String {
    let Words { warning, reason, note, pod, .. } = &event.words;
    let kind = if *warning { "Warning" } else { "Normal" };
    format!("{kind} {reason} {}: {note}", pod.as_deref().unwrap_or("-"))
}

fn view(record: &Record) -> LeaseView {
    LeaseView::of(record, false, None)
}

fn observed(record: Record) -> Findings {
    but(|it| it.facts.lease = Some(view(&record)))
}

fn lost(record: Record) -> Findings {
    but(|it| it.facts.lease = Some(LeaseView { expired: true, ..view(&record) }))
}

fn handed_over(reason: ChangeReason) -> Findings {
    let former = Some(Ended { reason, since: None });
    but(|it| it.facts.lease = Some(LeaseView { former, ..view(&held("billing-2", 2, 9_000, 9_000)) }))
}

#[test]
fn event_claims_that_a_revision_led_only_if_it_did() {
    let of = |revision: &str, template: &str| {
        let mut observed = observed(held("billing-1", 1, 0, 0));
        observed.facts.pods[0].revision = Some(template.to_owned());
        observed.judgement.rollout =
            Some(RolloutStatus { proven_revision: Some(revision.to_owned()), ..Default::default() });
        observed
    };
    let mut reporter = Reporter::new();
    reporter.reconcile(&of("a", "a"));
    let note = "revision b of the pod template has led well in billing-1: the rest of the pods follow";
    assert_eq!(reporter.reconcile(&of("b", "b")), [format!("Normal RevisionProven billing-1: {note}")]);
    let note = "revision c of the pod template is rolled out without a trial: billing-1 cannot be asked to hand over";
    assert_eq!(reporter.reconcile(&of("c", "b")), [format!("Normal RevisionProven billing-1: {note}")]);
}

#[test]
fn new_group_has_no_events_before_its_first_leader() {
    let mut reporter = Reporter::new();
    assert_eq!(reporter.reconcile(&observed(Record::released(0, at(0)))), Vec::<String>::new());
    let first = reporter.reconcile(&observed(held("billing-1", 1, 0, 0)));
    assert_eq!(first, ["Normal LeaderElected billing-1: billing-1 leads: it is the first leader"]);
    assert_eq!(reporter.reconcile(&observed(held("billing-1", 1, 0, 2_000))), Vec::<String>::new(), "a renewal");
}

#[test]
fn handover_is_one_event_and_its_failure_another() {
    let cases: [(ChangeReason, &[&str]); 5] = [
        (
            ChangeReason::LeaseReleased,
            &["Normal LeaderElected billing-2: billing-2 leads: its predecessor released the Lease"],
        ),
        (
            ChangeReason::LeaseExpired,
            &[
                "Warning LeaderLost billing-1: billing-1 is no longer the leader: it did not renew the Lease in time",
                "Normal LeaderElected billing-2: billing-2 leads: its predecessor did not renew the Lease in time",
            ],
        ),
        (
            ChangeReason::SteppedDown,
            &[
                "Normal SteppedDown billing-1: billing-1 stepped down as requested",
                "Normal LeaderElected billing-2: billing-2 leads: its predecessor stepped down as requested",
            ],
        ),
        (
            ChangeReason::KubeletReported,
            &[
                "Warning LeaderLost billing-1: billing-1 is no longer the leader: the kubelet reported the end of its container",
                "Normal LeaderElected billing-2: billing-2 leads: the kubelet reported the end of its predecessor's container",
            ],
        ),
        (
            ChangeReason::LeaseDeleted,
            &[
                "Warning LeaderLost billing-1: billing-1 is no longer the leader: the Lease was deleted",
                "Normal LeaderElected billing-2: billing-2 leads: the Lease had been deleted",
            ],
        ),
    ];
    for (reason, events) in cases {
        assert_eq!(Reporter::led().reconcile(&handed_over(reason)), events);
    }
    let unseen = Reporter::led().reconcile(&observed(held("billing-2", 2, 9_000, 9_000)));
    let note = "billing-2 leads: how its predecessor's term ended was not observed";
    assert_eq!(unseen, [format!("Normal LeaderElected billing-2: {note}")]);
}

#[test]
fn loss_is_reported_once_and_then_the_election() {
    let mut reporter = Reporter::led();
    let dead = || lost(held("billing-1", 1, 0, 4_000));
    let loss = "Warning LeaderLost billing-1: billing-1 is no longer the leader: it did not renew the Lease in time";
    assert_eq!(reporter.reconcile(&dead()), [loss]);
    assert_eq!(reporter.reconcile(&dead()), Vec::<String>::new());
    let next = reporter.reconcile(&observed(held("billing-2", 2, 19_000, 19_000)));
    let election = "Normal LeaderElected billing-2: billing-2 leads: its predecessor did not renew the Lease in time";
    assert_eq!(next, [election]);
}

#[test]
fn recovered_holder_is_reported() {
    let mut reporter = Reporter::led();
    reporter.reconcile(&lost(held("billing-1", 1, 0, 4_000)));
    let back = reporter.reconcile(&observed(held("billing-1", 1, 0, 20_000)));
    let note = "billing-1 leads again: it renewed the Lease before another pod acquired it";
    assert_eq!(back, [format!("Normal LeaderRecovered billing-1: {note}")]);
}

#[test]
fn release_without_a_successor_is_reported() {
    let released = || observed(Record::released(1, at(9_000)));
    let note = "Normal LeaderReleased billing-1: billing-1 is no longer the leader: it released the Lease";
    assert_eq!(Reporter::led().reconcile(&released()), [note]);
    let by = EndedBy { holder: "billing-1".to_owned(), reason: ChangeReason::SteppedDown };
    let stepped_down = changed(released(), |it| it.facts.ended = Some(by));
    let note = "Normal SteppedDown billing-1: billing-1 stepped down as requested";
    assert_eq!(Reporter::led().reconcile(&stepped_down), [note]);
}

#[test]
fn recreated_lease_is_reported_once() {
    let mut reporter = Reporter::led();
    let gone = reporter.reconcile(&but(|it| it.facts.lease = None));
    assert_eq!(gone, ["Warning LeaderLost billing-1: billing-1 is no longer the leader: the Lease was deleted"]);
    let again = reporter.reconcile(&observed(held(RECREATED, 1, 9_000, 9_000)));
    let note = "Lease billing was missing and was recreated; no pod leads until a former leader must have stopped";
    assert_eq!(again, [format!("Warning LeaseRecreated -: {note}")]);
    assert_eq!(reporter.reconcile(&lost(held(RECREATED, 1, 9_000, 9_000))), Vec::<String>::new());
}

#[test]
fn stall_is_reported_at_its_start_and_while_it_lasts() {
    let mut reporter = Reporter::led();
    let stalled = |outcome| changed(observed(held("billing-1", 1, 0, 0)), |it| it.facts.outcome = outcome);
    let conflict = || stalled(Outcome::Conflict("Role shop/billing exists".to_owned()));
    let goes_on = |events: &[Event]| events.iter().map(|event| event.goes_on).collect::<Vec<_>>();
    let start = reporter.events(&conflict());
    assert_eq!(start.iter().map(text_of).collect::<Vec<_>>(), ["Warning Conflict -: Role shop/billing exists"]);
    assert_eq!(goes_on(&start), [false]);
    assert_eq!(goes_on(&reporter.events(&conflict())), [true]);
    let invalid = Outcome::Invalid("spec.replicas: must be from 0 to 100, found 101".to_owned());
    let other = reporter.reconcile(&stalled(invalid));
    assert_eq!(other, ["Warning Invalid -: spec.replicas: must be from 0 to 100, found 101"]);
    let forbidden = reporter.reconcile(&stalled(Outcome::Forbidden("cannot create Role".to_owned())));
    assert_eq!(forbidden, ["Warning Forbidden -: cannot create Role"]);
    assert_eq!(reporter.reconcile(&stalled(Outcome::Applied)), Vec::<String>::new());
    let stuck = but(|it| {
        it.facts.lease = Some(view(&held("billing-1", 1, 0, 0)));
        it.facts.deployment.as_mut().unwrap().deadline_exceeded = Some("has timed out".to_owned());
    });
    assert_eq!(reporter.reconcile(&stuck), ["Warning ProgressDeadlineExceeded -: has timed out"]);
}

#[test]
fn note_is_cut_to_the_limit_of_events() {
    // 3 bytes each, so that a cut at a fixed byte is wrong.
    let long = "\u{2026}".repeat(800);
    let events = Reporter::new().events(&but(|it| it.facts.outcome = Outcome::Invalid(long)));
    let note = &events.iter().find(|event| event.words.reason == "Invalid").expect("an Event").words.note;
    assert!(note.len() <= 1024 && note.ends_with(" ..."), "{}", note.len());
}

#[test]
fn every_stall_has_its_reason() {
    for reason in ConditionType::Stalled.reasons() {
        let before = ElectionGroupStatus::default();
        let outcome = match reason.as_str() {
            "Invalid" => Outcome::Invalid("x".to_owned()),
            "Conflict" => Outcome::Conflict("x".to_owned()),
            "Forbidden" => Outcome::Forbidden("x".to_owned()),
            _ => Outcome::Applied,
        };
        let observed = but(|it| {
            it.facts.lease = None;
            it.facts.outcome = outcome;
            it.facts.deployment.as_mut().unwrap().deadline_exceeded = Some("x".to_owned());
            if reason.as_str() == "RevisionFailed" {
                it.judgement.rollout =
                    Some(RolloutStatus { failed_revision: Some("b".to_owned()), ..Default::default() });
            }
        });
        let events = between(&before, &status(&group(MINIMAL), &observed), &observed.facts);
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

/// Returns (create, count) of what is written.
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
    assert_eq!(elected(0), None, "the same election, observed again");
    assert_eq!(elected(2), Some((false, 2)), "the start of a series is written at once");
    assert!((3..60).all(|second| elected(second).is_none()), "then at most once a minute");
    assert_eq!(elected(62), Some((false, 60)));
}

#[test]
fn recurring_stall_is_reported_at_once_despite_observations_in_between() {
    let mut series = Series::default();
    let start = |occurrence| happening("Role exists", "-", occurrence);
    assert_eq!(brief(series.see(&about("billing"), start(1), now(0))), Some((true, 1)));
    assert_eq!(series.see(&about("billing"), going_on("Role exists"), now(1)), None);
    assert_eq!(brief(series.see(&about("billing"), start(2), now(2))), Some((false, 3)));
}

#[test]
fn last_count_is_written_without_further_occurrences() {
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
    let start = Event { goes_on: false, ..going_on("Role exists") };
    assert_eq!(brief(series.see(&about("billing"), start, now(0))), Some((true, 1)));
    let mut writes = Vec::new();
    for turn in 1..=360 {
        writes.extend(brief(series.see(&about("billing"), going_on("Role exists"), now(turn * 10))));
        writes.extend(series.due(now(turn * 10 + 5).since_boot).into_iter().map(|it| (it.create, it.count)));
    }
    assert_eq!(writes, [(false, 181), (false, 361)]);
    // An Event with another text is another one.
    let other = Event { goes_on: false, ..going_on("ServiceAccount exists") };
    assert_eq!(brief(series.see(&about("billing"), other, now(3_601))), Some((true, 1)));
}

#[test]
fn restarted_operator_does_not_repeat_ongoing_events() {
    let mut series = Series::default();
    let limit = STANDING_REFRESH.as_secs();
    for second in (0..limit).step_by(10) {
        assert_eq!(series.see(&about("billing"), going_on("Role exists"), now(second)), None);
    }
    let count = i32::try_from(limit / 10).unwrap() + 1;
    assert_eq!(brief(series.see(&about("billing"), going_on("Role exists"), now(limit))), Some((true, count)));
}

#[test]
fn forgotten_series_starts_again() {
    let mut series = Series::default();
    let first = series.see(&about("billing"), happening("x", "a", 1), now(0)).unwrap();
    let later = FORGOTTEN_AFTER.as_secs() + 1;
    let again = series.see(&about("billing"), happening("x", "a", 2), now(later)).unwrap();
    assert!(again.create && again.name != first.name && again.count == 1);
    series.due(now(2 * later + 1).since_boot);
    assert!(series.is_empty());
}

#[test]
fn failed_write_starts_a_new_series() {
    let mut series = Series::default();
    let first = series.see(&about("billing"), happening("x", "a", 1), now(0)).unwrap();
    series.forget(&first);
    assert_eq!(brief(series.see(&about("billing"), happening("x", "a", 1), now(1))), Some((true, 1)));
}

#[test]
fn groups_of_the_same_name_have_separate_events() {
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
    // The newest are kept.
    let newest = about(&format!("group-{}", 2 * CAPACITY - 1));
    assert_eq!(brief(series.see(&newest, happening("x", "a", 2), now(300))), Some((false, 2)));
    assert_eq!(brief(series.see(&about("group-0"), happening("x", "a", 2), now(300))), Some((true, 1)));
}

#[test]
fn event_name_is_a_valid_object_name() {
    let mut series = Series::default();
    let long = format!("{}.{}", "a".repeat(199), "b".repeat(53));
    let name = series.see(&about(&long), happening("x", "a", 1), now(1_772_366_400)).unwrap().name;
    assert!(name.len() <= 253 && name.starts_with(&format!("{}.", "a".repeat(199))), "{name}");
    assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.'), "{name}");
    assert!(!name.contains(".."), "{name}");
}
