//! The check of the user's pod template: what breaks the election, and what collides with the operator's additions.

use serde_json::{Value, json};

use super::group::GroupMode;
use super::invalid::{Invalid, invalid, reserved};
use super::probe;
use crate::api::ElectionGroupSpec;
use crate::api::names::{RESERVED_PREFIX, SHORTCUT_CONTAINER};
use crate::protocol::environment;
use crate::protocol::pod::{FOLDER, RESERVED_NAME_PREFIX, VOLUME};

/// The variables by which the operator passes the group's settings to the candidate.
const SETTINGS: &[&str] = &[
    environment::CONTAINER,
    environment::LEASE_NAME,
    environment::LEASE_NAMESPACE,
    environment::CREATE_LEASE,
    environment::LEASE_DURATION_SECONDS,
    environment::RENEW_DEADLINE_SECONDS,
    environment::RETRY_PERIOD_SECONDS,
    environment::RENEW_INTERVAL_SECONDS,
    environment::STOP_GRACE_PERIOD_SECONDS,
    environment::TERMINATION_MESSAGE_PATH,
];

/// The further variables of candidates that serve HTTP.
const SETTINGS_OF_SERVING: &[&str] =
    &[environment::HTTP_PORT, environment::REVISION, environment::LOCK_PATH, environment::APP];

/// Returns the pod template, made from `spec.image` if that is set.
pub(crate) fn template(spec: &ElectionGroupSpec) -> Result<Value, Invalid> {
    match (&spec.image, &spec.template) {
        (Some(_), Some(_)) | (None, None) => {
            Err(invalid("spec.image, spec.template", "exactly one of the two must be set"))
        }
        (Some(image), None) => {
            let mut container = json!({ "name": SHORTCUT_CONTAINER, "image": image });
            if let Some(command) = &spec.command {
                container["command"] = json!(command);
            }
            if let Some(args) = &spec.args {
                container["args"] = json!(args);
            }
            Ok(json!({ "spec": { "containers": [container] } }))
        }
        (None, Some(template)) => {
            if spec.command.is_some() || spec.args.is_some() {
                return Err(invalid(
                    "spec.command, spec.args",
                    "need spec.image; with spec.template set the container's",
                ));
            }
            let mut template: Value = serde_json::from_str(template.get())
                .map_err(|error| invalid("spec.template", format!("is not a pod template: {error}")))?;
            if let Some(pod) = template["spec"].as_object_mut() {
                // Generators leave these empty, and the operator sets the account.
                for field in ["serviceAccountName", "serviceAccount"] {
                    if pod.get(field).is_some_and(|account| account == "") {
                        pod.remove(field);
                    }
                }
            }
            Ok(template)
        }
    }
}

/// Returns the name of the container that leads.
pub(crate) fn leading_container(spec: &ElectionGroupSpec, template: &Value) -> Result<String, Invalid> {
    let mut names = items(&template["spec"]["containers"]).iter().filter_map(|container| container["name"].as_str());
    match &spec.candidate.container {
        None => names
            .next()
            .map(str::to_owned)
            .ok_or_else(|| invalid("spec.template.spec.containers", "must have at least one container")),
        Some(name) if names.any(|found| found == name) => Ok(name.clone()),
        Some(name) => {
            Err(invalid("spec.candidate.container", format!("must name a container of the template, found {name:?}")))
        }
    }
}

/// Checks the template, whose container `leading` leads. `from_template` is whether it comes from `spec.template`, and
/// `serves` whether the candidates of its pods serve HTTP.
pub(crate) fn check(
    template: &Value,
    mode: GroupMode,
    leading: &str,
    from_template: bool,
    serves: bool,
) -> Result<(), Invalid> {
    for kind in ["labels", "annotations"] {
        if let Some(map) = template["metadata"][kind].as_object()
            && let Some(key) = map.keys().find(|key| key.starts_with(RESERVED_PREFIX))
        {
            return Err(reserved(format!("spec.template.metadata.{kind}"), key));
        }
    }
    let spec = &template["spec"];
    for field in ["serviceAccountName", "serviceAccount"] {
        if !spec[field].is_null() {
            return Err(invalid(
                format!("spec.template.spec.{field}"),
                "must not be set; set spec.serviceAccount.name",
            ));
        }
    }
    if spec["automountServiceAccountToken"] == false {
        let rule = "must not be false: the candidate needs the token to reach the Lease";
        return Err(invalid("spec.template.spec.automountServiceAccountToken", rule));
    }
    if spec["restartPolicy"].as_str().is_some_and(|policy| policy != "Always") {
        return Err(invalid("spec.template.spec.restartPolicy", "must be Always, as in every Deployment"));
    }
    if !spec["activeDeadlineSeconds"].is_null() {
        let rule = "must not be set: the pods of a Deployment have no deadline";
        return Err(invalid("spec.template.spec.activeDeadlineSeconds", rule));
    }
    check_collisions(spec)?;
    check_environment(spec, leading, serves)?;
    if mode == GroupMode::Exec {
        check_exec(spec, leading, from_template)?;
    }
    Ok(())
}

