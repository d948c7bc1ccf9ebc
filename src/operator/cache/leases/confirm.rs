//! Which Leases seem to have run out, and what a read of them has shown.

use std::time::Duration;

use kube::api::DynamicObject;

use super::{Leases, Seen};
use crate::operator::cache::table::Scope;

/// How soon a Lease whose time has run out is read again, if a read has not shown what became of it.
const READ_AGAIN: Duration = Duration::from_secs(5);

impl Leases {
    /// Returns the Leases whose time has run out as far as the watch has shown, as namespace and name, but for those in
    /// `unseen`: a renewal that is not shown is no missing one. Each is to be read, and the result handed to
    /// [`confirm`](Self::confirm): until then it has not expired.
    pub(in crate::operator::cache) fn due(&mut self, now: Duration, unseen: &[&Scope]) -> Vec<(String, String)> {
        let is_seen = |namespace: &str| !unseen.iter().any(|scope| scope.holds(namespace));
        let mut due = Vec::new();
        for (namespace, name, seen) in self.table.iter_mut().filter(|(namespace, ..)| is_seen(namespace)) {
            let was_read = seen.read_at.is_some_and(|at| now < at + READ_AGAIN);
            if !seen.expired && !was_read && seen.is_over(now) {
                seen.read_at = Some(now);
                due.push((namespace.to_owned(), name.to_owned()));
            }
        }
        due
    }

