//! Observes a group and writes its status.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::api::names::{ChangeReason, FIELD_MANAGER};
use crate::api::{ConditionType, ElectionGroup, ElectionGroupStatus, GROUP, KIND, LeaderStatus, VERSION};
use crate::cache::{Cache, GroupState, RawGroup};
use crate::group::judge::proof::ProvenRelease;
use crate::group::observed::{EndedBy, Facts, Outcome};
use crate::group::status::status;
use crate::group::{Findings, Group};
use crate::runtime::clock::Clock;

/// How long a standby needs at most to acquire a released Lease.
pub(crate) const HANDOVER: Duration = Duration::from_millis(250);

/// The minimum time between two writes that change only counts of pods.
const BETWEEN_COUNTS: Duration = Duration::from_secs(1);
/// The minimum time between two writes that change only a quoted cause: the kubelet and the scheduler reword theirs
/// often.
const BETWEEN_CAUSES: Duration = Duration::from_secs(5);

/// Returns what exists of `group`, after its children were applied.
pub(crate) fn facts(group: &ElectionGroup, outcome: Outcome, release: Option<ProvenRelease>, cache: &Cache) -> Facts {
    let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
    let uid = group.uid().unwrap_or_default();
    let GroupState { deployment, lease, pods, eviction } =
        cache.group_state(&namespace, &name, group.effective_lease_name(), &uid);
    let ended_by = |transitions, reason| EndedBy::of_term(group.status.as_ref()?, transitions, reason);
    let request = lease.as_ref().and_then(|lease| lease.step_down_request.as_ref());
    let ended = release
        .and_then(|release| ended_by(release.transitions, ChangeReason::KubeletReported))
        .or_else(|| ended_by(request?.transitions()?, request?.reason()));
    Facts { outcome, deployment, lease, pods, eviction, ended }
}

/// Returns the status that `group` should have now.
pub(crate) fn of(
    group: &ElectionGroup,
    valid: Option<&Group>,
    findings: &Findings,
    clock: &dyn Clock,
) -> ElectionGroupStatus {
    // Conditions have a resolution of one second.
    let seconds = clock.wall_micros().div_euclid(1_000_000);
    let now = Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH));
    status(group, valid, findings, &now)
}

/// Sets the observed generation of `new` to that of `before`: the present generation is not fully applied.
pub(crate) fn keep_generation(before: Option<&ElectionGroupStatus>, new: &mut ElectionGroupStatus) {
    let Some(before) = before else { return };
    new.observed_generation = before.observed_generation;
    for condition in &mut new.conditions {
        condition.observed_generation = before.observed_generation;
    }
}

/// Returns how long the write of `new` may wait, if `before` was written at `written_at`: several changes of the number
/// of pods, or of the causes why pods are not ready, share one write. A new leader and the result of a changed spec are
/// written at once.
pub(crate) fn wait(
    before: Option<&ElectionGroupStatus>,
    new: &ElectionGroupStatus,
    written_at: Option<Duration>,
    now: Duration,
) -> Option<Duration> {
    let before = before?;
    let counts = |status: &ElectionGroupStatus| ElectionGroupStatus {
        replicas: 0,
        ready_replicas: 0,
        updated_replicas: 0,
        conditions: status.conditions.iter().filter(|condition| !is_about_pods(&condition.type_)).cloned().collect(),
        leader: status.leader.clone().map(|leader| LeaderStatus { node_name: None, pod_ip: None, ..leader }),
        ..status.clone()
    };
    let is_requoted = without_causes(before) == without_causes(new);
    let due = written_at? + if is_requoted { BETWEEN_CAUSES } else { BETWEEN_COUNTS };
    ((is_requoted || counts(before) == counts(new)) && now < due).then(|| due - now)
}

/// Returns `status` without the messages that quote why pods are missing or not ready.
fn without_causes(status: &ElectionGroupStatus) -> ElectionGroupStatus {
    let mut status = status.clone();
    let quotes = [ConditionType::Ready, ConditionType::LeaderElected, ConditionType::FailoverReady];
    for condition in &mut status.conditions {
        if quotes.iter().any(|kind| kind.as_str() == condition.type_) {
            condition.message.clear();
        }
    }
    status
}

