//! The user's input. Doc comments on fields are the descriptions that `kubectl explain` prints; the schema joins their
//! lines.
//!
//! Bounds of one field are here; relations between fields are in [`super::rules`].

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DeploymentStrategy;
use k8s_openapi::api::core::v1::{PodTemplateSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::status::ElectionGroupStatus;

/// What to run, in how many pods, and how the pods elect their leader.
#[allow(clippy::duplicated_attributes, reason = "columns share their types and priorities")]
#[derive(CustomResource, Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "k8sensus.dev",
    version = "v1alpha1",
    kind = "ElectionGroup",
    plural = "electiongroups",
    singular = "electiongroup",
    shortname = "elg",
    category = "elections",
    namespaced,
    status = "ElectionGroupStatus",
    doc = "ElectionGroup makes any program highly available as \"one active, the rest ready\": it runs the program in several pods, which elect one leader through a Lease, and hands over when the leader fails or leaves.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    selectable = ".status.holderIdentity",
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas", description = "Wanted pods"),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.readyReplicas",
        description = "Pods that lead or could take over"
    ),
    printcolumn(
        name = "Holder",
        type_ = "string",
        json_path = ".status.holderIdentity",
        description = "The pod that leads"
    ),
    printcolumn(
        name = "Transitions",
        type_ = "integer",
        json_path = ".status.leaseTransitions",
        description = "How often leadership changed hands"
    ),
    printcolumn(
        name = "Held",
        type_ = "date",
        json_path = ".status.acquireTime",
        description = "For how long the holder has led"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "The reason of condition Ready"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the group was created"
    ),
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".spec.candidate.mode",
        description = "Exec, Sidecar or Native",
        priority = 1
    ),
    printcolumn(
        name = "Node",
        type_ = "string",
        json_path = ".status.leader.nodeName",
        description = "The node that the leader runs on",
        priority = 1
    ),
    printcolumn(
        name = "Lease",
        type_ = "string",
        json_path = ".status.leaseName",
        description = "The Lease through which the pods elect",
        priority = 1
    )
)]
pub struct ElectionGroupSpec {
    /// Number of pods: one leads, the others stand by. 0 to 100, default 2; 0 means no leader, 1 no standby.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 100))]
    pub replicas: i32,

    /// Container image of the program. The short form of template: a pod with one container, named app. Set exactly one
    /// of image and template. Example: registry.example/billing:1.4.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^[!-~]+$"))]
    pub image: Option<String>,

    /// The program to run, with image only; it replaces the image's entrypoint. Needed in mode Exec, because the
    /// image's own entrypoint cannot be known there. Not run in a shell. Example: [/app/billing].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), inner(length(max = 4096)))]
    pub command: Option<Vec<String>>,

    /// Arguments, with image only; they replace the image's command. Example: [--config=/etc/billing.yaml].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100), inner(length(max = 4096)))]
    pub args: Option<Vec<String>>,

    /// Pod template, as in a Deployment (kubectl explain deployment.spec.template describes its fields). Set exactly
    /// one of image and template. Labels and annotations that begin with k8sensus.dev/ are reserved, and so are names
    /// of containers and volumes that begin with k8sensus-, the volume k8sensus and the folder /.k8sensus. The service
    /// account is set in spec.serviceAccount, and restartPolicy must be Always. In mode Exec probes and lifecycle hooks
    /// of the container that leads are carried out by the candidate while the program runs; a standby passes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PodTemplateSpec>")]
    pub template: Option<Box<RawValue>>,

    /// How the pods take part in the election, and what happens to the program when its pod gains or loses leadership.
    #[serde(default)]
    pub candidate: CandidateSpec,

    /// The Lease through which the pods elect their leader, and its timing. The defaults are client-go's: a crashed
    /// leader is replaced within about 15 seconds, a clean handover takes milliseconds.
    #[serde(default)]
    pub election: ElectionSpec,

    /// The ServiceAccount of the pods. By default one with the group's name is created. It is allowed to get, list,
    /// watch and update the group's Lease, and nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccountSpec>,

