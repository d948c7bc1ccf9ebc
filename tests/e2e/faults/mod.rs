//! Faults of a node under programs at work. Whatever is killed, frozen or starved: one program of a group works at a time, another one
//! takes over within the time that is promised, and the status says why.
//!
//! All groups run on one node from the start, and the faults come one after the other. So each fault also shows that it is no
//! matter of the groups that it does not concern.

mod restore;
mod scene;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use k8sensus_local::{Component, Process};
use rustix::process::Signal;
use serde_json::Value;

use super::images::{BUSYBOX, load_on};
use crate::support::{get, within};
use scene::{LEASE, Scene, node, now};

/// How long a frozen program may work, once it is thawed, until its candidate has noticed.
const WAKING: Duration = Duration::from_secs(1);

/// The exit code by which containerd says that it does not know how a container ended.
const UNKNOWN_END: i64 = 255;
/// How many groups are set up at a time: to start a pod takes seconds of processor time.
const AT_ONCE: usize = 3;

/// What follows a fault, and for which of these reasons.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// Another term, within the time that is promised.
    Changes(&'static [&'static str]),
    /// Likewise, or the leader leads on.
    MayChange(&'static [&'static str]),
    /// Only [`restore`] can tell.
    IsRestored,
}

struct Scenario {
    name: &'static str,
    fault: fn(&Scene),
    then: Then,
}

const fn scenario(name: &'static str, fault: fn(&Scene), then: Then) -> Scenario {
    Scenario { name, fault, then }
}

/// A death that the kubelet reports, perhaps only when the Lease has nearly run out.
const DEATH: Then = Then::Changes(&["KubeletReported", "HolderRestarted", "LeaseExpired"]);
const SILENCE: Then = Then::Changes(&["LeaseExpired"]);

/// One turn after the other; the faults of a turn come at once.
const TURNS: [&[Scenario]; 5] = [
    &[
        scenario("containerd", without_containerd, DEATH),
        scenario("starved", starved, Then::MayChange(&["LeaseExpired", "LeaseReleased"])),
    ],
    &[scenario("kubelet", without_kubelet, SILENCE), scenario("frozen", frozen, SILENCE)],
    &[scenario("shim", without_shim, DEATH)],
    &[scenario("orphans", without_shim_and_runc, SILENCE)],
    &[scenario("restored", restore::restore, Then::IsRestored)],
];

fn kill(component: Component) {
    let pid = node().pid(component).unwrap();
    node().signal(component, Signal::KILL.as_raw()).unwrap();
    within(5, &format!("the end of {component}, {pid}"), || node().pid(component).is_none().then_some(()));
}

/// The container runtime is away when the leader dies: nobody sees it die.
fn without_containerd(scene: &Scene) {
    kill(Component::Containerd);
    scene.kill(&scene.leader);
    thread::sleep(Duration::from_secs(10));
    node().start_component(Component::Containerd).unwrap();
}

/// The kubelet is away when the leader dies: the container is not started again, and nobody reports its end.
fn without_kubelet(scene: &Scene) {
    kill(Component::Kubelet);
    scene.kill(&scene.leader);
    thread::sleep(Duration::from_secs(20));
    assert!(scene.change().is_some(), "nobody took over while the kubelet was away");
    node().start_component(Component::Kubelet).unwrap();
}

/// The parent of the leader's container is killed. The container runtime kills what it left behind before it reports the end.
fn without_shim(scene: &Scene) {
    let processes = kill_shim(scene);
    let code = reported_end(scene);
    println!("shim: the kubelet reports exit code {code}");
    assert!(
        code == UNKNOWN_END || !processes.iter().any(|process| process.alive()),
        "shim: not dead, with code {code}"
    );
}

/// Likewise, but the container runtime can kill nothing. It reports the end of the container all the same, as that of the leader's
/// incarnation. That proves no death: the leader's processes go on.
fn without_shim_and_runc(scene: &Scene) {
    let runc = node().instance().programs["runc"].to_str().unwrap().to_owned();
    inside(&["mount", "--bind", "/bin/false", &runc]);
    let _repaired = Repaired(runc);
    let processes = kill_shim(scene);
    let code = reported_end(scene);
    let alive = processes.iter().filter(|process| process.alive()).count();
    println!("orphans: the kubelet reports exit code {code} while {alive} processes live");
    assert!(alive > 0, "orphans: the reported end is true, so that this shows nothing");
    within(30, "orphans: the work of a successor", || scene.change());
}

/// Kills the shim of the leader's container; returns the processes that the container had.
fn kill_shim(scene: &Scene) -> Vec<Process> {
    let processes: Vec<_> = node().pids_in_pod(&scene.uid).into_iter().filter_map(Process::of).collect();
    let parent = |process: &Process| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<i32>().ok()
    };
    let command = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let shim = processes.iter().filter_map(parent).find(|pid| command(*pid).contains("containerd-shim")).unwrap();
    Process::of(shim).unwrap().signal(Signal::KILL.as_raw()).unwrap();
    processes
}