    /// Takes in what a read of a Lease has shown whose time had run out: `live`, or that there is none. Returns the groups that
    /// need a reconcile, as namespace and name, and whether the read has shown what the watch has not.
    pub(in crate::operator::cache) fn confirm(
        &mut self,
        namespace: &str,
        name: &str,
        live: Option<&DynamicObject>,
        now: Duration,
    ) -> (Vec<(String, String)>, bool) {
        // What the watch has shown meanwhile is later than the read.
        let Some(before) = self.table.get(namespace, name) else { return (Vec::new(), false) };
        let after = match live {
            Some(live) => Seen::of(live, Some(before), false, now),
            None => Some(before.clone()),
        };
        let Some(mut after) = after else { return (Vec::new(), false) };
        after.expired |= after.is_over(now);
        let is_news = live.is_none() || after.version != before.version;
        let mut groups = Vec::new();
        if before.reported() != after.reported() {
            let named = [before, &after].into_iter().filter_map(|seen| seen.group.as_deref());
            groups.extend(named.map(|group| (namespace.to_owned(), group.to_owned())));
            groups.dedup();
        }
        self.table.insert(namespace, name, after);
        (groups, is_news)
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::api::names::label;

    /// The table of an operator that was started at second 1000 after boot.
    struct Hand(Leases, u64);

    fn started() -> Hand {
        Hand(Leases::default(), 1_000)
    }

    impl Hand {
        fn take(&mut self, event: Event<DynamicObject>) {
            let Self(leases, second) = self;
            leases.take(&Scope(None), event, Duration::from_secs(*second));
        }
    }

    /// The Lease of group shop/billing, of 15 s.
    fn lease(holder: &str, renew_time: &str) -> DynamicObject {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": "billing", "namespace": "shop", "labels": { label::GROUP: "billing" } },
            "spec": {
                "holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 4,
                "acquireTime": "2026-03-01T12:00:00.000000Z", "renewTime": renew_time,
            },
        });
        serde_json::from_value(lease).unwrap()
    }

    fn list(leases: &mut Hand, lease: DynamicObject) {
        leases.take(Event::Init);
        leases.take(Event::InitApply(lease));
        leases.take(Event::InitDone);
    }

    /// Whether the Lease is expired at that second after boot, and whether its group was named for that, where a read shows
    /// what the watch has shown.
    fn at(hand: &mut Hand, second: u64) -> (bool, bool) {
        let Hand(leases, now) = hand;
        *now = second;
        let live = leases.table.get("shop", "billing").unwrap().clone();
        let due = leases.due(Duration::from_secs(second), &[]);
        let named = due.iter().any(|(namespace, name)| {
            let mut shown = lease(&live.record.holder, NOON);
            let renewed = live.record.renew_time.map(|time| crate::campaign::micro_time(time.0));
            shown.data["spec"]["renewTime"] = json!(renewed);
            !leases.confirm(namespace, name, Some(&shown), Duration::from_secs(second)).0.is_empty()
        });
        (leases.table.get("shop", "billing").unwrap().expired, named)
    }

    const NOON: &str = "2026-03-01T12:00:00.000000Z";

    #[test]
    fn a_lease_expires_once_its_duration_after_its_last_renewal_was_seen() {
        let mut leases = started();
        list(&mut leases, lease("billing-1", NOON));
        assert_eq!(at(&mut leases, 1_010), (false, false));
        leases.take(Event::Apply(lease("billing-1", "2026-03-01T12:00:10.000000Z")));
        assert_eq!(at(&mut leases, 1_025), (false, false), "the renewal counts from when it was seen");
        assert_eq!(at(&mut leases, 1_026), (true, true));
        assert_eq!(at(&mut leases, 1_027), (true, false), "told once");
        leases.take(Event::Apply(lease("billing-1", "2026-03-01T12:00:27.000000Z")));
        assert_eq!(at(&mut leases, 1_028), (false, false), "renewed after all");
    }

    #[test]
    fn an_operator_that_was_just_started_waits_the_whole_duration() {
        // Whenever it was renewed by its own word: long ago, or not for a year yet.
        for renew_time in ["2020-01-01T00:00:00.000000Z", NOON, "2027-03-01T12:00:00.000000Z"] {
            let mut leases = started();
            list(&mut leases, lease("billing-1", renew_time));
            assert_eq!(at(&mut leases, 1_000), (false, false), "{renew_time}");
            assert_eq!(at(&mut leases, 1_015), (false, false), "{renew_time}");
            assert_eq!(at(&mut leases, 1_016), (true, true), "{renew_time}");
        }
    }

    #[test]
    fn a_list_of_what_is_known_is_no_renewal_and_an_edit_of_metadata_neither() {
        let mut leases = started();
        list(&mut leases, lease("billing-1", NOON));
        at(&mut leases, 1_010);
        list(&mut leases, lease("billing-1", NOON));
        let mut annotated = lease("billing-1", NOON);
        annotated.metadata.annotations = Some([("example.com/note".to_owned(), "x".to_owned())].into());
        leases.take(Event::Apply(annotated));
        assert_eq!(at(&mut leases, 1_016), (true, true));
    }

    #[test]
    fn nothing_expires_where_renewals_are_not_shown() {
        let mut leases = started();
        list(&mut leases, lease("billing-1", NOON));
        let (now, own, other) = (Duration::from_secs(1_016), Scope(Some("shop".into())), Scope(Some("river".into())));
        assert!(leases.0.due(now, &[&other, &own]).is_empty());
        assert!(leases.0.due(now, &[&Scope(None)]).is_empty());
        assert_eq!(leases.0.due(now, &[&other]), [("shop".to_owned(), "billing".to_owned())]);
    }

    fn due(leases: &mut Hand, second: u64) -> bool {
        !leases.0.due(Duration::from_secs(second), &[]).is_empty()
    }

    fn confirm(leases: &mut Hand, second: u64, live: Option<&DynamicObject>) -> (bool, bool) {
        let (groups, is_news) = leases.0.confirm("shop", "billing", live, Duration::from_secs(second));
        (!groups.is_empty(), is_news)
    }

    fn is_expired(leases: &Hand) -> bool {
        leases.0.table.get("shop", "billing").unwrap().expired
    }

    #[test]
    fn a_lease_expires_only_once_a_read_has_confirmed_it() {
        let mut leases = started();
        list(&mut leases, lease("billing-1", NOON));
        assert!(due(&mut leases, 1_016) && !is_expired(&leases));
        assert!(!due(&mut leases, 1_017), "it is being read");
        // The read failed, so nothing is known.
        assert!(due(&mut leases, 1_021) && !is_expired(&leases));
        assert_eq!(confirm(&mut leases, 1_021, Some(&lease("billing-1", NOON))), (true, false));
        assert!(is_expired(&leases) && !due(&mut leases, 1_100));
    }

    #[test]
    fn a_renewal_that_only_a_read_has_shown_counts_and_says_that_the_watch_is_silent() {
        let mut leases = started();
        let at_version = |version: &str, renew_time: &str| {
            let mut lease = lease("billing-1", renew_time);
            lease.metadata.resource_version = Some(version.to_owned());
            lease
        };
        list(&mut leases, at_version("7", NOON));
        assert!(due(&mut leases, 1_016));
        let renewed = at_version("9", "2026-03-01T12:00:14.000000Z");
        let (_, is_news) = confirm(&mut leases, 1_016, Some(&renewed));
        assert!(is_news && !is_expired(&leases));
        assert!(!due(&mut leases, 1_031), "one read for each expiry");
        assert!(due(&mut leases, 1_032));
        // The watch was faster than the read.
        leases.1 = 1_032;
        leases.take(Event::Apply(at_version("12", "2026-03-01T12:00:31.000000Z")));
        assert_eq!(confirm(&mut leases, 1_032, Some(&renewed)), (false, false));
        assert!(!is_expired(&leases));
    }

    #[test]
    fn a_lease_that_a_read_does_not_find_has_expired_and_the_watch_is_silent() {
        let mut leases = started();
        list(&mut leases, lease("billing-1", NOON));
        assert!(due(&mut leases, 1_016));
        assert_eq!(confirm(&mut leases, 1_016, None), (true, true));
        assert!(is_expired(&leases));
    }

    #[test]
    fn what_nobody_holds_does_not_expire() {
        let mut leases = started();
        list(&mut leases, lease("", NOON));
        assert_eq!(at(&mut leases, 2_000), (false, false));
    }
}
