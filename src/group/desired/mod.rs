//! A group's children as partial objects to create and apply: they have only the operator's own fields.

pub mod drift;
pub mod refusal;

mod child;
mod leader_service;
mod lease;
mod pods;
mod probe;

use serde_json::{Value, json};

use self::child::{child, with_hash};
pub use self::lease::{NewLease, new_lease};
pub use self::pods::pod_template;
use super::spec::group::{Group, ServiceAccount};
use super::spec::injection::{self, hash};
use super::spec::probe::start_up;
use crate::api::InjectionStatus;
use crate::api::names::label;

/// The default of a Deployment's `progressDeadlineSeconds`.
const PROGRESS_DEADLINE: u64 = 600;

/// The default of a Deployment's `maxSurge` and `maxUnavailable`.
const ROLLING_DEFAULT: &str = "25%";

/// All children of a group. `apply` destructures it without `..`, so that no child can be forgotten.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The pods' account; `None` where the group uses an existing one.
    pub service_account: Option<Value>,
    /// Permission to read and update one Lease by name, and nothing else.
    pub role: Value,
    /// The binding of the account to the role.
    pub role_binding: Value,
    /// The metadata of the Lease. Its `spec` belongs to the candidates.
    pub lease: Value,
    /// The Deployment of the pods.
    pub deployment: Value,
    /// The PodDisruptionBudget; `None` with fewer than two pods.
    pub disruption_budget: Option<Value>,
    /// The Service that follows the leader; `None` if it is not set.
    pub service: Option<Value>,
    /// What is injected into the pods, to be recorded in the status.
    pub injection: Option<InjectionStatus>,
    /// Whether an existing Deployment stays as a newer operator made it, except for its replicas. `deployment` is then
    /// only created if there is none.
    pub keeps_pods: bool,
}

impl Desired {
    /// Returns the children of `group`. `recorded` is the injection in the status. It is kept until the user changes
    /// the template, so that neither an upgrade nor a rollback of the operator rolls a group. An injection that is
    /// neither [known](injection::is_known) nor [newer](injection::is_newer) is replaced.
    pub fn of(group: &Group, recorded: Option<&InjectionStatus>, candidate_image: &str) -> Self {
        let injection = group.mode.has_candidate().then(|| injection(group, recorded, candidate_image));
        let newer =
            recorded.filter(|recorded| injection::keeps_newer(&group.template, recorded) && injection.is_some());
        Self {
            keeps_pods: newer.is_some(),
            service_account: match &group.service_account {
                ServiceAccount::Own(annotations) => Some(with_hash({
                    let mut account = child(group, "v1", "ServiceAccount", &group.name);
                    for (key, value) in annotations {
                        account["metadata"]["annotations"][key] = json!(value);
                    }
                    account
                })),
                ServiceAccount::Existing(_) => None,
            },
            role: with_hash(role(group)),
            role_binding: with_hash(role_binding(group)),
            lease: child(group, "coordination.k8s.io/v1", "Lease", &group.lease_name),
            deployment: with_hash(deployment(group, injection.as_ref())),
            disruption_budget: group.disruption_budget.as_ref().map(|max| with_hash(disruption_budget(group, max))),
            service: leader_service::desired(group).map(with_hash),
            injection: newer.cloned().or(injection),
        }
    }
}

fn injection(group: &Group, recorded: Option<&InjectionStatus>, candidate_image: &str) -> InjectionStatus {
    match recorded {
        Some(recorded) if injection::is_kept(group.mode, &group.template, recorded) => recorded.clone(),
        _ => InjectionStatus {
            image: candidate_image.to_owned(),
            revision: injection::REVISION,
            template_hash: Some(hash(&group.template)),
        },
    }
}

fn role(group: &Group) -> Value {
    let mut role = child(group, "rbac.authorization.k8s.io/v1", "Role", &group.name);
    role["rules"] = json!([{
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [group.lease_name],
        "verbs": ["get", "list", "watch", "update"],
    }]);
    role
}

fn role_binding(group: &Group) -> Value {
    let mut binding = child(group, "rbac.authorization.k8s.io/v1", "RoleBinding", &group.name);
    binding["roleRef"] = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": group.name });
    binding["subjects"] = json!([{
        "kind": "ServiceAccount",
        "name": group.service_account.name(&group.name),
        "namespace": group.namespace,
    }]);
    binding
}

fn deployment(group: &Group, injection: Option<&InjectionStatus>) -> Value {
    let mut deployment = child(group, "apps/v1", "Deployment", &group.name);
    deployment["spec"] = json!({
        "replicas": group.replicas,
        "selector": { "matchLabels": { label::GROUP: group.name } },
        "strategy": strategy(group),
        "template": with_volume_sources(pod_template(group, injection)),
    });
    if injection.is_some_and(|injection| injection.revision >= injection::SERVING) {
        deployment["spec"]["progressDeadlineSeconds"] = json!(progress_deadline(group));
    }
    deployment
}

/// Returns the strategy with the server's defaults set explicitly. Defaults that the server adds have no owner, so a
/// later apply of Recreate would keep `rollingUpdate`, and the server refuses the two together.
fn strategy(group: &Group) -> Value {
    let mut strategy = group.strategy.clone().unwrap_or_else(|| json!({}));
    if strategy["type"].is_null() {
        strategy["type"] = json!("RollingUpdate");
    }
    if strategy["type"] == "RollingUpdate" {
        for field in ["maxSurge", "maxUnavailable"] {
            if strategy["rollingUpdate"][field].is_null() {
                strategy["rollingUpdate"][field] = json!(ROLLING_DEFAULT);
            }
        }
    }
    strategy
}

/// Returns the template with the server's default source for volumes that have none. Defaults that the server adds have
/// no owner, so a later apply would keep this one beside another source, and the server accepts only one.
fn with_volume_sources(mut template: Value) -> Value {
    let volumes = template.pointer_mut("/spec/volumes").and_then(Value::as_array_mut);
    for volume in volumes.into_iter().flatten().filter_map(Value::as_object_mut) {
        if volume.len() == 1 {
            volume.insert("emptyDir".to_owned(), json!({}));
        }
    }
    template
}

/// Returns the progress deadline in seconds. It includes the time for which the readiness gate delays a rollout on
/// purpose: that to start, to become Ready and to lead well.
fn progress_deadline(group: &Group) -> u64 {
    let unhealthy = group.unhealthy_timeout.map_or(PROGRESS_DEADLINE, |timeout| timeout.as_secs());
    let trial = group.min_ready + group.until_unready + start_up(&group.template, &group.container);
    // The API server's limit.
    (PROGRESS_DEADLINE + unhealthy).saturating_add(trial.as_secs()).min(i32::MAX.unsigned_abs().into())
}

fn disruption_budget(group: &Group, max_unavailable: &Value) -> Value {
    let mut budget = child(group, "policy/v1", "PodDisruptionBudget", &group.name);
    budget["spec"] = json!({
        "maxUnavailable": max_unavailable,
        "selector": { "matchLabels": { label::GROUP: group.name } },
        // A pod that is not Ready protects no leader, and would prevent the drain of its node.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    });
    budget
}
