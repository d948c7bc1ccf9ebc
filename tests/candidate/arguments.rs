//! A wrong call ends with exit code 2 and one line, before any request to an API server.

use std::process::{Command, Output};
use std::time::Duration;

use crate::support::{CANDIDATE, candidate, namespace, shared};

fn call(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(CANDIDATE).args(arguments).env_clear().envs(environment.iter().copied()).output().unwrap()
}

fn refusal(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = call(arguments, environment);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(output.stdout.is_empty());
    assert_eq!(error.lines().count(), 1, "{error}");
    error.trim().to_owned()
}

const POD: (&str, &str) = ("POD_NAME", "otter");

#[test]
fn missing_and_empty_flags_are_refused_in_one_line() {
    let no_lease = "error: Lease Name not found. Provide a valid lease name through --lease-name.";
    assert_eq!(refusal(&[], &[POD]), no_lease);
    assert_eq!(refusal(&["--lease-name="], &[POD]), no_lease);
    assert_eq!(refusal(&["exec", "--", "true"], &[POD]), no_lease);
    assert_eq!(
        refusal(&["--lease-name=x", "--lease-namespace="], &[POD]),
        "error: Lease Namespace not found. Provide a valid lease namespace through --lease-namespace."
    );
    let no_pod = refusal(&["--lease-name=x"], &[]);
    assert!(no_pod.contains("POD_NAME"), "{no_pod}");
    assert_eq!(refusal(&["--lease-name=x"], &[("POD_NAME", "")]), no_pod);
    assert!(refusal(&["--lease-nam=x"], &[POD]).contains("--lease-nam"));
    assert!(refusal(&["exec", "--lease-name=x"], &[POD]).contains("COMMAND"));
}

#[test]
fn impossible_timings_are_refused_with_both_numbers() {
    let lease = "--lease-name=x";
    let too_short = refusal(&[lease, "--lease-duration-seconds=5"], &[POD]);
    assert_eq!(too_short, "error: lease duration (5 s) must be greater than renew deadline (10 s)");
    assert!(refusal(&[lease, "--stop-grace-period-seconds=4"], &[POD]).contains("9/10"));
    assert!(refusal(&[lease, "--retry-period-seconds=-1"], &[POD]).contains("--retry-period-seconds"));
    assert!(refusal(&[lease, "--renew-deadline-seconds=soon"], &[POD]).contains("expected a number of seconds"));
    assert!(refusal(&[lease], &[POD, ("K8SENSUS_RETRY_PERIOD_SECONDS", "9")]).contains("1.2 x retry period"));
}

#[test]
fn without_a_cluster_the_error_lists_what_was_tried() {
    let output = call(&["--lease-name=x"], &[POD]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("KUBECONFIG is not set"), "{error}");
    assert!(error.contains("KUBERNETES_SERVICE_HOST is not set"), "{error}");

    let output = call(&["--lease-name=x", "--kubeconfig=/nowhere/config"], &[POD]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("cannot use kubeconfig /nowhere/config"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn arguments_after_two_dashes_belong_to_the_command() {
    let ns = namespace(shared(), "dashes");
    let arguments = ["exec", "--", "/bin/echo", "-lease-name", "-lease-name=x", "--", "-lease-namespace=y"];
    let mut program = candidate(shared(), &ns, "weir", "otter", &arguments);
    assert!(program.wait(Duration::from_secs(10)).success());
    let output = program.output();
    assert!(output.lines().any(|line| line == "-lease-name -lease-name=x -- -lease-namespace=y"), "{output}");
}

#[test]
fn install_copies_a_program_that_starts() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("k8sensus");
    for _ in 0..2 {
        assert!(call(&["install", target.to_str().unwrap()], &[]).status.success());
    }
    let version = Command::new(&target).arg("--version").output().unwrap();
    assert_eq!(String::from_utf8(version.stdout).unwrap(), concat!("k8sensus ", env!("CARGO_PKG_VERSION"), "\n"));
    let missing = call(&["install", "/nowhere/k8sensus"], &[]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("cannot install /nowhere/k8sensus"));
}