    /// A Service named after the group with -leader appended, whose only endpoint is the leader: new connections reach
    /// the pod that leads. There is no endpoint while there is no leader or the leader is not ready, except that the
    /// former address stays for up to 250 ms after a release. Existing connections are not cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_service: Option<LeaderServiceSpec>,

    /// How a new revision replaces the old one, as in a Deployment (kubectl explain deployment.spec.strategy describes
    /// its fields). Default RollingUpdate. With Recreate there is no leader until the new pods have started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<DeploymentStrategy>,

    /// Modes Exec and Sidecar: seconds for which the program of a new revision must stay ready while its first pod
    /// leads, before its pods replace those of the former revision. In mode Sidecar the time that the kubelet needs to
    /// notice an unready program is added. If the program does not stay ready, the former revision leads again and the
    /// group is Stalled. 0 to 3600, default 10.
    #[serde(default = "default_min_ready_seconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub min_ready_seconds: i32,

    /// How many pods may be evicted at a time, for example while a node is drained. A PodDisruptionBudget named after
    /// the group is created when replicas is 2 or more; pods that are not Ready can always be evicted.
    #[serde(default)]
    pub pod_disruption_budget: DisruptionBudgetSpec,

    /// true stops the program: the leader stops and releases the Lease, and the group is scaled to 0. false, the
    /// default, restores the number of pods in replicas.
    #[serde(default)]
    pub suspend: bool,

    /// true makes the operator change nothing but the status: edits of this spec wait until it is false again, the
    /// default. The pods keep running and electing their leader, and traffic still follows it.
    #[serde(default)]
    pub paused: bool,
}

/// How the pods take part in the election.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CandidateSpec {
    /// How the program learns that it leads. Exec, the default: the program runs only while its pod leads, and has
    /// ended before another may lead; it needs no code. Sidecar: the program always runs, and asks a sidecar at
    /// http://localhost:httpPort whether it leads. Native: the program elects by itself through the Lease, with any
    /// client-go compatible library; only environment and permissions are added.
    pub mode: Mode,

    /// Name of the container that leads. Default: the first container of the template.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub container: Option<String>,

    /// Modes Exec and Sidecar: port on localhost, inside the pod, where the candidate reports the leader: GET / for
    /// JSON, GET /leader for 200 or 503. The kubelet's probes use this port, too; no container of the pod may use it.
    /// 1024 to 65535, default 4040.
    #[schemars(range(min = 1024, max = 65535))]
    pub http_port: i32,

    /// Mode Exec: seconds between SIGTERM and SIGKILL when leadership is lost. Default 3, or less if the timing does
    /// not allow 3: except in mode Native, 10 x (renewDeadlineSeconds + this) must be at most 9 x leaseDurationSeconds,
    /// so that the program has ended before another may lead. A voluntary stop may take the pod's whole
    /// terminationGracePeriodSeconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub stop_grace_period_seconds: Option<i32>,

    /// Seconds after which a leader that is not Ready steps down for a standby that is. The time doubles each time that
    /// this happens in a row, up to 32 times its length. In mode Exec the time that the startup probe and initial delay
    /// allow is added at first. 0 to 86400, default 30; 0 means never.
    #[schemars(range(min = 0, max = 86400))]
    pub unhealthy_timeout_seconds: i32,

    /// Compute resources of the containers that the operator adds to the pods. Default: small requests, no CPU limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

