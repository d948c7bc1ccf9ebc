//! What was observed becomes the status. The same observations always give the same status, so that writing it
//! triggers nothing.
//!
//! The status remembers what the Lease does not: who led before, why leadership became free, and how often it changed
//! hands over all Leases of the group. So it is made of the former status and of what is seen now, and of nothing else.

mod causes;
mod conditions;
mod history;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

pub use self::causes::starting_wait;
use self::conditions::{conditions, verdicts};
pub use self::history::Ended;
use self::history::Past;
use super::candidate::{Offer, Update};
use super::rollout::Trial;
use super::step_down::{Asked, StepDown, pod_of};
use super::unhealthy;
use super::valid::Group;
use crate::api::names::{ChangeReason, label};
use crate::api::{CandidateStatus, ElectionGroup, ElectionGroupStatus, InjectionStatus, LeaderStatus, RolloutStatus};
use crate::election::{Record, WallTime};
use crate::protocol::lease::RECREATED_HOLDER;

/// What became of the children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// They are as desired, or left alone because the group is paused.
    #[default]
    Applied,
    /// The spec breaks a rule; nothing was touched.
    Invalid(String),
    /// An object of a name that is needed is not the group's.
    Conflict(String),
    /// The API server refuses a verb that the operator needs.
    Forbidden(String),
}

/// The Lease as it is now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeaseView {
    /// `holderIdentity`, empty if none.
    pub holder: String,
    /// `acquireTime`.
    pub acquire_time: Option<MicroTime>,
    /// `renewTime`; it reaches the status only while nobody leads, so a renewal changes nothing there.
    pub renew_time: Option<MicroTime>,
    /// `leaseTransitions`.
    pub transitions: i32,
    /// Whether it has the form that a release writes, so that its `renewTime` is the moment of the release.
    pub released: bool,
    /// Whether, by this operator's own observation, it was not renewed for its duration.
    pub expired: bool,
    /// How the term before this one ended, if the watch of the Lease showed it: [`Ended::shown`].
    pub former: Option<Ended>,
    /// Which process acquired it, `<podUID>/<container>/<nonce>`, if a candidate of ours wrote that.
    pub incarnation: Option<String>,
    /// The step-down that it carries to its holder, or did to a former one.
    pub asked: Option<Asked>,
    /// Whether its candidate says that the program of this very term is ready. Mode Exec only: elsewhere the kubelet tells.
    pub ready: bool,
    /// The revision whose pods take it first.
    pub proven_revision: Option<String>,
    /// The trial that leadership was last handed over for.
    pub trial: Option<Trial>,
    /// The version that the candidate of this very term states.
    pub candidate_version: Option<String>,
}

impl LeaseView {
    /// The view of `record`. `expired` and `former` are what the watch of the Lease tells besides.
    pub fn of(record: &Record, expired: bool, former: Option<Ended>) -> Self {
        Self {
            holder: record.holder.clone(),
            acquire_time: record.acquire_time.and_then(micro_time),
            renew_time: record.renew_time.and_then(micro_time),
            transitions: record.transitions,
            released: record.is_released(),
            expired,
            former,
            incarnation: None,
            asked: None,
            ready: false,
            proven_revision: None,
            trial: None,
            candidate_version: None,
        }
    }

    /// Whether a candidate holds it, be it valid or expired.
    fn is_held(&self) -> bool {
        is_candidate(&self.holder)
    }
}

fn micro_time(time: WallTime) -> Option<MicroTime> {
    Timestamp::from_microsecond(time.0).ok().map(MicroTime)
}

/// One pod of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodView {
    /// Its name.
    pub name: String,
    /// The node it runs on.
    pub node: Option<String>,
    /// Its address.
    pub ip: Option<String>,
    /// Its ReplicaSet's pod-template-hash.
    pub revision: Option<String>,
    /// Whether it is Ready and not being deleted.
    pub ready: bool,
    /// Its `metadata.uid`.
    pub uid: Option<String>,
    /// Its `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether all its containers are ready, whatever its readiness gates say.
    pub containers_ready: bool,
    /// Whether a container beside the one that leads is not ready.
    pub others_unready: bool,
    /// Its label `k8sensus.dev/revision`.
    pub template: Option<String>,
    /// Its readiness gate `k8sensus.dev/proven`; `None` if it has none.
    pub proven: Option<bool>,
    /// Its label `k8sensus.dev/role`.
    pub role: Option<String>,
    /// Whether it is marked as the last to be removed when the group is scaled down.
    pub kept: bool,
    /// What keeps its containers from running, in the kubelet's words.
    pub trouble: Option<String>,
    /// What else keeps it from being scheduled, started or ready.
    pub obstacle: Option<Obstacle>,
    /// How a container ended that has been started again since, in the kubelet's words.
    pub last_end: Option<String>,
    /// How often its containers were restarted.
    pub restarts: i32,
    /// The named TCP ports of its containers.
    pub ports: Vec<(String, i32)>,
    /// Whether its candidate tells on the Lease whether the program is ready: mode Exec.
    pub tells_ready: bool,
    /// Whether its candidate is from before there were step-downs, so that it heeds none.
    pub deaf: bool,
    /// The image of its candidate program; `None` in mode Native.
    pub candidate_image: Option<String>,
    /// Whether the candidate's own container does not start: no such image, no such program in it.
    pub candidate_stuck: bool,
}