/// Returns how long the write of `new` may wait, if it shows no leader because the Lease was released at `released_at`:
/// a standby acquires it within milliseconds, and one write reports both.
pub(crate) fn handing_over(
    before: Option<&ElectionGroupStatus>,
    new: &ElectionGroupStatus,
    released_at: Duration,
    now: Duration,
) -> Option<Duration> {
    let had_leader = before?.holder_identity.is_some();
    let due = released_at + HANDOVER;
    (had_leader && new.holder_identity.is_none() && now < due).then(|| due - now)
}

/// Writes `new`. Returns the group as the API server then has it, `None` if the group is gone.
pub(crate) async fn write(
    client: &Client,
    group: &ElectionGroup,
    new: &ElectionGroupStatus,
) -> Result<Option<RawGroup>, kube::Error> {
    let api = Api::<RawGroup>::namespaced(client.clone(), &group.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": KIND,
        // The API server refuses the write if the group has been recreated.
        "metadata": { "name": group.name_any(), "uid": group.uid() },
        "status": new,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch_status(&group.name_any(), &params, &Patch::Apply(&patch)).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
        result => result.map(Some),
    }
}

fn is_about_pods(condition: &str) -> bool {
    [ConditionType::Ready, ConditionType::FailoverReady, ConditionType::Reconciling]
        .iter()
        .any(|kind| kind.as_str() == condition)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

    use super::*;

    fn status(holder: Option<&str>, ready: i32) -> ElectionGroupStatus {
        let holder_identity = holder.map(str::to_owned);
        ElectionGroupStatus { holder_identity, ready_replicas: ready, ..ElectionGroupStatus::default() }
    }

    const NOW: Duration = Duration::from_millis(10_400);

    #[test]
    fn counts_of_pods_are_written_once_a_second() {
        let wait = |before: Option<&str>, new: Option<&str>, written: Option<u64>| {
            let written = written.map(Duration::from_millis);
            wait(Some(&status(before, 1)), &status(new, 2), written, NOW)
        };
        assert_eq!(wait(Some("a"), Some("a"), Some(10_000)), Some(Duration::from_millis(600)));
        assert_eq!(wait(Some("a"), Some("a"), Some(9_400)), None);
        assert_eq!(wait(Some("a"), Some("a"), None), None);
        assert_eq!(wait(Some("a"), Some("b"), Some(10_000)), None, "a new leader is written at once");
        assert_eq!(super::wait(None, &status(None, 0), Some(NOW), NOW), None, "so is the first status");
    }

    #[test]
    fn reworded_cause_is_written_every_five_seconds_at_most() {
        let quoting = |reason: &str, message: &str, ready| {
            let condition = Condition {
                type_: "Ready".to_owned(),
                status: "False".to_owned(),
                reason: reason.to_owned(),
                message: message.to_owned(),
                observed_generation: None,
                last_transition_time: Time(Timestamp::UNIX_EPOCH),
            };
            ElectionGroupStatus { conditions: vec![condition], ..status(Some("a"), ready) }
        };
        let before = quoting("InsufficientReplicas", "pod a: ErrImagePull", 1);
        let wait = |new: &ElectionGroupStatus| wait(Some(&before), new, Some(Duration::from_secs(8)), NOW);
        let reworded = quoting("InsufficientReplicas", "pod a: ImagePullBackOff", 1);
        assert_eq!(wait(&reworded), Some(Duration::from_millis(2_600)));
        assert_eq!(
            wait(&quoting("InsufficientReplicas", "pod a: ImagePullBackOff", 2)),
            None,
            "counts of pods are written sooner"
        );
        assert_eq!(wait(&quoting("NoLeader", "pod a: ImagePullBackOff", 1)), None, "so is another reason");
    }

    #[test]
    fn release_is_written_with_the_next_election_or_after_250_ms() {
        let wait = |before: Option<&str>, new: Option<&str>, released: u64| {
            handing_over(Some(&status(before, 1)), &status(new, 1), Duration::from_millis(released), NOW)
        };
        assert_eq!(wait(Some("a"), None, 10_300), Some(Duration::from_millis(150)));
        assert_eq!(wait(Some("a"), None, 10_100), None);
        assert_eq!(wait(Some("a"), Some("b"), 10_300), None);
        assert_eq!(wait(None, None, 10_300), None);
    }
}
