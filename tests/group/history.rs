//! The history of leaders, why leadership became free, and how often it changed hands.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8sensus_api::names::ChangeReason;
use k8sensus_api::{ElectionGroup, ElectionGroupStatus, HistoryEntry, LeaderlessStatus};
use k8sensus_election::{Record, WallTime};
use k8sensus_group::Findings;
use k8sensus_group::observed::EndedBy;
use k8sensus_group::observed::lease::{Ended, LeaseView};
use proptest::prelude::*;

use super::status::{RECREATED, but, status};
use super::{MINIMAL, group};

const NOON: i64 = 1_772_366_400_000_000;

/// Milliseconds after noon.
pub fn at(milliseconds: i64) -> WallTime {
    WallTime(NOON + milliseconds * 1000)
}

fn micro(milliseconds: i64) -> MicroTime {
    LeaseView::of(&Record { renew_time: Some(at(milliseconds)), ..Record::default() }, false, None).renew_time.unwrap()
}

/// Acquired and renewed at these milliseconds after noon; lasts 15 s.
pub fn held(holder: &str, transitions: i32, acquired: i64, renewed: i64) -> Record {
    Record {
        holder: holder.to_owned(),
        duration_seconds: 15,
        acquire_time: Some(at(acquired)),
        renew_time: Some(at(renewed)),
        transitions,
    }
}

fn recreated(transitions: i32) -> Record {
    held(RECREATED, transitions, 0, 0)
}

fn view(record: &Record) -> LeaseView {
    LeaseView::of(record, false, None)
}

fn expired(record: &Record) -> LeaseView {
    LeaseView::of(record, true, None)
}

fn with_former(record: &Record, former: Option<Ended>) -> LeaseView {
    LeaseView::of(record, false, former)
}

fn released_at(milliseconds: i64) -> Option<Ended> {
    Some(Ended { reason: ChangeReason::LeaseReleased, since: Some(micro(milliseconds)) })
}

/// A group that is reconciled repeatedly.
pub struct Story {
    group: ElectionGroup,
    ended: Option<EndedBy>,
}

impl Story {
    pub fn new() -> Self {
        Self { group: group(MINIMAL), ended: None }
    }

    /// Returns a group whose first leader, billing-1, leads since noon. `transitions` is the Lease's count.
    fn led(transitions: i32) -> Self {
        let mut story = Self::new();
        story.reconcile_lease(view(&held("billing-1", transitions, 0, 0)));
        story
    }

    pub fn observed(&self, lease: Option<LeaseView>) -> Findings {
        but(|it| (it.facts.lease, it.facts.ended) = (lease, self.ended.clone()))
    }

    pub fn reconcile(&mut self, lease: Option<LeaseView>) -> ElectionGroupStatus {
        let new = status(&self.group, &self.observed(lease.clone()));
        // As the API server returns it. Another reconcile does not change it.
        let stored: ElectionGroupStatus = serde_json::from_str(&serde_json::to_string(&new).unwrap()).unwrap();
        self.group.status = Some(stored.clone());
        assert_eq!(status(&self.group, &self.observed(lease)), stored);
        stored
    }

    pub fn reconcile_lease(&mut self, lease: LeaseView) -> ElectionGroupStatus {
        self.reconcile(Some(lease))
    }
}

/// An entry as (holder, reason, seconds, transitions).
type Summary<'a> = (&'a str, &'a str, Option<f64>, i32);

fn summary(entry: &HistoryEntry) -> Summary<'_> {
    let reason = entry.reason.as_deref().unwrap_or_default();
    (&entry.holder_identity, reason, entry.leaderless_seconds, entry.lease_transitions.unwrap_or(-1))
}

fn newest(status: &ElectionGroupStatus) -> Summary<'_> {
    summary(&status.history[0])
}

fn leaderless(status: &ElectionGroupStatus) -> Option<(String, Option<MicroTime>)> {
    let LeaderlessStatus { since, reason } = status.leaderless.clone()?;
    Some((reason.unwrap_or_default(), since))
}

