//! The inputs of the status: facts, decisions and results.

use crate::api::names::ChangeReason;
use crate::api::{ElectionGroupStatus, InjectionStatus, RolloutStatus};
use crate::judge::candidate_update::{Offer, Update};
use crate::judge::step_down::StepDown;
use crate::observed::lease::LeaseView;
use crate::observed::pod::PodView;
use crate::observed::{DeploymentView, Facts, Outcome};

/// Why the term of `holder` ended, where the operator knows more than the Lease shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedBy {
    /// The holder whose term ended.
    pub holder: String,
    /// Such as [`ChangeReason::SteppedDown`] or [`ChangeReason::KubeletReported`].
    pub reason: ChangeReason,
}

impl EndedBy {
    /// Returns `reason` for the newest term in `before`, if the Lease counted that term as `transitions`.
    pub fn of_term(before: &ElectionGroupStatus, transitions: i32, reason: ChangeReason) -> Option<Self> {
        let last = before.history.first()?;
        let counted = transitions.saturating_add(before.lease_transitions_offset.unwrap_or_default());
        (last.lease_transitions == Some(counted)).then(|| Self { holder: last.holder_identity.clone(), reason })
    }
}

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

/// Everything that the status is built from, besides the former status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The result of applying the children.
    pub outcome: Outcome,
    /// The Deployment, if there is one.
    pub deployment: Option<DeploymentView>,
    /// The Lease, if there is one.
    pub lease: Option<LeaseView>,
    /// The group's pods.
    pub pods: Vec<PodView>,
    /// The operator that observed this, as `status.operator` names it.
    pub operator: Option<String>,
    /// The newest pod that the kubelet ended by itself and that is not garbage-collected yet, and why it was ended.
    pub eviction: Option<String>,
    /// What the operator adds to the user's template.
    pub injection: InjectionRecord,
    /// Why the last term ended, if the operator caused that. Applies only to the holder that it names.
    pub ended: Option<EndedBy>,
    /// The outcome of a step-down.
    pub step_down: StepDown,
    /// The progress of the newest revision.
    pub rollout: Option<RolloutStatus>,
    /// What the rollout waits for, as a sentence without numbers that change.
    pub waiting: Option<String>,
    /// Whether there is a leader whose program is not ready.
    pub unready: bool,
    /// The candidate that this operator adds now; `None` if it must not be compared.
    pub offer: Option<Offer>,
    /// The outcome of a request for that candidate.
    pub update: Update,
}

impl Observed {
    /// Returns the facts.
    pub fn facts(&self) -> Facts<'_> {
        Facts { outcome: &self.outcome, lease: self.lease.as_ref(), pods: &self.pods }
    }
}