impl PodView {
    /// Whether the program of this pod, which holds `lease`, is ready. By the pod: it may be of another mode than its group is
    /// by now.
    pub(super) fn program_is_ready(&self, lease: &LeaseView) -> bool {
        match (self.tells_ready, self.proven) {
            // Its standbys are Ready to the kubelet too: what counts is the candidate's word for this very term. The kubelet's
            // for the other containers is the same on a standby.
            (true, _) => lease.ready && !self.others_unready,
            // Its readiness gate speaks of the revision.
            (false, Some(_)) => self.containers_ready,
            (false, None) => self.ready,
        }
    }
}

/// What keeps a pod from being scheduled, started or ready, beside its containers' own trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The reason and the message of Kubernetes.
    pub what: String,
    /// Whether every pod meets it on its way: then it explains something only of a pod that is no longer new.
    pub is_passing: bool,
}

impl Obstacle {
    /// One that does not pass by itself.
    pub(super) fn lasting(what: String) -> Self {
        Self { what, is_passing: false }
    }

    /// One that every pod meets on its way.
    pub(super) fn passing(what: String) -> Self {
        Self { what, is_passing: true }
    }
}

/// The Deployment's own status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeploymentView {
    /// Pods that exist.
    pub replicas: i32,
    /// Pods that are Ready.
    pub ready: i32,
    /// Pods of the newest template.
    pub updated: i32,
    /// Whether its controller has seen the last change.
    pub observed: bool,
    /// The message of condition Progressing, if that is False for ProgressDeadlineExceeded.
    pub deadline_exceeded: Option<String>,
    /// Why its pods cannot be created: reason and message of condition ReplicaFailure, if that is True.
    pub replica_failure: Option<String>,
}

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
    pub(super) fn after<'a>(&'a self, before: Option<&'a InjectionStatus>) -> Option<&'a InjectionStatus> {
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

/// The status of `group`, whose spec made `valid` unless it is invalid. `now` is used for conditions that change, and
/// to tell how long ago leadership changed hands.
pub fn status(group: &ElectionGroup, valid: Option<&Group>, observed: &Observed, now: &Time) -> ElectionGroupStatus {
    let before = group.status.clone().unwrap_or_default();
    let deployment = observed.deployment.clone().unwrap_or_default();
    let lease = observed.lease.as_ref();
    let leader = leading(&before, lease);
    let past = Past::of(&before, observed, leader.is_some());
    let flapping = unhealthy::flapping(&past.history, &observed.pods, observed.unready, now.0);
    let verdicts = verdicts(group, valid, observed, &deployment, leader, flapping, now.0);
    ElectionGroupStatus {
        observed_generation: group.metadata.generation,
        operator: observed.operator.clone().or(before.operator),
        replicas: deployment.replicas,
        ready_replicas: deployment.ready,
        updated_replicas: deployment.updated,
        selector: Some(format!("{}={}", label::GROUP, group.metadata.name.as_deref().unwrap_or_default())),
        lease_name: match lease {
            Some(_) => Some(group.effective_lease_name().to_owned()),
            None => before.lease_name,
        },
        holder_identity: leader.map(|lease| lease.holder.clone()),
        acquire_time: leader.and_then(|lease| lease.acquire_time.clone()),
        lease_transitions: past.transitions,
        lease_transitions_offset: past.offset,
        leader: leader.map(|lease| leader_status(lease, &observed.pods)),
        candidate: leader.and_then(|lease| candidate_status(lease, &observed.pods)),
        leaderless: past.leaderless,
        history: past.history,
        conditions: conditions(&before.conditions, verdicts, group.metadata.generation, now),
        injection: observed.injection.after(before.injection.as_ref()).cloned(),
        rollout: observed.rollout.clone(),
        last_handled_step_down_at: match &observed.step_down {
            StepDown::Done { value, .. } => Some(value.clone()),
            _ => before.last_handled_step_down_at,
        },
        last_handled_candidate_update_at: observed.update.handled().or(before.last_handled_candidate_update_at),
    }
}

/// `lease` while a candidate holds it and it is valid, as far as it and the former status tell.
pub fn leading<'a>(before: &ElectionGroupStatus, lease: Option<&'a LeaseView>) -> Option<&'a LeaseView> {
    lease.filter(|lease| lease.is_held() && !lease.expired && !history::was_expired(before, lease))
}

pub(super) fn is_candidate(holder: &str) -> bool {
    !holder.is_empty() && holder != RECREATED_HOLDER
}

fn leader_status(lease: &LeaseView, pods: &[PodView]) -> LeaderStatus {
    let pod = pod_of(&lease.holder, pods);
    LeaderStatus {
        pod_name: pod.map_or(&lease.holder, |pod| &pod.name).clone(),
        node_name: pod.and_then(|pod| pod.node.clone()),
        pod_ip: pod.and_then(|pod| pod.ip.clone()),
        revision: pod.and_then(|pod| pod.revision.clone()),
    }
}

fn candidate_status(lease: &LeaseView, pods: &[PodView]) -> Option<CandidateStatus> {
    let image = pod_of(&lease.holder, pods).and_then(|pod| pod.candidate_image.clone());
    let version = lease.candidate_version.clone();
    (image.is_some() || version.is_some()).then_some(CandidateStatus { image, version })
}
