//! A step-down: what was before the request, and what the operator makes of it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use k8sensus_runtime::clock::{Clock, SystemClock};

use crate::api::HistoryEntry;
use crate::api::names::annotation;
use crate::api::names::event::{STEP_DOWN_PENDING, STEP_DOWN_REFUSED};
use crate::connect::{Cluster, sleep};
use crate::failure::{Failure, one_line};
use crate::fetch;
use crate::picture::{last_about_step_down, leaderless, picture};

/// How often the group is read while it is waited for.
const POLL: Duration = Duration::from_millis(250);
/// The time after which an Event that existed before the request explains why it is not handled: the operator does not
/// repeat an Event at once.
const SILENCE: Duration = Duration::from_secs(3);

/// Whether to wait for the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Return after the request.
    No,
    /// Wait at most that long.
    UntilHandled(Duration),
}

/// The group before the request.
pub struct Before {
    /// The pod that leads.
    pub leader: String,
    /// The value of the annotation that requests the step-down.
    pub value: String,
    /// `status.history`.
    pub history: Vec<HistoryEntry>,
    last_event: Option<Timestamp>,
}

/// Reads the group, and checks that there is a leader that could step down.
pub async fn prepare(cluster: &Cluster, name: &str) -> Result<Before, Failure> {
    let facts = fetch::facts(cluster, name).await?;
    let picture = picture(&facts);
    let Some(leader) = picture.leader else {
        return Err(Failure::Refused(format!(
            "{}/{name} has no leader that could step down: `kubectl k8sensus status {name} -n {}` shows why",
            cluster.namespace, cluster.namespace
        )));
    };
    let events = facts.events.unwrap_or_default();
    Ok(Before {
        leader: leader.holder_identity,
        value: facts.now.to_string(),
        history: picture.history,
        last_event: last_about_step_down(&events).and_then(|(event, _)| fetch::last_seen(event)),
    })
}

/// Waits until the request is handled and another term has begun.
///
/// # Errors
/// [`Failure::Refused`] with the operator's own reason, if it refuses the request for now, or with what is known after
/// `limit`.
pub async fn wait(cluster: &Cluster, name: &str, before: &Before, limit: Duration) -> Result<String, Failure> {
    let clock = SystemClock;
    let start = clock.since_boot();
    let mut is_handled = false;
    loop {
        let group = fetch::group(cluster, name).await?;
        let status = group.status.unwrap_or_default();
        is_handled |= status.last_handled_step_down_at.as_deref() == Some(before.value.as_str());
        let newest = status.history.first();
        let is_new = newest.map(term_of) != before.history.first().map(term_of);
        if let Some(newest) = newest.filter(|_| is_handled && is_new) {
            let seconds =
                newest.leaderless_seconds.map(|seconds| format!(", after {} without a leader", leaderless(seconds)));
            let holder = one_line(&newest.holder_identity);
            return Ok(format!("{holder} leads now{}", seconds.unwrap_or_default()));
        }
        let waited = clock.since_boot().saturating_sub(start);
        if !is_handled {
            let events = fetch::events(cluster, name).await.unwrap_or_default();
            if let Some(why) = refusal(&events, before.last_event, waited >= SILENCE) {
                return Err(Failure::Refused(not_yet(cluster, name, &why)));
            }
        }
        if waited >= limit {
            let seconds = limit.as_secs_f64();
            return Err(Failure::Refused(match is_handled {
                true => format!("{} stepped down, but no other pod leads after {seconds} s", before.leader),
                false => not_yet(
                    cluster,
                    name,
                    &format!("the operator did not handle it within {seconds} s, so it may not run"),
                ),
            }));
        }
        sleep(POLL).await;
    }
}

/// Identifies the term of a change.
fn term_of(entry: &HistoryEntry) -> (Option<i32>, Option<Timestamp>) {
    (entry.lease_transitions, entry.time.as_ref().map(|time| time.0))
}

/// Returns why the operator does not carry out the request now, if its last Event says so. An Event of before the
/// request counts only after a silence.
fn refusal(events: &[Event], before: Option<Timestamp>, silence: bool) -> Option<String> {
    let (event, note) = last_about_step_down(events)?;
    let is_refusal = matches!(event.reason.as_deref(), Some(STEP_DOWN_REFUSED | STEP_DOWN_PENDING));
    (is_refusal && (silence || fetch::last_seen(event) > before)).then(|| one_line(note))
}

fn not_yet(cluster: &Cluster, name: &str, why: &str) -> String {
    format!(
        "not stepped down yet: {why}. The request stays until it is handled; to withdraw it: kubectl annotate \
         electiongroup/{name} -n {} {}-",
        cluster.namespace,
        annotation::STEP_DOWN_REQUESTED_AT
    )
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    fn event(reason: &str, second: i64) -> Event {
        Event {
            reason: Some(reason.to_owned()),
            note: Some(format!("{reason}: no standby")),
            event_time: Some(MicroTime(Timestamp::from_second(second).unwrap())),
            ..Event::default()
        }
    }

    #[test]
    fn refusal_is_that_of_this_request() {
        let at = |second| Timestamp::from_second(second).ok();
        let refused = || Some("StepDownRefused: no standby".to_owned());
        assert_eq!(refusal(&[event("StepDownRefused", 5)], None, false), refused());
        assert_eq!(refusal(&[event("StepDownRefused", 5)], at(4), false), refused());
        assert_eq!(refusal(&[event("StepDownRefused", 5)], at(5), false), None);
        assert_eq!(refusal(&[event("StepDownRefused", 5)], at(5), true), refused());
        assert_eq!(refusal(&[event("StepDownRefused", 5), event("StepDownRequested", 6)], at(4), true), None);
        assert_eq!(refusal(&[], None, true), None);
    }
}
