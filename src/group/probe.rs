//! Probes and hooks of the container that leads, in mode Exec.
//!
//! The kubelet would ask a standby whose program does not run. So it asks the candidate instead, which passes the question on
//! to the program while that runs; startup probe and hooks are the candidate's alone, since a standby has nothing to start.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::valid::{Invalid, invalid};
use crate::protocol::paths;

/// What a probe or a hook can do; exactly one of them.
const PROBES: [&str; 4] = ["exec", "grpc", "httpGet", "tcpSocket"];
const HOOKS: [&str; 3] = ["exec", "httpGet", "sleep"];

/// What `stopSignal` can be, beside the real-time signals.
const SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGRTMIN",
    "SIGRTMAX",
];

/// Where the candidate answers for the program.

/// Checks what the API server would check, but never sees: the Deployment has other probes. `at` is the container's path.
pub(super) fn check(container: &Value, at: &str) -> Result<(), Invalid> {
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = &container[kind];
        if probe.is_null() {
            continue;
        }
        check_handler(container, probe, &PROBES, &format!("{at}.{kind}"))?;
        for (field, least) in [
            ("initialDelaySeconds", 0),
            ("timeoutSeconds", 0),
            ("periodSeconds", 0),
            ("successThreshold", 0),
            ("failureThreshold", 0),
            ("terminationGracePeriodSeconds", 1),
        ] {
            if probe[field].as_i64().is_some_and(|number| number < least) {
                let rule = format!("must be at least {least}, found {}", probe[field]);
                return Err(invalid(format!("{at}.{kind}.{field}"), rule));
            }
        }
        if kind != "readinessProbe" && probe["successThreshold"].as_i64().is_some_and(|number| number > 1) {
            let rule = format!("must be 1, found {}", probe["successThreshold"]);
            return Err(invalid(format!("{at}.{kind}.successThreshold"), rule));
        }
        if kind == "readinessProbe" && !probe["terminationGracePeriodSeconds"].is_null() {
            let rule = "must not be set: a program that is not ready is not ended";
            return Err(invalid(format!("{at}.{kind}.terminationGracePeriodSeconds"), rule));
        }
    }
    for hook in ["postStart", "preStop"] {
        let handler = &container["lifecycle"][hook];
        if !handler.is_null() {
            check_handler(container, handler, &HOOKS, &format!("{at}.lifecycle.{hook}"))?;
        }
    }
    match &container["lifecycle"]["stopSignal"] {
        Value::Null => Ok(()),
        Value::String(name) if is_signal(name) => Ok(()),
        found => {
            let rule = format!(
                "must be the name of a signal, such as SIGQUIT, SIGRTMIN+1 to SIGRTMIN+15 or SIGRTMAX-1 to SIGRTMAX-14, \
                 found {found}"
            );
            Err(invalid(format!("{at}.lifecycle.stopSignal"), rule))
        }
    }
}

fn is_signal(name: &str) -> bool {
    let offset = |start: &str, most: u8| {
        let digits = name.strip_prefix(start).filter(|digits| digits.starts_with(|first| matches!(first, '1'..='9')));
        digits.and_then(|digits| digits.parse().ok()).is_some_and(|offset: u8| offset <= most)
    };
    SIGNALS.contains(&name) || offset("SIGRTMIN+", 15) || offset("SIGRTMAX-", 14)
}

fn check_handler(container: &Value, of: &Value, kinds: &[&str], at: &str) -> Result<(), Invalid> {
    let found: Vec<&str> = kinds.iter().copied().filter(|kind| !of[*kind].is_null()).collect();
    let [kind] = found[..] else {
        let found = if found.is_empty() { "none".to_owned() } else { found.join(" and ") };
        return Err(invalid(at, format!("must have exactly one of {}, found {found}", kinds.join(", "))));
    };
    let handler = &of[kind];
    match kind {
        "exec" if handler["command"].as_array().is_none_or(Vec::is_empty) => {
            Err(invalid(format!("{at}.exec.command"), "must name the program to run"))
        }
        "sleep" if handler["seconds"].as_u64().is_none_or(|seconds| u32::try_from(seconds).is_err()) => {
            let rule = format!("must be a number from 0 to {}, found {}", u32::MAX, handler["seconds"]);
            Err(invalid(format!("{at}.sleep.seconds"), rule))
        }
        "httpGet" | "tcpSocket" | "grpc" if port_number(container, &handler["port"]).is_none() => {
            let rule = format!(
                "must be a number from 1 to 65535 or the name of a port of this container, found {}",
                handler["port"]
            );
            Err(invalid(format!("{at}.{kind}.port"), rule))
        }
        _ => Ok(()),
    }
}

/// The number of a port that may be named.
fn port_number(container: &Value, port: &Value) -> Option<i64> {
    let number = match port {
        Value::String(name) => {
            let ports = container["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
            ports.iter().find(|port| port["name"] == name.as_str())?["containerPort"].as_i64()
        }
        port => port.as_i64(),
    };
    number.filter(|number| (1..=65535).contains(number))
}

/// How long the program of container `leading` may take from its start to its first readiness by what its probes say: the initial
/// delays, and the tries of the startup probe.
pub(super) fn start_up(template: &Value, leading: &str) -> Duration {
    let containers = template["spec"]["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(container) = containers.iter().find(|one| one["name"] == leading) else { return Duration::ZERO };
    let delay = |probe: &Value| number(probe, "initialDelaySeconds", 0);
    let startup = Some(&container["startupProbe"]).filter(|probe| !probe.is_null());
    let startup = startup.map_or(0, |probe| delay(probe) + until_failed(probe));
    // Both count from the start of the program.
    Duration::from_secs(startup.max(delay(&container["readinessProbe"])))
}

/// How long a program may have stopped to be ready until the kubelet says so: the longest time that a readiness probe of
/// `template` takes to fail for good.
pub(super) fn until_unready(template: &Value) -> Duration {
    let containers = ["containers", "initContainers"].into_iter();
    let containers = containers.flat_map(|kind| template["spec"][kind].as_array().into_iter().flatten());
    let probes = containers.map(|container| &container["readinessProbe"]).filter(|probe| !probe.is_null());
    let times = probes.map(|probe| until_failed(probe) + number(probe, "timeoutSeconds", 1));
    Duration::from_secs(times.max().unwrap_or_default())
}

/// In seconds: all tries of `probe`, one after the other. Its numbers are of 32 bits, as checked before.
fn until_failed(probe: &Value) -> u64 {
    number(probe, "periodSeconds", 10) * number(probe, "failureThreshold", 3)
}

/// A field of a probe, where 0 and nothing are both `usual`.
fn number(probe: &Value, field: &str, usual: u64) -> u64 {
    probe[field].as_u64().filter(|number| *number > 0).unwrap_or(usual)
}

/// Takes the probes and hooks out of `container` and puts the candidate's in their place. Returns what the candidate has to
/// know of the program, as JSON in Kubernetes' words. `ours` are the variables that the operator adds, instead of the user's of
/// the same name.
pub(super) fn hand_over(container: &mut Value, http_port: i32, ours: &[Value]) -> Value {
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
