//! The Leases of all groups, as this operator itself observed them.
//!
//! A renewal changes nothing that a group's status says, so it triggers nothing. What does: another holder, another
//! term, and the running out of the time that the last renewal bought, by this operator's own clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::DynamicObject;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;

use crate::api::ElectionGroup;
use crate::api::names::label;
use crate::campaign::snapshot_of;
use crate::election::Record;
use crate::group::status::LeaseView;
use crate::runtime::clock::Clock;

type Key = (String, String);

struct Seen {
    object: DynamicObject,
    record: Record,
    /// First sight of this record, as time since boot.
    since: Duration,
    expired: bool,
    group: Option<ObjectRef<ElectionGroup>>,
}

/// What a group's status says of its Lease; a change of it is worth a reconcile.
type Told<'a> = (&'a str, Option<crate::election::WallTime>, i32, bool);

impl Seen {
    fn told(&self) -> Told<'_> {
        (&self.record.holder, self.record.acquire_time, self.record.transitions, self.expired)
    }
}

/// Cheap to clone; all clones are one table.
#[derive(Clone)]
pub(super) struct Leases {
    table: Arc<Mutex<Table>>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Table {
    seen: HashMap<Key, Seen>,
    listed: Option<HashMap<Key, Seen>>,
}

impl Leases {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { table: Arc::default(), clock }
    }

    /// The Lease in full and in short, if it exists.
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<(DynamicObject, LeaseView)> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = table.seen.get(&(namespace.to_owned(), name.to_owned()))?;
        let acquire_time = seen.record.acquire_time.and_then(|time| jiff::Timestamp::from_microsecond(time.0).ok());
        let view = LeaseView {
            holder: seen.record.holder.clone(),
            acquire_time: acquire_time.map(MicroTime),
            transitions: seen.record.transitions,
            expired: seen.expired,
        };
        Some((seen.object.clone(), view))
    }

    /// Takes a watch event in and names the groups that need a look.
    pub(super) fn take(&self, event: watcher::Event<DynamicObject>) -> Vec<ObjectRef<ElectionGroup>> {
        let now = self.clock.since_boot();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Table { seen, listed } = &mut *table;
        match event {
            watcher::Event::Init => {
                *listed = Some(HashMap::new());
                Vec::new()
            }
            watcher::Event::InitApply(lease) => {
                let key = key_of(&lease);
                let new = observe(seen.get(&key), lease, now);
                if let Some(listed) = listed {
                    listed.insert(key, new);
                }
                Vec::new()
            }
            watcher::Event::InitDone => {
                let new = listed.take().unwrap_or_default();
                let gone = seen.iter().filter(|(key, _)| !new.contains_key(*key));
                let changed = new.iter().filter(|(key, lease)| seen.get(*key).map(Seen::told) != Some(lease.told()));
                let groups = gone.chain(changed).filter_map(|(_, lease)| lease.group.clone()).collect();
                *seen = new;
                groups
            }
            watcher::Event::Apply(lease) => {
                let key = key_of(&lease);
                let before = seen.get(&key);
                let new = observe(before, lease, now);
                let changed = before.map(Seen::told) != Some(new.told());
                let group = new.group.clone().filter(|_| changed);
                seen.insert(key, new);
                group.into_iter().collect()
            }
            watcher::Event::Delete(lease) => {
                seen.remove(&key_of(&lease)).and_then(|lease| lease.group).into_iter().collect()
            }
        }
    }

    /// Marks the Leases whose time has run out and names their groups. To be called about every second.
    pub(super) fn expire(&self) -> Vec<ObjectRef<ElectionGroup>> {
        let now = self.clock.since_boot();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let mut groups = Vec::new();
        for lease in table.seen.values_mut() {
            let protected = lease.record.duration().unwrap_or_default();
            if !lease.expired && !lease.record.holder.is_empty() && now.saturating_sub(lease.since) > protected {
                lease.expired = true;
                groups.extend(lease.group.clone());
            }
        }
        groups
    }
}

fn key_of(lease: &DynamicObject) -> Key {
    (lease.metadata.namespace.clone().unwrap_or_default(), lease.metadata.name.clone().unwrap_or_default())
}

fn observe(before: Option<&Seen>, object: DynamicObject, now: Duration) -> Seen {
    let record = snapshot_of(&object).record;
    let labels = object.metadata.labels.as_ref();
    let group = labels.and_then(|labels| labels.get(label::GROUP)).map(|name| {
        ObjectRef::<ElectionGroup>::new(name).within(object.metadata.namespace.as_deref().unwrap_or_default())
    });
    match before.filter(|before| before.record == record) {
        Some(before) => Seen { object, record, since: before.since, expired: before.expired, group },
        None => Seen { object, record, since: now, expired: false, group },
    }
}
