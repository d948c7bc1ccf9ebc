//! Names that stand on the wire outside the resource's own fields. Changing one breaks whoever matches on it.

use std::fmt;

/// The API group; also the prefix of every label and annotation of ours.
pub const GROUP: &str = "k8sensus.dev";
/// The API version.
pub const VERSION: &str = "v1alpha1";
/// The kind.
pub const KIND: &str = "ElectionGroup";

/// What reserved labels and annotations begin with: users may not set these in a template.
pub const RESERVED_PREFIX: &str = "k8sensus.dev/";
/// Most characters a group's name may have: its ReplicaSets' names, a dash and ten characters longer, must fit into
/// the 63 of a label.
pub const MAX_NAME_LENGTH: usize = 52;
/// The field manager of every server-side apply of the operator.
pub const FIELD_MANAGER: &str = "k8sensus-operator";
/// The container that the `image` shortcut makes.
pub const SHORTCUT_CONTAINER: &str = "app";
/// The readiness gate of Exec and Sidecar pods: true once the pod's revision has led well.
pub const PROVEN_GATE: &str = "k8sensus.dev/proven";

/// Label keys and values.
pub mod label {
    /// On every child and pod: the group's name.
    pub const GROUP: &str = "k8sensus.dev/group";
    /// On pods: [`ROLE_LEADER`] or [`ROLE_STANDBY`]. For people and policies; traffic follows the EndpointSlice.
    pub const ROLE: &str = "k8sensus.dev/role";
    /// The role of the pod that holds the Lease.
    pub const ROLE_LEADER: &str = "leader";
    /// The role of every other pod of the group.
    pub const ROLE_STANDBY: &str = "standby";
    /// On pods: which pod template they were made of, as a hash.
    pub const REVISION: &str = "k8sensus.dev/revision";
    /// The label recommended by Kubernetes that says which tool manages an object.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// The value of [`MANAGED_BY`] on every child.
    pub const MANAGED_BY_VALUE: &str = "k8sensus";
}

/// Annotation keys.
pub mod annotation {
    /// On the group (and carried to the Lease): when a step-down was asked for; any new value asks again.
    pub const STEP_DOWN_REQUESTED_AT: &str = "k8sensus.dev/step-down-requested-at";
    /// On the group: when the operator's present candidate was requested for its pods; any new value requests it again.
    pub const UPDATE_CANDIDATE_REQUESTED_AT: &str = "k8sensus.dev/update-candidate-requested-at";
    /// On pods of mode Exec: for how many seconds every candidate waits where the Lease was deleted and made again, so that the
    /// pod's program can use its whole grace. The operator keeps to it when it creates the Lease.
    pub const RECREATED_LEASE_SECONDS: &str = "k8sensus.dev/recreated-lease-seconds";
    /// On the leader's pod: what a ReplicaSet that is scaled down removes last.
    pub const POD_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    /// What the operator sets there: above what anybody else would.
    pub const LEADER_DELETION_COST: &str = "1000000";
    /// On children: the hash of what was last applied, so that an unchanged child is not applied again.
    pub const APPLIED_HASH: &str = "k8sensus.dev/applied-hash";
}

/// The types of `status.conditions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// There is a leader, and as many pods are ready as were asked for.
    Ready,
    /// Somebody holds the Lease and its time has not run out.
    LeaderElected,
    /// A standby on another node could take over now.
    FailoverReady,
    /// Work is under way; absent otherwise (abnormal-true, as kstatus has it).
    Reconciling,
    /// No progress without a change from outside; absent otherwise (abnormal-true, as kstatus has it).
    Stalled,
    /// The pods have another candidate than this operator adds now; absent otherwise. Nothing waits for it: the group works.
    CandidateOutdated,
}

impl ConditionType {
    /// All of them, in the order of status.
    pub const ALL: [Self; 6] = [
        Self::Ready,
        Self::LeaderElected,
        Self::FailoverReady,
        Self::Reconciling,
        Self::Stalled,
        Self::CandidateOutdated,
    ];

    /// The word on the wire.
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

