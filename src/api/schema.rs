//! Turns the derived schema into the published one: small enough for a plain `kubectl apply`, with the list keys and
//! quantity patterns that k8s-openapi leaves out, and with [`super::rules`].

use serde_json::{Map, Value, json};

use super::rules::RULES;
use super::status::NOT_OBSERVED;

/// Lists whose items have a key, so that server-side apply merges them by item. It replaces other lists as a whole.
const LIST_KEYS: &[(&str, &[&str])] = &[
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("env", &["name"]),
    ("volumes", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("volumeDevices", &["devicePath"]),
    ("hostAliases", &["ip"]),
    ("resourceClaims", &["name"]),
    ("claims", &["name"]),
    ("schedulingGates", &["name"]),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("ports", &["containerPort", "protocol"]),
    ("ports", &["port"]),
    ("conditions", &["type"]),
];

/// The pattern that controller-gen uses for quantities. Without it a typo would only be refused with the Deployment.
pub const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// The pattern of image references, which are ASCII. Without it a homoglyph or an invisible space would only show as a
/// pod that never starts.
pub const IMAGE: &str = "^[!-~]+$";
/// The pattern of Kubernetes for label values.
pub const LABEL_VALUE: &str = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
/// The pattern of Kubernetes for names of containers and volumes.
const LABEL: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// Finishes the schema of the whole resource in place.
///
/// # Panics
/// If the schema lacks a path that is used here: a defect in this crate, which every test finds.
pub fn finish(root: &mut Value) {
    walk(root, &mut |node| {
        // An explicit null then means "not set", and is dropped or defaulted before any rule is evaluated.
        node.remove("nullable");
        if let Some(Value::String(text)) = node.get_mut("description") {
            *text = unwrap(text);
        }
        fix_quantity(node);
        key_lists(node);
    });
    finish_template(at(root, "spec.template"));
    finish_spec(root);
    bound_lists(at(root, "spec"));
    finish_status(at(root, "status"));
    for rule in RULES {
        push(at(root, rule.at), "x-kubernetes-validations", rule.to_json());
    }
}

/// Returns the schema at a dotted path of property names; `items` steps into a list.
///
/// # Panics
/// If the path does not exist.
pub fn at<'a>(root: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').filter(|step| !step.is_empty()).fold(root, |node, step| {
        let inner = if step == "items" { node.get_mut("items") } else { node["properties"].get_mut(step) };
        inner.unwrap_or_else(|| panic!("the schema has no {path}: no {step}"))
    })
}

/// Visits every schema object, outer objects before inner ones.
fn walk(node: &mut Value, visit: &mut impl FnMut(&mut Map<String, Value>)) {
    let Value::Object(object) = node else { return };
    visit(object);
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(|property| walk(property, visit));
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(node) = object.get_mut(inner) {
            walk(node, visit);
        }
    }
}

/// Joins the lines of wrapped paragraphs, and keeps empty lines.
fn unwrap(text: &str) -> String {
    let paragraph = |p: &str| p.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    text.split("\n\n").map(paragraph).collect::<Vec<_>>().join("\n\n")
}

/// Sets the pattern of quantities. k8s-openapi gives ports the same type, which get no pattern.
fn fix_quantity(node: &mut Map<String, Value>) {
    let is_quantity = |n: &Value| {
        n["x-kubernetes-int-or-string"] == true
            && n["description"].as_str().is_some_and(|text| text.starts_with("Quantity is a fixed-point"))
    };
    let set = |n: &mut Value| n["pattern"] = QUANTITY.into();
    if let Some(values) = node.get_mut("additionalProperties").filter(|n| is_quantity(n)) {
        set(values);
    }
    let Some(Value::Object(properties)) = node.get_mut("properties") else { return };
    for (name, property) in properties {
        // A property's own description hides the type's.
        let by_name =
            matches!(name.as_str(), "sizeLimit" | "divisor") && property["x-kubernetes-int-or-string"] == true;
        if by_name || is_quantity(property) {
            set(property);
        }
    }
}

fn key_lists(node: &mut Map<String, Value>) {
    let Some(Value::Object(properties)) = node.get_mut("properties") else { return };
    for (name, keys) in LIST_KEYS {
        let Some(list) = properties.get_mut(*name).filter(|list| list["type"] == "array") else { continue };
        if !keys.iter().all(|key| list["items"]["properties"].get(key).is_some()) {
            continue;
        }
        list["x-kubernetes-list-type"] = "map".into();
        list["x-kubernetes-list-map-keys"] = json!(keys);
        for key in *keys {
            if *key == "protocol" {
                // Every item needs a value for each key.
                list["items"]["properties"]["protocol"]["default"] = "TCP".into();
            } else if !list["items"]["required"].as_array().is_some_and(|required| required.contains(&json!(key))) {
                push(&mut list["items"], "required", json!(key));
            }
        }
    }
}

