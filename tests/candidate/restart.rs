//! A candidate that restarts where another was killed, on a real API server: it acquires the Lease immediately if the
//! death is proved, and otherwise waits until the Lease has expired.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{CANDIDATE, Program, candidate_command, get, namespace, shared, within};

const SOON: Duration = Duration::from_secs(20);
/// A Lease that was renewed within a second before its holder's death lasts for at least 7 s more.
const LEASE: [(&str, &str); 3] = [
    ("K8SENSUS_LEASE_DURATION_SECONDS", "8"),
    ("K8SENSUS_RENEW_DEADLINE_SECONDS", "5"),
    ("K8SENSUS_RETRY_PERIOD_SECONDS", "1"),
];
const PROMPT_START: Duration = Duration::from_secs(4);
const AFTER_ITS_END: Duration = Duration::from_millis(6_500);

const UID: &str = "0c7e5a52";
const WORK: &str = "exec sleep 1000";
/// A process in a session of its own, which survives all signals but SIGKILL.
const DAEMON: &str =
    "setsid sh -c 'trap \"\" TERM; echo $$ > \"$0\"; while :; do sleep 0.1; done' $DAEMON & exec sleep 1000";

/// Creates a volume like the init container does.
fn volume() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path());
    folder
}

fn install(folder: &Path) {
    let status = Command::new(CANDIDATE).arg("install").arg(folder.join("k8sensus")).status().unwrap();
    assert!(status.success());
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// PID 1 of a namespace that dies with it, as in a container.
    First,
    /// Beside other processes, as in a pod with a shared process namespace.
    Beside,
}
use Place::{Beside, First};

fn candidate(ns: &str, pod_uid: &str, container: &str, volume: &Path, place: Place, script: &str) -> Program {
    let inner = candidate_command(shared(), ns, "weir", "otter", &["exec", "--", "/bin/sh", "-c", script]);
    let mut command = match place {
        First => Command::new("unshare"),
        Beside => Command::new(CANDIDATE),
    };
    if place == First {
        command.args(["--pid", "--fork", "--kill-child", CANDIDATE]);
    }
    command.args(inner.get_args()).envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?)))).envs(LEASE);
    command.env("POD_UID", pod_uid).env("K8SENSUS_CONTAINER", container);
    command.env("K8SENSUS_LOCK_PATH", volume.join("lock")).env("DAEMON", volume.join("daemon"));
    Program::start("otter", &mut command)
}

/// Kills the candidate, and returns when the kernel has ended all processes that die with it.
fn kill(mut program: Program, place: Place) {
    if place == First {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", program.pid())).unwrap();
        let inner = children.trim().parse().ok().and_then(Pid::from_raw).expect("unshare has one child");
        kill_process(inner, Signal::KILL).unwrap();
    } else {
        program.signal(Signal::KILL);
    }
    program.wait(SOON);
}

/// Waits until the candidate leads, and returns how long that was.
fn time_to_lead(program: &Program) -> Duration {
    let start = Instant::now();
    program.wait_for("leading with fencing token", SOON);
    start.elapsed()
}

/// Returns the Lease's incarnation and its transitions.
fn term(ns: &str) -> (String, i64) {
    let lease = get(shared(), ns, "lease/weir").unwrap();
    let incarnation = lease["metadata"]["annotations"]["k8sensus.dev/incarnation"].as_str().unwrap_or_default();
    (incarnation.to_owned(), lease["spec"]["leaseTransitions"].as_i64().unwrap_or_default())
}

#[test]
fn the_successor_of_a_killed_candidate_in_the_same_container_leads_at_once() {
    let (ns, volume) = (namespace(shared(), "restart"), volume());
    let mut leader = candidate(&ns, UID, "main", volume.path(), First, WORK);
    time_to_lead(&leader);
    for _ in 0..3 {
        let (dead, transitions) = term(&ns);
        assert!(dead.starts_with("0c7e5a52/main/"), "{dead}");
        kill(leader, First);
        leader = candidate(&ns, UID, "main", volume.path(), First, WORK);
        let start_time = time_to_lead(&leader);
        println!("leads {start_time:?} after its start");
        assert!(start_time < PROMPT_START, "{start_time:?}");
        let (alive, now) = term(&ns);
        assert!(alive.starts_with("0c7e5a52/main/") && alive != dead, "{alive} after {dead}");
        assert_eq!(now, transitions + 1);
    }
}

