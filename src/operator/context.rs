//! What every step of a reconcile uses.

use std::sync::Arc;
use std::time::Duration;

use kube::{Client, ResourceExt};

use crate::api::ElectionGroup;
use crate::cache::{Cache, Memory};
use crate::group::judge::candidate_update::Offer;
use crate::lease::LeaseWriter;
use crate::others::OtherOperators;
use crate::report::events::Recorder;
use crate::report::publish::Metrics;
use crate::runtime::clock::Clock;
use crate::steps::apply::Applier;

/// The delay before the first retry of a request that failed.
pub(crate) const FIRST_BACKOFF: Duration = Duration::from_millis(500);

/// The delay before a failed write of the Lease or of a pod is retried.
pub(crate) const RETRY: Duration = Duration::from_secs(10);

/// The clients, the cache and the settings of one term of the operator's leadership.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) cache: Cache,
    pub(super) applier: Applier,
    pub(super) leases: LeaseWriter,
    pub(super) offer: Offer,
    /// The namespace and name of this operator's own Lease: `k8sensus-system/k8sensus-operator`.
    pub(super) operator: String,
    pub(super) others: OtherOperators,
    pub(super) metrics: Metrics,
    pub(super) events: Recorder,
}

/// Changes the operator's memory of `resource`. Returns `None` if the group is gone.
pub(super) fn remember<T>(
    resource: &ElectionGroup,
    context: &Context,
    change: impl FnOnce(&mut Memory) -> T,
) -> Option<T> {
    context.cache.remember(&resource.namespace().unwrap_or_default(), &resource.name_any(), change)
}