#[test]
fn first_leader_was_elected() {
    let mut story = Story::new();
    let free = story.reconcile_lease(view(&Record::released(0, at(-500))));
    assert_eq!((free.history.len(), free.leaderless.is_none()), (0, true), "there was no leader before");
    let led = story.reconcile_lease(view(&held("billing-1", 1, 0, 0)));
    assert_eq!(newest(&led), ("billing-1", "Elected", None, 1));
    assert_eq!(led.history[0].time, Some(micro(0)));
}

#[test]
fn holder_of_a_lease_older_than_the_group_was_not_elected() {
    let led = Story::new().reconcile_lease(view(&held("billing-1", 57, 0, 0)));
    assert_eq!(newest(&led), ("billing-1", "NotObserved", None, 57));
}

#[test]
fn first_leader_is_unknown_after_a_recreated_lease() {
    let mut story = Story::new();
    assert_eq!(leaderless(&story.reconcile_lease(view(&recreated(0)))), Some(("NotObserved".to_owned(), None)));
    let led = story.reconcile_lease(view(&held("billing-1", 1, 16_000, 16_000)));
    assert_eq!(newest(&led), ("billing-1", "NotObserved", None, 1));
}

#[test]
fn lost_lease_discards_the_former_reason() {
    let mut story = Story::led(1);
    story.reconcile_lease(view(&Record::released(1, at(9_000))));
    story.reconcile(None);
    story.reconcile_lease(view(&recreated(1)));
    let led = story.reconcile_lease(view(&held("billing-2", 2, 24_000, 24_000)));
    assert_eq!(newest(&led), ("billing-2", "LeaseDeleted", None, 2), "there may have been another leader in between");
}

#[test]
fn holder_that_recovered_and_released_was_not_lost() {
    let mut story = Story::led(1);
    story.reconcile_lease(expired(&held("billing-1", 1, 0, 4_000)));
    let led = story.reconcile_lease(with_former(&held("billing-2", 2, 30_020, 30_020), released_at(30_000)));
    assert_eq!(newest(&led), ("billing-2", "LeaseReleased", Some(0.02), 2));
}

#[test]
fn renewal_changes_nothing() {
    let mut story = Story::led(1);
    let before = story.group.status.clone();
    assert_eq!(Some(story.reconcile_lease(view(&held("billing-1", 1, 0, 2_000)))), before);
}

#[test]
fn release_is_counted_from_its_own_time() {
    let mut story = Story::led(1);
    let free = story.reconcile_lease(view(&Record::released(1, at(9_000))));
    assert_eq!(leaderless(&free), Some(("LeaseReleased".to_owned(), Some(micro(9_000)))));
    let led = story.reconcile_lease(view(&held("billing-2", 2, 9_020, 9_020)));
    assert_eq!(newest(&led), ("billing-2", "LeaseReleased", Some(0.02), 2));
    assert_eq!((led.leaderless, led.history.len()), (None, 2));
}

#[test]
fn handover_between_two_reconciles_is_recorded_as_if_observed() {
    let mut slow = Story::led(1);
    let led = slow.reconcile_lease(with_former(&held("billing-2", 2, 9_020, 9_020), released_at(9_000)));
    assert_eq!(newest(&led), ("billing-2", "LeaseReleased", Some(0.02), 2));
}

#[test]
fn unobserved_changes_are_not_invented() {
    let led = Story::led(1).reconcile_lease(view(&held("billing-2", 2, 9_020, 9_020)));
    assert_eq!(newest(&led), ("billing-2", "NotObserved", None, 2));
}

#[test]
fn holder_emptied_by_hand_gives_no_time() {
    let mut story = Story::led(1);
    let free = story.reconcile_lease(view(&held("", 1, 0, 8_000)));
    assert_eq!(leaderless(&free), Some(("LeaseReleased".to_owned(), None)));
    assert_eq!(newest(&story.reconcile_lease(view(&held("billing-2", 2, 9_020, 9_020)))).2, None);
}

#[test]
fn expiry_is_counted_from_the_last_renewal() {
    let mut story = Story::led(1);
    let lost = story.reconcile_lease(expired(&held("billing-1", 1, 0, 4_000)));
    assert_eq!(leaderless(&lost), Some(("LeaseExpired".to_owned(), Some(micro(4_000)))));
    let led = story.reconcile_lease(view(&held("billing-2", 2, 19_013, 19_013)));
    assert_eq!(newest(&led), ("billing-2", "LeaseExpired", Some(15.013), 2));
}

