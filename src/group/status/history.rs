//! The past of a group: its leaders, why leadership became free each time, and how often it changed hands.
//!
//! Times are those that the candidates wrote into the Lease, so the time without a leader is the difference between the
//! clocks of two nodes. Why a term ended is known only if the watch of the Lease showed it, or the former status has
//! it.

use crate::api::names::ChangeReason;
use crate::api::status::HISTORY_LIMIT;
use crate::api::{ElectionGroupStatus, HistoryEntry, LeaderlessStatus};
use crate::observed::Facts;
use crate::observed::lease::{Ended, LeaseView};
use crate::protocol::lease::RECREATED_HOLDER;

/// The past in the status.
pub(super) struct Past {
    pub(super) history: Vec<HistoryEntry>,
    pub(super) leaderless: Option<LeaderlessStatus>,
    pub(super) transitions: Option<i32>,
    pub(super) offset: Option<i32>,
}

impl Past {
    /// Continues the past in `before`. `is_led` is whether there is a leader now.
    pub(super) fn of(before: &ElectionGroupStatus, facts: &Facts, is_led: bool) -> Self {
        let Some(lease) = &facts.lease else {
            return Self {
                history: before.history.clone(),
                leaderless: leaderless(before, None, facts, &before.history, false),
                transitions: before.lease_transitions,
                offset: before.lease_transitions_offset,
            };
        };
        let count = Count::of(before, lease);
        let mut history = before.history.clone();
        if count.new_term {
            history.insert(0, entry(before, lease, facts, &count));
            history.truncate(HISTORY_LIMIT);
        }
        let moved_on = count.new_term || before.lease_transitions.is_some_and(|known| count.total > known);
        let leaderless = if is_led { None } else { leaderless(before, Some(lease), facts, &history, moved_on) };
        let offset = count.total.saturating_sub(lease.transitions.max(0));
        Self { history, leaderless, transitions: Some(count.total), offset: (offset != 0).then_some(offset) }
    }
}

/// The number of leadership changes over all Leases of the group.
struct Count {
    total: i32,
    /// Whether the history does not have the current term yet.
    new_term: bool,
    /// Whether the Lease itself has counted beyond the status.
    has_risen: bool,
}

impl Count {
    fn of(before: &ElectionGroupStatus, lease: &LeaseView) -> Self {
        let own = lease.transitions.max(0);
        let counted = own.saturating_add(before.lease_transitions_offset.unwrap_or_default().max(0));
        let known = before.lease_transitions;
        let has_risen = known.is_none_or(|known| counted > known);
        let new_term =
            lease.is_held() && (has_risen || before.history.first().is_none_or(|last| !is_same_term(last, lease)));
        let total = match known {
            None => counted,
            // Recreated by the operator, which continues from the count of the status.
            Some(known) if lease.holder == RECREATED_HOLDER => known.max(own),
            Some(known) if has_risen || !new_term => known.max(counted),
            // A new term that the Lease did not count: another client recreated the Lease with a count of 0.
            Some(known) if counted < known => known.saturating_add(own.max(1)),
            Some(known) if before.history.is_empty() => known,
            Some(known) => known.saturating_add(1),
        };
        Self { total, new_term, has_risen }
    }

    /// Whether this is the first change since the status was written.
    fn is_next_of(&self, before: &ElectionGroupStatus) -> bool {
        self.total == before.lease_transitions.unwrap_or_default().saturating_add(1)
    }
}

const DELETED: Ended = Ended { reason: ChangeReason::LeaseDeleted, since: None };

const CAME_BACK: (ChangeReason, ChangeReason) = (ChangeReason::LeaseExpired, ChangeReason::LeaseReleased);

fn is_same_term(last: &HistoryEntry, lease: &LeaseView) -> bool {
    last.holder_identity == lease.holder && last.time == lease.acquire_time
}

fn entry(before: &ElectionGroupStatus, lease: &LeaseView, facts: &Facts, count: &Count) -> HistoryEntry {
    let ended = ended(before, lease, facts, count);
    let leaderless = lease.acquire_time.as_ref().zip(ended.since).map(|(acquired, since)| {
        // Below 2^53: exact.
        acquired.0.duration_since(since.0).as_millis().max(0) as f64 / 1000.0
    });
    HistoryEntry {
        time: lease.acquire_time.clone(),
        holder_identity: lease.holder.clone(),
        reason: Some(ended.reason.as_str().to_owned()),
        leaderless_seconds: leaderless,
        lease_transitions: Some(count.total),
    }
}

