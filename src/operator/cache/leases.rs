//! The Leases of all groups, as this operator observed them.
//!
//! A renewal changes nothing in a group's status, so it triggers no reconcile. Another holder, another term and the
//! expiry of the Lease do; the expiry is by this operator's own clock.

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

/// How many deleted Leases are remembered. They are forgotten when the operator's leadership changes.
const LOST: usize = 10_000;

/// What is known of a Lease.
#[derive(Clone)]
struct LeaseEntry {
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
    /// How the former term ended.
    former: Option<Ended>,
    /// Whether its record was observed to change. Otherwise its holder may have been dead all along.
    changed: bool,
    /// When this record was first observed, since boot.
    since: Duration,
    expired: bool,
    /// When the Lease was last found to be due for a read, since boot.
    read_at: Option<Duration>,
}

/// What the status reports of a Lease, and its owner. A change triggers a reconcile.
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

impl LeaseEntry {
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

    /// Returns the entry of `lease`, `None` if `before` is a later state. `unbroken`: whether there was no other state
    /// in between.
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
            step_down_request: step_down_request_of(lease),
            ready_of: annotated(lease, lease::READY_OF).map(Into::into),
            proven_revision: snapshot.preference.revision.map(Into::into),
            trial: annotated(lease, lease::TRIAL).map(Into::into),
            candidate_version: candidate_version(lease).map(Into::into),
            suspended: snapshot.preference.suspended,
        })
    }

    /// Whether the record's duration has passed since this operator first observed the record.
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

/// Returns the view of a Lease that is observed for the first time.
pub(crate) fn view_of(lease: &DynamicObject) -> Option<LeaseView> {
    LeaseEntry::of(lease, None, false, Duration::ZERO).map(|entry| entry.view())
}

fn step_down_request_of(lease: &DynamicObject) -> Option<StepDownRequest> {
    let annotated = |name: &str| annotated(lease, name).map(str::to_owned);
    let (value, of) = annotated(annotation::STEP_DOWN_REQUESTED_AT).zip(annotated(lease::STEP_DOWN_OF))?;
    Some(StepDownRequest { value, of, to: annotated(lease::STEP_DOWN_TO) })
}

fn annotated<'a>(lease: &'a DynamicObject, name: &str) -> Option<&'a str> {
    lease.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The holder of a Lease, and what the status of its pod proves.
pub(crate) struct LeaseHolder {
    pub(crate) holder: String,
    pub(crate) incarnation: Option<String>,
    pub(crate) transitions: i32,
    /// The incarnations that are proven dead.
    pub(crate) dead: Vec<String>,
}

/// All Leases with the label of a group.
#[derive(Default)]
pub(super) struct Leases {
    table: Table<LeaseEntry>,
    /// `leaseDurationSeconds` of the deleted Leases, by namespace and name.
    lost: HashMap<(String, String), i32>,
}

impl Leases {
    /// Returns the entry of the Lease, if the group of that uid controls it.
    fn owned(&self, namespace: &str, name: &str, uid: &str) -> Option<&LeaseEntry> {
        self.table.get(namespace, name).filter(|entry| entry.controller.as_deref() == Some(uid))
    }

    /// Returns the view of the Lease, if the group of that uid controls it.
    pub(super) fn of(&self, namespace: &str, name: &str, uid: &str) -> Option<LeaseView> {
        self.owned(namespace, name, uid).map(LeaseEntry::view)
    }

    /// Returns the holder of the Lease, its incarnation and `leaseTransitions`, if the group of that uid controls it.
    pub(super) fn holder_of(&self, namespace: &str, name: &str, uid: &str) -> Option<(String, Option<String>, i32)> {
        let entry = self.owned(namespace, name, uid)?;
        Some((entry.record.holder.clone(), entry.incarnation.as_deref().map(str::to_owned), entry.record.transitions))
    }

    /// Whether the Lease shows that the group is suspended, if the group of that uid controls it.
    pub(super) fn is_suspended(&self, namespace: &str, name: &str, uid: &str) -> Option<bool> {
        self.owned(namespace, name, uid).map(|entry| entry.suspended)
    }

    /// Returns when the Lease was released, since boot, if it still is and the group of that uid controls it.
    pub(super) fn released_at(&self, namespace: &str, name: &str, uid: &str) -> Option<Duration> {
        let entry = self.owned(namespace, name, uid)?;
        entry.record.is_released().then_some(entry.since)
    }

    /// Returns when the Lease was recreated, since boot, if no candidate has acquired it since and the group of that
    /// uid controls it.
    pub(super) fn recreated_at(&self, namespace: &str, name: &str, uid: &str) -> Option<Duration> {
        let entry = self.owned(namespace, name, uid)?;
        entry.record.is_recreated().then_some(entry.since)
    }

    /// Whether the Lease is known, controlled by the group of that uid, and has its labels.
    pub(super) fn is_marked(&self, namespace: &str, name: &str, uid: &str, group: &str) -> bool {
        self.owned(namespace, name, uid).is_some_and(|entry| {
            entry.group.as_deref() == Some(group) && entry.managed_by.as_deref() == Some(label::MANAGED_BY_VALUE)
        })
    }

    /// Applies a response that shows a Lease.
    pub(super) fn apply_response(&mut self, lease: &DynamicObject, now: Duration) {
        let (namespace, name) = (lease.namespace().unwrap_or_default(), lease.name_any());
        if let Some(entry) = LeaseEntry::of(lease, self.table.get(&namespace, &name), false, now) {
            self.table.insert(&namespace, &name, entry);
        }
    }

    /// Returns the last `leaseDurationSeconds` of a deleted Lease; 0 if the Lease exists or never did.
    pub(super) fn lost_seconds(&self, namespace: &str, name: &str) -> i32 {
        self.lost.get(&(namespace.to_owned(), name.to_owned())).copied().unwrap_or_default()
    }

    /// Applies an event. Returns the groups to reconcile, as namespace and name.
    pub(super) fn apply_event(
        &mut self,
        scope: &Scope,
        event: Event<DynamicObject>,
        now: Duration,
    ) -> Vec<(String, String)> {
        let mut groups = Vec::new();
        let unbroken = matches!(event, Event::Apply(_));
        let Self { table, lost } = self;
        table.apply_event(
            scope,
            event,
            |lease, before| LeaseEntry::of(&lease, before, unbroken, now),
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
                if before.map(LeaseEntry::reported) != after.map(LeaseEntry::reported) {
                    let named = [before, after].into_iter().flatten().filter_map(|entry| entry.group.as_deref());
                    groups.extend(named.map(|group| (namespace.to_owned(), group.to_owned())));
                }
            },
        );
        groups.dedup();
        groups
    }
}
