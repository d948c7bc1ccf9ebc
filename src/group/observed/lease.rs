//! The Lease of a group, as observed by the watch.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::pod::{PodView, pod_of};
use super::trial::Trial;
use crate::api::names::ChangeReason;
use crate::election::{Record, WallTime};
use crate::protocol::lease::{RECREATED_HOLDER, term_name};
use crate::spec::group::GroupMode;

/// The current state of the Lease.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeaseView {
    /// `holderIdentity`, empty if none.
    pub holder: String,
    /// `acquireTime`.
    pub acquire_time: Option<MicroTime>,
    /// `renewTime`. It is part of the status only while there is no leader, so that renewals do not change the status.
    pub renew_time: Option<MicroTime>,
    /// `leaseTransitions`.
    pub transitions: i32,
    /// Whether it has the form of a release, so that its `renewTime` is the time of the release.
    pub released: bool,
    /// Whether it was not renewed for its duration, by this operator's own observation.
    pub expired: bool,
    /// How the former term ended, if the watch of the Lease showed it: [`Ended::shown`].
    pub former: Option<Ended>,
    /// The process that acquired it, `<podUID>/<container>/<nonce>`, if a candidate of ours wrote that.
    pub incarnation: Option<String>,
    /// The step-down request for its holder, or for a former holder.
    pub step_down_request: Option<StepDownRequest>,
    /// Whether the candidate reports the program of this very term as ready. Mode Exec only: in other modes the kubelet
    /// reports it.
    pub ready: bool,
    /// The revision whose pods may acquire it first.
    pub proven_revision: Option<String>,
    /// The trial that leadership was last handed over for.
    pub trial: Option<Trial>,
    /// The version that the candidate of this very term reports.
    pub candidate_version: Option<String>,
}

impl LeaseView {
    /// Returns the view of `record`. `expired` and `former` come from the watch of the Lease.
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

    /// Whether a candidate holds it, valid or expired.
    pub(crate) fn is_held(&self) -> bool {
        is_candidate(&self.holder)
    }
}

fn micro_time(time: WallTime) -> Option<MicroTime> {
    Timestamp::from_microsecond(time.0).ok().map(MicroTime)
}

pub(crate) fn is_candidate(holder: &str) -> bool {
    !holder.is_empty() && holder != RECREATED_HOLDER
}

/// A step-down request on the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepDownRequest {
    /// The group's annotation at the time of the request, or the operator's own [`ChangeReason`].
    pub value: String,
    /// The name of the term that must end, `<leaseTransitions>/<incarnation>`; in mode Native
    /// `<leaseTransitions>/<holder>`.
    pub of: String,
    /// The pod that should follow, if it matters.
    pub to: Option<String>,
}

/// The reasons of the operator's own requests.
const OWN: [ChangeReason; 3] = [ChangeReason::Rollout, ChangeReason::Unhealthy, ChangeReason::Draining];

impl StepDownRequest {
    /// Returns the reason that the history records for such a step-down.
    pub fn reason(&self) -> ChangeReason {
        OWN.into_iter().find(|reason| reason.as_str() == self.value).unwrap_or(ChangeReason::SteppedDown)
    }

    /// Returns `leaseTransitions` of the term that must end.
    pub fn transitions(&self) -> Option<i32> {
        self.of.split_once('/')?.0.parse().ok()
    }
}

/// How a term ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Why leadership became free.
    pub reason: ChangeReason,
    /// The time of the holder's last renewal, or of its release. A renewal may be dated up to 1 s ahead, because
    /// client-go distinguishes renewals by their seconds. `None` if it is not known.
    pub since: Option<MicroTime>,
}

impl Ended {
    /// Returns how the term before that of `new` ended, or `None` if that was not observed. `old` is the record before
    /// `new`, and `former` how the term before that of `old` ended. `unchanged` is how long `old` was unchanged, by the
    /// observer's clock; `None` if the watch was interrupted, so that there may have been other records between the
    /// two.
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
        // A candidate that takes over has waited for the whole duration. It may have observed the last renewal before
        // us.
        if old.duration().is_some_and(|duration| unchanged >= duration / 4 * 3) {
            return ended(ChangeReason::LeaseExpired, last_renewal);
        }
        (new.holder == old.holder).then_some(Self { reason: ChangeReason::HolderRestarted, since: last_renewal })
    }
}

/// Returns the name of the current term of `lease`: that of an incarnation, or in mode Native of a holder. `None` if
/// the holder has no candidate of ours although it should.
pub(crate) fn term_of(mode: GroupMode, lease: &LeaseView, pods: &[PodView]) -> Option<String> {
    match mode {
        GroupMode::Exec | GroupMode::Sidecar => incarnation_of(lease, pod_of(&lease.holder, pods))
            .map(|incarnation| term_name(lease.transitions, incarnation)),
        GroupMode::Native => Some(term_name(lease.transitions, &lease.holder)),
    }
}

/// Returns the holder's incarnation. A client that does not know the annotation leaves that of the former holder in
/// place, which names another pod.
fn incarnation_of<'a>(lease: &'a LeaseView, pod: Option<&PodView>) -> Option<&'a str> {
    let incarnation = lease.incarnation.as_deref()?;
    let of_pod = incarnation.split('/').next().filter(|uid| *uid != "-");
    let is_of_another_pod = of_pod.zip(pod.and_then(|pod| pod.uid.as_deref())).is_some_and(|(named, uid)| named != uid);
    (!is_of_another_pod).then_some(incarnation)
}
