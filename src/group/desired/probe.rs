//! Probes and hooks of a program that runs only on the leader: the candidate carries them out, and the kubelet asks the
//! candidate.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::group::spec::probe::port_number;
use crate::protocol::paths;

/// Takes the probes and hooks out of `container` and puts the candidate's in their place. Returns what the candidate has to
/// know of the program, as JSON in Kubernetes' words. `ours` are the variables that the operator adds, instead of the user's of
/// the same name.
pub(in crate::group) fn hand_over(container: &mut Value, http_port: i32, ours: &[Value]) -> Value {
    let original = container.clone();
    let mut app = Map::new();
    let literals = literals(&original, ours);
    let Some(container) = container.as_object_mut() else { return Value::Object(app) };
    for kind in ["startupProbe", "livenessProbe", "readinessProbe", "lifecycle"] {
        let Some(mut taken) = container.remove(kind).filter(|taken| !taken.is_null()) else { continue };
        let asked = match kind {
            "livenessProbe" => Some(passed_on(&taken, paths::APP_LIVENESS, http_port)),
            "readinessProbe" => {
                // The candidate counts the program's failures; what it says then holds.
                let mut probe = passed_on(&taken, paths::APP_READINESS, http_port);
                probe["failureThreshold"] = json!(1);
                probe["successThreshold"] = json!(1);
                Some(probe)
            }
            _ => None,
        };
        if let Some(asked) = asked {
            container.insert(kind.to_owned(), asked);
        }
        match kind {
            "lifecycle" => {
                for hook in ["postStart", "preStop"] {
                    resolve(&original, &mut taken[hook]);
                }
                if let Some(hooks) = taken.as_object_mut() {
                    hooks.retain(|_, hook| !hook.is_null());
                }
            }
            _ => {
                resolve(&original, &mut taken);
                let command = taken.pointer_mut("/exec/command").and_then(Value::as_array_mut).into_iter().flatten();
                command.for_each(|word| *word = json!(expanded(word.as_str().unwrap_or_default(), &literals)));
            }
        }
        app.insert(kind.to_owned(), taken);
    }
    // A standby that never saw the Lease could not take over, whatever else it is.
    container.entry("readinessProbe").or_insert_with(|| {
        let asked = json!({ "path": paths::READYZ, "port": http_port, "scheme": "HTTP" });
        json!({ "httpGet": asked, "periodSeconds": 2, "failureThreshold": 3, "timeoutSeconds": 5 })
    });
    Value::Object(app)
}

/// The kubelet's question, to the candidate. It answers for the program, so it may take a little longer than that.
fn passed_on(probe: &Value, path: &str, http_port: i32) -> Value {
    let mut asked = json!({ "httpGet": { "path": path, "port": http_port, "scheme": "HTTP" } });
    for field in ["periodSeconds", "successThreshold", "failureThreshold", "terminationGracePeriodSeconds"] {
        if !probe[field].is_null() {
            asked[field] = probe[field].clone();
        }
    }
    asked["timeoutSeconds"] = json!(probe["timeoutSeconds"].as_i64().unwrap_or(1).max(1) + 1);
    asked
}

/// The variables of the container whose values are written out.
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

/// As the kubelet expands the command of a probe, which no shell sees: `$(NAME)` is the variable's value, `$$` is `$`. What is
/// not known stays.
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

/// Numbers for names.
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
