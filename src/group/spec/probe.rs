//! The check of the leading container's probes and hooks, in mode Exec.
//!
//! The program of a standby does not run, so the kubelet probes the candidate instead, which passes the probe on to the
//! program while that runs. Startup probe and hooks are carried out by the candidate alone, because a standby has
//! nothing to start.

use std::time::Duration;

use serde_json::Value;

use super::invalid::{Invalid, invalid};

/// The handlers of a probe, of which it has exactly one.
const PROBES: [&str; 4] = ["exec", "grpc", "httpGet", "tcpSocket"];

/// The handlers of a hook, likewise.
const HOOKS: [&str; 3] = ["exec", "httpGet", "sleep"];

/// The values of `stopSignal`, besides the real-time signals.
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

/// Checks what the API server would check but cannot, because the Deployment has other probes. `at` is the container's
/// path.
pub(crate) fn check(container: &Value, at: &str) -> Result<(), Invalid> {
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

/// Returns the number of a port, which may be given by name.
pub(crate) fn port_number(container: &Value, port: &Value) -> Option<i64> {
    let number = match port {
        Value::String(name) => {
            let ports = container["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
            ports.iter().find(|port| port["name"] == name.as_str())?["containerPort"].as_i64()
        }
        port => port.as_i64(),
    };
    number.filter(|number| (1..=65535).contains(number))
}

/// Returns how long the program of container `leading` may take from its start until it is ready, according to its
/// probes: the initial delays, and the tries of the startup probe.
pub(crate) fn start_up(template: &Value, leading: &str) -> Duration {
    let containers = template["spec"]["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(container) = containers.iter().find(|one| one["name"] == leading) else { return Duration::ZERO };
    let delay = |probe: &Value| number(probe, "initialDelaySeconds", 0);
    let startup = Some(&container["startupProbe"]).filter(|probe| !probe.is_null());
    let startup = startup.map_or(0, |probe| delay(probe) + until_failed(probe));
    // Both count from the start of the program.
    Duration::from_secs(startup.max(delay(&container["readinessProbe"])))
}

/// Returns how long it may take until the kubelet reports that a program became unready: the longest time that a
/// readiness probe of `template` needs to fail.
pub(crate) fn until_unready(template: &Value) -> Duration {
    let containers = ["containers", "initContainers"].into_iter();
    let containers = containers.flat_map(|kind| template["spec"][kind].as_array().into_iter().flatten());
    let probes = containers.map(|container| &container["readinessProbe"]).filter(|probe| !probe.is_null());
    let times = probes.map(|probe| until_failed(probe) + number(probe, "timeoutSeconds", 1));
    Duration::from_secs(times.max().unwrap_or_default())
}

/// Returns the duration of all tries of `probe`, in seconds. Its numbers have 32 bits, as checked before.
fn until_failed(probe: &Value) -> u64 {
    number(probe, "periodSeconds", 10) * number(probe, "failureThreshold", 3)
}

/// Returns a field of a probe, or `default` if it is 0 or not set.
fn number(probe: &Value, field: &str, default: u64) -> u64 {
    probe[field].as_u64().filter(|number| *number > 0).unwrap_or(default)
}