/// Waits for the kubelet's report that the leader's container has ended, with what the candidate left; returns the exit code.
fn reported_end(scene: &Scene) -> i64 {
    within(20, &format!("{}: the kubelet's report", scene.name()), || {
        let pod = get(node(), &scene.ns, &format!("pod/{}", scene.leader))?;
        let status = &pod["status"]["containerStatuses"][0];
        let ended = ["state", "lastState"].map(|state| &status[state]["terminated"]);
        let ended = ended.into_iter().find(|ended| ended.is_object())?;
        let message = ended["message"].as_str().unwrap();
        assert!(message.starts_with(&scene.uid), "{}: no incarnation: {ended}", scene.name());
        ended["exitCode"].as_i64()
    })
}

/// A program of the node that another one hides, until this is dropped.
struct Repaired(String);

impl Drop for Repaired {
    fn drop(&mut self) {
        inside(&["umount", &self.0]);
    }
}

fn inside(command: &[&str]) {
    let output = node().inside(command).unwrap().output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The leader's pod stands still for longer than its Lease.
fn frozen(scene: &Scene) {
    node().freeze_pod(&scene.uid).unwrap();
    within(25, "the work of a successor while the leader is frozen", || scene.change());
    thread::sleep(Duration::from_secs(2));
    let thawed = now();
    node().thaw_pod(&scene.uid).unwrap();
    // Stamps have whole hundredths of a second.
    let woken = thawed - Duration::from_millis(10)..thawed + WAKING;
    scene.workload.woken.set(woken.clone()).unwrap();
    within(5, "the end of the thawed program", || {
        let processes = node().processes_in_pod(&scene.uid);
        // The candidate has the program's command line as its own arguments.
        processes.iter().all(|process| !process.command.starts_with("/bin/sh")).then_some(())
    });
    let ended = now() - thawed;
    thread::sleep(WAKING);
    let mut stretches = scene.workload.report().stretches;
    stretches.retain(|stretch| stretch.identity == scene.leader && stretch.until >= woken.start);
    let worked: Vec<_> = stretches.iter().map(|stretch| stretch.until.saturating_sub(thawed)).collect();
    println!("frozen: the program had ended {ended:?} after the thaw; its last work was {worked:?} after it");
}

/// The leader's pod gets 2 % of a processor for 30 s.
fn starved(scene: &Scene) {
    node().limit_cpu_of_pod(&scene.uid, Some(2)).unwrap();
    let limited = now();
    let (mut renewal, mut renewed, mut renewals) = (Value::Null, limited, 0);
    while now() < limited + Duration::from_secs(30) {
        let lease = get(node(), &scene.ns, "lease/kestrel").unwrap()["spec"].clone();
        if lease["holderIdentity"] == scene.leader.as_str() && lease["renewTime"] != renewal {
            (renewal, renewed, renewals) = (lease["renewTime"].clone(), now(), renewals + 1);
        }
        thread::sleep(Duration::from_millis(50));
    }
    node().limit_cpu_of_pod(&scene.uid, None).unwrap();
    println!("starved: {renewals} renewals in 30 s");
    if let Some((last, _)) = scene.change() {
        assert!(last.until <= renewed + LEASE * 9 / 10, "{last} though last renewed at {renewed:?}");
    }
}

fn at_once<T: Send, R: Send>(all: impl Iterator<Item = T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = all.map(|one| scope.spawn(move || work(one))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn whatever_befalls_a_node_one_program_of_a_group_works_at_a_time_and_another_takes_over_in_time() {
    let start = Instant::now();
    load_on(node(), BUSYBOX);
    println!("a node with an operator: {:?}", start.elapsed());
    let only = std::env::var("K8SENSUS_FAULT").unwrap_or_default();
    let wanted = |scenario: &&Scenario| only.is_empty() || only.split(',').any(|name| name == scenario.name);
    let rows: Vec<_> = TURNS.iter().flat_map(|turn| turn.iter()).filter(wanted).collect();
    let some_at_once = |some: &[&'static Scenario]| at_once(some.iter(), |scenario| Scene::set(scenario));
    let mut scenes: Vec<Scene> = rows.chunks(AT_ONCE).flat_map(some_at_once).collect();
    println!("groups at work: {:?}", start.elapsed());
    let mut failed = Vec::new();
    for turn in TURNS {
        let start = Instant::now();
        let is_of_turn = |scene: &Scene| turn.iter().any(|scenario| scenario.name == scene.name());
        let of_turn: Vec<Scene>;
        (of_turn, scenes) = scenes.into_iter().partition(is_of_turn);
        // A group goes when it has been judged.
        let played = at_once(of_turn.into_iter(), |scene| {
            let name = scene.name();
            // The scene is dropped inside, since that judges it, too.
            let line = catch_unwind(AssertUnwindSafe(move || scene.play())).map_err(|_| name);
            line.map(|line| println!("{line} ({:?})", start.elapsed()))
        });
        // Why has been printed.
        failed.extend(played.into_iter().filter_map(Result::err));
    }
    assert!(failed.is_empty(), "faults after which something was wrong, each with its reason above: {failed:?}");
}
