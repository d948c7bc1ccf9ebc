//! `k8sensus-prerequisites tests` sees to what the tests need; `k8sensus-prerequisites demo ARGUMENTS...` to what
//! `cargo demo ARGUMENTS...` needs, and then gives way to it.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use k8sensus_prerequisites::recipe::{HELM, KUBERNETES};
use k8sensus_prerequisites::{NODE_SETS, ensure_cluster, ensure_tests, forbid_installation};

/// The part of the demo's command line that matters here. `k8sensus-local` checks the whole of it.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// A node, and Helm where the demonstration installs the operator.
    Node {
        helm: bool,
    },
    ControlPlane,
    /// Nothing that this program could see to in advance.
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
    let checked = match wanted(arguments) {
        Wanted::Node { helm } => {
            let sets: Vec<_> = NODE_SETS.into_iter().chain(helm.then_some(&HELM)).collect();
            ensure_cluster(&sets, true)
        }
        Wanted::ControlPlane => ensure_cluster(&[&KUBERNETES], false),
        Wanted::Nothing => Ok(()),
    };
    if checked.is_err() {
        return report(checked, "a local cluster needs");
    }
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What Cargo sets for this program would change the build of another one.
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

fn wanted(arguments: &[OsString]) -> Wanted {
    let mut words = arguments.iter().filter_map(|argument| argument.to_str()).filter(|word| *word != "--");
    let mut action = "demo";
    let mut rest = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "--name" => drop(words.next()),
            _ if word.starts_with('-') => rest.push(word),
            _ => {
                action = word;
                break;
            }
        }
    }
    rest.extend(words);
    let has = |names: &[&str]| rest.iter().any(|word| names.contains(word));
    match action {
        "demo" | "up" if has(&["-h", "--help", "-V", "--version"]) => Wanted::Nothing,
        "up" if has(&["--control-plane"]) => Wanted::ControlPlane,
        "up" => Wanted::Node { helm: false },
        "demo" => Wanted::Node { helm: true },
        _ => Wanted::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_checked_for_what_it_will_start() {
        let wanted = |line: &str| wanted(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>());
        for line in ["", "--", "demo", "-- --name up", "--no-install", "--name x demo --no-install"] {
            assert_eq!(wanted(line), Wanted::Node { helm: true }, "{line}");
        }
        for line in ["up", "-- up", "--name down up --no-install", "--no-install up --name=x"] {
            assert_eq!(wanted(line), Wanted::Node { helm: false }, "{line}");
        }
        assert_eq!(wanted("-- up --control-plane"), Wanted::ControlPlane);
        for line in ["--help", "up -h", "down", "-- status", "kubectl up", "--name x kubectl get pods", "image"] {
            assert_eq!(wanted(line), Wanted::Nothing, "{line}");
        }
    }
}
