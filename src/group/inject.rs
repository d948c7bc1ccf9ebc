//! What the pods get on top of the user's template.

use serde_json::{Map, Value, json};

use super::valid::Group;
use crate::api::InjectionStatus;
use crate::api::names::label;

/// The newest revision of these rules. Raise it with any change that would roll pods; keep what older revisions did.
///
/// 1. The candidate's program, its environment, the pods' spread.
/// 2. In mode Exec the candidate is told where the termination message is, so that it can leave its incarnation there; and it
///    heeds step-downs.
pub const REVISION: i32 = 2;

/// The first revision whose candidates heed a step-down.
pub const STEP_DOWN: i32 = 2;

/// The first revision whose candidates are told of the termination message.
const TERMINATION_MESSAGE: i32 = 2;

/// Volume, init container and mount of the candidate program in mode Exec.
const VOLUME: &str = "k8sensus";
const INSTALLER: &str = "k8sensus-install";
const MOUNT: &str = "/.k8sensus";
const PROGRAM: &str = "/.k8sensus/k8sensus";

/// What kubectl logs and exec take where no container is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Where the kubelet looks for a container's last words unless the container says otherwise.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Whether `injection` can be carried out: it names an image, and a revision that this operator knows. What cannot is as good
/// as none: an operator that was rolled back, or a status that somebody edited, must leave no group stuck.
pub fn is_known(injection: &InjectionStatus) -> bool {
    (1..=REVISION).contains(&injection.revision) && !injection.image.is_empty()
}

/// The pod template as it goes into the Deployment. `injection` is what mode Exec adds; mode Native needs none.
pub fn pod_template(group: &Group, injection: Option<&InjectionStatus>) -> Value {
    let mut template = group.template.clone();
    object(&mut template, "metadata");
    object(&mut template["metadata"], "labels")[label::GROUP] = json!(group.name);
    let annotations = object(&mut template["metadata"], "annotations");
    if annotations[DEFAULT_CONTAINER].is_null() {
        annotations[DEFAULT_CONTAINER] = json!(group.container);
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
    if let Some(injection) = injection {
        list(spec, "initContainers").insert(0, installer(group, &injection.image));
        list(spec, "volumes").push(json!({ "name": VOLUME, "emptyDir": { "sizeLimit": "64Mi" } }));
    }
    for container in list(spec, "containers").iter_mut() {
        if container["name"] == group.container.as_str() {
            let revision = injection.map(|injection| injection.revision);
            set_environment(container, group, revision >= Some(TERMINATION_MESSAGE));
            if injection.is_some() {
                wrap_command(container);
            }
        }
    }
    template
}

/// Copies the candidate into the pod. Meets the Pod Security Standard `restricted`, whatever the pod's own context says.
fn installer(group: &Group, image: &str) -> Value {
    let resources = group
        .resources
        .clone()
        .unwrap_or_else(|| json!({ "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } }));
    json!({
        "name": INSTALLER,
        "image": image,
        "command": ["/k8sensus", "install", PROGRAM],
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "volumeMounts": [{ "name": VOLUME, "mountPath": MOUNT }],
    })
}

/// The candidate becomes the container's process; the user's command and arguments follow behind `--`.
fn wrap_command(container: &mut Value) {
    let mut command = container["command"].as_array().cloned().unwrap_or_default();
    command.extend(container["args"].as_array().cloned().unwrap_or_default());
    container["command"] = json!([PROGRAM, "exec", "--"]);
    container["args"] = Value::Array(command);
    list(container, "volumeMounts").push(json!({ "name": VOLUME, "mountPath": MOUNT, "readOnly": true }));
}

/// Ours come first, so that the user's own variables may refer to them, and replace the user's of the same name.
fn set_environment(container: &mut Value, group: &Group, with_termination_message: bool) {
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let value = |name: &str, value: String| json!({ "name": name, "value": value });
    let seconds = |name: &str, number: i32| value(name, number.to_string());
    let timing = &group.timing;
    let mut environment = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_UID", "metadata.uid"),
        value("K8SENSUS_CONTAINER", group.container.clone()),
        value("K8SENSUS_LEASE_NAME", group.lease_name.clone()),
        field("K8SENSUS_LEASE_NAMESPACE", "metadata.namespace"),
        // The operator makes the Lease; the pods may not.
        value("K8SENSUS_CREATE_LEASE", "false".to_owned()),
        seconds("K8SENSUS_LEASE_DURATION_SECONDS", timing.lease_duration),
        seconds("K8SENSUS_RENEW_DEADLINE_SECONDS", timing.renew_deadline),
        seconds("K8SENSUS_RETRY_PERIOD_SECONDS", timing.retry_period),
        seconds("K8SENSUS_RENEW_INTERVAL_SECONDS", timing.renew_interval),
    ];
    if let Some(grace) = timing.stop_grace {
        environment.push(value("K8SENSUS_STOP_GRACE_PERIOD_SECONDS", grace.as_secs_f64().to_string()));
    }
    if with_termination_message {
        let path = container["terminationMessagePath"].as_str().filter(|path| !path.is_empty());
        let path = path.unwrap_or(TERMINATION_LOG).to_owned();
        environment.push(value("K8SENSUS_TERMINATION_MESSAGE_PATH", path));
    }
    let theirs = std::mem::take(list(container, "env"));
    let ours: Vec<Value> = environment.iter().map(|variable| variable["name"].clone()).collect();
    environment.extend(theirs.into_iter().filter(|variable| !ours.contains(&variable["name"])));
    container["env"] = Value::Array(environment);
}

/// The object at `key`, made if there is none.
fn object<'a>(parent: &'a mut Value, key: &str) -> &'a mut Value {
    if !parent[key].is_object() {
        parent[key] = Value::Object(Map::new());
    }
    &mut parent[key]
}

/// The list at `key`, made if there is none.
fn list<'a>(parent: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    if !parent[key].is_array() {
        parent[key] = json!([]);
    }
    parent[key].as_array_mut().expect("made an array just now")
}