/// Checks that nothing has a name or a path of the operator's additions.
fn check_collisions(spec: &Value) -> Result<(), Invalid> {
    let at = |field: &str| format!("spec.template.spec.{field}");
    for list in ["containers", "initContainers"] {
        for container in items(&spec[list]) {
            let name = text(&container["name"]);
            if name.starts_with(RESERVED_NAME_PREFIX) {
                let rule = format!(
                    "names that begin with {RESERVED_NAME_PREFIX} are reserved for what the operator adds, found {name}"
                );
                return Err(invalid(at(list), rule));
            }
            let ours = |mount: &&Value| is_our_volume(text(&mount["name"]));
            if let Some(mount) = items(&container["volumeMounts"]).iter().find(ours) {
                let rule = format!("the volume {} is the candidate's; no other container may have it", mount["name"]);
                return Err(invalid(at(&format!("{list}[{name}].volumeMounts")), rule));
            }
            let under = |mount: &&Value| text(&mount["mountPath"]).split('/').any(|part| part == FOLDER);
            if let Some(mount) = items(&container["volumeMounts"]).iter().find(under) {
                let rule =
                    format!("{} is where the candidate program is mounted; use another path", mount["mountPath"]);
                return Err(invalid(at(&format!("{list}[{name}].volumeMounts")), rule));
            }
        }
    }
    let named = |name: &str| items(&spec["containers"]).iter().any(|container| container["name"] == name);
    if let Some(twice) = items(&spec["initContainers"]).iter().map(|init| text(&init["name"])).find(|name| named(name))
    {
        return Err(invalid(at("initContainers"), format!("must not have the name of a container, found {twice}")));
    }
    if let Some(name) =
        items(&spec["volumes"]).iter().map(|volume| text(&volume["name"])).find(|name| is_our_volume(name))
    {
        let rule = format!(
            "the name {} and those that begin with {RESERVED_NAME_PREFIX} are reserved for what the operator adds, found {name}",
            VOLUME
        );
        return Err(invalid(at("volumes"), rule));
    }
    let gate = |gate: &&Value| text(&gate["conditionType"]).starts_with(RESERVED_PREFIX);
    match items(&spec["readinessGates"]).iter().find(gate) {
        Some(gate) => Err(reserved(at("readinessGates"), text(&gate["conditionType"]))),
        None => Ok(()),
    }
}

/// Checks that no container has the candidate's port: all containers of a pod share its ports.
pub(crate) fn check_port(template: &Value, http_port: i32) -> Result<(), Invalid> {
    let spec = &template["spec"];
    let containers = ["containers", "initContainers"].into_iter().flat_map(|kind| items(&spec[kind]));
    let is_taken = |port: &Value| port["containerPort"] == http_port && port["protocol"] != "UDP";
    let mut users = containers.filter(|container| items(&container["ports"]).iter().any(is_taken));
    match users.next() {
        Some(container) => Err(invalid(
            "spec.candidate.httpPort",
            format!(
                "must not be a port of another container, found {http_port} in container {}; set another one",
                text(&container["name"])
            ),
        )),
        None => Ok(()),
    }
}

/// Checks that the user sets no variable that the operator would silently replace.
fn check_environment(spec: &Value, leading: &str, serves: bool) -> Result<(), Invalid> {
    let containers = items(&spec["containers"]).iter().filter(|container| container["name"] == leading);
    let mut names = containers.flat_map(|container| items(&container["env"])).map(|variable| text(&variable["name"]));
    match names.find(|name| SETTINGS.contains(name) || serves && SETTINGS_OF_SERVING.contains(name)) {
        Some(name) => Err(invalid(
            format!("spec.template.spec.containers[{leading}].env"),
            format!("{name} is set by the operator; use spec.election and spec.candidate"),
        )),
        None => Ok(()),
    }
}

fn is_our_volume(name: &str) -> bool {
    name == VOLUME || name.starts_with(RESERVED_NAME_PREFIX)
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn check_exec(spec: &Value, leading: &str, from_template: bool) -> Result<(), Invalid> {
    for field in ["hostPID", "shareProcessNamespace"] {
        if spec[field] == true {
            let rule =
                "must not be true in mode Exec: the candidate could not distinguish its own processes from others";
            return Err(invalid(format!("spec.template.spec.{field}"), rule));
        }
    }
    if spec["os"]["name"] == "windows" {
        let rule = "must not be windows in mode Exec: the candidate is a program for Linux; use mode Native";
        return Err(invalid("spec.template.spec.os.name", rule));
    }
    let Some(container) = items(&spec["containers"]).iter().find(|container| container["name"] == leading) else {
        return Ok(());
    };
    let field = if from_template {
        format!("spec.template.spec.containers[{leading}].command")
    } else {
        "spec.command".to_owned()
    };
    let command = items(&container["command"]);
    if command.first().is_some_and(|program| program == "") {
        return Err(invalid(field, "must begin with the program to run, found an empty string"));
    }
    if command.is_empty() {
        return Err(invalid(
            field,
            "must be set in mode Exec, since the entrypoint of the image cannot be known; or use mode Native",
        ));
    }
    let at = format!("spec.template.spec.containers[{leading}]");
    probe::check(container, &at)
}