#[test]
fn a_second_candidate_proves_no_death_and_is_not_proved_dead() {
    let (ns, volume) = (namespace(shared(), "second"), volume());
    let leader = candidate(&ns, UID, "main", volume.path(), First, WORK);
    time_to_lead(&leader);
    let before = term(&ns);
    // Like kubectl exec: with the same environment.
    let second = candidate(&ns, UID, "main", volume.path(), First, WORK);
    second.wait_for("lock: another process of this pod holds it; if this process dies as the leader", SOON);
    std::thread::sleep(PROMPT_START);
    assert!(!second.says("leading with fencing token"), "beside a living leader");
    assert_eq!(term(&ns), before);
    let start = Instant::now();
    kill(leader, First);
    time_to_lead(&second);
    let waited = start.elapsed();
    assert!(waited > AFTER_ITS_END, "{waited:?}");
    assert!(term(&ns).0.starts_with("0c7e5a52/-/"), "{:?}", term(&ns));
    // The container restarts and gets the lock, but this second candidate lives.
    let again = candidate(&ns, UID, "main", volume.path(), First, WORK);
    std::thread::sleep(PROMPT_START);
    assert!(!again.says("leading with fencing token") && !again.says("cannot lock"), "{}", again.output());
    assert!(!second.says("releasing leadership") && !second.says("no longer held"), "{}", second.output());
}

/// Returns how long after the kill of the first candidate the second one leads.
fn after_a_kill(
    first: (&str, &str, &Path, Place),
    second: (&str, &str, &Path, Place),
    work: &str,
) -> (Duration, Program) {
    let ns = namespace(shared(), "refused");
    let start = |(uid, container, volume, place): (&str, &str, &Path, Place), work: &str| {
        candidate(&ns, uid, container, volume, place, work)
    };
    let leader = start(first, work);
    time_to_lead(&leader);
    if work == DAEMON {
        within(10, "the daemon", || {
            fs::read_to_string(first.2.join("daemon")).ok().filter(|text| text.ends_with('\n'))
        });
    }
    let killed = Instant::now();
    kill(leader, first.3);
    let successor = start(second, WORK);
    time_to_lead(&successor);
    (killed.elapsed(), successor)
}

#[test]
fn another_container_of_the_same_pod_waits() {
    let volume = volume();
    let volume = volume.path();
    let (waited, _) = after_a_kill((UID, "main", volume, First), (UID, "side", volume, First), WORK);
    assert!(waited > AFTER_ITS_END, "{waited:?}");
}

#[test]
fn another_pod_of_the_same_name_waits() {
    let (old, new) = (volume(), volume());
    let (waited, _) = after_a_kill((UID, "main", old.path(), First), ("77ab", "main", new.path(), First), WORK);
    assert!(waited > AFTER_ITS_END, "{waited:?}");
}

#[test]
fn a_candidate_that_is_not_the_first_process_waits() {
    let volume = volume();
    let volume = volume.path();
    let (waited, successor) = after_a_kill((UID, "main", volume, Beside), (UID, "main", volume, Beside), WORK);
    assert!(waited > AFTER_ITS_END, "{waited:?}");
    assert!(!successor.says("cannot lock"), "{}", successor.output());
}

#[test]
fn a_surviving_child_of_the_dead_candidate_keeps_the_lock() {
    let volume = volume();
    let path = volume.path();
    let (waited, successor) = after_a_kill((UID, "main", path, Beside), (UID, "main", path, First), DAEMON);
    let daemon = fs::read_to_string(path.join("daemon")).unwrap();
    kill_process(daemon.trim().parse().ok().and_then(Pid::from_raw).unwrap(), Signal::KILL).unwrap();
    assert!(waited > AFTER_ITS_END, "{waited:?}");
    assert!(successor.says("another process of this pod holds it"), "{}", successor.output());
}

#[test]
fn without_a_pod_uid_or_container_nothing_is_proved_or_logged() {
    let volume = volume();
    let volume = volume.path();
    let (waited, successor) = after_a_kill(("-", "main", volume, First), ("-", "main", volume, First), WORK);
    assert!(waited > AFTER_ITS_END, "{waited:?}");
    assert!(!successor.says("lock"), "{}", successor.output());
}

#[test]
fn a_lock_that_cannot_be_opened_costs_only_the_proof() {
    let (ns, folder) = (namespace(shared(), "missing"), tempfile::tempdir().unwrap());
    let leader = candidate(&ns, UID, "main", folder.path(), First, WORK);
    time_to_lead(&leader);
    let warning = format!("cannot lock {}: No such file or directory", folder.path().join("lock").display());
    assert!(leader.says(&warning), "{}", leader.output());
    assert!(term(&ns).0.starts_with("0c7e5a52/-/"));
}

#[test]
fn the_lock_is_installed_once_and_readable_by_all() {
    let volume = volume();
    let lock = || fs::metadata(volume.path().join("lock")).unwrap();
    // Open, so that no other file gets its inode number.
    let file = fs::File::open(volume.path().join("lock")).unwrap();
    assert_eq!((lock().permissions().mode() & 0o777, lock().len()), (0o444, 0));
    install(volume.path());
    assert_eq!(lock().ino(), file.metadata().unwrap().ino(), "the holder would have the lock of another file");
}