/// How the program learns that it leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// The program runs only while its pod leads.
    #[default]
    Exec,
    /// The program always runs and asks a sidecar on localhost.
    Sidecar,
    /// The program elects by itself.
    Native,
    /// A mode of a newer version. Such a group must not prevent an older operator from reading all others.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// The Lease and its timing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ElectionSpec {
    /// Name of the Lease, in the group's namespace. Default: the group's name. It cannot be changed, since two Leases
    /// would elect two leaders.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub lease_name: Option<String>,

    /// Seconds that standbys wait after the leader's last renewal before one of them takes over. 1 to 3600, default 15.
    /// Must be greater than renewDeadlineSeconds.
    #[schemars(range(min = 1, max = 3600))]
    pub lease_duration_seconds: i32,

    /// Seconds, counted from its last successful renewal, after which a leader that cannot renew stops leading. 1 to
    /// 3600, default 10. Must be more than 1.2 x retryPeriodSeconds and, except in mode Native, at most 0.9 x
    /// leaseDurationSeconds.
    #[schemars(range(min = 1, max = 3600))]
    pub renew_deadline_seconds: i32,

    /// Longest wait in seconds between two tries to renew or acquire, after one has failed. 1 to 3600, default 2.
    #[schemars(range(min = 1, max = 3600))]
    pub retry_period_seconds: i32,

    /// Seconds between two renewals that succeed. Default: retryPeriodSeconds. Must be less than renewDeadlineSeconds.
    /// A longer interval needs fewer requests, but survives only shorter outages of the API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub renew_interval_seconds: Option<i32>,
}

/// The ServiceAccount of the pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceAccountSpec {
    /// Name of an existing ServiceAccount to use; it is bound to the group's Role and otherwise left alone. Default:
    /// one named after the group is created.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: Option<String>,

    /// Annotations of the created ServiceAccount, such as for a cloud identity. An existing account is never annotated.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = { "type": "string", "maxLength": 4096 }))]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// The Service that follows the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaderServiceSpec {
    /// Type: ClusterIP (inside the cluster, the default), NodePort (on every node) or LoadBalancer (from outside).
    #[serde(rename = "type", default)]
    pub type_: ServiceType,

    /// Ports of the Service, 1 to 16. Example: [{name: http, port: 80, targetPort: 8080}].
    #[schemars(length(min = 1, max = 16))]
    pub ports: Vec<LeaderServicePort>,
}

/// How a Service is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// From inside the cluster.
    #[default]
    ClusterIP,
    /// On a port of every node.
    NodePort,
    /// By a load balancer of the cloud.
    LoadBalancer,
    /// A type of a newer version; see [`Mode::Unknown`].
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// One port of the leader Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaderServicePort {
    /// Name of the port; needed when there is more than one. Example: http.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: Option<String>,

    /// TCP port of the Service, 1 to 65535. Example: 80.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,

    /// Port of the pod: 1 to 65535, or the name of a container's port. Default: the number in port. Example: 8080.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 15))]
    pub target_port: Option<IntOrString>,
}

/// How many pods may be evicted at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DisruptionBudgetSpec {
    /// Number of pods that may be evicted at a time, 0 to 100, or a percentage of them, 0% to 100%; default 1. 0
    /// forbids every eviction of a Ready pod, and so the draining of its node. Example: 50%.
    #[schemars(extend("maxLength" = 4))]
    pub max_unavailable: IntOrString,
}

fn default_replicas() -> i32 {
    2
}

fn default_min_ready_seconds() -> i32 {
    10
}

impl Default for CandidateSpec {
    fn default() -> Self {
        Self {
            mode: Mode::Exec,
            container: None,
            http_port: 4040,
            stop_grace_period_seconds: None,
            unhealthy_timeout_seconds: 30,
            resources: None,
        }
    }
}

impl Default for ElectionSpec {
    fn default() -> Self {
        Self {
            lease_name: None,
            lease_duration_seconds: 15,
            renew_deadline_seconds: 10,
            retry_period_seconds: 2,
            renew_interval_seconds: None,
        }
    }
}

impl Default for DisruptionBudgetSpec {
    fn default() -> Self {
        Self { max_unavailable: IntOrString::Int(1) }
    }
}

impl ElectionSpec {
    /// Returns the seconds between two renewals: the field's value, or the retry period.
    pub fn effective_renew_interval_seconds(&self) -> i32 {
        self.renew_interval_seconds.unwrap_or(self.retry_period_seconds)
    }
}

impl ElectionGroup {
    /// Returns the Lease's name: the field's value, or the group's name. Empty for a group without a name.
    pub fn effective_lease_name(&self) -> &str {
        let own = self.metadata.name.as_deref().unwrap_or_default();
        self.spec.election.lease_name.as_deref().unwrap_or(own)
    }
}
