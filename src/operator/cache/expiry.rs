//! Leases whose time has run out, as far as the watch has shown.
//!
//! A watch may be silent without being broken: the API server behind it lost power, or a firewall forgot the connection.
//! All leaders would then seem to have stopped renewing. So a Lease expires only once a read of it has shown that it was
//! not renewed. A read that fails proves nothing: the Lease stays as it is, and is read again later.

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

/// How often expired Leases are looked for.
const TICK: Duration = Duration::from_secs(1);
/// After how many ticks the memory that a burst of work took is given back.
const GIVING_BACK: u32 = 10;
/// How long the reads of one tick may take; the Leases that were not read by then are read later.
const LONGEST_READ: Duration = Duration::from_secs(2);
/// How many Leases are read at a time.
const READS: usize = 16;
/// The least time between two restarts of a watch, each of which lists all Leases.
const BETWEEN_RESTARTS: Duration = Duration::from_secs(30);

/// The watch of the Leases in one scope.
pub(super) struct LeaseWatch {
    /// As [`WatchHealth`] names it.
    pub(super) name: String,
    pub(super) scope: Scope,
    /// Starts the watch again from a list.
    pub(super) restart: Arc<Notify>,
    /// When that was done last, since boot.
    pub(super) restarted_at: Option<Duration>,
}

/// Returns the groups whose Leases expire.
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
        if ticks % GIVING_BACK == GIVING_BACK - 1 {
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
        let unseen: Vec<&Scope> = failing.map(|watch| &watch.scope).collect();
        let due = self.cache.due_leases(&unseen);
        if due.is_empty() {
            return Vec::new();
        }
        let (groups, missed) = self.confirm(due).await;
        for (namespace, name) in missed {
            self.restart_watch_of(&namespace, &name);
        }
        groups
    }

    /// Reads the Leases. Returns the groups that need a reconcile, and the Leases of which the watch has not shown what the
    /// read has.
    async fn confirm(&self, due: Vec<(String, String)>) -> (Vec<GroupRef>, Vec<(String, String)>) {
        let clock = &self.cache.clock;
        let reads = stream::iter(due).map(|(namespace, name)| read(self.client.clone(), namespace, name));
        let late = clock.sleep_until(clock.since_boot() + LONGEST_READ);
        let mut reads = pin!(reads.buffer_unordered(READS).take_until(late));
        let (mut groups, mut missed) = (Vec::new(), Vec::new());
        while let Some((namespace, name, result)) = reads.next().await {
            match result {
                Ok(lease) => {
                    let (touched, is_news) = self.cache.confirm_expiry(&namespace, &name, lease.as_ref());
                    groups.extend(touched);
                    if is_news {
                        missed.push((namespace, name));
                    }
                }
                Err(error) => {
                    debug!("cannot get lease {namespace}/{name} to see whether it expired: {}", describe(&error));
                }
            }
        }
        (groups, missed)
    }

    /// The watch has not shown for a whole lease duration what a read has shown.
    fn restart_watch_of(&mut self, namespace: &str, name: &str) {
        let now = self.cache.clock.since_boot();
        let Some(watch) = self.watches.iter_mut().find(|watch| watch.scope.holds(namespace)) else { return };
        if watch.restarted_at.is_some_and(|at| now < at + BETWEEN_RESTARTS) {
            return;
        }
        watch.restarted_at = Some(now);
        warn!("the watch of {} has not shown a change of lease {namespace}/{name}: starting it again", watch.name);
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
