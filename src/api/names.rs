//! Names on the wire outside the resource's own fields. Changing one breaks every user that matches on it.

use std::fmt;

/// The API group, and the prefix of our labels and annotations.
pub const GROUP: &str = "k8sensus.dev";
/// The API version.
pub const VERSION: &str = "v1alpha1";
/// The kind.
pub const KIND: &str = "ElectionGroup";

/// The prefix of reserved labels and annotations, which users may not set in a template.
pub const RESERVED_PREFIX: &str = "k8sensus.dev/";
/// The limit of characters of a group's name: the names of its ReplicaSets are a dash and ten characters longer, and
/// must fit into the 63 characters of a label.
pub const MAX_NAME_LENGTH: usize = 52;
/// The field manager of every server-side apply of the operator.
pub const FIELD_MANAGER: &str = "k8sensus-operator";
/// The name of the container for `spec.image`.
pub const SHORTCUT_CONTAINER: &str = "app";
/// The readiness gate of Exec and Sidecar pods: true once the pod's revision has led well.
pub const PROVEN_GATE: &str = "k8sensus.dev/proven";

/// Label keys and values.
pub mod label {
    /// On every child and pod: the group's name.
    pub const GROUP: &str = "k8sensus.dev/group";
    /// On pods: [`ROLE_LEADER`] or [`ROLE_STANDBY`]. For users and policies; traffic follows the EndpointSlice.
    pub const ROLE: &str = "k8sensus.dev/role";
    /// The role of the pod that holds the Lease.
    pub const ROLE_LEADER: &str = "leader";
    /// The role of every other pod of the group.
    pub const ROLE_STANDBY: &str = "standby";
    /// On pods: the hash of their pod template.
    pub const REVISION: &str = "k8sensus.dev/revision";
    /// The label recommended by Kubernetes for the tool that manages an object.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// The value of [`MANAGED_BY`] on every child.
    pub const MANAGED_BY_VALUE: &str = "k8sensus";
}

/// Annotation keys.
pub mod annotation {
    /// On the group, and copied to the Lease: when a step-down was requested. Any new value is a new request.
    pub const STEP_DOWN_REQUESTED_AT: &str = "k8sensus.dev/step-down-requested-at";
    /// On the group: when the operator's current candidate was requested for its pods. Any new value is a new request.
    pub const UPDATE_CANDIDATE_REQUESTED_AT: &str = "k8sensus.dev/update-candidate-requested-at";
    /// On pods of mode Exec: the seconds for which every candidate waits if the Lease was deleted and recreated, so
    /// that the pod's program can use its whole grace period. The operator respects it when it creates the Lease.
    pub const RECREATED_LEASE_SECONDS: &str = "k8sensus.dev/recreated-lease-seconds";
    /// On the leader's pod: a ReplicaSet that is scaled down removes the pod with the highest value last.
    pub const POD_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    /// The value that the operator sets, above any that users are likely to set.
    pub const LEADER_DELETION_COST: &str = "1000000";
    /// On children: the hash of what was last applied, so that an unchanged child is not applied again.
    pub const APPLIED_HASH: &str = "k8sensus.dev/applied-hash";
}

/// The types of `status.conditions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// There is a leader, and all wanted pods are ready.
    Ready,
    /// The Lease is held and has not expired.
    LeaderElected,
    /// A standby on another node could take over now.
    FailoverReady,
    /// Work is under way; absent otherwise (abnormal-true, as kstatus has it).
    Reconciling,
    /// No progress without a change from outside; absent otherwise (abnormal-true, as kstatus has it).
    Stalled,
    /// The pods have another candidate than this operator adds now; absent otherwise. The group works nevertheless.
    CandidateOutdated,
}

impl ConditionType {
    /// All types, in the order of the status.
    pub const ALL: [Self; 6] = [
        Self::Ready,
        Self::LeaderElected,
        Self::FailoverReady,
        Self::Reconciling,
        Self::Stalled,
        Self::CandidateOutdated,
    ];

