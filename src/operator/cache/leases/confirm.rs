//! Leases that seem to have expired, and the results of their reads.

use std::time::Duration;

use kube::api::DynamicObject;

use super::{LeaseEntry, Leases};
use crate::cache::table::Scope;

/// The delay before a Lease that seems to have expired is read again, if the last read had no result.
const READ_AGAIN: Duration = Duration::from_secs(5);

impl Leases {
    /// Returns the Leases that seem to have expired, as namespace and name, except those in the scopes `unseen`, whose
    /// renewals the watch may miss. Each has to be read, and the result passed to [`confirm`](Self::confirm): until
    /// then it has not expired.
    pub(in crate::cache) fn due(&mut self, now: Duration, unseen: &[&Scope]) -> Vec<(String, String)> {
        let is_watched = |namespace: &str| !unseen.iter().any(|scope| scope.holds(namespace));
        let mut due = Vec::new();
        for (namespace, name, entry) in self.table.iter_mut().filter(|(namespace, ..)| is_watched(namespace)) {
            let was_read = entry.read_at.is_some_and(|at| now < at + READ_AGAIN);
            if !entry.expired && !was_read && entry.is_over(now) {
                entry.read_at = Some(now);
                due.push((namespace.to_owned(), name.to_owned()));
            }
        }
        due
    }