#[test]
fn expired_holder_that_renews_again_is_no_change() {
    let mut story = Story::led(1);
    story.reconcile_lease(expired(&held("billing-1", 1, 0, 4_000)));
    let back = story.reconcile_lease(view(&held("billing-1", 1, 0, 20_000)));
    assert_eq!((back.holder_identity.as_deref(), back.leaderless, back.history.len()), (Some("billing-1"), None, 1));
}

#[test]
fn restarted_operator_does_not_consider_a_dead_holder_alive() {
    let mut story = Story::led(1);
    let dead = held("billing-1", 1, 0, 4_000);
    let lost = story.reconcile_lease(expired(&dead));
    let again = story.reconcile_lease(view(&dead));
    assert_eq!(again, lost, "it has not waited itself yet, but the status has this record");
    assert!(story.reconcile_lease(view(&held("billing-1", 1, 0, 4_001))).holder_identity.is_some(), "renewed since");
}

#[test]
fn former_release_is_not_mistaken_for_the_latest() {
    let mut story = Story::led(1);
    story.reconcile_lease(view(&Record::released(1, at(9_000))));
    // billing-2 and billing-3 led while no operator ran.
    let led = story.reconcile_lease(view(&held("billing-4", 4, 60_000, 60_000)));
    assert_eq!(newest(&led), ("billing-4", "NotObserved", None, 4));
    assert_eq!(summary(&led.history[1]), ("billing-1", "Elected", None, 1), "the counts show that two are missing");
    // The watch may have observed the end of the former term, though.
    let mut story = Story::led(1);
    let led = story.reconcile_lease(with_former(&held("billing-4", 4, 60_000, 60_000), released_at(59_990)));
    assert_eq!(newest(&led), ("billing-4", "LeaseReleased", Some(0.01), 4));
}

#[test]
fn release_after_an_unobserved_term_is_recorded_again() {
    let mut story = Story::led(1);
    story.reconcile_lease(view(&Record::released(1, at(9_000))));
    let free = story.reconcile_lease(view(&Record::released(2, at(30_000))));
    assert_eq!(leaderless(&free), Some(("LeaseReleased".to_owned(), Some(micro(30_000)))));
    assert_eq!((free.lease_transitions, free.history.len()), (Some(2), 1));
}

#[test]
fn differing_clocks_give_no_negative_time() {
    let mut story = Story::led(1);
    story.reconcile_lease(view(&Record::released(1, at(9_000))));
    assert_eq!(newest(&story.reconcile_lease(view(&held("billing-2", 2, 8_000, 8_000)))).2, Some(0.0));
}

#[test]
fn same_pod_may_lead_twice() {
    let mut story = Story::led(1);
    story.reconcile_lease(view(&Record::released(1, at(9_000))));
    let led = story.reconcile_lease(view(&held("billing-1", 2, 9_300, 9_300)));
    assert_eq!(newest(&led), ("billing-1", "LeaseReleased", Some(0.3), 2));
    assert_eq!(led.history.len(), 2);
}

#[test]
fn cause_of_a_requested_release_is_recorded() {
    for reason in [ChangeReason::SteppedDown, ChangeReason::KubeletReported] {
        let ended_by = |holder: &str| Some(EndedBy { holder: holder.to_owned(), reason });
        let next = held("billing-2", 2, 9_020, 9_020);

        let mut known_at_once = Story::led(1);
        known_at_once.ended = ended_by("billing-1");
        let free = known_at_once.reconcile_lease(view(&Record::released(1, at(9_000))));
        assert_eq!(leaderless(&free), Some((reason.as_str().to_owned(), Some(micro(9_000)))));
        known_at_once.ended = None;
        let expected = ("billing-2", reason.as_str(), Some(0.02), 2);
        assert_eq!(newest(&known_at_once.reconcile_lease(with_former(&next, released_at(9_000)))), expected);

        let mut in_one_reconcile = Story::led(1);
        in_one_reconcile.ended = ended_by("billing-1");
        assert_eq!(newest(&in_one_reconcile.reconcile_lease(with_former(&next, released_at(9_000)))), expected);

        let mut of_another = Story::led(1);
        of_another.ended = ended_by("billing-7");
        assert_eq!(newest(&of_another.reconcile_lease(with_former(&next, released_at(9_000)))).1, "LeaseReleased");

        let mut too_late = Story::led(1);
        too_late.ended = ended_by("billing-1");
        too_late.reconcile_lease(expired(&held("billing-1", 1, 0, 4_000)));
        assert_eq!(newest(&too_late.reconcile_lease(view(&next))).1, "LeaseExpired", "it did not step down");
    }
}

