//! Probes and hooks of a program that runs only on the leader: the candidate carries them out, and the kubelet probes
//! the candidate.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::protocol::paths;
use crate::spec::probe::port_number;

/// Replaces the probes and hooks of `container` with the candidate's. Returns the originals for the candidate, as JSON
/// with the field names of Kubernetes. `ours` are the variables that the operator adds in place of the user's of the
/// same name.
pub(crate) fn hand_over(container: &mut Value, http_port: i32, ours: &[Value]) -> Value {
    let original = container.clone();
    let mut app = Map::new();
    let literals = literals(&original, ours);
    let Some(container) = container.as_object_mut() else { return Value::Object(app) };
    for kind in ["startupProbe", "livenessProbe", "readinessProbe", "lifecycle"] {
        let Some(mut removed) = container.remove(kind).filter(|removed| !removed.is_null()) else { continue };
        let replacement = match kind {
            "livenessProbe" => Some(candidate_probe(&removed, paths::APP_LIVENESS, http_port)),
            "readinessProbe" => {
                // The candidate counts the program's failures itself, so a single answer of it is enough.
                let mut probe = candidate_probe(&removed, paths::APP_READINESS, http_port);
                probe["failureThreshold"] = json!(1);
                probe["successThreshold"] = json!(1);
                Some(probe)
            }
            _ => None,
        };
        if let Some(replacement) = replacement {
            container.insert(kind.to_owned(), replacement);
        }
        match kind {
            "lifecycle" => {
                for hook in ["postStart", "preStop"] {
                    resolve(&original, &mut removed[hook]);
                }
                if let Some(hooks) = removed.as_object_mut() {
                    hooks.retain(|_, hook| !hook.is_null());
                }
            }
            _ => {
                resolve(&original, &mut removed);
                let command = removed.pointer_mut("/exec/command").and_then(Value::as_array_mut).into_iter().flatten();
                command.for_each(|item| *item = json!(expanded(item.as_str().unwrap_or_default(), &literals)));
            }
        }
        app.insert(kind.to_owned(), removed);
    }
    // A standby that has not observed the Lease could not take over.
    container.entry("readinessProbe").or_insert_with(|| {
        let get = json!({ "path": paths::READYZ, "port": http_port, "scheme": "HTTP" });
        json!({ "httpGet": get, "periodSeconds": 2, "failureThreshold": 3, "timeoutSeconds": 5 })
    });
    Value::Object(app)
}

/// Returns the kubelet's probe of the candidate, which passes it on to the program and so may take a little longer.
fn candidate_probe(probe: &Value, path: &str, http_port: i32) -> Value {
    let mut replacement = json!({ "httpGet": { "path": path, "port": http_port, "scheme": "HTTP" } });
    for field in ["periodSeconds", "successThreshold", "failureThreshold", "terminationGracePeriodSeconds"] {
        if !probe[field].is_null() {
            replacement[field] = probe[field].clone();
        }
    }
    replacement["timeoutSeconds"] = json!(probe["timeoutSeconds"].as_i64().unwrap_or(1).max(1) + 1);
    replacement
}

/// Returns the variables of the container that have literal values.
fn literals(container: &Value, ours: &[Value]) -> BTreeMap<String, String> {
    let mut literals = BTreeMap::new();
    for variable in container["env"].as_array().into_iter().flatten().chain(ours) {
        let Some(name) = variable["name"].as_str() else { continue };
        match &variable["valueFrom"] {
            Value::Null => literals.insert(name.to_owned(), variable["value"].as_str().unwrap_or_default().to_owned()),
            _ => literals.remove(name),
        };
    }
    literals
}

/// Expands `text` as the kubelet expands the command of a probe, without a shell: `$(NAME)` becomes the variable's
/// value, and `$$` becomes `$`. Unknown variables stay as they are.
fn expanded(text: &str, literals: &BTreeMap<String, String>) -> String {
    let mut done = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        done.push_str(before);
        let variable = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        rest = match (variable, after.strip_prefix('$')) {
            (Some((name, beyond)), _) => {
                done += &literals.get(name).cloned().unwrap_or_else(|| format!("$({name})"));
                beyond
            }
            (None, escaped) => {
                done.push('$');
                escaped.unwrap_or(after)
            }
        };
    }
    done + rest
}

/// Replaces named ports with their numbers, and removes handlers that are null.
fn resolve(container: &Value, of: &mut Value) {
    for kind in ["httpGet", "tcpSocket", "grpc"] {
        if of[kind].is_object()
            && let Some(number) = port_number(container, &of[kind]["port"])
        {
            of[kind]["port"] = json!(number);
        }
    }
    if let Some(handlers) = of.as_object_mut() {
        handlers.retain(|_, handler| !handler.is_null());
    }
}
