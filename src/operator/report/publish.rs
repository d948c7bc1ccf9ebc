//! The metrics of reconciling.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The operator's own metrics. Names of groups and holders are never labels: their number has no bound.
#[derive(Clone, Default)]
pub(crate) struct Metrics {
    reconciles: Family<Result, Counter>,
    leader_changes: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Result {
    result: ResultLabel,
}

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub(crate) enum ResultLabel {
    Applied,
    Invalid,
    Conflict,
    Forbidden,
    Failed,
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "k8sensus_reconciles",
            "Reconciliations of ElectionGroups, by how they ended",
            self.reconciles.clone(),
        );
        registry.register(
            "k8sensus_leader_changes",
            "Changes of a group's holder that this operator has written into a status",
            self.leader_changes.clone(),
        );
    }

    pub(crate) fn count(&self, result: ResultLabel) {
        self.reconciles.get_or_create(&Result { result }).inc();
    }

    pub(crate) fn leader_changed(&self) {
        self.leader_changes.inc();
    }
}
