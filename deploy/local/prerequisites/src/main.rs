//! Checks and installs prerequisites: `k8sensus-prerequisites tests` those of the tests,
//! `k8sensus-prerequisites demo ARGUMENTS...` those of `cargo demo ARGUMENTS...`, which it then executes.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use k8sensus_prerequisites::recipe::{HELM, KUBERNETES};
use k8sensus_prerequisites::{NODE_SETS, ensure_cluster, ensure_tests, forbid_installation};

/// The prerequisites of a command line of the demo. `k8sensus-local` checks the rest of the command line.
#[derive(Debug, PartialEq, Eq)]
enum Prerequisites {
    /// A node, and Helm if the demonstration installs the operator.
    Node {
        helm: bool,
    },
    ControlPlane,
    /// Nothing that this program could check in advance.
    Nothing,
}

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    match arguments.next().as_ref().and_then(|purpose| purpose.to_str()) {
        Some("tests") => report(ensure_tests(), "the tests need"),
        Some("demo") => demo(&arguments.collect::<Vec<_>>()),
        _ => {
            eprintln!("error: expected `tests` or `demo ARGUMENTS...`");
            ExitCode::from(2)
        }
    }
}

fn demo(arguments: &[OsString]) -> ExitCode {
    if arguments.iter().any(|argument| argument == "--no-install") {
        forbid_installation();
    }
    let checked = match prerequisites(arguments) {
        Prerequisites::Node { helm } => {
            let sets: Vec<_> = NODE_SETS.into_iter().chain(helm.then_some(&HELM)).collect();
            ensure_cluster(&sets, true)
        }
        Prerequisites::ControlPlane => ensure_cluster(&[&KUBERNETES], false),
        Prerequisites::Nothing => Ok(()),
    };
    if checked.is_err() {
        return report(checked, "a local cluster needs");
    }
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The variables that Cargo sets for this program would affect the build of another program.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command.args(["run", "--quiet", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"), "--"]);
    let error = command.args(arguments).exec();
    eprintln!("error: running cargo: {error}");
    ExitCode::FAILURE
}

fn report(checked: Result<(), Vec<String>>, what: &str) -> ExitCode {
    let Err(lines) = checked else { return ExitCode::SUCCESS };
    eprintln!("error: this machine lacks what {what}:");
    for line in lines {
        eprintln!("  - {line}");
    }
    ExitCode::FAILURE
}

fn prerequisites(arguments: &[OsString]) -> Prerequisites {
    let mut arguments = arguments.iter().filter_map(|argument| argument.to_str()).filter(|text| *text != "--");
    let mut action = "demo";
    let mut rest = Vec::new();
    while let Some(argument) = arguments.next() {
        match argument {
            "--name" => drop(arguments.next()),
            _ if argument.starts_with('-') => rest.push(argument),
            _ => {
                action = argument;
                break;
            }
        }
    }
    rest.extend(arguments);
    let has = |names: &[&str]| rest.iter().any(|argument| names.contains(argument));
    match action {
        "demo" | "up" if has(&["-h", "--help", "-V", "--version"]) => Prerequisites::Nothing,
        "up" if has(&["--control-plane"]) => Prerequisites::ControlPlane,
        "up" => Prerequisites::Node { helm: false },
        "demo" => Prerequisites::Node { helm: true },
        _ => Prerequisites::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_selects_the_needs_to_check() {
        let split = |line: &str| line.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        let prerequisites = |line: &str| prerequisites(&split(line));
        for line in ["", "--", "demo", "-- --name up", "--no-install", "--name x demo --no-install"] {
            assert_eq!(prerequisites(line), Prerequisites::Node { helm: true }, "{line}");
        }
        for line in ["up", "-- up", "--name down up --no-install", "--no-install up --name=x"] {
            assert_eq!(prerequisites(line), Prerequisites::Node { helm: false }, "{line}");
        }
        assert_eq!(prerequisites("-- up --control-plane"), Prerequisites::ControlPlane);
        for line in ["--help", "up -h", "down", "-- status", "kubectl up", "--name x kubectl get pods", "image"] {
            assert_eq!(prerequisites(line), Prerequisites::Nothing, "{line}");
        }
    }
}
