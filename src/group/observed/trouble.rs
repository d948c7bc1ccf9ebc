//! What keeps pods from being created, scheduled, started or ready, as reported by Kubernetes.
//!
//! The texts come only from the statuses of the Deployment and of the pods: they need no further permission, and
//! disappear together with what they report. Each text is one line of bounded length. Two reports of one cause that the
//! kubelet alternates between give the same text, so that they cause no writes of the status.

use serde_json::Value;

use super::pod::Obstacle;
use super::proof::is_incarnation;
use crate::api::names::PROVEN_GATE;
use crate::protocol::pod::SIDECAR;

/// The limit of characters that are quoted from Kubernetes or from a program.
const LONGEST: usize = 400;
/// The sidecar's answer to the kubelet, which does not report it.
const SIDECAR_UNREADY: &str =
    "the program does not ask its sidecar whether it leads, or the sidecar has not observed the Lease yet";
/// The reasons of a container that waits to be started.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];
/// The reasons of a container's end that add nothing to its exit code.
const PLAIN_ENDS: [&str; 2] = ["Error", "Completed"];

/// Returns why the first container of `pod` that should run does not. Init containers come first.
pub fn container_trouble(pod: &Value) -> Option<String> {
    container_statuses(pod).find_map(trouble_of)
}

/// Whether the container of this status waits for something else than being started.
pub fn is_stuck(container: &Value) -> bool {
    let reason = container["state"]["waiting"]["reason"].as_str().unwrap_or_default();
    !reason.is_empty() && !STARTING.contains(&reason)
}

/// Returns how a container of `pod` that has restarted ended before.
pub fn last_end(pod: &Value) -> Option<String> {
    container_statuses(pod).find_map(|container| {
        let name = text(&container["name"])?;
        exited(&container["lastState"]["terminated"]).map(|end| format!("container {name} {end}"))
    })
}

/// Returns what keeps `pod` from being scheduled, started or ready, beside the trouble of its containers.
pub fn obstacle(pod: &Value) -> Option<Obstacle> {
    let status = &pod["status"];
    let find = |kind: &str| items(&status["conditions"]).iter().find(|condition| condition["type"] == kind);
    let is = |kind: &str, wanted: &str| find(kind).filter(|condition| condition["status"] == wanted);
    // Set before the pod is evicted, preempted or deleted from a node that is lost.
    if let Some(disruption) = is("DisruptionTarget", "True") {
        return Some(Obstacle::lasting(reason_and_message(disruption)?));
    }
    if let Some(unscheduled) = is("PodScheduled", "False") {
        return Some(Obstacle::lasting(reason_and_message(unscheduled)?));
    }
    let has_sandbox = find("PodReadyToStartContainers").map(|condition| condition["status"] == "True");
    if let Some(waiting) = container_statuses(pod).find_map(|container| starting(container, has_sandbox)) {
        return Some(Obstacle::passing(waiting));
    }
    let unready = is("Ready", "False")?;
    let is_ready_to_kubelet = is("ContainersReady", "True").is_some();
    if text(&unready["reason"]).is_none() && is_ready_to_kubelet {
        // The kubelet always gives a reason. The node controller sets the condition without one.
        let node = text(&pod["spec"]["nodeName"]).unwrap_or_default();
        let why =
            format!("node {node} does not report to the API server: the pod was set to not ready, without a reason");
        return Some(Obstacle::lasting(why));
    }
    // A revision that is not proven yet is reported as part of its rollout.
    let is_our_gate = unready["message"].as_str().is_some_and(|message| message.contains(PROVEN_GATE));
    let why = reason_and_message(unready).filter(|_| !is_our_gate)?;
    Some(Obstacle::passing(if only_the_sidecar_is_unready(pod) { format!("{why}: {SIDECAR_UNREADY}") } else { why }))
}

/// Whether all containers of `pod` are ready except for our running sidecar.
fn only_the_sidecar_is_unready(pod: &Value) -> bool {
    let mut statuses = container_statuses(pod);
    let is_found = container_statuses(pod).any(|one| one["name"] == SIDECAR && one["state"]["running"].is_object());
    is_found && statuses.all(|one| (one["ready"] == true) != (one["name"] == SIDECAR))
}

