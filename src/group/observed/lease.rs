//! The Lease of a group, as its watch shows it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::pod::{PodView, pod_of};
use super::trial::Trial;
use crate::api::names::ChangeReason;
use crate::election::{Record, WallTime};
use crate::group::spec::group::GroupMode;
use crate::protocol::lease::{RECREATED_HOLDER, term_name};

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
    pub step_down_request: Option<StepDownRequest>,
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
            step_down_request: None,
            ready: false,
            proven_revision: None,
            trial: None,
            candidate_version: None,
        }
    }

    /// Whether a candidate holds it, be it valid or expired.
    pub(in crate::group) fn is_held(&self) -> bool {
        is_candidate(&self.holder)
    }
}

fn micro_time(time: WallTime) -> Option<MicroTime> {
    Timestamp::from_microsecond(time.0).ok().map(MicroTime)
}

pub(in crate::group) fn is_candidate(holder: &str) -> bool {
    !holder.is_empty() && holder != RECREATED_HOLDER
}

/// The mark on the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepDownRequest {
    /// The request: the group's annotation at that time, or the word of the operator's own reason.
    pub value: String,
    /// The name of the term that is to end, `<leaseTransitions>/<incarnation>`; in mode Native `<leaseTransitions>/<holder>`.
    pub of: String,
    /// The pod that is to follow, if it matters.
    pub to: Option<String>,
}

/// The reasons for which the operator itself asks.
const OWN: [ChangeReason; 3] = [ChangeReason::Rollout, ChangeReason::Unhealthy, ChangeReason::Draining];

impl StepDownRequest {
    /// What such a step-down is called in the history.
    pub fn reason(&self) -> ChangeReason {
        OWN.into_iter().find(|reason| reason.as_str() == self.value).unwrap_or(ChangeReason::SteppedDown)
    }

    /// `leaseTransitions` of the term that is to end.
    pub fn transitions(&self) -> Option<i32> {
        self.of.split_once('/')?.0.parse().ok()
    }
}

/// How a term ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Why leadership became free.
    pub reason: ChangeReason,
    /// The last sign of the holder's life: its last renewal, or its release. A renewal may be dated up to 1 s ahead, because
    /// client-go tells renewals apart by their seconds. `None` if it is not known.
    pub since: Option<MicroTime>,
}

impl Ended {
    /// How the term before that of `new` ended, or `None` if that was not seen. `old` is the record before it, of which
    /// `former` was known. `unchanged` says for how long `old` had stood, by the clock of whoever watches the Lease;
    /// `None` if the watch was interrupted, so that there may have been others between the two.
    pub fn shown(old: &Record, former: Option<Self>, unchanged: Option<Duration>, new: &Record) -> Option<Self> {
        let term = |record: &Record| (record.holder.clone(), record.acquire_time, record.transitions);
        if term(old) == term(new) {
            return former;
        }
        let ended = |reason, since| Some(Self { reason, since });
        if new.is_released() {
            return ended(ChangeReason::LeaseReleased, new.renew_time.and_then(micro_time));
        }
        if new.holder.is_empty() {
            return ended(ChangeReason::LeaseReleased, None);
        }
        if new.holder == RECREATED_HOLDER {
            return ended(ChangeReason::LeaseDeleted, None);
        }
        if old.transitions.checked_add(1) != Some(new.transitions) {
            return None;
        }
        if old.holder == RECREATED_HOLDER {
            return ended(ChangeReason::LeaseDeleted, None);
        }
        if old.holder.is_empty() {
            return former;
        }
        let (unchanged, last_renewal) = (unchanged?, old.renew_time.and_then(micro_time));
        // Who takes over has waited for the whole duration. It may have seen the last renewal sooner than we did.
        if old.duration().is_some_and(|duration| unchanged >= duration / 4 * 3) {
            return ended(ChangeReason::LeaseExpired, last_renewal);
        }
        (new.holder == old.holder).then_some(Self { reason: ChangeReason::HolderRestarted, since: last_renewal })
    }
}

/// The name of the term that `lease` shows: of an incarnation, or in mode Native of a holder. `None` if its holder is no
/// candidate of ours though it should be.
pub(in crate::group) fn term_of(mode: GroupMode, lease: &LeaseView, pods: &[PodView]) -> Option<String> {
    match mode {
        GroupMode::Exec | GroupMode::Sidecar => incarnation_of(lease, pod_of(&lease.holder, pods))
            .map(|incarnation| term_name(lease.transitions, incarnation)),
        GroupMode::Native => Some(term_name(lease.transitions, &lease.holder)),
    }
}

/// The holder's incarnation. A client that knows none keeps the annotation of the holder before, which names another pod.
fn incarnation_of<'a>(lease: &'a LeaseView, pod: Option<&PodView>) -> Option<&'a str> {
    let incarnation = lease.incarnation.as_deref()?;
    let of_pod = incarnation.split('/').next().filter(|uid| *uid != "-");
    let is_anothers = of_pod.zip(pod.and_then(|pod| pod.uid.as_deref())).is_some_and(|(named, uid)| named != uid);
    (!is_anothers).then_some(incarnation)
}
