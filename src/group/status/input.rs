//! The inputs of the status: facts, decisions and results.

use crate::api::InjectionStatus;
use crate::judge::Judgement;
use crate::judge::candidate_update::{Offer, Update};
use crate::judge::step_down::StepDown;
use crate::observed::Facts;

/// The change of `status.injection`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum InjectionRecord {
    /// Keep the recorded injection: the pods were not changed.
    #[default]
    Keep,
    /// Record this injection: the pods have it now.
    Set(InjectionStatus),
    /// Record none: the operator adds no candidate to the pods, as in mode Native.
    Remove,
}

impl InjectionRecord {
    /// Returns the record that follows `before`.
    pub(crate) fn after<'a>(&'a self, before: Option<&'a InjectionStatus>) -> Option<&'a InjectionStatus> {
        match self {
            Self::Keep => before,
            Self::Set(injection) => Some(injection),
            Self::Remove => None,
        }
    }
}

/// Everything that the status is built from, besides the former status: the facts, whose types are in
/// [`observed`](crate::observed), and what the reconcile decided and did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// The facts after the children were applied.
    pub facts: Facts,
    /// What follows from them.
    pub judgement: Judgement,
    /// The outcome of a step-down.
    pub step_down: StepDown,
    /// What the operator adds to the user's template.
    pub injection: InjectionRecord,
    /// The operator that reports this, as `status.operator` names it.
    pub operator: Option<String>,
    /// The candidate that this operator adds now; `None` if it must not be compared.
    pub offer: Option<Offer>,
    /// The outcome of a request for that candidate.
    pub update: Update,
}