/// Returns why the kubelet ended `pod`, such as `Evicted`, if the pod has failed and is not garbage-collected yet.
pub fn eviction(pod: &Value) -> Option<String> {
    let status = &pod["status"];
    (status["phase"] == "Failed").then(|| reason_and_message(status)).flatten()
}

/// Returns why pods of a Deployment with that `status` cannot be created.
pub fn replica_failure(status: &Value) -> Option<String> {
    let mut conditions = items(&status["conditions"]).iter();
    let failure = conditions.find(|one| one["type"] == "ReplicaFailure" && one["status"] == "True")?;
    reason_and_message(failure)
}

fn container_statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainerStatuses", "containerStatuses"].into_iter().flat_map(|kind| items(&pod["status"][kind]))
}

fn trouble_of(container: &Value) -> Option<String> {
    let name = text(&container["name"])?;
    let waiting = &container["state"]["waiting"];
    if let Some(reason) = text(&waiting["reason"]).filter(|reason| !STARTING.contains(&reason.as_str())) {
        let former = &container["lastState"]["terminated"];
        // The program's own message explains its end better than an exit code, but not better than a reason such as
        // OOMKilled.
        let end = match message_of(former).filter(|_| is_plain(former)) {
            Some(message) => Some(message),
            None => exited(former).map(|end| format!("it {end}")),
        };
        let message = text(&waiting["message"]);
        // While the kubelet backs off from pulling an image, it repeats the error that caused this.
        let error = message.as_ref().and_then(|message| message.split_once(": ErrImagePull: "));
        return Some(match (error, end.or_else(|| message.clone())) {
            (Some((_, error)), _) if reason == "ImagePullBackOff" => format!("container {name}: ErrImagePull: {error}"),
            (_, Some(why)) => format!("container {name}: {reason}: {why}"),
            (_, None) => format!("container {name}: {reason}"),
        });
    }
    let end = &container["state"]["terminated"];
    exited(end).filter(|_| end["exitCode"] != 0).map(|end| format!("container {name} {end}"))
}

/// Returns why `container` has not been started yet. `has_sandbox` is whether the network and the volumes of its pod
/// are set up, if the kubelet reports that.
fn starting(container: &Value, has_sandbox: Option<bool>) -> Option<String> {
    let name = text(&container["name"])?;
    let reason = text(&container["state"]["waiting"]["reason"]).filter(|reason| STARTING.contains(&reason.as_str()))?;
    let why = match has_sandbox {
        Some(true) => "an image is being pulled, or an init container has not ended yet",
        Some(false) | None => "a volume, ConfigMap or Secret may be missing, or an image is being pulled",
    };
    Some(format!("container {name}: {reason}: {why}; the Events of the pod say more"))
}

/// Returns how a container ended, from its terminated state.
fn exited(terminated: &Value) -> Option<String> {
    let code = terminated["exitCode"].as_i64()?;
    let reason = text(&terminated["reason"]).filter(|_| !is_plain(terminated));
    let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    Some(match message_of(terminated) {
        Some(message) => format!("exited with code {code}{reason}: {message}"),
        None => format!("exited with code {code}{reason}"),
    })
}

fn is_plain(terminated: &Value) -> bool {
    terminated["reason"].as_str().is_none_or(|reason| PLAIN_ENDS.contains(&reason))
}

/// Returns the last message of the candidate or the program, without the candidate's incarnation.
fn message_of(terminated: &Value) -> Option<String> {
    let message = terminated["message"].as_str()?;
    let lines: Vec<&str> = message.lines().filter(|line| !is_incarnation(line)).collect();
    text(&lines.join("\n").into())
}

fn reason_and_message(object: &Value) -> Option<String> {
    let reason = text(&object["reason"])?;
    Some(text(&object["message"]).map_or_else(|| reason.clone(), |message| format!("{reason}: {message}")))
}

/// Returns a foreign text as one line of at most [`LONGEST`] characters; `None` if it is empty.
fn text(value: &Value) -> Option<String> {
    let words: Vec<&str> = value.as_str()?.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(LONGEST) {
        _ if line.is_empty() => None,
        Some((end, _)) => Some(format!("{}...", &line[..end])),
        None => Some(line),
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
