//! The pod template: the user's, and what the operator adds.

use serde_json::{Map, Value, json};

use super::probe;
use crate::api::InjectionStatus;
use crate::api::names::{PROVEN_GATE, annotation, label};
use crate::protocol::pod::{API_SERVER, INSTALLER, LOCK, MOUNT, PROGRAM, SIDECAR, VOLUME};
use crate::protocol::{environment, paths};
use crate::spec::group::{Group, GroupMode};
use crate::spec::injection::{OWN_SETTINGS, SERVING, TERMINATION_MESSAGE, hash};

/// The longest duration that the chart's policy lets a Lease have, in seconds.
const LONGEST_LEASE: u64 = 3600;

/// The container that `kubectl logs` and `kubectl exec` use by default.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The default of a pod's `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: u64 = 30;

/// The default of a container's `terminationMessagePath`.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Returns the Deployment's pod template. `injection` is what modes Exec and Sidecar add; mode Native needs none.
pub fn pod_template(group: &Group, injection: Option<&InjectionStatus>) -> Value {
    let mut template = group.template.clone();
    object(&mut template, "metadata");
    object(&mut template["metadata"], "labels")[label::GROUP] = json!(group.name);
    let annotations = object(&mut template["metadata"], "annotations");
    if annotations[DEFAULT_CONTAINER].is_null() {
        annotations[DEFAULT_CONTAINER] = json!(group.container);
    }
    if relies_on_a_wait(group, injection) {
        annotations[annotation::RECREATED_LEASE_SECONDS] = json!(recreated_lease_seconds(group).to_string());
    }
    let spec = object(&mut template, "spec");
    spec["serviceAccountName"] = json!(group.service_account.name(&group.name));
    if spec["topologySpreadConstraints"].is_null() {
        // Soft: on a single node all pods still run.
        spec["topologySpreadConstraints"] = json!([{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": { label::GROUP: group.name } },
        }]);
    }
    let serving = injection.is_some_and(|injection| injection.revision >= SERVING);
    if serving {
        list(spec, "readinessGates").push(json!({ "conditionType": PROVEN_GATE }));
    }
    match (group.mode, injection) {
        (GroupMode::Exec, Some(injection)) => {
            list(spec, "initContainers").insert(0, installer(group, injection));
            list(spec, "volumes").push(json!({ "name": VOLUME, "emptyDir": { "sizeLimit": "64Mi" } }));
        }
        (GroupMode::Sidecar, Some(injection)) => {
            list(spec, "initContainers").insert(0, sidecar(group, injection));
        }
        _ => {}
    }
    let grace = spec["terminationGracePeriodSeconds"].clone();
    for container in list(spec, "containers").iter_mut() {
        if container["name"] == group.container.as_str() {
            wrap(container, group, injection, &grace);
        }
    }
    if serving {
        set_revision(&mut template, group);
    }
    template
}

/// Adds the election to the container that leads.
fn wrap(container: &mut Value, group: &Group, injection: Option<&InjectionStatus>, grace: &Value) {
    let mut environment = match group.mode {
        // The sidecar's own container has the rest.
        GroupMode::Sidecar => app_settings(group),
        GroupMode::Exec | GroupMode::Native => settings(group),
    };
    if let (GroupMode::Exec, Some(injection)) = (group.mode, injection) {
        if injection.revision >= TERMINATION_MESSAGE {
            let path = container["terminationMessagePath"].as_str().filter(|path| !path.is_empty());
            let path = path.unwrap_or(TERMINATION_LOG).to_owned();
            environment.push(value(environment::TERMINATION_MESSAGE_PATH, path));
        }
        if injection.revision >= SERVING {
            environment.extend(server_settings(group, injection));
            environment.push(value(environment::LOCK_PATH, LOCK.to_owned()));
            let has_own_settings = injection.revision >= OWN_SETTINGS;
            if has_own_settings {
                environment.push(value(environment::API_SERVER_FILE, API_SERVER.to_owned()));
                let seconds = recreated_lease_seconds(group).to_string();
                environment.push(value(environment::RECREATED_LEASE_SECONDS, seconds));
            }
            let mut app = probe::hand_over(container, group.http_port, &environment);
            if !grace.is_null() {
                app["terminationGracePeriodSeconds"] = grace.clone();
            }
            // A variable that is not set here may come from the user's envFrom.
            if has_own_settings || app.as_object().is_some_and(|app| !app.is_empty()) {
                environment.push(value(environment::APP, escaped(&app.to_string())));
            }
        }
        wrap_command(container);
    }
    set_environment(container, environment);
}

