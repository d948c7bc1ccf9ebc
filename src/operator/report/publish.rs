//! The metrics of reconciling.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tracing::warn;

use crate::api::{ConditionType, ElectionGroup};
use crate::group::observed::Outcome;
use crate::name::qualified_name;

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

/// Counts the reconcile, and logs a problem that the status did not report before.
pub(crate) fn publish(resource: &ElectionGroup, outcome: &Outcome, metrics: &Metrics) {
    let (label, why) = match outcome {
        Outcome::Applied => return metrics.count(ResultLabel::Applied),
        Outcome::Invalid(why) => (ResultLabel::Invalid, why),
        Outcome::Conflict(why) => (ResultLabel::Conflict, why),
        Outcome::Forbidden(why) => (ResultLabel::Forbidden, why),
    };
    metrics.count(label);
    let stalled =
        |condition: &Condition| condition.type_ == ConditionType::Stalled.as_str() && condition.message == *why;
    if !resource.status.as_ref().is_some_and(|status| status.conditions.iter().any(stalled)) {
        warn!(group = qualified_name(resource), "{why}");
    }
}
