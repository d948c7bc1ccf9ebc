//! A command's life follows leadership, on a real API server.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::process::Process;
use crate::support::{Program, candidate, get, kubectl, namespace, shared, within};

const SOON: Duration = Duration::from_secs(5);

/// Starts a candidate that runs `script` in a shell, and returns it with the folder that the script has as `$DIR`.
pub(super) fn shell(ns: &str, pod: &str, script: &str) -> (Program, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("export DIR={}; {script}", folder.path().display());
    (candidate(shared(), ns, "weir", pod, &["exec", "--", "/bin/sh", "-c", &script]), folder)
}

pub(super) fn file(folder: impl AsRef<Path>, name: &str) -> String {
    let path = folder.as_ref().join(name);
    within(10, &format!("{} to be written", path.display()), || {
        fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'))
    })
}

fn alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn the_command_runs_only_in_the_leader_and_gets_its_term() {
    let ns = namespace(shared(), "exec");
    let script = "env > $DIR/env; echo done > $DIR/started; exec sleep 1000";
    let (mut leader, leader_folder) = shell(&ns, "otter", script);
    file(&leader_folder, "started");
    let lease = get(shared(), &ns, "lease/weir").unwrap();
    let (mut standby, standby_folder) = shell(&ns, "heron", script);
    standby.wait_for("leader is otter", SOON);
    assert!(!standby_folder.path().join("started").exists());

    let environment = fs::read_to_string(leader_folder.path().join("env")).unwrap();
    let value = |name: &str| {
        let line = environment.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("{name} is not in {environment}")).to_owned()
    };
    assert_eq!(value("K8SENSUS_LEADER"), "true");
    assert_eq!(value("K8SENSUS_LEASE_NAME"), "weir");
    assert_eq!(value("POD_NAME"), "otter");
    assert_eq!(value("POD_NAMESPACE"), ns);
    let token: u64 = value("K8SENSUS_FENCING_TOKEN").parse().unwrap();
    assert!(token <= lease["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap());

    leader.terminate(SOON);
    file(&standby_folder, "started");
    let later = fs::read_to_string(standby_folder.path().join("env")).unwrap();
    let later = later.lines().find_map(|line| line.strip_prefix("K8SENSUS_FENCING_TOKEN=")).unwrap();
    assert!(later.parse::<u64>().unwrap() > token, "the token must rise: {token}, then {later}");
    standby.terminate(SOON);
}

#[test]
fn the_lease_is_held_until_a_slow_command_has_ended() {
    let ns = namespace(shared(), "slow");
    let script = "trap 'sleep 4; echo bye > $DIR/ended; exit 0' TERM; echo $$ > $DIR/pid; while :; do sleep 0.1; done";
    let (mut leader, folder) = shell(&ns, "otter", script);
    file(&folder, "pid");
    let (standby, standby_folder) = shell(&ns, "heron", "echo $$ > $DIR/pid; exec sleep 1000");
    standby.wait_for("leader is otter", SOON);
    leader.signal(Signal::TERM);
    // Longer than the lease duration of 3 s: it must be renewed while the command ends.
    std::thread::sleep(Duration::from_millis(3_700));
    assert!(!standby_folder.path().join("pid").exists());
    assert!(leader.wait(SOON).success());
    assert!(folder.path().join("ended").exists());
    file(&standby_folder, "pid");
}

#[test]
fn processes_left_behind_are_killed_before_the_lease_is_released() {
    let ns = namespace(shared(), "orphans");
    // A daemon in a session of its own that ignores SIGTERM.
    let script = "setsid sh -c 'trap \"\" TERM; echo $$ > $DIR/daemon; while :; do sleep 0.1; done' & \
                  while [ ! -s $DIR/daemon ]; do sleep 0.05; done; exit 7";
    let (mut leader, folder) = shell(&ns, "otter", script);
    let daemon = file(&folder, "daemon");
    assert_eq!(leader.wait(SOON).code(), Some(7));
    assert!(!alive(&daemon), "process {daemon} outlived its command");
    assert_eq!(get(shared(), &ns, "lease/weir").unwrap()["spec"]["holderIdentity"], "");
}

#[test]
fn a_lost_lease_immediately_kills_a_command_that_ignores_sigterm() {
    let ns = namespace(shared(), "deposed");
    let (leader, folder) = shell(&ns, "otter", "trap '' TERM; echo $$ > $DIR/pid; while :; do sleep 0.1; done");
    let pid = file(&folder, "pid");
    kubectl(
        shared(),
        &["patch", "-n", &ns, "lease/weir", "--type=merge", "-p", r#"{"spec":{"holderIdentity":"heron"}}"#],
    );
    within(1, "the command to be killed", || (!alive(&pid)).then_some(()));
    leader.wait_for("leader is heron", SOON);
}

#[test]
fn without_an_api_server_the_command_dies_before_the_lease_expires() {
    let cluster = crate::support::control_plane();
    let folder = tempfile::tempdir().unwrap();
    let script = format!("trap '' TERM; echo $$ > {}/pid; while :; do sleep 0.1; done", folder.path().display());
    let durations = ["--lease-duration-seconds=10", "--renew-deadline-seconds=6", "--retry-period-seconds=2"];
    let arguments = [&["exec"], &durations[..], &["--", "/bin/sh", "-c", &script]].concat();
    let leader = candidate(&cluster, "default", "weir", "otter", &arguments);
    let pid = file(folder.path(), "pid");
    let renewed = || get(&cluster, "default", "lease/weir").unwrap()["spec"]["renewTime"].clone();
    // The Lease was not renewed yet when it was last read, so the last renewal is sent after that.
    let mut start = Instant::now();
    let before = renewed();
    within(5, "a renewal", || {
        let read_at = Instant::now();
        let is_renewed = renewed() != before;
        if !is_renewed {
            start = read_at;
        }
        is_renewed.then_some(())
    });
    cluster.signal(k8sensus_local::Component::ApiServer, Signal::STOP.as_raw()).unwrap();
    within(15, "the command to be killed", || (!alive(&pid)).then_some(()));
    let killed_after = start.elapsed();
    // By the renew deadline of 6 s and the grace of 3 s it is 9 s after the last renewal; the lease ends after 10 s.
    assert!(killed_after < Duration::from_secs(10), "killed {killed_after:?} after the last renewal");
    leader.wait_for("no renewal within the renew deadline", SOON);
    cluster.signal(k8sensus_local::Component::ApiServer, Signal::CONT.as_raw()).unwrap();
    within(30, "the command to be started again", || {
        fs::read_to_string(folder.path().join("pid")).ok().filter(|new| !new.is_empty() && *new != pid)
    });
}

#[test]
fn a_stalled_log_reader_keeps_no_command_alive() {
    let cluster = crate::support::control_plane();
    let folder = tempfile::tempdir().unwrap();
    let (_reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while std::io::Write::write(&mut writer, &[b'.'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let script = format!("echo $$ > {}/pid; exec sleep 1000 2>/dev/null", folder.path().display());
    let arguments = ["exec", "--", "/bin/sh", "-c", &script];
    let mut command = crate::support::candidate_command(&cluster, "default", "weir", "otter", &arguments);
    let _leader = Process::start(command.stderr(writer));
    let pid = file(folder.path(), "pid");
    cluster.signal(k8sensus_local::Component::ApiServer, Signal::STOP.as_raw()).unwrap();
    within(3, "the command to be stopped", || (!alive(&pid)).then_some(()));
}

#[test]
fn exit_codes_are_passed_on() {
    let ns = namespace(shared(), "codes");
    let code = |name: &str, command: &[&str]| {
        let arguments: Vec<&str> = ["exec", "--"].into_iter().chain(command.iter().copied()).collect();
        let mut program = candidate(shared(), &ns, name, "otter", &arguments);
        let code = program.wait(SOON).code();
        assert_eq!(get(shared(), &ns, &format!("lease/{name}")).unwrap()["spec"]["holderIdentity"], "");
        (code, program.output())
    };
    assert_eq!(code("fine", &["true"]).0, Some(0));
    assert_eq!(code("failing", &["false"]).0, Some(1));
    assert_eq!(code("killed", &["sh", "-c", "kill -KILL $$"]).0, Some(137));
    let (missing, output) = code("missing", &["/nowhere/kestrel"]);
    assert_eq!(missing, Some(127));
    assert!(output.contains("cannot start /nowhere/kestrel"), "{output}");
}

#[test]
fn the_command_dies_with_a_killed_candidate() {
    let ns = namespace(shared(), "sigkill");
    let (leader, folder) = shell(&ns, "otter", "echo $$ > $DIR/pid; exec sleep 1000");
    let pid = file(&folder, "pid");
    leader.signal(Signal::KILL);
    within(2, "the command to die", || (!alive(&pid)).then_some(()));
}

#[test]
fn standard_streams_are_untouched() {
    let ns = namespace(shared(), "streams");
    let mut command = crate::support::candidate_command(
        shared(),
        &ns,
        "weir",
        "otter",
        &["exec", "--", "sh", "-c", "printf out; printf err >&2"],
    );
    let output = Command::output(command.env("RUST_LOG", "off")).unwrap();
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out"[..], &b"err"[..]));
}