/// Whether a program may need longer to stop than the lease lasts when the Lease is deleted. A sidecar's promises end
/// before that.
fn relies_on_a_wait(group: &Group, injection: Option<&InjectionStatus>) -> bool {
    group.mode == GroupMode::Exec && injection.is_some_and(|injection| injection.revision >= OWN_SETTINGS)
}

/// Returns how long every candidate waits for a recreated Lease: a leader that renewed just before the deletion can use
/// the pod's whole grace period within nine tenths of that time.
fn recreated_lease_seconds(group: &Group) -> u64 {
    let grace = group.template["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(DEFAULT_GRACE);
    let lease = u64::from(group.timing.lease_duration.unsigned_abs());
    let wait = (grace.saturating_add(lease)).saturating_mul(10).div_ceil(9);
    wait.min(LONGEST_LEASE).max(lease)
}

/// Escapes `$`: the kubelet replaces `$(NAME)` with a variable's value, and `$$` with `$`.
fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

/// Sets the revision, the hash of the rest of the template, as a label for the operator and as a variable for the
/// candidate.
fn set_revision(template: &mut Value, group: &Group) {
    let revision = hash(template);
    template["metadata"]["labels"][label::REVISION] = json!(revision);
    let (kind, name) = match group.mode {
        GroupMode::Sidecar => ("initContainers", SIDECAR),
        GroupMode::Exec | GroupMode::Native => ("containers", group.container.as_str()),
    };
    for container in list(&mut template["spec"], kind).iter_mut().filter(|container| container["name"] == name) {
        list(container, "env").insert(0, value(environment::REVISION, revision.clone()));
    }
}

/// Returns the init container that copies the candidate into the pod. It meets the Pod Security Standard `restricted`,
/// whatever the pod's own context is.
fn installer(group: &Group, injection: &InjectionStatus) -> Value {
    let mut container = json!({
        "name": INSTALLER,
        "image": injection.image,
        "command": ["/k8sensus", "install", PROGRAM],
        "resources": resources(group),
        "securityContext": restricted(group, injection),
        "volumeMounts": [{ "name": VOLUME, "mountPath": MOUNT }],
    });
    set_message_policy(&mut container, injection);
    container
}

/// Makes the kubelet report the last log lines of a container of the operator that ends without a message.
fn set_message_policy(container: &mut Value, injection: &InjectionStatus) {
    if injection.revision >= OWN_SETTINGS {
        container["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    }
}

/// Returns the candidate's sidecar: an init container that keeps running, so that it starts before the program and
/// stops after it.
fn sidecar(group: &Group, injection: &InjectionStatus) -> Value {
    let mut environment = settings(group);
    environment.extend(server_settings(group, injection));
    if injection.revision >= OWN_SETTINGS {
        environment.push(value(environment::TERMINATION_MESSAGE_PATH, TERMINATION_LOG.to_owned()));
    }
    let get = |path: &str| json!({ "path": path, "port": group.http_port, "scheme": "HTTP" });
    let mut container = json!({
        "name": SIDECAR,
        "image": injection.image,
        "command": ["/k8sensus", "run"],
        "restartPolicy": "Always",
        "env": environment,
        // The program starts only once the sidecar answers.
        "startupProbe": { "httpGet": get(paths::LIVEZ), "periodSeconds": 1, "failureThreshold": 60 },
        "livenessProbe": { "httpGet": get(paths::LIVEZ), "periodSeconds": 10, "timeoutSeconds": 5 },
        "readinessProbe": { "httpGet": get(paths::READYZ), "periodSeconds": 2, "timeoutSeconds": 5 },
        "resources": resources(group),
        "securityContext": restricted(group, injection),
    });
    set_message_policy(&mut container, injection);
    container
}

fn resources(group: &Group) -> Value {
    let usual = || json!({ "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } });
    group.resources.clone().unwrap_or_else(usual)
}

/// Returns the security context of the operator's own containers. The candidate image's user is 65532 already. A
/// namespace may assign another user, as on OpenShift, but not if the container requests one.
fn restricted(group: &Group, injection: &InjectionStatus) -> Value {
    let mut context = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    let pod_is_root = group.template["spec"]["securityContext"]["runAsUser"] == 0;
    if pod_is_root || injection.revision < OWN_SETTINGS {
        context["runAsUser"] = json!(65532);
    }
    context
}

/// Makes the candidate the container's process. The user's command and arguments follow after `--`.
fn wrap_command(container: &mut Value) {
    let mut command = container["command"].as_array().cloned().unwrap_or_default();
    command.extend(container["args"].as_array().cloned().unwrap_or_default());
    container["command"] = json!([PROGRAM, "exec", "--"]);
    container["args"] = Value::Array(command);
    list(container, "volumeMounts").push(json!({ "name": VOLUME, "mountPath": MOUNT, "readOnly": true }));
}

fn field(name: &str, path: &str) -> Value {
    json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } })
}

fn value(name: &str, value: String) -> Value {
    json!({ "name": name, "value": value })
}

/// Returns the election's variables for the candidate, or for a program that elects by itself.
fn settings(group: &Group) -> Vec<Value> {
    let seconds = |name: &str, number: i32| value(name, number.to_string());
    let timing = &group.timing;
    let mut environment = vec![
        field(environment::POD_NAME, "metadata.name"),
        field(environment::POD_NAMESPACE, "metadata.namespace"),
        field(environment::POD_UID, "metadata.uid"),
        value(environment::CONTAINER, group.container.clone()),
        value(environment::LEASE_NAME, group.lease_name.clone()),
        field(environment::LEASE_NAMESPACE, "metadata.namespace"),
        // The operator creates the Lease. The pods have no permission to.
        value(environment::CREATE_LEASE, "false".to_owned()),
        seconds(environment::LEASE_DURATION_SECONDS, timing.lease_duration),
        seconds(environment::RENEW_DEADLINE_SECONDS, timing.renew_deadline),
        seconds(environment::RETRY_PERIOD_SECONDS, timing.retry_period),
        seconds(environment::RENEW_INTERVAL_SECONDS, timing.renew_interval),
    ];
    if let Some(grace) = timing.stop_grace {
        environment.push(value(environment::STOP_GRACE_PERIOD_SECONDS, grace.as_secs_f64().to_string()));
    }
    environment
}

/// Returns the further variables of a candidate that serves HTTP.
fn server_settings(group: &Group, injection: &InjectionStatus) -> Vec<Value> {
    let mut environment =
        vec![field(environment::POD_IP, "status.podIP"), value(environment::HTTP_PORT, group.http_port.to_string())];
    if injection.revision >= OWN_SETTINGS {
        environment.push(field(environment::NODE_IP, "status.hostIP"));
    }
    environment
}

/// Returns the variables of the program beside a sidecar: its identity, and the sidecar's port.
fn app_settings(group: &Group) -> Vec<Value> {
    vec![
        field(environment::POD_NAME, "metadata.name"),
        field(environment::POD_NAMESPACE, "metadata.namespace"),
        value(environment::LEASE_NAME, group.lease_name.clone()),
        value(environment::HTTP_PORT, group.http_port.to_string()),
    ]
}

/// Puts the operator's variables first, so that the user's variables may refer to them, and in place of the user's
/// variables of the same name.
fn set_environment(container: &mut Value, mut environment: Vec<Value>) {
    let theirs = std::mem::take(list(container, "env"));
    let ours: Vec<Value> = environment.iter().map(|variable| variable["name"].clone()).collect();
    environment.extend(theirs.into_iter().filter(|variable| !ours.contains(&variable["name"])));
    container["env"] = Value::Array(environment);
}

/// Returns the object at `key`, which is created if it is missing.
fn object<'a>(parent: &'a mut Value, key: &str) -> &'a mut Value {
    if !parent[key].is_object() {
        parent[key] = Value::Object(Map::new());
    }
    &mut parent[key]
}

/// Returns the list at `key`, which is created if it is missing.
fn list<'a>(parent: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    if !parent[key].is_array() {
        parent[key] = json!([]);
    }
    parent[key].as_array_mut().expect("an array was just created")
}
