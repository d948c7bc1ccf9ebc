//! The Leases of all groups, as this operator itself observed them.
//!
//! A renewal changes nothing that a group's status says, so it triggers nothing. What does: another holder, another
//! term, and the running out of the time that the last renewal bought, by this operator's own clock.

mod confirm;

use std::collections::HashMap;
use std::time::Duration;

use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;

use super::children::controller_of;
use super::groups::version_of;
use super::table::{Change, Scope, Table};
use crate::api::names::{annotation, label};
use crate::campaign::{candidate_version, snapshot_of};
use crate::election::{Record, WallTime};
use crate::group::observed::lease::StepDownRequest;
use crate::group::observed::lease::{Ended, LeaseView};
use crate::group::observed::trial::Trial;
use crate::protocol::lease;
use crate::protocol::lease::term_name;

/// Leases of groups that are gone are forgotten when the operator's leader changes; until then there may be so many.
const LOST: usize = 10_000;

/// A Lease.
#[derive(Clone)]
struct Seen {
    uid: Box<str>,
    version: u64,
    controller: Option<Box<str>>,
    group: Option<Box<str>>,
    managed_by: Option<Box<str>>,
    record: Record,
    incarnation: Option<Box<str>>,
    step_down_request: Option<StepDownRequest>,
    ready_of: Option<Box<str>>,
    proven_revision: Option<Box<str>>,
    candidate_version: Option<Box<str>>,
    trial: Option<Box<str>>,
    suspended: bool,
    /// How the term before ended.
    former: Option<Ended>,
    /// Whether it was seen to change, and not only to stand there: its holder may have been dead all along.
    changed: bool,
    /// First sight of this record, as time since boot.
    since: Duration,
    expired: bool,
    /// When the Lease was last found to be due for a read, since boot.
    read_at: Option<Duration>,
}

/// What a group's status says of its Lease, and whose it is; a change of it is worth a reconcile.
#[derive(PartialEq, Eq)]
struct Reported<'a> {
    holder: &'a str,
    acquire_time: Option<WallTime>,
    transitions: i32,
    expired: bool,
    changed: bool,
    suspended: bool,
    controller: Option<&'a str>,
    group: Option<&'a str>,
    managed_by: Option<&'a str>,
    incarnation: Option<&'a str>,
    ready_of: Option<&'a str>,
    proven_revision: Option<&'a str>,
    candidate_version: Option<&'a str>,
}

impl Seen {
    fn reported(&self) -> Reported<'_> {
        Reported {
            holder: &self.record.holder,
            acquire_time: self.record.acquire_time,
            transitions: self.record.transitions,
            expired: self.expired,
            changed: self.changed,
            suspended: self.suspended,
            controller: self.controller.as_deref(),
            group: self.group.as_deref(),
            managed_by: self.managed_by.as_deref(),
            incarnation: self.incarnation.as_deref(),
            ready_of: self.ready_of.as_deref(),
            proven_revision: self.proven_revision.as_deref(),
            candidate_version: self.candidate_version.as_deref(),
        }
    }

    /// `None` if `lease` is an older state than the one that is known. `unbroken` says that there was none in between.
    fn of(lease: &DynamicObject, before: Option<&Self>, unbroken: bool, now: Duration) -> Option<Self> {
        let version = version_of(&lease.metadata);
        let uid: Box<str> = lease.uid().unwrap_or_default().into();
        if before.is_some_and(|before| before.uid == uid && version > 0 && version < before.version) {
            return None;
        }
        let snapshot = snapshot_of(lease);
        let same = before.filter(|before| before.uid == uid && before.record == snapshot.record);
        let changed = before.is_some_and(|before| before.changed || same.is_none());
        let former = match same {
            Some(same) => same.former.clone(),
            None => before.and_then(|old| {
                let unchanged = unbroken.then(|| now.saturating_sub(old.since));
                Ended::shown(&old.record, old.former.clone(), unchanged, &snapshot.record)
            }),
        };
        let label = |name: &str| lease.labels().get(name).map(|value| value.as_str().into());
        Some(Self {
            uid,
            version,
            controller: controller_of(lease).map(Into::into),
            group: label(label::GROUP),
            managed_by: label(label::MANAGED_BY),
            since: same.map_or(now, |before| before.since),
            expired: same.is_some_and(|before| before.expired),
            read_at: same.and_then(|before| before.read_at),
            former,
            changed,
            record: snapshot.record,
            incarnation: snapshot.incarnation.map(Into::into),
            step_down_request: asked_of(lease),
            ready_of: annotated(lease, lease::READY_OF).map(Into::into),
            proven_revision: snapshot.preference.revision.map(Into::into),
            trial: annotated(lease, lease::TRIAL).map(Into::into),
            candidate_version: candidate_version(lease).map(Into::into),
            suspended: snapshot.preference.suspended,
        })
    }

    /// Whether the time has run out that the record promises its holder, as far as this operator saw.
    fn is_over(&self, now: Duration) -> bool {
        let protected = self.record.duration().unwrap_or_default();
        !self.record.holder.is_empty() && now.saturating_sub(self.since) > protected
    }

    fn view(&self) -> LeaseView {
        let term = self.incarnation.as_deref().map(|incarnation| term_name(self.record.transitions, incarnation));
        LeaseView {
            ready: term.is_some() && self.ready_of.as_deref() == term.as_deref(),
            proven_revision: self.proven_revision.as_deref().map(str::to_owned),
            incarnation: self.incarnation.as_deref().map(str::to_owned),
            step_down_request: self.step_down_request.clone(),
            trial: self.trial.as_deref().and_then(Trial::parse),
            candidate_version: self.candidate_version.as_deref().map(str::to_owned),
            ..LeaseView::of(&self.record, self.expired, self.former.clone())
        }
    }
}