fn finish_template(template: &mut Value) {
    let own = template["description"].clone();
    walk(template, &mut |node| {
        // They are five sixths of the size; `kubectl explain deployment.spec.template` prints them.
        node.remove("description");
    });
    template["description"] = own;
    template["required"] = json!(["spec"]);
    if let Value::Object(pod) = &mut at(template, "spec")["properties"] {
        // Not allowed in a template, and as large as containers.
        pod.remove("ephemeralContainers");
    }
    if let Value::Object(metadata) = &mut at(template, "metadata")["properties"] {
        // Drops fields that only an API server writes, except for creationTimestamp, which generators leave behind as
        // null.
        let kept = ["annotations", "creationTimestamp", "finalizers", "generateName", "labels", "name", "namespace"];
        metadata.retain(|name, _| kept.contains(&name.as_str()));
    }
    bound_pod(template);
}

/// Sets the bounds of the pod template. Lists that rules iterate over need a maximum, because CEL estimates the worst
/// case. Without the other bounds the Deployment would be refused, later and with a less clear message.
fn bound_pod(template: &mut Value) {
    for list in ["containers", "initContainers"] {
        let containers = at(template, &format!("spec.{list}"));
        containers["maxItems"] = 32.into();
        let container = &mut containers["items"];
        push(container, "required", "image".into());
        bound_name(at(container, "name"));
        set(at(container, "image"), json!({ "minLength": 1, "maxLength": 1024, "pattern": IMAGE }));
        set(at(container, "imagePullPolicy"), json!({ "enum": ["", "Always", "IfNotPresent", "Never"] }));
        at(container, "env")["maxItems"] = 1000.into();
        set(at(container, "env.items.name"), json!({ "minLength": 1, "maxLength": 256 }));
        at(container, "volumeMounts")["maxItems"] = 128.into();
        set(at(container, "volumeMounts.items.mountPath"), json!({ "minLength": 1, "maxLength": 512 }));
        set(at(container, "ports.items.containerPort"), json!({ "minimum": 1, "maximum": 65535 }));
        set(at(container, "ports.items.hostPort"), json!({ "minimum": 0, "maximum": 65535 }));
        set(at(container, "ports.items.protocol"), json!({ "enum": ["TCP", "UDP", "SCTP"] }));
    }
    at(template, "spec.containers")["minItems"] = 1.into();
    at(template, "spec.volumes")["maxItems"] = 256.into();
    bound_name(at(template, "spec.volumes.items.name"));
    at(template, "spec.readinessGates")["maxItems"] = 32.into();
    at(template, "spec.readinessGates.items.conditionType")["maxLength"] = 316.into();
    at(template, "spec.terminationGracePeriodSeconds")["minimum"] = 0.into();
    for map in ["labels", "annotations"] {
        at(template, &format!("metadata.{map}"))["maxProperties"] = 256.into();
    }
    let labels = &mut at(template, "metadata.labels")["additionalProperties"];
    set(labels, json!({ "maxLength": 63, "pattern": LABEL_VALUE }));
}

/// The maximum of list items in the pod template where a list has no maximum of its own: more than any user needs, and
/// few enough that one object cannot keep the operator busy.
const LONGEST_LIST: u32 = 256;
/// The maximum for lists that can be much longer: arguments, keys of a ConfigMap, nodes of an affinity.
const LONGEST_LONG_LIST: u32 = 4096;
const LONG_LISTS: &[&str] = &["args", "command", "items", "values"];

fn bound_lists(spec: &mut Value) {
    walk(spec, &mut |node| {
        let Some(Value::Object(properties)) = node.get_mut("properties") else { return };
        for (name, list) in properties.iter_mut().filter(|(_, list)| list["type"] == "array") {
            if list["maxItems"].is_null() {
                let is_long = LONG_LISTS.contains(&name.as_str());
                list["maxItems"] = if is_long { LONGEST_LONG_LIST } else { LONGEST_LIST }.into();
            }
        }
    });
}

fn bound_name(name: &mut Value) {
    set(name, json!({ "minLength": 1, "maxLength": 63, "pattern": LABEL }));
}

fn set(node: &mut Value, more: Value) {
    if let (Value::Object(node), Value::Object(more)) = (node, more) {
        node.extend(more);
    }
}

fn finish_spec(root: &mut Value) {
    at(root, "spec.strategy.type")["enum"] = json!(["RollingUpdate", "Recreate"]);
    for field in ["maxSurge", "maxUnavailable"] {
        at(root, &format!("spec.strategy.rollingUpdate.{field}"))["maxLength"] = 5.into();
    }
}

/// Removes required fields and defaults from the status, because readers must accept the status of any version.
fn finish_status(status: &mut Value) {
    walk(status, &mut |node| {
        let keyed = node.get("properties").is_some_and(|p| p.get("lastTransitionTime").is_some());
        node.remove("default");
        if !keyed {
            node.remove("required");
        }
    });
    status["default"] = json!({ "observedGeneration": NOT_OBSERVED });
}

fn push(node: &mut Value, list: &str, item: Value) {
    match node.get_mut(list) {
        Some(Value::Array(items)) => items.push(item),
        _ => node[list] = json!([item]),
    }
}
