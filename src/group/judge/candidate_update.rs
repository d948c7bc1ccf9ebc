//! Whether the pods of a group have the operator's current candidate program, and the request to update them to it.
//!
//! An upgrade of the operator restarts no pod, so the pods of a group keep the image and the injection revision that
//! the status records. Condition `CandidateOutdated` is True where these, or the version that the leader's candidate
//! reports, differ from the operator's own. The annotation `k8sensus.dev/update-candidate-requested-at` requests the
//! operator's own:
//!
//! 1. The operator records its image and revision, and the request as handled, in one write of the status.
//! 2. The pod template follows the record, and the ordinary rollout moves the leader once.
//!
//! An operator that restarts after any of these steps continues from the record.

use crate::api::names::annotation::UPDATE_CANDIDATE_REQUESTED_AT;
use crate::api::{ConditionType, ElectionGroup, ElectionGroupStatus, InjectionStatus};
use crate::observed::lease::{LeaseView, is_candidate};
use crate::observed::pod::PodView;
use crate::spec::group::Group;
use crate::spec::injection;

/// The candidate that this operator adds to pods now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Image of the candidate program.
    pub image: String,
    /// The injection revision.
    pub revision: i32,
    /// The version that the program of that image is expected to report.
    pub version: String,
}

impl Offer {
    /// Returns the candidate of `image` at the newest injection revision of this operator.
    pub fn new(image: &str, version: &str) -> Self {
        Self { image: image.to_owned(), revision: injection::REVISION, version: version.to_owned() }
    }

    /// Returns what the status records when the pods of `group` get this candidate.
    pub fn injection(&self, group: &Group) -> InjectionStatus {
        let template_hash = Some(injection::hash(&group.template));
        InjectionStatus { image: self.image.clone(), revision: self.revision, template_hash }
    }

    fn matches(&self, recorded: &InjectionStatus) -> bool {
        (&self.image, self.revision) == (&recorded.image, recorded.revision)
    }
}

/// The outcome of a request for the operator's current candidate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Update {
    /// There is no request, or it was handled before.
    #[default]
    None,
    /// The request is handled and changes nothing.
    Done {
        /// The request.
        value: String,
    },
    /// The pods get the current candidate.
    Replace {
        /// The request; `None` where the group needs no request.
        value: Option<String>,
        /// Whether the group has a leader, so that leadership moves.
        moves_leader: bool,
    },
    /// The request waits.
    Pending {
        /// What the request waits for, as a sentence without numbers that change.
        why: String,
        /// Whether it waits for the updates of other groups.
        for_others: bool,
    },
}

impl Update {
    /// Returns the request that this outcome handles.
    pub(crate) fn handled(&self) -> Option<String> {
        match self {
            Self::Done { value } => Some(value.clone()),
            Self::Replace { value, .. } => value.clone(),
            Self::None | Self::Pending { .. } => None,
        }
    }

    fn pending(why: &str) -> Self {
        Self::Pending { why: why.to_owned(), for_others: false }
    }
}

/// The inputs of the decision.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The group as the API server has it.
    pub resource: &'a ElectionGroup,
    /// Its spec, `None` if it is invalid.
    pub group: Option<&'a Group>,
    /// The Lease, if there is one.
    pub lease: Option<&'a LeaseView>,
    /// The group's pods.
    pub pods: &'a [PodView],
    /// The candidate that the operator adds now.
    pub offer: &'a Offer,
}

/// Decides whether the group's pods get the operator's current candidate.
pub fn decide(question: &Question<'_>) -> Update {
    let Question { resource, group, lease, pods, offer } = *question;
    let annotations = resource.metadata.annotations.as_ref();
    let requested = annotations.and_then(|annotations| annotations.get(UPDATE_CANDIDATE_REQUESTED_AT));
    let status = resource.status.as_ref();
    let handled = status.and_then(|status| status.last_handled_candidate_update_at.as_ref());
    let value = requested.filter(|value| !value.is_empty() && Some(*value) != handled).cloned();
    let is_new = status.is_none_or(|status| status.observed_generation.is_none());
    let is_led = lease.is_some_and(|lease| !lease.expired && is_candidate(&lease.holder))
        || status.is_some_and(|status| status.holder_identity.is_some());
    let recorded = status.and_then(|status| status.injection.as_ref());
    let Some(recorded) = recorded.filter(|_| group.is_none_or(|group| group.mode.has_candidate()) && !is_new) else {
        // A manifest that was restored or copied moves no leader. A new group gets the current candidate anyway.
        return value.map_or(Update::None, |value| Update::Done { value });
    };
    let Some(value) = value else {
        let was_led = is_led || status.is_some_and(|status| !status.history.is_empty());
        let is_stuck = pods.iter().any(|pod| pod.candidate_stuck && !pod.terminating);
        let is_free = group.is_some_and(|group| !group.paused) && !was_led && is_stuck && !offer.matches(recorded);
        return if is_free { Update::Replace { value: None, moves_leader: false } } else { Update::None };
    };
    match group {
        _ if offer.matches(recorded) => Update::Done { value },
        None => Update::pending("the requested update waits until the spec is valid"),
        Some(group) if group.paused => Update::pending("the requested update waits until spec.paused is false"),
        Some(_) => Update::Replace { value: Some(value), moves_leader: is_led },
    }
}

/// Whether the rollout of an update has ended, judged by a status that was written after the update started.
pub fn is_rolled_out(status: &ElectionGroupStatus) -> bool {
    let unfinished = [ConditionType::Reconciling, ConditionType::Stalled].map(ConditionType::as_str);
    !status.conditions.iter().any(|condition| unfinished.contains(&condition.type_.as_str()))
}
