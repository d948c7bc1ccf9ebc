//! A simulation of the real campaign with a simulated API server, in simulated time. Each seed has its own mix of
//! faults.
//!
//! Everything up to the connection is production code: the elector, its driver, and kube's client and watcher. A
//! failing seed prints its history and the command that repeats it. `K8SENSUS_SEEDS=<n>` sets the number of seeds.

mod network;
mod plan;
mod process;
mod server;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::subject::campaign::{PROVEN_REVISION, SUSPENDED, Term};
use plan::{CALM_FROM, END, Fault};
use process::{Freezable, Signal, name_of, run_process};
use server::holder;
use world::{Counts, Member, Reach, Shared};

/// The result of a run.
pub struct Outcome {
    /// The broken rule, if any.
    pub violation: Option<String>,
    /// The number of occurrences of each kind of event.
    pub counts: Counts,
    /// The history of the run, if it was recorded.
    pub history: Vec<String>,
}

/// Runs one seed.
pub fn run(seed: u64, record: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = Shared::new(seed, record);
        simulate(&world).await;
        let history = world.take_history();
        let mut world = world.lock();
        Outcome { violation: world.violation.take(), counts: std::mem::take(&mut world.counts), history }
    })
}

async fn until(world: &Shared, milliseconds: u64) {
    tokio::time::sleep_until(world.at(Duration::from_millis(milliseconds))).await;
}

fn start(world: &Shared, member: usize) -> JoinHandle<()> {
    let (signals, inbox) = mpsc::unbounded_channel();
    let life = {
        let member = &mut world.lock().members[member];
        member.life += 1;
        member.signals = signals;
        (member.open_requests, member.was_frozen, member.frozen_idle, member.has_ended_term) = (0, false, None, false);
        member.life
    };
    world.note(|| format!("otter-{member} starts, life {life}"));
    let process = Box::pin(run_process(world.clone(), member, life, inbox));
    tokio::spawn(Freezable { world: world.clone(), member, process })
}

/// An action that ends or undoes a fault later.
#[derive(Debug)]
enum DelayedAction {
    Start(usize),
    Thaw(usize),
    Reconnect(usize),
    EndOutage,
    Recreate,
}

async fn simulate(world: &Shared) {
    let faults = {
        let mut world = world.lock();
        for _ in 0..world.plan.members {
            world.members.push(Member {
                life: 0,
                reach: Reach::Open,
                frozen: false,
                waking: false,
                waker: None,
                wall_step: 0,
                term: None,
                working: false,
                saw_lease: false,
                open_requests: 0,
                was_frozen: false,
                frozen_idle: None,
                signals: mpsc::unbounded_channel().0,
                has_ended_term: false,
            });
        }
        if !world.plan.create {
            world.server.create_released();
        }
        world.plan.faults.clone()
    };
    let count = world.lock().plan.members;
    let mut processes: Vec<JoinHandle<()>> = (0..count).map(|member| start(world, member)).collect();
    let mut delayed: Vec<(u64, DelayedAction)> = Vec::new();
    let mut faults = faults.into_iter().peekable();
    let (mut now, mut next_check) = (0, 0);
    while now < END {
        let next_delayed = delayed.iter().map(|(at, _)| *at).min().unwrap_or(END);
        let next_fault = faults.peek().map_or(END, |(at, _)| *at);
        let next = next_check.min(next_delayed).min(next_fault).max(now).min(END);
        until(world, next).await;
        now = next;
        if now >= next_check {
            world.check();
            next_check = now + 250;
        }
        if now >= CALM_FROM {
            world.lock().calm_down();
        }
        let due: Vec<DelayedAction> = delayed.extract_if(.., |(at, _)| *at <= now).map(|(_, what)| what).collect();
        for what in due {
            undo(world, what, &mut processes);
        }
        while let Some((_, fault)) = faults.next_if(|(at, _)| *at <= now) {
            inject(world, fault, now, &mut delayed, &mut processes);
        }
        restart_finished(world, now, &mut delayed, &processes);
        if world.lock().violation.is_some() {
            break;
        }
    }
    check_end(world, now);
    for process in processes {
        process.abort();
    }
}

