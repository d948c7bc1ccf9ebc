//! Processes that SIGKILL cannot reach, and obstacles to sending it. The candidate is PID 1 of a namespace of its own,
//! as in a container, or not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::children::candidate_of;
use crate::support::{Program, candidate_command, get, kubectl, namespace, shared, within};

const SOON: Duration = Duration::from_secs(5);

/// Root without CAP_KILL that changes to another user: `securityContext.capabilities: {drop: [ALL], add: [SETUID,
/// SETGID]}` and an entrypoint that changes its user. It ignores SIGTERM, and writes a heartbeat.
const OTHER_USER: &str = "setpriv --reuid 65534 --clear-groups /bin/sh -c \
    'trap \"\" TERM; while :; do echo >> $DIR/beats; sleep 0.02; done'";

fn start(ns: &str, as_init: bool, folder: &Path, script: &str, more: &[(&str, &str)]) -> Program {
    start_command(ns, as_init, folder, &["/bin/sh", "-c", script], more)
}

fn start_command(ns: &str, as_init: bool, folder: &Path, command: &[&str], more: &[(&str, &str)]) -> Program {
    let direct = candidate_command(shared(), ns, "weir", "otter", &[&["exec", "--"], command].concat());
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-kill", "--inh-caps", "-kill", "--"]);
    if as_init {
        command.args(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--"]);
    }
    command.arg(direct.get_program()).args(direct.get_args());
    command.envs(direct.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Program::start("otter", command.env("DIR", folder).envs(more.iter().copied()))
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    folder
}

fn beats(folder: &Path) -> usize {
    fs::read_to_string(folder.join("beats")).unwrap_or_default().len()
}

fn wait_for_beats(folder: &Path) {
    within(10, "the command to beat", || (beats(folder) > 0).then_some(()));
}

fn give_the_lease_to_another(ns: &str) {
    let patch = r#"{"spec":{"holderIdentity":"heron"}}"#;
    kubectl(shared(), &["patch", "-n", ns, "lease/weir", "--type=merge", "-p", patch]);
}

fn terminate_candidate(program: &Program) {
    kill_process(Pid::from_raw(candidate_of(program, true)).unwrap(), Signal::TERM).unwrap();
}

fn has_stopped(folder: &Path) {
    let before = beats(folder);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(beats(folder), before, "it beats on");
}

#[test]
fn a_command_of_another_user_is_dead_once_leadership_is_lost() {
    for script in [format!("exec {OTHER_USER}"), format!("{OTHER_USER} & trap '' TERM; wait")] {
        let ns = namespace(shared(), "other-user-lost");
        let folder = folder();
        let message = folder.path().join("message");
        fs::write(&message, "").unwrap();
        let pod = [
            ("POD_UID", "0c7e5a52"),
            ("K8SENSUS_CONTAINER", "main"),
            ("K8SENSUS_TERMINATION_MESSAGE_PATH", message.to_str().unwrap()),
        ];
        let mut leader = start(&ns, true, folder.path(), &script, &pod);
        wait_for_beats(folder.path());
        give_the_lease_to_another(&ns);
        // The next renewal, within a second, finds the other holder; the container ends as a whole.
        leader.wait(SOON);
        has_stopped(folder.path());
        assert!(leader.says("ending the whole container; add the capability KILL"), "{}", leader.output());
        let message = fs::read_to_string(&message).unwrap();
        let (proof, why) = message.split_once('\n').unwrap();
        assert!(proof.starts_with("0c7e5a52/main/") && why.contains("add the capability KILL"), "{message}");
    }
}

#[test]
fn a_stopped_command_of_another_user_ends_with_the_container() {
    let ns = namespace(shared(), "other-user-stopped");
    let folder = folder();
    let mut leader = start(&ns, true, folder.path(), &format!("exec {OTHER_USER}"), &[]);
    wait_for_beats(folder.path());
    terminate_candidate(&leader);
    leader.wait(SOON);
    has_stopped(folder.path());
    assert!(leader.says("cannot send SIGTERM to the command"), "{}", leader.output());
    assert_eq!(get(shared(), &ns, "lease/weir").unwrap()["spec"]["holderIdentity"], "otter", "the end is not reported");
}

#[test]
fn the_lease_is_held_while_a_foreign_command_runs() {
    let ns = namespace(shared(), "other-user-held");
    let folder = folder();
    let script = format!("echo $$ > $DIR/pid; {OTHER_USER} & wait");
    let leader = start(&ns, false, folder.path(), &script, &[]);
    wait_for_beats(folder.path());
    leader.signal(Signal::TERM);
    leader.wait_for("processes of another user, which this process may not end: end them by hand", SOON);
    // Longer than the lease duration of 3 s.
    let renewed = || get(shared(), &ns, "lease/weir").unwrap()["spec"]["renewTime"].clone();
    std::thread::sleep(Duration::from_secs(4));
    let before = renewed();
    within(5, "another renewal", || (renewed() != before).then_some(()));
    assert_eq!(get(shared(), &ns, "lease/weir").unwrap()["spec"]["holderIdentity"], "otter");
    for process in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        let marked = format!("DIR={}", folder.path().display());
        let pid = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) =
            pid.filter(|_| environment.split(|byte| *byte == 0).any(|variable| variable == marked.as_bytes()))
        {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

#[test]
fn a_debug_process_from_outside_does_not_end_the_container() {
    let ns = namespace(shared(), "looked-into");
    let folder = folder();
    let script = "trap '' TERM; while :; do echo >> $DIR/beats; sleep 0.02; done";
    let mut leader = start(&ns, true, folder.path(), script, &[]);
    wait_for_beats(folder.path());
    let target = candidate_of(&leader, true).to_string();
    // Like `kubectl debug --target`: the parent is outside the namespace.
    let mut outsider = Command::new("nsenter");
    outsider.args(["--pid", "--target", &target, "--", "setpriv", "--reuid", "65534", "--clear-groups", "sleep", "60"]);
    let outsider = Program::start("outsider", &mut outsider);
    within(5, "the one from outside", || {
        let pids = fs::read_to_string(format!("/proc/{}/task/{0}/children", outsider.pid())).ok()?;
        (!pids.trim().is_empty()).then_some(())
    });
    give_the_lease_to_another(&ns);
    leader.wait_for("killing the command", SOON);
    std::thread::sleep(Duration::from_secs(1));
    has_stopped(folder.path());
    // Now it is a standby.
    leader.wait_for("leader is heron", SOON);
    terminate_candidate(&leader);
    assert!(leader.wait(SOON).success(), "{}", leader.output());
}

/// Holds a lease on a file, so that its execution blocks, as on a file system that does not answer.
const HOLD: &str = "import fcntl, signal, sys, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = open(sys.argv[1], 'r+')
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
open(sys.argv[2], 'w').write('held\\n')
time.sleep(60)";

/// Creates a program in `folder` whose start hangs for as long as the returned lease holder lives.
fn hanging_program(folder: &Path) -> (PathBuf, Program) {
    let (program, held) = (folder.join("check"), folder.join("held"));
    fs::write(&program, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let holder = Program::start("holder", Command::new("python3").args(["-c", HOLD]).arg(&program).arg(&held));
    within(10, "the file to be held", || held.exists().then_some(()));
    (program, holder)
}

#[test]
fn a_requested_stop_reaches_a_command_whose_start_hangs() {
    for as_init in [false, true] {
        let ns = namespace(shared(), "hanging-command");
        let folder = folder();
        let (program, _holder) = hanging_program(folder.path());
        let program = program.to_str().unwrap();
        let mut leader = start_command(&ns, as_init, folder.path(), &[program], &[]);
        leader.wait_for("successfully acquired lease", SOON);
        std::thread::sleep(Duration::from_millis(500));
        match as_init {
            true => terminate_candidate(&leader),
            false => leader.signal(Signal::TERM),
        }
        assert!(leader.wait(SOON).success(), "{}", leader.output());
        assert_eq!(get(shared(), &ns, "lease/weir").unwrap()["spec"]["holderIdentity"], "", "nothing is left of it");
    }
}

#[test]
fn a_command_is_killed_on_time_while_a_probe_start_hangs() {
    for as_init in [false, true] {
        let ns = namespace(shared(), "hanging-start");
        let folder = folder();
        let (program, _holder) = hanging_program(folder.path());
        let probe = serde_json::json!({ "exec": { "command": [program] }, "initialDelaySeconds": 1 });
        let app = serde_json::json!({ "readinessProbe": probe }).to_string();
        let script = "trap '' TERM; while :; do echo >> $DIR/beats; sleep 0.02; done";
        let leader = start(&ns, as_init, folder.path(), script, &[("K8SENSUS_APP", &app)]);
        wait_for_beats(folder.path());
        // The start of the probe hangs, and blocks the candidate's main thread.
        std::thread::sleep(Duration::from_secs(2));
        give_the_lease_to_another(&ns);
        std::thread::sleep(Duration::from_millis(1_500));
        has_stopped(folder.path());
        drop(leader);
    }
}
