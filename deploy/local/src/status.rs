//! The output of `status`.

use std::fmt::Write;

use k8sensus_local::{Component, Instance, instances};

pub(crate) fn table() -> String {
    let instances = instances();
    if instances.is_empty() {
        return "no clusters are running; `cargo demo -- up` starts one\n".to_owned();
    }
    let mut text = String::new();
    for (name, instance) in instances {
        match instance {
            Ok(Some(instance)) => describe(&mut text, &instance),
            Ok(None) => _ = writeln!(text, "{name}: starting, or not fully started"),
            Err(error) => _ = writeln!(text, "{name}: {error}"),
        }
    }
    text
}

fn describe(text: &mut String, instance: &Instance) {
    let lifetime = match instance.owner {
        None => "runs until `down`".to_owned(),
        Some(owner) if owner.alive() => format!("ends with process {}", owner.pid),
        Some(owner) => format!("stale: its owner, process {}, is gone", owner.pid),
    };
    let _ = writeln!(text, "{}  {}  {}  {lifetime}", instance.name, instance.mode.name(), instance.server);
    let _ = writeln!(text, "  {:<24} {:>8}  STATE", "COMPONENT", "PID");
    for component in instance.components() {
        let (pid, state) = state(instance, component);
        let _ = writeln!(text, "  {component:<24} {pid:>8}  {state}");
    }
    let _ = writeln!(text, "  kubeconfig: {}", instance.kubeconfig.display());
}

fn state(instance: &Instance, component: Component) -> (String, &'static str) {
    match instance.running(component) {
        Some(process) if process.paused() => (process.pid.to_string(), "paused"),
        Some(process) => (process.pid.to_string(), "running"),
        None => ("-".to_owned(), "not running"),
    }
}
