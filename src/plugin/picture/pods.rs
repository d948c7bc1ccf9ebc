//! The pods of a group: green leads, blue stands by, red has crashed, grey leaves.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde::Serialize;

use crate::api::names::{PROVEN_GATE, label};
use crate::protocol::lease::pod_of_holder;

/// Whether a pod leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Role {
    /// It holds the Lease.
    Leader,
    /// It does not.
    Standby,
}

/// The state of a pod in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum PodState {
    /// It is Ready: it leads, or could take over.
    Ready,
    /// It is not Ready.
    NotReady,
    /// A container has ended or cannot be started.
    Crashed,
    /// It is being deleted.
    Leaving,
}

/// A pod as it is shown.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodPicture {
    /// Whether it leads.
    pub role: Role,
    /// Its state.
    pub state: PodState,
    /// Why it is not Ready, in Kubernetes' own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Its name.
    pub name: String,
    /// Its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its address.
    #[serde(rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// How often its containers were restarted.
    pub restarts: i32,
    /// The revision of its pod template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Seconds since its creation.
    pub age_seconds: f64,
}

/// Returns the pictures of the pods, the leader first, the others by name.
pub fn pictures(pods: &[Pod], holder: Option<&str>, now: Timestamp) -> Vec<PodPicture> {
    let mut pictures: Vec<PodPicture> = pods.iter().map(|pod| picture(pod, holder, now)).collect();
    pictures.sort_by(|a, b| (a.role, &a.name).cmp(&(b.role, &b.name)));
    pictures
}

fn picture(pod: &Pod, holder: Option<&str>, now: Timestamp) -> PodPicture {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let is_leader = holder.is_some_and(|holder| pod_of_holder(holder) == name);
    let (state, why) = state(pod);
    let created = pod.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    PodPicture {
        role: if is_leader { Role::Leader } else { Role::Standby },
        state,
        why,
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        ip: pod.status.as_ref().and_then(|status| status.pod_ip.clone()),
        restarts: containers(pod).iter().map(|container| container.restart_count).sum(),
        revision: pod.metadata.labels.as_ref().and_then(|labels| labels.get(label::REVISION).cloned()),
        age_seconds: super::lease::seconds_between(created, now).max(0.0),
        name,
    }
}

fn containers(pod: &Pod) -> Vec<&ContainerStatus> {
    let Some(status) = &pod.status else { return Vec::new() };
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten()).collect()
}

fn state(pod: &Pod) -> (PodState, Option<String>) {
    if pod.metadata.deletion_timestamp.is_some() {
        return (PodState::Leaving, None);
    }
    let condition = |kind: &str| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        conditions.iter().find(|condition| condition.type_ == kind)
    };
    let is_true = |kind: &str| condition(kind).is_some_and(|condition| condition.status == "True");
    if is_true("Ready") {
        return (PodState::Ready, None);
    }
    if let Some(why) = containers(pod).into_iter().find_map(crash) {
        return (PodState::Crashed, Some(why));
    }
    if let Some("Failed" | "Succeeded") = pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        return (PodState::Crashed, pod.status.as_ref().and_then(|status| status.reason.clone()));
    }
    if let Some(unscheduled) = condition("PodScheduled").filter(|condition| condition.status == "False") {
        return (PodState::NotReady, unscheduled.reason.clone());
    }
    if is_true("ContainersReady") && !is_true(PROVEN_GATE) {
        return (PodState::NotReady, Some("its revision is not proven yet".to_owned()));
    }
    let waiting = containers(pod).into_iter().find_map(|container| container.state.as_ref()?.waiting.as_ref());
    (PodState::NotReady, waiting.and_then(|waiting| waiting.reason.clone()))
}

/// Returns why the container does not run, if that will not pass by itself.
fn crash(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
    let waiting = waiting.filter(|reason| !matches!(reason.as_str(), "ContainerCreating" | "PodInitializing"));
    let ended = state.terminated.as_ref().filter(|ended| ended.exit_code != 0);
    waiting.or_else(|| {
        let ended = ended?;
        Some(format!("{}, exit code {}", ended.reason.as_deref().unwrap_or("Error"), ended.exit_code))
    })
}