    /// Applies the result of the read: the Lease, or that there is none. Returns the groups to reconcile, as namespace
    /// and name, and whether the read shows a change that the watch has not shown.
    pub(in crate::cache) fn confirm(
        &mut self,
        namespace: &str,
        name: &str,
        live: Option<&DynamicObject>,
        now: Duration,
    ) -> (Vec<(String, String)>, bool) {
        // What the watch has shown meanwhile is later than the read.
        let Some(before) = self.table.get(namespace, name) else { return (Vec::new(), false) };
        let after = match live {
            Some(live) => LeaseEntry::of(live, Some(before), false, now),
            None => Some(before.clone()),
        };
        let Some(mut after) = after else { return (Vec::new(), false) };
        after.expired |= after.is_over(now);
        let is_unseen = live.is_none() || after.version != before.version;
        let mut groups = Vec::new();
        if before.reported() != after.reported() {
            let named = [before, &after].into_iter().filter_map(|entry| entry.group.as_deref());
            groups.extend(named.map(|group| (namespace.to_owned(), group.to_owned())));
            groups.dedup();
        }
        self.table.insert(namespace, name, after);
        (groups, is_unseen)
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::api::names::label;

    /// The Leases of an operator that started at second 1000 after boot, and the present second.
    struct Fixture(Leases, u64);

    fn started() -> Fixture {
        Fixture(Leases::default(), 1_000)
    }

    impl Fixture {
        fn apply(&mut self, event: Event<DynamicObject>) {
            let Self(leases, second) = self;
            leases.apply_event(&Scope(None), event, Duration::from_secs(*second));
        }
    }

    /// Returns the Lease of group shop/billing, of 15 s.
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

    fn list(leases: &mut Fixture, lease: DynamicObject) {
        leases.apply(Event::Init);
        leases.apply(Event::InitApply(lease));
        leases.apply(Event::InitDone);
    }

    /// Returns whether the Lease is expired at that second after boot, and whether that triggers its group. The read
    /// shows the same as the watch.
    fn expired_at(fixture: &mut Fixture, second: u64) -> (bool, bool) {
        let Fixture(leases, now) = fixture;
        *now = second;
        let live = leases.table.get("shop", "billing").unwrap().clone();
        let due = leases.due(Duration::from_secs(second), &[]);
        let triggered = due.iter().any(|(namespace, name)| {
            let mut read = lease(&live.record.holder, NOON);
            let renewed = live.record.renew_time.map(|time| crate::campaign::micro_time(time.0));
            read.data["spec"]["renewTime"] = json!(renewed);
            !leases.confirm(namespace, name, Some(&read), Duration::from_secs(second)).0.is_empty()
        });
        (leases.table.get("shop", "billing").unwrap().expired, triggered)
    }

    const NOON: &str = "2026-03-01T12:00:00.000000Z";

    #[test]
    fn lease_expires_its_duration_after_its_last_observed_renewal() {
        let mut leases = started();
        list(&mut leases, lease("billing-1", NOON));
        assert_eq!(expired_at(&mut leases, 1_010), (false, false));
        leases.apply(Event::Apply(lease("billing-1", "2026-03-01T12:00:10.000000Z")));
        assert_eq!(expired_at(&mut leases, 1_025), (false, false), "the renewal counts from its observation");
        assert_eq!(expired_at(&mut leases, 1_026), (true, true));
        assert_eq!(expired_at(&mut leases, 1_027), (true, false), "triggered once");
        leases.apply(Event::Apply(lease("billing-1", "2026-03-01T12:00:27.000000Z")));
        assert_eq!(expired_at(&mut leases, 1_028), (false, false), "renewed after all");
    }

    #[test]
    fn new_operator_waits_the_whole_duration() {
        // Whatever renewTime the Lease shows: long ago, or in a year.
        for renew_time in ["2020-01-01T00:00:00.000000Z", NOON, "2027-03-01T12:00:00.000000Z"] {
            let mut leases = started();
            list(&mut leases, lease("billing-1", renew_time));
            assert_eq!(expired_at(&mut leases, 1_000), (false, false), "{renew_time}");
            assert_eq!(expired_at(&mut leases, 1_015), (false, false), "{renew_time}");
            assert_eq!(expired_at(&mut leases, 1_016), (true, true), "{renew_time}");
        }
    }

    #[test]
    fn neither_a_list_nor_a_metadata_edit_is_a_renewal() {
        let mut leases = started();
        list(&mut leases, lease("billing-1", NOON));
        expired_at(&mut leases, 1_010);
        list(&mut leases, lease("billing-1", NOON));
        let mut annotated = lease("billing-1", NOON);
        annotated.metadata.annotations = Some([("example.com/note".to_owned(), "x".to_owned())].into());
        leases.apply(Event::Apply(annotated));
        assert_eq!(expired_at(&mut leases, 1_016), (true, true));
    }

    #[test]
    fn nothing_expires_in_a_scope_whose_watch_fails() {
        let mut leases = started();
        list(&mut leases, lease("billing-1", NOON));
        let (now, own, other) = (Duration::from_secs(1_016), Scope(Some("shop".into())), Scope(Some("river".into())));
        assert!(leases.0.due(now, &[&other, &own]).is_empty());
        assert!(leases.0.due(now, &[&Scope(None)]).is_empty());
        assert_eq!(leases.0.due(now, &[&other]), [("shop".to_owned(), "billing".to_owned())]);
    }

    fn due(leases: &mut Fixture, second: u64) -> bool {
        !leases.0.due(Duration::from_secs(second), &[]).is_empty()
    }

    fn confirm(leases: &mut Fixture, second: u64, live: Option<&DynamicObject>) -> (bool, bool) {
        let (groups, is_unseen) = leases.0.confirm("shop", "billing", live, Duration::from_secs(second));
        (!groups.is_empty(), is_unseen)
    }

    fn is_expired(leases: &Fixture) -> bool {
        leases.0.table.get("shop", "billing").unwrap().expired
    }

    #[test]
    fn lease_expires_only_once_a_read_confirms_it() {
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
    fn renewal_that_only_a_read_shows_counts_and_reports_a_silent_watch() {
        let mut leases = started();
        let at_version = |version: &str, renew_time: &str| {
            let mut lease = lease("billing-1", renew_time);
            lease.metadata.resource_version = Some(version.to_owned());
            lease
        };
        list(&mut leases, at_version("7", NOON));
        assert!(due(&mut leases, 1_016));
        let renewed = at_version("9", "2026-03-01T12:00:14.000000Z");
        let (_, is_unseen) = confirm(&mut leases, 1_016, Some(&renewed));
        assert!(is_unseen && !is_expired(&leases));
        assert!(!due(&mut leases, 1_031), "one read for each expiry");
        assert!(due(&mut leases, 1_032));
        // The watch was faster than the read.
        leases.1 = 1_032;
        leases.apply(Event::Apply(at_version("12", "2026-03-01T12:00:31.000000Z")));
        assert_eq!(confirm(&mut leases, 1_032, Some(&renewed)), (false, false));
        assert!(!is_expired(&leases));
    }

    #[test]
    fn lease_that_a_read_does_not_find_has_expired() {
        let mut leases = started();
        list(&mut leases, lease("billing-1", NOON));
        assert!(due(&mut leases, 1_016));
        assert_eq!(confirm(&mut leases, 1_016, None), (true, true));
        assert!(is_expired(&leases));
    }

    #[test]
    fn lease_without_a_holder_does_not_expire() {
        let mut leases = started();
        list(&mut leases, lease("", NOON));
        assert_eq!(expired_at(&mut leases, 2_000), (false, false));
    }
}
