//! The state of a group in one word.

use serde::Serialize;

use super::lease::LeasePicture;
use crate::api::names::{ConditionType, Reason};
use crate::api::status::NOT_OBSERVED;
use crate::api::{ElectionGroup, ElectionGroupStatus};

/// The state of a group: the first of these that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum State {
    /// No operator has reconciled it.
    NotReconciled,
    /// It makes no progress without a change from outside.
    Stalled,
    /// It is suspended, or scaled to 0: no pod is to lead.
    Suspended,
    /// No pod leads.
    Leaderless,
    /// A pod leads, and a change is under way.
    Changing,
    /// A pod leads, and condition FailoverReady is False although a standby is wanted.
    NoFailover,
    /// A pod leads.
    Led,
}

impl State {
    /// Returns the state by the conditions, and by the Lease where it is readable and so newer.
    pub fn of(group: &ElectionGroup, lease: Option<&LeasePicture>) -> Self {
        let status = group.status.clone().unwrap_or_default();
        let is_true = |kind| condition(&status, kind).is_some_and(|found| found.status == "True");
        let is_led = match lease {
            Some(lease) => lease.validity.is_led(),
            None => is_true(ConditionType::LeaderElected),
        };
        let no_failover = condition(&status, ConditionType::FailoverReady)
            .is_some_and(|found| found.status == "False" && found.reason != Reason::SingleReplica.as_str());
        if status.observed_generation.unwrap_or(NOT_OBSERVED) < 0 {
            Self::NotReconciled
        } else if is_true(ConditionType::Stalled) {
            Self::Stalled
        } else if (group.spec.suspend || group.spec.replicas == 0) && !is_led {
            Self::Suspended
        } else if !is_led {
            Self::Leaderless
        } else if is_true(ConditionType::Reconciling) {
            Self::Changing
        } else if no_failover {
            Self::NoFailover
        } else {
            Self::Led
        }
    }

    /// Returns the state as it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotReconciled => "NotReconciled",
            Self::Stalled => "Stalled",
            Self::Suspended => "Suspended",
            Self::Leaderless => "Leaderless",
            Self::Changing => "Changing",
            Self::NoFailover => "NoFailover",
            Self::Led => "Led",
        }
    }
}

/// Returns the condition of that type.
pub fn condition(
    status: &ElectionGroupStatus,
    kind: ConditionType,
) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind.as_str())
}
