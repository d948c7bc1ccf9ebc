//! The expiry of Leases, confirmed by a read.
//!
//! A watch may be silent without an error: its API server lost power, or a firewall dropped the connection. All leaders
//! would then seem to have stopped renewing. So a Lease expires only once a read has shown that it was not renewed. A
//! read that fails proves nothing: the Lease stays as it is, and is read again later.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::{Cache, GroupRef, Scope, WatchHealth};
use crate::campaign::describe;
use crate::runtime::memory;

/// How often the cache is searched for Leases that seem to have expired.
const TICK: Duration = Duration::from_secs(1);
/// After how many ticks unused memory is returned to the system.
const TICKS_PER_TRIM: u32 = 10;
/// How long the reads of one tick may take; the remaining Leases are read later.
const LONGEST_READ: Duration = Duration::from_secs(2);
/// How many Leases are read at a time.
const READS: usize = 16;
/// The least time between two restarts of a watch, each of which lists all Leases.
const BETWEEN_RESTARTS: Duration = Duration::from_secs(30);

/// The watch of the Leases in one scope.
pub(super) struct LeaseWatch {
    /// The name that [`WatchHealth`] uses.
    pub(super) name: String,
    pub(super) scope: Scope,
    /// Restarts the watch with a list.
    pub(super) restart: Arc<Notify>,
    /// When the watch was last restarted, since boot.
    pub(super) restarted_at: Option<Duration>,
}

/// Returns the groups whose Leases expire, each tick.
pub(super) fn expiries(
    client: &Client,
    cache: &Cache,
    health: &WatchHealth,
    watches: Vec<LeaseWatch>,
) -> impl Stream<Item = Vec<GroupRef>> + Send + use<> {
    let expiries = Expiries { client: client.clone(), cache: cache.clone(), health: health.clone(), watches };
    stream::unfold((expiries, 0_u32), async |(mut expiries, ticks)| {
        let clock = expiries.cache.clock.clone();
        clock.sleep_until(clock.since_boot() + TICK).await;
        if ticks % TICKS_PER_TRIM == TICKS_PER_TRIM - 1 {
            memory::give_back();
        }
        let groups = expiries.tick().await;
        Some((groups, (expiries, ticks.wrapping_add(1))))
    })
}

struct Expiries {
    client: Client,
    cache: Cache,
    health: WatchHealth,
    watches: Vec<LeaseWatch>,
}

impl Expiries {
    async fn tick(&mut self) -> Vec<GroupRef> {
        let failing = self.watches.iter().filter(|watch| self.health.is_failing(&watch.name));
        let unwatched: Vec<&Scope> = failing.map(|watch| &watch.scope).collect();
        let due = self.cache.due_leases(&unwatched);
        if due.is_empty() {
            return Vec::new();
        }
        let (groups, unseen) = self.confirm(due).await;
        for (namespace, name) in unseen {
            self.restart_watch_of(&namespace, &name);
        }
        groups
    }

    /// Reads the Leases. Returns the groups to reconcile, and the Leases whose read shows a change that the watch has
    /// not shown.
    async fn confirm(&self, due: Vec<(String, String)>) -> (Vec<GroupRef>, Vec<(String, String)>) {
        let clock = &self.cache.clock;
        let reads = stream::iter(due).map(|(namespace, name)| read(self.client.clone(), namespace, name));
        let late = clock.sleep_until(clock.since_boot() + LONGEST_READ);
        let mut reads = pin!(reads.buffer_unordered(READS).take_until(late));
        let (mut groups, mut unseen) = (Vec::new(), Vec::new());
        while let Some((namespace, name, result)) = reads.next().await {
            match result {
                Ok(lease) => {
                    let (touched, is_unseen) = self.cache.confirm_expiry(&namespace, &name, lease.as_ref());
                    groups.extend(touched);
                    if is_unseen {
                        unseen.push((namespace, name));
                    }
                }
                Err(error) => {
                    debug!("cannot get lease {namespace}/{name} to see whether it expired: {}", describe(&error));
                }
            }
        }
        (groups, unseen)
    }

    /// Restarts the watch of a Lease, which has not shown a change for a whole lease duration.
    fn restart_watch_of(&mut self, namespace: &str, name: &str) {
        let now = self.cache.clock.since_boot();
        let Some(watch) = self.watches.iter_mut().find(|watch| watch.scope.holds(namespace)) else { return };
        if watch.restarted_at.is_some_and(|at| now < at + BETWEEN_RESTARTS) {
            return;
        }
        watch.restarted_at = Some(now);
        warn!("the watch of {} has not shown a change of lease {namespace}/{name}: restarting it", watch.name);
        watch.restart.notify_one();
    }
}

async fn read(
    client: Client,
    namespace: String,
    name: String,
) -> (String, String, Result<Option<DynamicObject>, kube::Error>) {
    let leases = Api::<DynamicObject>::namespaced_with(client, &namespace, &ApiResource::erase::<Lease>(&()));
    let lease = leases.get_opt(&name).await;
    (namespace, name, lease)
}
