//! The candidate's text in the kubelet's report of its end.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Program, get, namespace, shared, within};

const SOON: Duration = Duration::from_secs(5);

/// Starts a candidate like the operator's pods do, with its termination message in a file.
fn in_pod(ns: &str, pod: &str, message: &Path, script: &str) -> Program {
    let arguments = ["exec", "--", "/bin/sh", "-c", script];
    let mut command = crate::support::candidate_command(shared(), ns, "weir", pod, &arguments);
    command
        .env("POD_UID", "0c7e5a52")
        .env("K8SENSUS_CONTAINER", "main")
        .env("K8SENSUS_TERMINATION_MESSAGE_PATH", message);
    Program::start(pod, &mut command)
}

fn incarnation(ns: &str) -> String {
    within(10, "an incarnation in the lease", || {
        let annotations = get(shared(), ns, "lease/weir")?["metadata"]["annotations"].clone();
        annotations["k8sensus.dev/incarnation"].as_str().map(str::to_owned)
    })
}

#[test]
fn the_termination_message_has_the_incarnation_until_an_orderly_end() {
    let ns = namespace(shared(), "message");
    let file = tempfile::NamedTempFile::new().unwrap();
    let message = || fs::read_to_string(file.path()).unwrap();
    fs::write(file.path(), "longer than the new text, and of an earlier container that no longer matters: ".repeat(4))
        .unwrap();
    let mut leader = in_pod(&ns, "otter", file.path(), "exec sleep 1000");
    leader.wait_for("leading with fencing token", SOON);
    let incarnation = incarnation(&ns);
    assert!(incarnation.starts_with("0c7e5a52/main/"), "{incarnation}");
    assert_eq!(message(), format!("{incarnation}\n"));
    let other = tempfile::NamedTempFile::new().unwrap();
    let standby = in_pod(&ns, "heron", other.path(), "exec sleep 1000");
    standby.wait_for("leader is otter", SOON);
    assert_ne!(
        fs::read_to_string(other.path()).unwrap(),
        message(),
        "before it leads, each candidate writes its own incarnation"
    );
    assert!(fs::read_to_string(other.path()).unwrap().starts_with("0c7e5a52/main/"));

    assert!(leader.terminate(SOON).success());
    assert_eq!(message(), "", "the log may stand in for it again");
    standby.signal(Signal::KILL);
    assert!(fs::read_to_string(other.path()).unwrap().starts_with("0c7e5a52/main/"), "a killed candidate leaves it");
}

#[test]
fn the_commands_own_termination_message_is_kept() {
    for (order, expected) in [(">", "out of orders\n"), (">>", "out of orders\n")] {
        let ns = namespace(shared(), "own");
        let file = tempfile::NamedTempFile::new().unwrap();
        let script = format!("echo out of orders {order} {}; exit 3", file.path().display());
        let mut leader = in_pod(&ns, "otter", file.path(), &script);
        assert_eq!(leader.wait(SOON).code(), Some(3));
        assert_eq!(fs::read_to_string(file.path()).unwrap(), expected, "{order}");
    }
}

#[test]
fn a_lease_that_could_not_be_released_keeps_its_proof() {
    let cluster = crate::support::control_plane();
    let file = tempfile::NamedTempFile::new().unwrap();
    let arguments = ["exec", "--", "/bin/sleep", "1000"];
    let mut command = crate::support::candidate_command(&cluster, "default", "weir", "otter", &arguments);
    command.env("POD_UID", "0c7e5a52").env("K8SENSUS_CONTAINER", "main");
    command.env("K8SENSUS_TERMINATION_MESSAGE_PATH", file.path());
    let mut leader = Program::start("otter", &mut command);
    leader.wait_for("leading with fencing token", SOON);
    cluster.signal(k8sensus_local::Component::ApiServer, Signal::STOP.as_raw()).unwrap();
    leader.terminate(SOON);
    assert!(fs::read_to_string(file.path()).unwrap().starts_with("0c7e5a52/main/"));
    cluster.signal(k8sensus_local::Component::ApiServer, Signal::CONT.as_raw()).unwrap();
}