    /// Returns the name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::LeaderElected => "LeaderElected",
            Self::FailoverReady => "FailoverReady",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::CandidateOutdated => "CandidateOutdated",
        }
    }

    /// Returns the reasons that this condition may have.
    pub const fn reasons(self) -> &'static [Reason] {
        use Reason::*;
        match self {
            Self::Ready => &[LeaderElected, NoLeader, InsufficientReplicas, Suspended, Invalid, Conflict],
            Self::LeaderElected => &[LeaseHeld, LeaseExpired, LeaseReleased, NoCandidates, Suspended],
            Self::FailoverReady => &[StandbyReady, SingleReplica, NoReadyStandby, StandbysOnSameNode, LeaderFlapping],
            Self::Reconciling => &[RollingOut, Scaling],
            Self::Stalled => &[Invalid, Conflict, ProgressDeadlineExceeded, Forbidden, RevisionFailed],
            Self::CandidateOutdated => &[InjectionNewer, InjectionOlder, ImageDiffers, VersionDiffers, UpdatePending],
        }
    }
}

/// The reasons of conditions. [`ConditionType::reasons`] maps them to conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Ready: there is a leader, and enough pods are ready.
    LeaderElected,
    /// Not Ready: there is no leader.
    NoLeader,
    /// Not Ready: there is a leader, but fewer pods are ready than wanted.
    InsufficientReplicas,
    /// The group is suspended: no pod may lead.
    Suspended,
    /// The spec breaks a rule that the CRD did not check, or the API server refused an object as invalid.
    Invalid,
    /// An object with a required name exists and does not belong to the group.
    Conflict,
    /// The Lease is held and valid.
    LeaseHeld,
    /// The Lease has expired, or was recreated: the pods wait until its former holder has stopped.
    LeaseExpired,
    /// The last holder released the Lease, and no pod has acquired it yet.
    LeaseReleased,
    /// There is no pod that could lead, or no Lease that it could acquire.
    NoCandidates,
    /// There is a ready standby on another node than the leader's.
    StandbyReady,
    /// Fewer than two replicas are wanted: there is no standby to fail over to.
    SingleReplica,
    /// Standbys are wanted, but none is ready.
    NoReadyStandby,
    /// Every ready standby is on the leader's node and would fail with it.
    StandbysOnSameNode,
    /// Leadership moves from pod to pod within a short time, because the programs of all leaders fail.
    LeaderFlapping,
    /// A new revision is being rolled out.
    RollingOut,
    /// Pods are being added or removed.
    Scaling,
    /// The rollout made no progress within its deadline.
    ProgressDeadlineExceeded,
    /// The API server denies the operator a permission that it needs.
    Forbidden,
    /// A new revision was given leadership and did not work; the former one leads again.
    RevisionFailed,
    /// A newer operator made the pods, with an injection revision that this operator does not know.
    InjectionNewer,
    /// The pods have an older injection revision than this operator's.
    InjectionOlder,
    /// The pods have another candidate image than this operator would add.
    ImageDiffers,
    /// The leader's candidate reports another version than the operator expects, or none.
    VersionDiffers,
    /// The current candidate was requested, and the update has not started yet.
    UpdatePending,
}

impl Reason {
    /// Returns the name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LeaderElected => "LeaderElected",
            Self::NoLeader => "NoLeader",
            Self::InsufficientReplicas => "InsufficientReplicas",
            Self::Suspended => "Suspended",
            Self::Invalid => "Invalid",
            Self::Conflict => "Conflict",
            Self::LeaseHeld => "LeaseHeld",
            Self::LeaseExpired => "LeaseExpired",
            Self::LeaseReleased => "LeaseReleased",
            Self::NoCandidates => "NoCandidates",
            Self::StandbyReady => "StandbyReady",
            Self::SingleReplica => "SingleReplica",
            Self::NoReadyStandby => "NoReadyStandby",
            Self::StandbysOnSameNode => "StandbysOnSameNode",
            Self::RollingOut => "RollingOut",
            Self::Scaling => "Scaling",
            Self::ProgressDeadlineExceeded => "ProgressDeadlineExceeded",
            Self::Forbidden => "Forbidden",
            Self::LeaderFlapping => "LeaderFlapping",
            Self::RevisionFailed => "RevisionFailed",
            Self::InjectionNewer => "InjectionNewer",
            Self::InjectionOlder => "InjectionOlder",
            Self::ImageDiffers => "ImageDiffers",
            Self::VersionDiffers => "VersionDiffers",
            Self::UpdatePending => "UpdatePending",
        }
    }
}

