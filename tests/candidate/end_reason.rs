//! A container that ends because of the candidate gives the reason in its termination message.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{CANDIDATE, Program, candidate_command, namespace, shared};

const SOON: Duration = Duration::from_secs(5);
const PATH: &str = "K8SENSUS_TERMINATION_MESSAGE_PATH";

/// Returns the exit code and the termination message of a candidate with these arguments and variables.
fn end(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let message = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new(CANDIDATE);
    command.args(arguments).env_clear().env("POD_NAME", "otter").envs(environment.iter().copied());
    // Also without a reader of its output.
    let status = command.env(PATH, message.path()).stderr(Stdio::null()).status().unwrap();
    (status.code(), fs::read_to_string(message.path()).unwrap())
}

#[test]
fn every_refusal_at_the_start_is_the_termination_message() {
    let listener = TcpListener::bind(("::", 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let kubeconfig = shared().kubeconfig().to_str().unwrap().to_owned();
    let lease = ("K8SENSUS_LEASE_NAME", "weir");
    for program in [&["run"][..], &["exec", "--", "true"]] {
        for (code, environment, why) in [
            (2, &[][..], "Lease Name not found"),
            (
                2,
                &[lease, ("K8SENSUS_LEASE_DURATION_SECONDS", "soon")],
                "K8SENSUS_LEASE_DURATION_SECONDS|--lease-duration",
            ),
            (2, &[lease, ("K8SENSUS_LEASE_DURATION_SECONDS", "5")], "lease duration (5 s) must be greater"),
            (2, &[lease, ("K8SENSUS_HTTP_PORT", "70000")], "70000"),
            (2, &[lease, ("POD_NAME", "")], "Pod Name not found"),
            (1, &[lease], "no cluster found"),
            (1, &[lease, ("KUBECONFIG", "/nowhere/config")], "cannot use kubeconfig /nowhere/config"),
            (1, &[lease, ("K8SENSUS_API_SERVER_FILE", "/nowhere/url")], "the API server's address from /nowhere/url"),
            (1, &[lease, ("KUBERNETES_SERVICE_HOST", "::1"), ("KUBERNETES_SERVICE_PORT", "1")], "service account"),
            (1, &[lease, ("KUBECONFIG", &kubeconfig), ("K8SENSUS_HTTP_PORT", &port)], "cannot listen on port"),
        ] {
            let (found, message) = end(program, environment);
            assert_eq!(found, Some(code), "{program:?} {environment:?}: {message}");
            let has_reason = why.split('|').any(|why| message.contains(why));
            assert!(has_reason && message.ends_with('\n'), "{program:?} {environment:?}: {message:?}");
            assert_eq!(message.lines().count(), 1, "{program:?} {environment:?}: {message:?}");
        }
    }
    let (code, message) = end(&["exec"], &[lease]);
    assert!(code == Some(2) && message.contains("COMMAND"), "{message}");
    let (code, message) = end(&["exec", "--no-such-flag", "--", "true"], &[lease]);
    assert!(code == Some(2) && message.contains("--no-such-flag"), "{message}");
    let broken = ("K8SENSUS_APP", "{");
    let (code, message) = end(&["exec", "--", "true"], &[lease, broken]);
    assert!(code == Some(2) && message.contains("probes and hooks as JSON"), "{message}");
}

#[test]
fn only_the_containers_main_process_writes_the_termination_message() {
    // Like `kubectl exec`, beside the candidate whose proof is in the file.
    for arguments in [&["observe"][..], &["install", "/nowhere/k8sensus"], &["--no-such-flag"]] {
        let (code, message) = end(arguments, &[]);
        assert!(code != Some(0) && message.is_empty(), "{arguments:?}: {message:?}");
    }
}

#[test]
fn a_full_disk_costs_only_the_message() {
    let ns = namespace(shared(), "full-disk");
    let mut command = candidate_command(shared(), &ns, "weir", "otter", &["exec", "--", "sleep", "1000"]);
    command.env("POD_UID", "0c7e5a52").env("K8SENSUS_CONTAINER", "main").env(PATH, "/dev/full");
    let mut leader = Program::start("otter", &mut command);
    leader.wait_for("leading with fencing token", SOON);
    leader.wait_for("cannot write the termination message /dev/full", SOON);
    assert!(leader.terminate(SOON).success(), "{}", leader.output());
}

#[test]
fn a_program_that_closes_its_streams_keeps_leading() {
    let ns = namespace(shared(), "closed-streams");
    let folder = tempfile::tempdir().unwrap();
    let script = format!("exec <&- >&- 2>&-; echo up > {}/up; exec sleep 1000", folder.path().display());
    let arguments = ["exec", "--", "/bin/sh", "-c", &script];
    let mut command = candidate_command(shared(), &ns, "weir", "otter", &arguments);
    let mut leader = Program::start("otter", &mut command);
    super::exec::file(folder.path(), "up");
    std::thread::sleep(Duration::from_secs(2));
    assert!(!leader.says("ended by itself"), "{}", leader.output());
    assert!(leader.terminate(SOON).success());
}
