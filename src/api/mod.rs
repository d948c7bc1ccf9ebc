//! The wire types of [`ElectionGroup`] (`k8sensus.dev/v1alpha1`) and the generator of its CRD, without IO and without a
//! clock.
//!
//! - [`spec`]: the user's input, with bounds, defaults and the descriptions that `kubectl explain` prints.
//! - [`status`]: the operator's report.
//! - [`names`]: labels, annotations, condition types and reasons: every name that others may match on.
//! - [`rules`]: the CEL rules as data. They cover relations between fields; the bounds of one field are at the field.
//! - [`schema`]: turns the derived schema into one that an API server accepts and that stays small.
//! - [`mod@crd`]: the finished CustomResourceDefinition, as an object and as the committed file.
//!
//! Parse manifests with `serde_json` (YAML by way of a `serde_json::Value`): the pod template is kept as raw JSON,
//! which no other format can produce.

pub mod crd;
pub mod names;
pub mod rules;
pub mod schema;
pub mod spec;
pub mod status;

pub use crd::{crd, crd_yaml};
pub use names::{ConditionType, GROUP, KIND, Reason, VERSION};
pub use spec::{
    CandidateSpec, DisruptionBudgetSpec, ElectionGroup, ElectionGroupSpec, ElectionSpec, LeaderServicePort,
    LeaderServiceSpec, Mode, ServiceAccountSpec, ServiceType,
};
pub use status::{
    CandidateStatus, ElectionGroupStatus, HistoryEntry, InjectionStatus, LeaderStatus, LeaderlessStatus, RolloutStatus,
};