/// Restarts candidates that have left the election, as pods come back.
fn restart_finished(world: &Shared, now: u64, delayed: &mut Vec<(u64, DelayedAction)>, processes: &[JoinHandle<()>]) {
    for (member, process) in processes.iter().enumerate() {
        let is_starting = delayed.iter().any(|(_, what)| matches!(what, DelayedAction::Start(i) if *i == member));
        if process.is_finished() && !is_starting {
            let away = world.lock().random.between(100, 5_000);
            delayed.push((now + away, DelayedAction::Start(member)));
        }
    }
}

fn undo(world: &Shared, what: DelayedAction, processes: &mut [JoinHandle<()>]) {
    world.note(|| format!("{what:?}"));
    match what {
        DelayedAction::Start(member) => {
            processes[member].abort();
            processes[member] = start(world, member);
        }
        DelayedAction::Thaw(member) => {
            let waker = {
                let member = &mut world.lock().members[member];
                (member.frozen, member.waking) = (false, true);
                member.waker.take()
            };
            waker.into_iter().for_each(std::task::Waker::wake);
        }
        DelayedAction::Reconnect(member) => world.lock().members[member].reach = Reach::Open,
        DelayedAction::EndOutage => world.lock().outage = false,
        DelayedAction::Recreate => {
            world.lock().server.recreate();
        }
    }
    world.changed();
}

fn inject(
    world: &Shared,
    fault: Fault,
    now: u64,
    delayed: &mut Vec<(u64, DelayedAction)>,
    processes: &mut [JoinHandle<()>],
) {
    world.note(|| format!("{fault:?}"));
    let end = |time: u64| (now + time).min(CALM_FROM);
    let mut guard = world.lock();
    let held = guard.server.lease.as_ref().is_some_and(|lease| !holder(lease).is_empty());
    let name = match fault {
        Fault::Crash { member, away } => {
            processes[member].abort();
            let victim = &mut guard.members[member];
            (victim.working, victim.term, victim.life) = (false, None, victim.life + 1);
            (victim.frozen, victim.waker) = (false, None);
            delayed.retain(|(_, what)| !matches!(what, DelayedAction::Start(i) if *i == member));
            delayed.push((end(away), DelayedAction::Start(member)));
            "crashes"
        }
        Fault::Shutdown { member } => {
            guard.members[member].send(Signal::Terminate);
            "shutdowns"
        }
        Fault::StepDown { member } => {
            guard.members[member].send(Signal::StepDown);
            "step-downs"
        }
        Fault::Freeze { member, time } => {
            let victim = &mut guard.members[member];
            if !victim.frozen {
                victim.frozen_idle = (victim.open_requests == 0 && victim.term.is_some()).then(|| world.elapsed());
            }
            (victim.frozen, victim.was_frozen) = (true, true);
            delayed.push((end(time), DelayedAction::Thaw(member)));
            "freezes"
        }
        Fault::Cut { member, time, silent } => {
            guard.members[member].reach = if silent { Reach::Silent } else { Reach::Refused };
            delayed.push((end(time), DelayedAction::Reconnect(member)));
            if silent { "silent cuts" } else { "refused cuts" }
        }
        Fault::Outage { time } => {
            guard.outage = true;
            delayed.push((end(time), DelayedAction::EndOutage));
            "outages"
        }
        Fault::WallStep { member, by } => {
            guard.members[member].wall_step += by;
            "wall clock steps"
        }
        Fault::DropWatches { gone } => {
            guard.watch_generation += 1;
            if gone {
                guard.server.compacted = guard.server.version;
            }
            if gone { "watches ended, 410" } else { "watches ended" }
        }
        Fault::Delete if guard.plan.create && !guard.deletion_is_safe() => "deletions too early",
        Fault::Delete => {
            if guard.server.delete() && !guard.plan.create {
                // A leader that did not observe the foreign holder before the deletion cannot know of it.
                guard.server.foreign_until = Duration::ZERO;
                delayed.push((now + guard.random.between(5, 3_000), DelayedAction::Recreate));
            }
            "Leases deleted"
        }
        Fault::Empty if held => {
            guard.server.edit(|lease| lease["spec"]["holderIdentity"] = json!(""));
            "holders emptied"
        }
        Fault::Impose if held => {
            let is_another = guard.server.lease.as_ref().is_some_and(|lease| holder(lease) != "stranger");
            guard.server.edit(|lease| lease["spec"]["holderIdentity"] = json!("stranger"));
            // A repeated edit is no renewal.
            if is_another {
                guard.server.foreign_until = world.elapsed() + guard.plan.timing.renew_deadline();
            }
            "holders imposed"
        }
        Fault::Usurp if held => {
            guard.server.edit(|lease| {
                let transitions = lease["spec"]["leaseTransitions"].as_i64().unwrap_or(0);
                lease["spec"]["leaseTransitions"] = json!(transitions + 1);
                lease["spec"]["renewTime"] = json!("2026-03-01T13:00:00.000000Z");
            });
            "takeovers by a namesake"
        }
        Fault::Empty | Fault::Impose | Fault::Usurp => "edits without effect",
        Fault::Annotate => {
            let mark = guard.random.below(1_000_000).to_string();
            guard.server.edit(|lease| lease["metadata"]["annotations"]["colour"] = json!(mark));
            "annotations"
        }
        Fault::RequestStepDown { to } => {
            let to = to.map(|to| name_of(&guard.plan, to));
            match guard.server.request_step_down(to.as_deref()) {
                true if to.is_some() => "step-down requests for a successor",
                true => "step-down requests",
                false => "edits without effect",
            }
        }
        Fault::Prove { revision } => {
            guard
                .server
                .edit(|lease| lease["metadata"]["annotations"][PROVEN_REVISION] = json!(format!("r{revision}")));
            "revisions proven"
        }
        Fault::Suspend => {
            guard.server.edit(|lease| {
                lease["metadata"]["annotations"][SUSPENDED] = json!(lease["spec"]["leaseTransitions"].to_string());
            });
            "suspensions"
        }
    };
    guard.counts.count(true, name);
    drop(guard);
    world.changed();
}

