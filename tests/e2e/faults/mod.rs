//! Node faults under working programs. Whatever is killed, frozen or starved: one program of a group works at a time,
//! another takes over within the promised time, and the status has the reason.
//!
//! All groups run on one node from the start, and the faults come one after the other. So each test also shows that the
//! fault leaves the other groups alone.

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

/// The longest time that a thawed program may work until its candidate stops it.
const WAKING: Duration = Duration::from_secs(1);

/// The exit code that containerd reports if it does not know how a container ended.
const UNKNOWN_END: i64 = 255;
/// The number of groups that are set up concurrently: starting a pod takes seconds of processor time.
const AT_ONCE: usize = 3;

/// The expected outcome of a fault, with the possible reasons in the status.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// A new term within the promised time.
    Changes(&'static [&'static str]),
    /// A new term within the promised time, or the same leader.
    MayChange(&'static [&'static str]),
    /// An outcome that [`restore`] checks.
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

/// A death that the kubelet reports, perhaps only when the Lease has nearly expired.
const DEATH: Then = Then::Changes(&["KubeletReported", "HolderRestarted", "LeaseExpired"]);
const SILENCE: Then = Then::Changes(&["LeaseExpired"]);

/// The turns run one after the other; the faults of a turn are concurrent.
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

/// Kills the leader while the container runtime is down, so that its death goes unobserved.
fn without_containerd(scene: &Scene) {
    kill(Component::Containerd);
    scene.kill(&scene.leader);
    thread::sleep(Duration::from_secs(10));
    node().start_component(Component::Containerd).unwrap();
}

/// Kills the leader while the kubelet is down: its container does not restart, and its end is not reported.
fn without_kubelet(scene: &Scene) {
    kill(Component::Kubelet);
    scene.kill(&scene.leader);
    thread::sleep(Duration::from_secs(20));
    assert!(scene.change().is_some(), "there was no successor while the kubelet was down");
    node().start_component(Component::Kubelet).unwrap();
}

/// Kills the shim of the leader's container. containerd kills the remaining processes before it reports the end.
fn without_shim(scene: &Scene) {
    let processes = kill_shim(scene);
    let code = reported_end(scene);
    println!("shim: the kubelet reports exit code {code}");
    assert!(
        code == UNKNOWN_END || !processes.iter().any(|process| process.alive()),
        "shim: processes still live, with exit code {code}"
    );
}

/// Kills the shim of the leader's container while containerd cannot kill processes. containerd reports the end of the
/// leader's incarnation all the same. That is no proof of death: the leader's processes continue.
fn without_shim_and_runc(scene: &Scene) {
    let runc = node().instance().programs["runc"].to_str().unwrap().to_owned();
    inside(&["mount", "--bind", "/bin/false", &runc]);
    let _hidden = HiddenProgram(runc);
    let processes = kill_shim(scene);
    let code = reported_end(scene);
    let alive = processes.iter().filter(|process| process.alive()).count();
    println!("orphans: the kubelet reports exit code {code} while {alive} processes live");
    assert!(alive > 0, "orphans: no process outlived the report, so this test shows nothing");
    within(30, "orphans: the work of a successor", || scene.change());
}

/// Kills the shim of the leader's container; returns the container's processes.
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

/// Waits until the kubelet reports the end of the leader's container with its termination message; returns the exit
/// code.
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

/// A bind mount over a program of the node, which is unmounted on drop.
struct HiddenProgram(String);

impl Drop for HiddenProgram {
    fn drop(&mut self) {
        inside(&["umount", &self.0]);
    }
}

fn inside(command: &[&str]) {
    let output = node().inside(command).unwrap().output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Freezes the leader's pod for longer than its Lease.
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
        // The candidate's command line contains the program's as arguments.
        processes.iter().all(|process| !process.command.starts_with("/bin/sh")).then_some(())
    });
    let ended = now() - thawed;
    thread::sleep(WAKING);
    let mut stretches = scene.workload.report().stretches;
    stretches.retain(|stretch| stretch.identity == scene.leader && stretch.until >= woken.start);
    let worked: Vec<_> = stretches.iter().map(|stretch| stretch.until.saturating_sub(thawed)).collect();
    println!("frozen: the program had ended {ended:?} after the thaw; its last work was {worked:?} after it");
}

/// Limits the leader's pod to 2 % of a processor for 30 s.
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
        let threads: Vec<_> = all.map(|item| scope.spawn(move || work(item))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn node_faults_never_overlap_programs_and_takeover_is_in_time() {
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
        // A group is deleted once it was judged.
        let played = at_once(of_turn.into_iter(), |scene| {
            let name = scene.name();
            // The scene is dropped inside the closure, because its drop checks it, too.
            let line = catch_unwind(AssertUnwindSafe(move || scene.play())).map_err(|_| name);
            line.map(|line| println!("{line} ({:?})", start.elapsed()))
        });
        // The panic message has been printed.
        failed.extend(played.into_iter().filter_map(Result::err));
    }
    assert!(failed.is_empty(), "failed scenarios, each with its reason above: {failed:?}");
}