/// Returns how the term before that of `lease` ended, according to the former status and to the watch.
fn ended(before: &ElectionGroupStatus, lease: &LeaseView, facts: &Facts, count: &Count) -> Ended {
    // If leadership changed hands more than once, the former status concerns another term.
    let is_recreated = !count.has_risen && lease.transitions == 0;
    let is_next = count.is_next_of(before) && count.has_risen;
    let known = before.leaderless.as_ref().filter(|_| is_next).and_then(end_in_status);
    let cause = facts.ended.as_ref().filter(|ended| is_next && is_last(&before.history, &ended.holder));
    let cause =
        cause.map(|ended| ended.reason).or_else(|| known.as_ref().map(|known| known.reason).filter(is_requested));
    let ended = match (known, lease.former.clone()) {
        _ if is_recreated && !before.history.is_empty() => DELETED,
        // The holder came back after its Lease had expired, and then released it.
        (Some(known), Some(shown)) if (known.reason, shown.reason) == CAME_BACK => shown,
        (Some(known), _) => known,
        (None, Some(shown)) => shown,
        (None, None) if before.history.is_empty() && count.total <= 1 => {
            Ended { reason: ChangeReason::Elected, since: None }
        }
        (None, None) => Ended { reason: ChangeReason::NotObserved, since: None },
    };
    refined(ended, cause)
}

/// Returns why there is no leader. The reason is kept until there is a leader again, unless leadership `moved_on`
/// meanwhile or the Lease is lost.
fn leaderless(
    before: &ElectionGroupStatus,
    lease: Option<&LeaseView>,
    facts: &Facts,
    history: &[HistoryEntry],
    moved_on: bool,
) -> Option<LeaderlessStatus> {
    let Some(last) = history.first() else {
        // The operator recreated the Lease although no leader is known: there may have been one.
        let reason = Some(ChangeReason::NotObserved.as_str().to_owned());
        let recreated = lease.is_some_and(|lease| lease.holder == RECREATED_HOLDER);
        return before.leaderless.clone().or(recreated.then_some(LeaderlessStatus { since: None, reason }));
    };
    let known = before.leaderless.as_ref().filter(|_| !moved_on).and_then(end_in_status);
    // The last holder of a lost Lease may not be the last one in the history.
    let known = known.filter(|_| lease.is_some_and(|lease| lease.holder != RECREATED_HOLDER));
    let ended = known.unwrap_or_else(|| match lease {
        Some(lease) if lease.is_held() => Ended { reason: ChangeReason::LeaseExpired, since: lease.renew_time.clone() },
        Some(lease) if lease.holder.is_empty() => {
            let since = lease.renew_time.clone().filter(|_| lease.released);
            Ended { reason: ChangeReason::LeaseReleased, since }
        }
        _ => DELETED,
    });
    let cause = facts.ended.as_ref().filter(|ended| ended.holder == last.holder_identity).map(|ended| ended.reason);
    let Ended { reason, since } = refined(ended, cause);
    Some(LeaderlessStatus { since, reason: Some(reason.as_str().to_owned()) })
}

/// Replaces the reason of a release, or of an end that was not observed, with the `cause` that the operator knows.
fn refined(ended: Ended, cause: Option<ChangeReason>) -> Ended {
    match (ended.reason, cause) {
        (ChangeReason::LeaseReleased | ChangeReason::NotObserved, Some(reason)) => Ended { reason, ..ended },
        _ => ended,
    }
}

fn is_requested(reason: &ChangeReason) -> bool {
    use ChangeReason::{Draining, KubeletReported, Rollout, SteppedDown, Unhealthy};
    matches!(reason, SteppedDown | KubeletReported | Rollout | Unhealthy | Draining)
}

fn is_last(history: &[HistoryEntry], holder: &str) -> bool {
    history.first().is_some_and(|last| last.holder_identity == holder)
}

fn end_in_status(leaderless: &LeaderlessStatus) -> Option<Ended> {
    let reason = ChangeReason::parse(leaderless.reason.as_deref()?)?;
    Some(Ended { reason, since: leaderless.since.clone() })
}

/// Whether the former status already has this very record as expired. An operator that has just started to watch would
/// consider a dead holder alive until it has waited for the whole duration itself.
pub(super) fn was_expired(before: &ElectionGroupStatus, lease: &LeaseView) -> bool {
    let expired =
        before.leaderless.as_ref().and_then(end_in_status).filter(|it| it.reason == ChangeReason::LeaseExpired);
    let last = before.history.first();
    lease.renew_time.is_some()
        && expired.is_some_and(|expired| expired.since == lease.renew_time)
        && last.is_some_and(|last| last.holder_identity == lease.holder && last.time == lease.acquire_time)
}