/// Why leadership became free: the reasons of `status.history` and `status.leaderless`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeReason {
    /// There was no leader before: the first election of the group.
    Elected,
    /// The holder released the Lease.
    LeaseReleased,
    /// The holder released the Lease because a step-down was requested.
    SteppedDown,
    /// The holder handed over to a pod of the newest revision, or back to a pod of the former revision.
    Rollout,
    /// The holder released the Lease because its program had not been ready for too long.
    Unhealthy,
    /// The holder released the Lease because its pod was being deleted.
    Draining,
    /// The operator released the Lease because the kubelet reported the end of the holder's container.
    KubeletReported,
    /// The holder did not renew the Lease for its duration.
    LeaseExpired,
    /// The Lease was deleted.
    LeaseDeleted,
    /// The same pod acquired the Lease again before it had expired, as a restarted container does.
    HolderRestarted,
    /// How the former term ended was not observed.
    NotObserved,
}

impl ChangeReason {
    /// All reasons.
    pub const ALL: [Self; 11] = [
        Self::Elected,
        Self::LeaseReleased,
        Self::SteppedDown,
        Self::Rollout,
        Self::Unhealthy,
        Self::Draining,
        Self::KubeletReported,
        Self::LeaseExpired,
        Self::LeaseDeleted,
        Self::HolderRestarted,
        Self::NotObserved,
    ];

    /// Returns the name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Elected => "Elected",
            Self::LeaseReleased => "LeaseReleased",
            Self::SteppedDown => "SteppedDown",
            Self::Rollout => "Rollout",
            Self::Unhealthy => "Unhealthy",
            Self::Draining => "Draining",
            Self::KubeletReported => "KubeletReported",
            Self::LeaseExpired => "LeaseExpired",
            Self::LeaseDeleted => "LeaseDeleted",
            Self::HolderRestarted => "HolderRestarted",
            Self::NotObserved => "NotObserved",
        }
    }

    /// Returns the reason with that name on the wire, `None` if there is none.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

/// The reasons of Events. Events of a stalled group have the reasons of condition Stalled.
pub mod event {
    /// A pod acquired the Lease.
    pub const LEADER_ELECTED: &str = "LeaderElected";
    /// A holder whose Lease had expired renews it again.
    pub const LEADER_RECOVERED: &str = "LeaderRecovered";
    /// The leader is lost and has not released the Lease.
    pub const LEADER_LOST: &str = "LeaderLost";
    /// The leader released the Lease, and no pod has acquired it yet.
    pub const LEADER_RELEASED: &str = "LeaderReleased";
    /// The leader released the Lease because a step-down was requested.
    pub const STEPPED_DOWN: &str = "SteppedDown";
    /// A requested step-down waits until the group's owner changes something.
    pub const STEP_DOWN_PENDING: &str = "StepDownPending";
    /// A requested step-down would do harm or nothing now: it is carried out once that has changed.
    pub const STEP_DOWN_REFUSED: &str = "StepDownRefused";
    /// The leader was asked to step down.
    pub const STEP_DOWN_REQUESTED: &str = "StepDownRequested";
    /// A requested step-down has ended a term, or there was none to end.
    pub const STEP_DOWN_HANDLED: &str = "StepDownHandled";
    /// A revision of the pod template has led well: the rest of the pods follow.
    pub const REVISION_PROVEN: &str = "RevisionProven";
    /// The leader's program was not ready for too long: the leader was asked to step down.
    pub const LEADER_UNHEALTHY: &str = "LeaderUnhealthy";
    /// Leadership moves from pod to pod within a short time.
    pub const LEADER_FLAPPING: &str = "LeaderFlapping";
    /// The operator recreated a missing Lease.
    pub const LEASE_RECREATED: &str = "LeaseRecreated";
    /// The pods get another candidate without a change of their template.
    pub const CANDIDATE_UPDATED: &str = "CandidateUpdated";
    /// Another operator reconciles the group, or did.
    pub const OTHER_OPERATOR: &str = "OtherOperator";
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