    /// The reasons this condition may carry.
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

/// The reasons of conditions; which condition may carry which: [`ConditionType::reasons`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Ready: a leader is there and enough pods are ready.
    LeaderElected,
    /// Not Ready: nobody leads.
    NoLeader,
    /// Not Ready: somebody leads, but fewer pods are ready than asked for.
    InsufficientReplicas,
    /// The group is suspended: nobody is meant to lead.
    Suspended,
    /// The spec breaks a rule (only possible when the CRD was bypassed).
    Invalid,
    /// An object of a name that we need exists and is not ours.
    Conflict,
    /// The Lease is held and valid.
    LeaseHeld,
    /// The Lease's last holder let its time run out.
    LeaseExpired,
    /// The Lease's last holder gave it back and nobody has taken it yet.
    LeaseReleased,
    /// There is no pod that could lead.
    NoCandidates,
    /// A ready standby is there, on another node than the leader.
    StandbyReady,
    /// One replica was asked for: there is nobody to fail over to.
    SingleReplica,
    /// Standbys were asked for, and none is ready.
    NoReadyStandby,
    /// Every ready standby is on the leader's node and would fail with it.
    StandbysOnSameNode,
    /// Leadership went from pod to pod in short time, since none of their programs worked for long.
    LeaderFlapping,
    /// A new revision is being brought in.
    RollingOut,
    /// Pods are being added or removed.
    Scaling,
    /// The rollout made no progress within its deadline.
    ProgressDeadlineExceeded,
    /// The API server refuses the operator a verb that it needs.
    Forbidden,
    /// A new revision was given leadership and did not work; the former one leads again.
    RevisionFailed,
    /// A newer operator made the pods, by rules that this operator does not know.
    InjectionNewer,
    /// The pods were made by older rules than this operator's.
    InjectionOlder,
    /// The pods have another candidate image than this operator would add.
    ImageDiffers,
    /// The leader's candidate states another version than the operator expects, or none.
    VersionDiffers,
    /// The present candidate was requested, and the group waits for its turn.
    UpdatePending,
}

impl Reason {
    /// The word on the wire.
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
    /// Nobody led before: the first election of the group.
    Elected,
    /// The holder gave the Lease back.
    LeaseReleased,
    /// The holder gave the Lease back because it was asked to.
    SteppedDown,
    /// The holder gave the Lease back to a pod of the newest revision, or back to one of the former revision.
    Rollout,
    /// The holder gave the Lease back because its program had not been ready for too long.
    Unhealthy,
    /// The holder gave the Lease back because its pod was being deleted.
    Draining,
    /// The operator gave the Lease back because the kubelet reported the end of the holder's container.
    KubeletReported,
    /// The holder did not renew the Lease for its duration.
    LeaseExpired,
    /// The Lease was deleted.
    LeaseDeleted,
    /// The same pod acquired the Lease again before its time had run out, as a restarted container does.
    HolderRestarted,
    /// How the term before ended was not seen.
    NotObserved,
}

impl ChangeReason {
    /// All of them.
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

    /// The word on the wire.
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

    /// The reason of that word, `None` if it is none of ours.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

/// The reasons of Events. Those of what stalls a group are the reasons of condition Stalled.
pub mod event {
    /// A pod acquired the Lease.
    pub const LEADER_ELECTED: &str = "LeaderElected";
    /// A holder that was taken for lost renews the Lease again.
    pub const LEADER_RECOVERED: &str = "LeaderRecovered";
    /// The leader is gone without having given the Lease back.
    pub const LEADER_LOST: &str = "LeaderLost";
    /// The leader gave the Lease back, and nobody has taken it yet.
    pub const LEADER_RELEASED: &str = "LeaderReleased";
    /// The leader gave the Lease back because it was asked to.
    pub const STEPPED_DOWN: &str = "SteppedDown";
    /// A revision of the pod template has led well: the rest of the pods follow.
    pub const REVISION_PROVEN: &str = "RevisionProven";
    /// A revision of the pod template did not lead well: the former one leads again.
    pub const REVISION_FAILED: &str = "RevisionFailed";
    /// The leader's program was not ready for too long: it was asked to step down.
    pub const LEADER_UNHEALTHY: &str = "LeaderUnhealthy";
    /// Leadership goes from pod to pod in short time.
    pub const LEADER_FLAPPING: &str = "LeaderFlapping";
    /// The operator made a missing Lease again.
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
