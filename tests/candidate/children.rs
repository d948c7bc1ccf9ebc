//! Process trees whose end is hard to detect, below a candidate that is PID 1 and one that is not.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::process::Process;
use crate::support::{Program, candidate_command, get, namespace, shared, within};

const SOON: Duration = Duration::from_secs(5);

/// Starts a candidate that runs `script` with `$DIR` set; as PID 1 of a namespace of its own, as in a container, or
/// not.
fn start(ns: &str, pod: &str, as_init: bool, folder: &Path, script: &str) -> Program {
    let mut direct = candidate_command(shared(), ns, "weir", pod, &["exec", "--", "/bin/sh", "-c", script]);
    direct.env("DIR", folder);
    if !as_init {
        return Program::start(pod, &mut direct);
    }
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--mount-proc", "--kill-child", "--"])
        .arg(direct.get_program())
        .args(direct.get_args());
    command.envs(direct.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Program::start(pod, &mut command)
}

/// Returns the process id of the candidate itself.
pub(super) fn candidate_of(program: &Program, as_init: bool) -> i32 {
    let pid = program.pid();
    if !as_init {
        return pid;
    }
    within(5, "unshare to have a child", || {
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?.trim().parse().ok()
    })
}

fn text(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_default()
}

fn wait_for(folder: &Path, name: &str) {
    within(10, &format!("{name} to be written"), || text(folder, name).ends_with('\n').then_some(()));
}

fn released(ns: &str) -> bool {
    get(shared(), ns, "lease/weir").unwrap()["spec"]["holderIdentity"] == ""
}

/// A classic daemon: forked twice, in a session of its own. It ignores SIGTERM and forks on.
const DAEMON: &str = "(setsid /bin/sh -c 'trap \"\" TERM HUP; \
    (while :; do (echo beat >> $DIR/beats; sleep 0.02) & wait; done) & echo $PPID > $DIR/daemon' &) ; \
    while [ ! -s $DIR/beats ]; do sleep 0.02; done";

#[test]
fn a_daemon_is_dead_before_the_lease_is_free() {
    for as_init in [false, true] {
        let ns = namespace(shared(), "daemon");
        let folder = tempfile::tempdir().unwrap();
        let mut leader = start(&ns, "otter", as_init, folder.path(), &format!("{DAEMON}; exit 7"));
        assert_eq!(leader.wait(SOON).code(), Some(7), "as init: {as_init}");
        assert!(released(&ns), "as init: {as_init}");
        let beats = text(folder.path(), "beats");
        assert!(!beats.is_empty());
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(text(folder.path(), "beats").len(), beats.len(), "it beats on; as init: {as_init}");
    }
}

#[test]
fn a_daemon_dies_with_its_stopped_command() {
    for as_init in [false, true] {
        let ns = namespace(shared(), "stopped");
        let folder = tempfile::tempdir().unwrap();
        let script = format!("{DAEMON}; trap 'exit 0' TERM; echo up > $DIR/up; while :; do sleep 0.05; done");
        let mut leader = start(&ns, "otter", as_init, folder.path(), &script);
        wait_for(folder.path(), "up");
        let candidate = Pid::from_raw(candidate_of(&leader, as_init)).unwrap();
        kill_process(candidate, Signal::TERM).unwrap();
        assert_eq!(leader.wait(SOON).code(), Some(0), "as init: {as_init}");
        assert!(released(&ns), "as init: {as_init}");
        let beats = text(folder.path(), "beats");
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(text(folder.path(), "beats").len(), beats.len(), "it beats on; as init: {as_init}");
    }
}

#[test]
fn orphans_are_reaped_while_the_command_runs() {
    for as_init in [false, true] {
        let ns = namespace(shared(), "zombies");
        let folder = tempfile::tempdir().unwrap();
        let script = "i=0; while [ $i -lt 100 ]; do (setsid /bin/sh -c 'exit 3' &); i=$((i+1)); done; \
                      echo done > $DIR/done; exec sleep 1000";
        let leader = start(&ns, "otter", as_init, folder.path(), script);
        wait_for(folder.path(), "done");
        let candidate = candidate_of(&leader, as_init);
        within(5, "all orphans to be reaped", || {
            // The command is a child of the thread that started it; orphans are the main thread's.
            let threads = fs::read_dir(format!("/proc/{candidate}/task")).unwrap().filter_map(Result::ok);
            let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
            (children.map(|children| children.split_whitespace().count()).sum::<usize>() == 1).then_some(())
        });
        assert!(get(shared(), &ns, "lease/weir").unwrap()["spec"]["holderIdentity"] == "otter");
    }
}

#[test]
fn a_command_that_floods_its_output_is_handed_over() {
    let ns = namespace(shared(), "flood");
    let folder = tempfile::tempdir().unwrap();
    // One pipe is full because it has no reader, and one is read as fast as possible.
    let script = "echo up > $DIR/up; yes | cat >/dev/null & exec yes";
    let mut command = candidate_command(shared(), &ns, "weir", "otter", &["exec", "--", "/bin/sh", "-c", script]);
    command.env("DIR", folder.path()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut leader = Process::start(&mut command);
    wait_for(folder.path(), "up");
    let other = tempfile::tempdir().unwrap();
    let standby = start(&ns, "heron", false, other.path(), "echo up > $DIR/up; exec sleep 1000");
    standby.wait_for("leader is otter", SOON);
    std::thread::sleep(Duration::from_secs(4));
    assert!(!other.path().join("up").exists(), "the lease of 3 s is renewed under the flood");
    let start = Instant::now();
    leader.signal(Signal::TERM);
    wait_for(other.path(), "up");
    // A lease of 3 s that is renewed every second cannot expire sooner than 2 s from now.
    assert!(start.elapsed() < Duration::from_millis(1_900), "{:?}", start.elapsed());
    assert!(leader.ended(SOON).expect("the leader to end").success());
}

#[test]
fn exit_codes_pass_through_pid_1() {
    for (script, code) in [("exit 42", 42), ("kill -KILL $$", 137), ("exec /nowhere/kestrel", 127)] {
        let ns = namespace(shared(), "init");
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(start(&ns, "otter", true, folder.path(), script).wait(SOON).code(), Some(code), "{script}");
        assert!(released(&ns));
    }
}

#[test]
fn standard_input_reaches_the_command() {
    let ns = namespace(shared(), "stdin");
    let mut command = candidate_command(shared(), &ns, "weir", "otter", &["exec", "--", "/bin/cat"]);
    let mut leader = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()));
    let sent: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let mut input = leader.child.stdin.take().unwrap();
    let mut output = leader.child.stdout.take().unwrap();
    let writer = std::thread::spawn({
        let sent = sent.clone();
        move || input.write_all(&sent)
    });
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        output.read_to_end(&mut got).map(|_| got)
    });
    let status = leader.ended(Duration::from_secs(20)).expect("the command to end with its input");
    writer.join().unwrap().unwrap();
    let got = reader.join().unwrap().unwrap();
    assert!(got == sent, "{} bytes", got.len());
    assert!(status.success());
}

#[test]
fn a_command_may_read_the_terminal() {
    let ns = namespace(shared(), "tty");
    let direct = candidate_command(shared(), &ns, "weir", "otter", &[]);
    let mut command = Command::new("script");
    let program = direct.get_program().to_string_lossy();
    let line = format!("{program} exec -- /bin/sh -c 'read line; echo got $line'");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    command.envs(direct.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut leader = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()));
    // Kept open, since its end would end the terminal.
    let mut input = leader.child.stdin.take().unwrap();
    input.write_all(b"kestrel\n").unwrap();
    let status = leader.ended(Duration::from_secs(8));
    let status = status.expect("the command to end, though a background process is stopped when it reads its terminal");
    let mut output = String::new();
    leader.child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(status.success() && output.contains("got kestrel"), "{output}");
}