#[test]
fn last_ten_changes_are_kept_newest_first() {
    let mut story = Story::led(1);
    for number in 2..=13 {
        story.reconcile_lease(view(&held(&format!("billing-{number}"), number, i64::from(number) * 1000, 0)));
    }
    let history = story.group.status.unwrap().history;
    let holders: Vec<String> = history.iter().map(|entry| entry.holder_identity.clone()).collect();
    assert_eq!(holders, (4..=13).rev().map(|number| format!("billing-{number}")).collect::<Vec<_>>());
}

#[test]
fn lease_recreated_by_the_operator_continues_the_count() {
    let mut story = Story::led(5);
    let gone = story.reconcile(None);
    assert_eq!(leaderless(&gone), Some(("LeaseDeleted".to_owned(), None)));
    let made = story.reconcile_lease(view(&recreated(5)));
    assert_eq!((made.lease_transitions, made.holder_identity), (Some(5), None));
    let led = story.reconcile_lease(view(&held("billing-1", 6, 16_000, 16_000)));
    assert_eq!(newest(&led), ("billing-1", "LeaseDeleted", None, 6));
    assert_eq!(led.lease_transitions_offset, None);
}

#[test]
fn lease_recreated_by_a_candidate_continues_the_count() {
    let mut story = Story::led(5);
    let led = story.reconcile_lease(view(&held("billing-2", 0, 16_000, 16_000)));
    assert_eq!(newest(&led), ("billing-2", "LeaseDeleted", None, 6));
    assert_eq!((led.lease_transitions, led.lease_transitions_offset), (Some(6), Some(6)));
    let next = story.reconcile_lease(with_former(&held("billing-1", 1, 18_000, 18_000), released_at(17_999)));
    assert_eq!(newest(&next), ("billing-1", "LeaseReleased", Some(0.001), 7));
    assert_eq!((next.lease_transitions, next.lease_transitions_offset), (Some(7), Some(6)));
    // Now the operator recreates it: the Lease and the status agree again.
    let made = story.reconcile_lease(view(&recreated(7)));
    assert_eq!((made.lease_transitions, made.lease_transitions_offset), (Some(7), None));
}

#[test]
fn lease_recreated_empty_by_hand_continues_the_count() {
    let mut story = Story::led(5);
    story.reconcile(None);
    let free = story.reconcile_lease(view(&held("", 0, 9_000, 9_000)));
    assert_eq!((free.lease_transitions, free.lease_transitions_offset), (Some(5), Some(5)));
    let led = story.reconcile_lease(view(&held("billing-2", 1, 16_000, 16_000)));
    assert_eq!(newest(&led), ("billing-2", "LeaseDeleted", None, 6));
}

#[test]
fn count_lowered_by_hand_changes_nothing() {
    let mut story = Story::led(5);
    let lowered = story.reconcile_lease(view(&held("billing-1", 0, 0, 2_000)));
    assert_eq!((lowered.lease_transitions, lowered.lease_transitions_offset), (Some(5), Some(5)));
    assert_eq!(lowered.history.len(), 1);
    assert_eq!(story.reconcile_lease(view(&held("billing-2", 1, 9_000, 9_000))).lease_transitions, Some(6));
}

#[test]
fn change_without_a_new_count_is_counted() {
    let mut story = Story::led(5);
    let led = story.reconcile_lease(view(&held("billing-2", 5, 9_000, 9_000)));
    assert_eq!(newest(&led), ("billing-2", "NotObserved", None, 6));
    assert_eq!(led.lease_transitions_offset, Some(1));
}