/// Requires that exactly one candidate leads after all faults, with a valid term, no pending step-down and a bounded
/// number of requests.
fn check_end(world: &Shared, now: u64) {
    let mut world = world.lock();
    if world.violation.is_some() || now < END {
        return;
    }
    let leading: Vec<usize> = (0..world.plan.members).filter(|i| world.members[*i].working).collect();
    if leading.len() != 1 {
        world.fail(format!("{leading:?} lead {} s after the last fault, expected one", (END - CALM_FROM) / 1_000));
    }
    if leading.iter().any(|i| !world.members[*i].term.as_ref().is_some_and(Term::is_valid)) {
        world.fail(format!("candidate {leading:?} works without a valid term"));
    }
    if world.server.requests_step_down() {
        world.fail(format!("the present term was requested to step down {} s ago", (END - CALM_FROM) / 1_000));
    }
    if world.plan.gentle && world.counts.0.get("terms") != Some(&1) {
        let terms = world.counts.0.get("terms").copied().unwrap_or(0);
        world.fail(format!("{terms} terms, but outages of at most 7.5 s must not end one"));
    }
    // A leader's renewals every 2 s, twice as many while they fail, and the requests of starting standbys.
    let most = 320 * world.plan.members as u64;
    if world.requests > most {
        let requests = world.requests;
        world.fail(format!("{requests} requests, expected at most {most}"));
    }
    let requests = world.requests;
    *world.counts.0.entry("requests").or_default() += requests;
}

/// Runs `seeds` on all cores until one fails. Returns the counts, and the number and outcome of the failing seed.
pub fn search(seeds: std::ops::Range<u64>) -> (Counts, Option<(u64, Outcome)>) {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicU64::new(u64::MAX));
    let total = std::sync::Mutex::new(Counts::default());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut sum = Counts::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failed.load(Ordering::Relaxed) < seed {
                        break;
                    }
                    let outcome = run(seed, false);
                    sum.add(&outcome.counts);
                    if outcome.violation.is_some() {
                        failed.fetch_min(seed, Ordering::Relaxed);
                    }
                }
                total.lock().unwrap().add(&sum);
            });
        }
    });
    let seed = failed.into_inner();
    let failure = (seed != u64::MAX).then(|| (seed, run(seed, true)));
    (total.into_inner().unwrap(), failure)
}
