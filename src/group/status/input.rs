//! What the status is made of: facts, and what was decided and done.

use crate::api::names::ChangeReason;
use crate::api::{ElectionGroupStatus, InjectionStatus, RolloutStatus};
use crate::group::judge::candidate_update::{Offer, Update};
use crate::group::judge::step_down::StepDown;
use crate::group::observed::lease::LeaseView;
use crate::group::observed::pod::PodView;
use crate::group::observed::{DeploymentView, Facts, Outcome};

/// Why `holder` gave its term up, where more is known than the Lease tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedBy {
    /// The holder whose term it is.
    pub holder: String,
    /// Such as [`ChangeReason::SteppedDown`] or [`ChangeReason::KubeletReported`].
    pub reason: ChangeReason,
}

impl EndedBy {
    /// That the last term that `before` knows was ended for `reason`, if it is the one that a Lease counted as `transitions`.
    pub fn of_term(before: &ElectionGroupStatus, transitions: i32, reason: ChangeReason) -> Option<Self> {
        let last = before.history.first()?;
        let counted = transitions.saturating_add(before.lease_transitions_offset.unwrap_or_default());
        (last.lease_transitions == Some(counted)).then(|| Self { holder: last.holder_identity.clone(), reason })
    }
}

/// What the status is to record of the operator's additions to the pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum InjectionRecord {
    /// What it records already: the pods were not changed.
    #[default]
    Keep,
    /// What the pods have now.
    Set(InjectionStatus),
    /// Nothing: the pods have nothing of the operator's, as in mode Native.
    Remove,
}

impl InjectionRecord {
    /// The record that follows `before`.
    pub(in crate::group) fn after<'a>(&'a self, before: Option<&'a InjectionStatus>) -> Option<&'a InjectionStatus> {
        match self {
            Self::Keep => before,
            Self::Set(injection) => Some(injection),
            Self::Remove => None,
        }
    }
}

/// Everything that the status is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// What became of the children.
    pub outcome: Outcome,
    /// The Deployment, if there is one.
    pub deployment: Option<DeploymentView>,
    /// The Lease, if there is one.
    pub lease: Option<LeaseView>,
    /// The group's pods.
    pub pods: Vec<PodView>,
    /// The operator that observed this, as `status.operator` names it.
    pub operator: Option<String>,
    /// The newest pod that the kubelet ended by itself and that has not been collected yet, and why.
    pub eviction: Option<String>,
    /// What the pods get on top of the user's template.
    pub injection: InjectionRecord,
    /// Why the last holder gave up, if the operator knows who asked for it. Speaks only of the holder that it names.
    pub ended: Option<EndedBy>,
    /// What became of a step-down that was asked for.
    pub step_down: StepDown,
    /// How far the newest revision has got.
    pub rollout: Option<RolloutStatus>,
    /// What the rollout waits for, as a sentence without numbers that change.
    pub waiting: Option<String>,
    /// Whether somebody leads whose program is not ready.
    pub unready: bool,
    /// The candidate that this operator adds now; `None` if that is not to be compared.
    pub offer: Option<Offer>,
    /// What becomes of a request for that candidate.
    pub update: Update,
}

impl Observed {
    /// The facts among it.
    pub fn facts(&self) -> Facts<'_> {
        Facts { outcome: &self.outcome, lease: self.lease.as_ref(), pods: &self.pods }
    }
}