#[test]
fn watch_shows_how_a_term_ended() {
    let second = Duration::from_secs(1);
    let one = held("billing-1", 1, 0, 4_000);
    let two = held("billing-2", 2, 19_000, 19_000);
    let again = held("billing-1", 2, 6_000, 6_000);
    let free = Record::released(1, at(5_000));
    let shown = |old: &Record, former: Option<Ended>, unchanged: Option<Duration>, new: &Record| {
        Ended::shown(old, former, unchanged, new).map(|ended| (ended.reason, ended.since))
    };
    let released = Some((ChangeReason::LeaseReleased, Some(micro(5_000))));
    assert_eq!(shown(&one, None, Some(second), &free), released);
    assert_eq!(shown(&free, released_at(5_000), Some(second), &two), released);
    assert_eq!(shown(&two, released_at(5_000), Some(second), &held("billing-2", 2, 19_000, 21_000)), released);
    assert_eq!(shown(&one, None, Some(second), &held("", 1, 0, 4_000)), Some((ChangeReason::LeaseReleased, None)));
    let expired = Some((ChangeReason::LeaseExpired, Some(micro(4_000))));
    assert_eq!(shown(&one, None, Some(second * 15), &two), expired);
    assert_eq!(shown(&one, None, Some(second * 15), &again), expired);
    assert_eq!(shown(&one, None, Some(second), &two), None, "no candidate of ours writes that");
    let restarted = Some((ChangeReason::HolderRestarted, Some(micro(4_000))));
    assert_eq!(shown(&one, None, Some(second), &again), restarted);
    assert_eq!(shown(&one, None, Some(second), &recreated(1)), Some((ChangeReason::LeaseDeleted, None)));
    assert_eq!(shown(&recreated(1), None, Some(second * 15), &two), Some((ChangeReason::LeaseDeleted, None)));
    // After a gap two holders prove nothing, and nothing is carried over a missing term.
    assert_eq!(shown(&one, None, None, &two), None);
    assert_eq!(shown(&one, None, Some(second * 15), &held("billing-3", 3, 40_000, 40_000)), None);
    assert_eq!(shown(&free, released_at(5_000), None, &held("billing-3", 3, 40_000, 40_000)), None);
    assert_eq!(shown(&one, None, None, &free), released, "the form of a release is enough");
}