#[test]
fn a_missing_termination_message_file_does_not_stop_the_candidate() {
    let ns = namespace(shared(), "mute");
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("termination-log");
    let mut leader = in_pod(&ns, "otter", &missing, "exec sleep 1000");
    leader.wait_for("leading with fencing token", SOON);
    let warning = format!("cannot write the termination message {}: No such file or directory", missing.display());
    assert_eq!(leader.output().matches(&warning).count(), 1, "{}", leader.output());
    assert!(!missing.exists(), "only the kubelet creates the file");
    assert!(leader.terminate(SOON).success());
}

#[test]
fn a_termination_message_that_is_no_file_does_not_block() {
    let ns = namespace(shared(), "pipe");
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [&pipe, folder.path()] {
        let mut leader = in_pod(&ns, "otter", path, "exec sleep 1000");
        leader.wait_for("leading with fencing token", SOON);
        assert!(leader.terminate(SOON).success());
    }
}

#[test]
fn a_failed_start_leaves_its_reason_and_a_shells_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    fs::write(&plain, "#!/bin/sh\n").unwrap();
    let script = folder.path().join("script");
    fs::write(&script, "#!/nowhere/interpreter\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    for (program, code, error) in [
        ("/nowhere/kestrel".to_owned(), 127, "No such file or directory (os error 2)"),
        ("kestrel-of-no-path".to_owned(), 127, "No such file or directory (os error 2)"),
        (text(&script), 127, "No such file or directory (os error 2)"),
        (text(&plain), 126, "Permission denied (os error 13)"),
        (text(folder.path()), 126, "Permission denied (os error 13)"),
        (format!("{}/kestrel", text(&plain)), 126, "Not a directory (os error 20)"),
    ] {
        let ns = namespace(shared(), "unstarted");
        let file = tempfile::NamedTempFile::new().unwrap();
        let arguments = ["exec", "--", &program, "--flag"];
        let mut command = crate::support::candidate_command(shared(), &ns, "weir", "otter", &arguments);
        command.env("POD_UID", "0c7e5a52").env("K8SENSUS_CONTAINER", "main");
        command.env("K8SENSUS_TERMINATION_MESSAGE_PATH", file.path());
        let mut leader = Program::start("otter", &mut command);
        assert_eq!(leader.wait(SOON).code(), Some(code), "{program}");
        let why = format!("cannot start {program}: {error}; check the command and the image's file system\n");
        assert_eq!(fs::read_to_string(file.path()).unwrap(), why);
        assert_eq!(get(shared(), &ns, "lease/weir").unwrap()["spec"]["holderIdentity"], "");
    }
}

#[test]
fn a_reason_is_appended_to_the_proof_of_an_unreleased_lease() {
    let cluster = crate::support::control_plane();
    let folder = tempfile::tempdir().unwrap();
    let message = folder.path().join("message");
    fs::write(&message, "").unwrap();
    let mut command =
        crate::support::candidate_command(&cluster, "default", "weir", "otter", &["exec", "--", "/bin/sleep", "1000"]);
    let hook = "while [ ! -e $DIR/go ]; do sleep 0.02; done; exit 4";
    let app = serde_json::json!({ "lifecycle": { "postStart": { "exec": { "command": ["/bin/sh", "-c", hook] } } } });
    command.env("POD_UID", "0c7e5a52").env("K8SENSUS_CONTAINER", "main").env("DIR", folder.path());
    command.env("K8SENSUS_TERMINATION_MESSAGE_PATH", &message).env("K8SENSUS_APP", app.to_string());
    let mut leader = Program::start("otter", &mut command);
    leader.wait_for("leading with fencing token", SOON);
    let proof = fs::read_to_string(&message).unwrap();
    cluster.signal(k8sensus_local::Component::ApiServer, Signal::STOP.as_raw()).unwrap();
    fs::write(folder.path().join("go"), "").unwrap();
    assert_eq!(leader.wait(SOON).code(), Some(1));
    let why = "the postStart hook failed: /bin/sh ended with exit code 4\n";
    assert_eq!(fs::read_to_string(&message).unwrap(), format!("{proof}{why}"));
    cluster.signal(k8sensus_local::Component::ApiServer, Signal::CONT.as_raw()).unwrap();
}
