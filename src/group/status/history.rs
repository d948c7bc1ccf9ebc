//! The past of a group: who led, why leadership became free each time, and how often it changed hands.
//!
//! Times are those that the candidates wrote into the Lease: how long nobody led is the difference between the clocks
//! of two nodes. Why a term ended is end_in_status only if the watch of the Lease showed it, or the former status knows it.

use super::input::Observed;
use crate::api::names::ChangeReason;
use crate::api::status::HISTORY_LIMIT;
use crate::api::{ElectionGroupStatus, HistoryEntry, LeaderlessStatus};
use crate::group::observed::lease::{Ended, LeaseView};
use crate::protocol::lease::RECREATED_HOLDER;

/// What the status says of the past.
pub(super) struct Past {
    pub(super) history: Vec<HistoryEntry>,
    pub(super) leaderless: Option<LeaderlessStatus>,
    pub(super) transitions: Option<i32>,
    pub(super) offset: Option<i32>,
}

impl Past {
    /// Continues the past that `before` tells. `led` says whether somebody leads now.
    pub(super) fn of(before: &ElectionGroupStatus, observed: &Observed, led: bool) -> Self {
        let Some(lease) = &observed.lease else {
            return Self {
                history: before.history.clone(),
                leaderless: leaderless(before, None, observed, &before.history, false),
                transitions: before.lease_transitions,
                offset: before.lease_transitions_offset,
            };
        };
        let count = Count::of(before, lease);
        let mut history = before.history.clone();
        if count.new_term {
            history.insert(0, entry(before, lease, observed, &count));
            history.truncate(HISTORY_LIMIT);
        }
        let moved_on = count.new_term || before.lease_transitions.is_some_and(|known| count.total > known);
        let leaderless = if led { None } else { leaderless(before, Some(lease), observed, &history, moved_on) };
        let offset = count.total.saturating_sub(lease.transitions.max(0));
        Self { history, leaderless, transitions: Some(count.total), offset: (offset != 0).then_some(offset) }
    }
}

/// How often leadership has changed hands over all Leases of the group.
struct Count {
    total: i32,
    /// Whether the holder is one that the history does not have.
    new_term: bool,
    /// Whether the Lease itself counted on from where the status stands.
    went_on: bool,
}

impl Count {
    fn of(before: &ElectionGroupStatus, lease: &LeaseView) -> Self {
        let own = lease.transitions.max(0);
        let counted = own.saturating_add(before.lease_transitions_offset.unwrap_or_default().max(0));
        let known = before.lease_transitions;
        let went_on = known.is_none_or(|known| counted > known);
        let new_term =
            lease.is_held() && (went_on || before.history.first().is_none_or(|last| !is_same_term(last, lease)));
        let total = match known {
            None => counted,
            // Made again by us: from where the status stopped.
            Some(known) if lease.holder == RECREATED_HOLDER => known.max(own),
            Some(known) if went_on || !new_term => known.max(counted),
            // Another term of a Lease that did not count it: it was made again by somebody who began at 0.
            Some(known) if counted < known => known.saturating_add(own.max(1)),
            Some(known) if before.history.is_empty() => known,
            Some(known) => known.saturating_add(1),
        };
        Self { total, new_term, went_on }
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

fn entry(before: &ElectionGroupStatus, lease: &LeaseView, observed: &Observed, count: &Count) -> HistoryEntry {
    let ended = ended(before, lease, observed, count);
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

/// How the term before that of `lease` ended, from what the status knows and the watch showed.
fn ended(before: &ElectionGroupStatus, lease: &LeaseView, observed: &Observed, count: &Count) -> Ended {
    // If leadership changed hands more than once, the status speaks of another term.
    let made_again = !count.went_on && lease.transitions == 0;
    let next = count.is_next_of(before) && count.went_on;
    let known = before.leaderless.as_ref().filter(|_| next).and_then(end_in_status);
    let asked = observed.ended.as_ref().filter(|ended| next && is_last(&before.history, &ended.holder));
    let asked =
        asked.map(|ended| ended.reason).or_else(|| known.as_ref().map(|known| known.reason).filter(is_asked_for));
    let ended = match (known, lease.former.clone()) {
        _ if made_again && !before.history.is_empty() => DELETED,
        // Who was taken for lost has come back, and then released.
        (Some(known), Some(shown)) if (known.reason, shown.reason) == CAME_BACK => shown,
        (Some(known), _) => known,
        (None, Some(shown)) => shown,
        (None, None) if before.history.is_empty() && count.total <= 1 => {
            Ended { reason: ChangeReason::Elected, since: None }
        }
        (None, None) => Ended { reason: ChangeReason::NotObserved, since: None },
    };
    refined(ended, asked)
}

/// Why nobody leads. Stays as it is from when leadership became free until somebody leads, unless leadership `moved_on`
/// meanwhile or the Lease is lost.
fn leaderless(
    before: &ElectionGroupStatus,
    lease: Option<&LeaseView>,
    observed: &Observed,
    history: &[HistoryEntry],
    moved_on: bool,
) -> Option<LeaderlessStatus> {
    let Some(last) = history.first() else {
        // Made with its wait though nobody is known to have led: somebody may have.
        let reason = Some(ChangeReason::NotObserved.as_str().to_owned());
        let recreated = lease.is_some_and(|lease| lease.holder == RECREATED_HOLDER);
        return before.leaderless.clone().or(recreated.then_some(LeaderlessStatus { since: None, reason }));
    };
    let known = before.leaderless.as_ref().filter(|_| !moved_on).and_then(end_in_status);
    // Whoever led a Lease that is gone may not be the last one that was seen.
    let known = known.filter(|_| lease.is_some_and(|lease| lease.holder != RECREATED_HOLDER));
    let ended = known.unwrap_or_else(|| match lease {
        Some(lease) if lease.is_held() => Ended { reason: ChangeReason::LeaseExpired, since: lease.renew_time.clone() },
        Some(lease) if lease.holder.is_empty() => {
            let since = lease.renew_time.clone().filter(|_| lease.released);
            Ended { reason: ChangeReason::LeaseReleased, since }
        }
        _ => DELETED,
    });
    let asked = observed.ended.as_ref().filter(|ended| ended.holder == last.holder_identity).map(|ended| ended.reason);
    let Ended { reason, since } = refined(ended, asked);
    Some(LeaderlessStatus { since, reason: Some(reason.as_str().to_owned()) })
}

/// A release, or an end that nobody saw, for the reason that the operator knows.
fn refined(ended: Ended, asked: Option<ChangeReason>) -> Ended {
    match (ended.reason, asked) {
        (ChangeReason::LeaseReleased | ChangeReason::NotObserved, Some(reason)) => Ended { reason, ..ended },
        _ => ended,
    }
}

fn is_asked_for(reason: &ChangeReason) -> bool {
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

/// Whether the status already tells that this very record ran out. An operator that has just begun to watch would take
/// a dead holder for a living one until it has waited for the whole duration itself.
pub(super) fn was_expired(before: &ElectionGroupStatus, lease: &LeaseView) -> bool {
    let expired =
        before.leaderless.as_ref().and_then(end_in_status).filter(|it| it.reason == ChangeReason::LeaseExpired);
    let last = before.history.first();
    lease.renew_time.is_some()
        && expired.is_some_and(|expired| expired.since == lease.renew_time)
        && last.is_some_and(|last| last.holder_identity == lease.holder && last.time == lease.acquire_time)
}