/// A step in the life of a group's Lease.
#[derive(Clone, Debug)]
enum Step {
    Acquire(u8),
    Release,
    Expire,
    /// By hand; the operator recreates it.
    Delete,
    /// By hand; that candidate recreates it before the operator.
    DeleteAndCreate(u8),
    /// The operator restarts its watch.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<(Step, i64, bool)>> {
    let step = prop_oneof![
        8 => (0..3_u8).prop_map(Step::Acquire),
        4 => Just(Step::Release),
        2 => Just(Step::Expire),
        1 => Just(Step::Delete),
        1 => (0..3_u8).prop_map(Step::DeleteAndCreate),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec((step, 1..5_000_i64, any::<bool>()), 1..40)
}

/// A Lease, its watch, and its true history.
struct World {
    story: Story,
    now: i64,
    record: Option<Record>,
    expired: bool,
    former: Option<Ended>,
    /// Why there is no leader, and the last renewal or release.
    free: Option<(&'static str, Option<i64>)>,
    /// (holder, time, reason, seconds), oldest first.
    truth: Vec<(String, i64, &'static str, Option<f64>)>,
}

impl World {
    fn new() -> Self {
        let record = Some(Record::released(0, at(0)));
        let free = Some(("Elected", None));
        Self { story: Story::new(), now: 0, record, expired: false, former: None, free, truth: Vec::new() }
    }

    fn become_record(&mut self, new: Record, unchanged: Duration) {
        self.former = self.record.as_ref().and_then(|old| Ended::shown(old, self.former.take(), Some(unchanged), &new));
        self.record = Some(new);
        self.expired = false;
    }

    fn acquire(&mut self, holder: u8, transitions: i32, unchanged: Duration) {
        let holder = format!("billing-{holder}");
        let (reason, since) = self.free.take().expect("it is free");
        let seconds = since.map(|since| (self.now - since) as f64 / 1000.0);
        self.truth.push((holder.clone(), self.now, reason, seconds));
        self.become_record(held(&holder, transitions, self.now, self.now), unchanged);
    }

    fn renewed(&self) -> i64 {
        let time = self.record.as_ref().and_then(|record| record.renew_time).expect("a time");
        (time.0 - NOON) / 1000
    }

    /// Returns whether anything happened.
    fn step(&mut self, step: &Step) -> bool {
        let transitions = self.record.as_ref().map_or(0, |record| record.transitions);
        match step {
            Step::Acquire(holder) if self.free.is_some() => {
                let unchanged = if self.expired { Duration::from_secs(15) } else { Duration::ZERO };
                self.acquire(*holder, transitions + 1, unchanged);
            }
            Step::Release if self.free.is_none() => {
                self.free = Some(("LeaseReleased", Some(self.now)));
                self.become_record(Record::released(transitions, at(self.now)), Duration::ZERO);
            }
            Step::Expire if self.free.is_none() => {
                self.free = Some(("LeaseExpired", Some(self.renewed())));
                self.expired = true;
            }
            Step::Delete | Step::DeleteAndCreate(_) => {
                if self.truth.is_empty() {
                    return false;
                }
                self.free = Some(("LeaseDeleted", None));
                (self.record, self.former, self.expired) = (None, None, false);
                if let Step::DeleteAndCreate(holder) = step {
                    self.acquire(*holder, 0, Duration::ZERO);
                }
            }
            Step::Restart => self.former = None,
            _ => return false,
        }
        true
    }

    fn reconcile(&mut self) {
        let view = self.record.as_ref().map(|record| LeaseView::of(record, self.expired, self.former.clone()));
        let status = self.story.reconcile(view);
        if self.record.is_none() {
            let transitions = status.lease_transitions.unwrap_or_default();
            self.record = Some(held(RECREATED, transitions, self.now, self.now));
            self.reconcile();
        }
    }

    fn status(&self) -> ElectionGroupStatus {
        self.story.group.status.clone().unwrap_or_default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn history_is_complete_if_every_step_was_observed(steps in steps()) {
        let mut world = World::new();
        world.reconcile();
        for (step, wait, _) in steps {
            world.now += wait;
            if world.step(&step) {
                world.reconcile();
            }
        }
        let status = world.status();
        let history: Vec<Summary<'_>> = status.history.iter().map(summary).collect();
        let truth = world.truth.iter().enumerate().rev().take(10);
        let truth: Vec<Summary<'_>> = truth.map(|(number, (holder, _, reason, seconds))| {
            (holder.as_str(), *reason, *seconds, i32::try_from(number).unwrap() + 1)
        }).collect();
        prop_assert_eq!(history, truth);
        prop_assert_eq!(status.lease_transitions.unwrap_or_default(), i32::try_from(world.truth.len()).unwrap());
    }

    #[test]
    fn history_has_no_false_entry_if_steps_were_missed(steps in steps()) {
        let mut world = World::new();
        world.reconcile();
        for (step, wait, is_observed) in steps {
            world.now += wait;
            let before = world.status().lease_transitions;
            if matches!(step, Step::DeleteAndCreate(_)) || !world.step(&step) {
                continue;
            }
            // A reconcile recreates a missing Lease.
            if is_observed || world.record.is_none() {
                world.reconcile();
            }
            prop_assert!(world.status().lease_transitions >= before);
        }
        let status = world.status();
        prop_assert!(status.lease_transitions.unwrap_or_default() <= i32::try_from(world.truth.len()).unwrap());
        for entry in &status.history {
            let (holder, reason, seconds, _) = summary(entry);
            let same = world.truth.iter().find(|(name, time, ..)| name == holder && Some(micro(*time)) == entry.time);
            let (.., true_reason, true_seconds) = same.expect("it led");
            prop_assert!(reason == "NotObserved" || reason == *true_reason, "{reason} is {true_reason}: {entry:?}");
            prop_assert!(seconds.is_none() || seconds == *true_seconds, "{seconds:?} are {true_seconds:?}");
        }
    }
}