/// The Lease in short, as it is seen for the first time.
pub(in crate::operator) fn view_of(lease: &DynamicObject) -> Option<LeaseView> {
    Seen::of(lease, None, false, Duration::ZERO).map(|seen| seen.view())
}

fn asked_of(lease: &DynamicObject) -> Option<StepDownRequest> {
    let annotated = |name: &str| annotated(lease, name).map(str::to_owned);
    let (value, of) = annotated(annotation::STEP_DOWN_REQUESTED_AT).zip(annotated(lease::STEP_DOWN_OF))?;
    Some(StepDownRequest { value, of, to: annotated(lease::STEP_DOWN_TO) })
}

fn annotated<'a>(lease: &'a DynamicObject, name: &str) -> Option<&'a str> {
    lease.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Who holds a Lease, and what the report of that pod proves.
pub(in crate::operator) struct LeaseHolder {
    pub(in crate::operator) holder: String,
    pub(in crate::operator) incarnation: Option<String>,
    pub(in crate::operator) transitions: i32,
    pub(in crate::operator) dead: Vec<String>,
}

/// All Leases that carry the name of a group.
#[derive(Default)]
pub(super) struct Leases {
    table: Table<Seen>,
    /// `leaseDurationSeconds` of those that are gone, by namespace and name.
    lost: HashMap<(String, String), i32>,
}

impl Leases {
    /// The Lease, if the group of that uid controls it.
    fn owned(&self, namespace: &str, name: &str, uid: &str) -> Option<&Seen> {
        self.table.get(namespace, name).filter(|seen| seen.controller.as_deref() == Some(uid))
    }

    /// The Lease in short, if the group of that uid controls it.
    pub(super) fn of(&self, namespace: &str, name: &str, uid: &str) -> Option<LeaseView> {
        self.owned(namespace, name, uid).map(Seen::view)
    }

    /// The holder of the Lease, its incarnation and `leaseTransitions`, if the group of that uid controls it.
    pub(super) fn holder_of(&self, namespace: &str, name: &str, uid: &str) -> Option<(String, Option<String>, i32)> {
        let seen = self.owned(namespace, name, uid)?;
        Some((seen.record.holder.clone(), seen.incarnation.as_deref().map(str::to_owned), seen.record.transitions))
    }

    /// Whether the Lease says that nobody is to follow its term, if the group of that uid controls it.
    pub(super) fn is_suspended(&self, namespace: &str, name: &str, uid: &str) -> Option<bool> {
        self.owned(namespace, name, uid).map(|seen| seen.suspended)
    }

    /// Since when, since boot, the Lease stands released, if it does and the group of that uid controls it.
    pub(super) fn released_at(&self, namespace: &str, name: &str, uid: &str) -> Option<Duration> {
        let seen = self.owned(namespace, name, uid)?;
        seen.record.is_released().then_some(seen.since)
    }

    /// Since when, since boot, the Lease stands as it was created again after a deletion, if it does and the group of that uid
    /// controls it.
    pub(super) fn recreated_at(&self, namespace: &str, name: &str, uid: &str) -> Option<Duration> {
        let seen = self.owned(namespace, name, uid)?;
        seen.record.is_recreated().then_some(seen.since)
    }

    /// Whether the Lease is known, controlled by the group of that uid, and carries its labels.
    pub(super) fn is_marked(&self, namespace: &str, name: &str, uid: &str, group: &str) -> bool {
        self.owned(namespace, name, uid).is_some_and(|seen| {
            seen.group.as_deref() == Some(group) && seen.managed_by.as_deref() == Some(label::MANAGED_BY_VALUE)
        })
    }

    /// The API server has shown this Lease.
    pub(super) fn took(&mut self, lease: &DynamicObject, now: Duration) {
        let (namespace, name) = (lease.namespace().unwrap_or_default(), lease.name_any());
        if let Some(seen) = Seen::of(lease, self.table.get(&namespace, &name), false, now) {
            self.table.insert(&namespace, &name, seen);
        }
    }

    /// `leaseDurationSeconds` of a Lease that is gone, as it was last; 0 if it is there or never was.
    pub(super) fn lost_seconds(&self, namespace: &str, name: &str) -> i32 {
        self.lost.get(&(namespace.to_owned(), name.to_owned())).copied().unwrap_or_default()
    }

    /// Takes an event in and returns the groups that need a look, as namespace and name.
    pub(super) fn take(&mut self, scope: &Scope, event: Event<DynamicObject>, now: Duration) -> Vec<(String, String)> {
        let mut groups = Vec::new();
        let unbroken = matches!(event, Event::Apply(_));
        let Self { table, lost } = self;
        table.take(
            scope,
            event,
            |lease, before| Seen::of(&lease, before, unbroken, now),
            |Change { namespace, name, before, after }| {
                let key = || (namespace.to_owned(), name.to_owned());
                match (before, after) {
                    (Some(before), None) if lost.len() < LOST => {
                        lost.insert(key(), before.record.duration_seconds);
                    }
                    (_, Some(_)) if !lost.is_empty() => {
                        lost.remove(&key());
                    }
                    _ => {}
                }
                if before.map(Seen::reported) != after.map(Seen::reported) {
                    let named = [before, after].into_iter().flatten().filter_map(|seen| seen.group.as_deref());
                    groups.extend(named.map(|group| (namespace.to_owned(), group.to_owned())));
                }
            },
        );
        groups.dedup();
        groups
    }
}
