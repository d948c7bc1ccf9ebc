//! A random walk over valid specs, with an operator that is killed at random writes. After each step the group must
//! equal a group that was created with that spec and never disturbed.
//!
//! `K8SENSUS_WALK_SEED` repeats a walk, as far as real time allows. `K8SENSUS_WALK_SEEDS` sets the number of walks,
//! `K8SENSUS_WALK_STEPS` the steps of each.

mod changes;
mod pods;
mod state;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pods::Pods;
use serde_json::{Value, json};
use state::{differences, is_settled, state};

use super::crashes::ANYWHERE;
use super::crashes::play::condition;
use crate::support::http_proxy::{Cut, HttpProxy, operator_for};
use crate::support::objects::Direct;
use crate::support::random::{Random, setting};
use crate::support::{Program, namespace, operated, shared, within};

/// How many walks there are, and how many steps each has after the creation of the group.
const SEEDS: u64 = 3;
const STEPS: usize = 3;

/// How many walks run at a time.
const WORKERS: usize = 3;

/// How long a step may take until the group is as it should be. Other tests share the machine.
const LONGEST: Duration = Duration::from_secs(180);
/// How long a group must then stay unchanged, and its operator write nothing.
const QUIET: Duration = Duration::from_secs(1);
/// How long two groups that no longer change may differ.
const DIFFERENT: Duration = Duration::from_secs(15);
/// The interval between checks of the pods and the group.
const TICK: Duration = Duration::from_millis(100);

/// A disturbance of the operator during a step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Disturbance {
    None,
    /// The operator is killed at that write, if it reaches it. The next operator may be killed as well.
    Killed {
        write: usize,
        cut: Cut,
    },
    /// The operator is killed at rest. The next one has nothing to do.
    Restarted,
    /// The operator is killed at rest, and the spec changes before the next one starts.
    Away,
    /// The spec changes while the group is paused.
    Paused,
}

impl Disturbance {
    fn random(random: &mut Random) -> Self {
        match random.below(10) {
            0..=4 => Self::killed(random),
            5 => Self::Restarted,
            6 | 7 => Self::Away,
            8 => Self::Paused,
            _ => Self::None,
        }
    }

    /// Prefers one of the first writes: many steps have few.
    fn killed(random: &mut Random) -> Self {
        let most = 1 + random.below(12);
        let cut = if random.below(2) == 0 { Cut::Before } else { Cut::After };
        Self::Killed { write: 1 + random.below(most), cut }
    }
}

#[test]
fn api_server_accepts_each_change_of_a_walk() {
    let (direct, ns) = (Direct::to(shared()), namespace(shared(), "changes"));
    direct.create(&ns, "electiongroups", &group_of(&changes::first()));
    let takes = |spec: &Value| replace(&direct, &ns, spec).is_ok();
    let (mut taken, mut refused) = (0, Vec::new());
    for (path, values) in changes::choices() {
        for value in values.as_array().unwrap() {
            let is_taken = |base: Value| {
                let mut spec = base;
                if !changes::applies(path, &spec) {
                    return false;
                }
                changes::set(&mut spec, path, value);
                changes::is_valid(&spec) && takes(&spec)
            };
            match changes::bases().into_iter().any(is_taken) {
                true => taken += 1,
                false => refused.push(format!("{path}: {value}")),
            }
        }
    }
    println!("{taken} changes");
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn server_defaults_do_not_block_another_choice() {
    let (direct, ns) = (Direct::to(operated()), namespace(operated(), "defaults"));
    let mut spec = changes::first();
    changes::turn_form(&mut spec);
    changes::set(&mut spec, "/template/spec/volumes", &json!([{ "name": "data" }]));
    direct.create(&ns, "electiongroups", &group_of(&spec));
    let map = json!([{ "name": "data", "configMap": { "name": "c" } }]);
    let steps = [
        // The operator owns the defaults of the first write of the Deployment, but not those of the second.
        ("/template/metadata/labels", json!({ "team": "money" })),
        ("/template/spec/volumes", map),
        ("/strategy", json!({ "type": "Recreate" })),
        ("/strategy", Value::Null),
        ("/replicas", json!(3)),
        ("/strategy", json!({ "type": "Recreate" })),
    ];
    for (path, value) in steps {
        changes::set(&mut spec, path, &value);
        replace(&direct, &ns, &spec).unwrap();
        within(20, &format!("{path}: {value}"), || {
            let group = direct.get(&ns, "electiongroups", "kestrel")?;
            let is_observed = group["status"]["observedGeneration"] == group["metadata"]["generation"];
            assert_eq!(condition(&group, "Stalled"), "", "{path}: {value}: {:#}", group["status"]["conditions"]);
            is_observed.then_some(())
        });
    }
    let deployment = &direct.get(&ns, "deployments", "kestrel").unwrap()["spec"];
    assert_eq!(deployment["strategy"], json!({ "type": "Recreate" }));
    let volumes = deployment["template"]["spec"]["volumes"].as_array().unwrap();
    let data = volumes.iter().find(|volume| volume["name"] == "data").unwrap();
    assert_eq!(data["configMap"]["name"], "c", "{data}");
    assert!(data["emptyDir"].is_null(), "{data}");
}

#[test]
fn group_after_any_walk_equals_a_fresh_install() {
    let first = setting("K8SENSUS_WALK_SEED");
    let seeds = setting("K8SENSUS_WALK_SEEDS").unwrap_or(if first.is_some() { 1 } else { SEEDS });
    let first = first.unwrap_or_else(|| u64::from(jiff::Timestamp::now().subsec_nanosecond().unsigned_abs()));
    let steps = setting("K8SENSUS_WALK_STEPS").unwrap_or(STEPS);
    println!("K8SENSUS_WALK_SEED={first} K8SENSUS_WALK_SEEDS={seeds} K8SENSUS_WALK_STEPS={steps} repeats this");
    let (walked, fresh) = (Direct::to(shared()), Direct::to(operated()));
    let start = Instant::now();
    let seeds: Vec<u64> = (0..seeds).map(|number| first.wrapping_add(number)).collect();
    let (next, reports) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = Walk::new(seed, &walked, &fresh).run(steps);
                    reports.lock().unwrap().push(report);
                }
            });
        }
    });
    let reports = reports.into_inner().unwrap();
    let sum = |of: fn(&Report) -> usize| reports.iter().map(of).sum::<usize>();
    let differences: Vec<&String> = reports.iter().flat_map(|report| &report.differences).collect();
    println!(
        "{} walks of {steps} steps: {} writes, {} operators killed, {} steps with differences, in {:?}",
        reports.len(),
        sum(|report| report.writes),
        sum(|report| report.kills),
        differences.len(),
        start.elapsed(),
    );
    differences.iter().for_each(|found| println!("{found}"));
    assert!(differences.is_empty(), "{} steps ended otherwise than a fresh install", differences.len());
}

/// The results of a walk.
#[derive(Default)]
struct Report {
    kills: usize,
    writes: usize,
    /// One text for each step whose end differs from a fresh install.
    differences: Vec<String>,
}

/// Numbers that must not decrease: a group's `leaseTransitions` and `observedGeneration`, and the length of its
/// history.
type Counters = [i64; 3];

struct Walk<'a> {
    seed: u64,
    random: Random,
    /// Decides about the kills after the first of a step, so that the changes do not depend on their number.
    kill_random: Random,
    direct: &'a Direct,
    ns: String,
    /// The cluster with an undisturbed operator.
    fresh: &'a Direct,
    spec: Value,
    proxy: HttpProxy,
    operator: Program,
    counters: Counters,
    /// The steps so far.
    log: Vec<String>,
    report: Report,
}

impl<'a> Walk<'a> {
    fn new(seed: u64, direct: &'a Direct, fresh: &'a Direct) -> Self {
        let ns = namespace(shared(), "walked");
        let (proxy, operator) = operator(&ns);
        direct.create(&ns, "serviceaccounts", &other_account());
        let (mut random, kill_random) = (Random::from(seed), Random::from(!seed));
        let mut spec = changes::first();
        if random.below(2) == 0 {
            changes::turn_form(&mut spec);
        }
        let counters = [0, -1, 0];
        Self {
            seed,
            random,
            kill_random,
            direct,
            ns,
            fresh,
            spec,
            proxy,
            operator,
            counters,
            log: Vec::new(),
            report: Report::default(),
        }
    }

    fn run(mut self, steps: usize) -> Report {
        for step in 0..=steps {
            let start = Instant::now();
            let disturbance = Disturbance::random(&mut self.random);
            self.log.push(format!("seed {} step {step} {disturbance:?}:", self.seed));
            match disturbance {
                Disturbance::Killed { write, cut } => self.proxy.kill_at(write, cut, &self.operator),
                Disturbance::Restarted => self.restart(),
                Disturbance::Away => self.end_operator(),
                Disturbance::None | Disturbance::Paused => {}
            }
            if step == 0 {
                self.direct.create(&self.ns, "electiongroups", &group_of(&self.spec));
            } else {
                self.change(disturbance == Disturbance::Paused);
            }
            if disturbance == Disturbance::Away {
                self.start_operator();
            }
            let fresh_ns = namespace(operated(), "fresh");
            self.fresh.create(&fresh_ns, "serviceaccounts", &other_account());
            self.fresh.create(&fresh_ns, "electiongroups", &group_of(&self.spec));
            self.settle(&fresh_ns);
            self.proxy.kill_no_more();
            // It is no longer needed, and loads the cluster.
            self.fresh.delete(&fresh_ns, "electiongroups", "kestrel");
            println!("{} settled in {:.1} s", self.log.last().unwrap(), start.elapsed().as_secs_f64());
        }
        self.report.writes += self.proxy.writes().len();
        self.report
    }

    fn record(&mut self, what: &str) {
        let last = self.log.last_mut().unwrap();
        last.push(' ');
        last.push_str(what);
    }

    /// Makes one to three changes at once that the API server accepts.
    fn change(&mut self, paused: bool) {
        loop {
            let mut spec = self.spec.clone();
            let is_empty = spec["suspend"] == true || spec["replicas"] == 0;
            let mut changes = Vec::new();
            if is_empty && self.random.below(2) == 0 {
                // Without pods a walk tests little.
                ["/suspend", "/replicas"].iter().for_each(|path| changes::set(&mut spec, path, &Value::Null));
                changes.push("pods again".to_owned());
            }
            for _ in 0..=self.random.below(3) {
                changes.push(changes::change(&mut spec, &mut self.random));
            }
            if spec == self.spec {
                continue;
            }
            let mut first = spec.clone();
            if paused {
                first["paused"] = json!(true);
            }
            match replace(self.direct, &self.ns, &first) {
                Ok(_) if paused => {
                    self.record(&format!("paused, {}", changes.join(", ")));
                    self.spec = spec;
                    self.rest_while_paused();
                    replace(self.direct, &self.ns, &self.spec).unwrap();
                    return;
                }
                Ok(_) => {
                    self.record(&changes.join(", "));
                    self.spec = spec;
                    return;
                }
                Err(refusal) => self.record(&format!("[refused: {}: {refusal}]", changes.join(", "))),
            }
        }
    }

    /// Asserts that the operator writes only the status of a paused group.
    fn rest_while_paused(&mut self) {
        let before = self.proxy.writes().len();
        within(30, &format!("{}: the paused group to be observed", self.story()), || {
            Pods { direct: self.direct, ns: &self.ns }.step();
            let group = self.group();
            (group["status"]["observedGeneration"] == group["metadata"]["generation"]).then_some(())
        });
        thread::sleep(Duration::from_millis(500));
        let mut writes = self.proxy.writes().split_off(before);
        writes.retain(|write| write != "PATCH electiongroups/kestrel/status" && write != "POST events");
        assert!(writes.is_empty(), "{}: while paused: {writes:#?}", self.story());
    }

    /// Waits until the group equals the group in `fresh_ns`, and has stayed so for [`QUIET`] without a write. Records a
    /// difference that stays.
    fn settle(&mut self, fresh_ns: &str) {
        let fresh = Pods { direct: self.fresh, ns: fresh_ns };
        // The last state, and since when it has not changed.
        let (start, mut last, mut since) = (Instant::now(), None, Instant::now());
        loop {
            let pods = Pods { direct: self.direct, ns: &self.ns }.step();
            let fresh_pods = fresh.step();
            if self.proxy.killed_at().is_some() {
                self.replace_killed_operator();
            }
            let group = self.group();
            self.check_counters(&group);
            let fresh_group = self.fresh.get(fresh_ns, "electiongroups", "kestrel").unwrap();
            let settled = [is_settled(&group), is_settled(&fresh_group)];
            assert!(
                start.elapsed() < LONGEST,
                "{}\nnot at rest within {LONGEST:?}, the fresh install {}\nlast writes: {:#?}\nspec: {:#}\nstatus: {:#}\nfresh: {:#}",
                self.story(),
                if settled[1] { "is" } else { "neither" },
                self.proxy.writes(),
                self.spec,
                group["status"],
                fresh_group["status"],
            );
            let is_stuck = !condition(&group, "Stalled").is_empty();
            let now = (settled[1] && (settled[0] || is_stuck)).then(|| {
                let walked = state(self.direct, &self.ns, &group, &pods);
                let wanted = state(self.fresh, fresh_ns, &fresh_group, &fresh_pods);
                (differences(&walked, &wanted), self.proxy.writes().len())
            });
            if now != last || now.is_none() {
                (last, since) = (now, Instant::now());
            }
            match &last {
                Some((found, _)) if found.is_empty() && since.elapsed() > QUIET => return,
                Some((found, _)) if !found.is_empty() && since.elapsed() > DIFFERENT => {
                    let found = found.join("\n    ");
                    self.report.differences.push(format!("{}\ndiffers:\n    {found}", self.story()));
                    return;
                }
                _ => thread::sleep(TICK),
            }
        }
    }

    fn group(&self) -> Value {
        self.direct.get(&self.ns, "electiongroups", "kestrel").unwrap()
    }

    fn check_counters(&mut self, group: &Value) {
        let status = &group["status"];
        let number = |field: &str, least: i64| status[field].as_i64().unwrap_or(least);
        let length = status["history"].as_array().map_or(0, Vec::len) as i64;
        let now = [number("leaseTransitions", 0), number("observedGeneration", -1), length];
        let decreased = now.iter().zip(&self.counters).any(|(now, before)| now < before);
        assert!(!decreased, "{}: {now:?} after {:?}: {status:#}", self.story(), self.counters);
        self.counters = now;
    }

    /// Starts another operator after one was killed at a write. It may be killed as well.
    fn replace_killed_operator(&mut self) {
        let at = self.proxy.killed_at().unwrap();
        self.record(&format!("[killed at {at}]"));
        self.report.kills += 1;
        self.end_operator();
        self.start_operator();
        if let (0, Disturbance::Killed { write, cut }) =
            (self.kill_random.below(2), Disturbance::killed(&mut self.kill_random))
        {
            self.proxy.kill_at(write, cut, &self.operator);
        }
    }

    /// Kills the operator at rest and starts another one, which must have nothing to do.
    fn restart(&mut self) {
        self.end_operator();
        self.start_operator();
        thread::sleep(Duration::from_secs(1));
        let writes = self.proxy.writes();
        assert!(writes.is_empty(), "{}: a new operator wrote, of a group at rest: {writes:#?}", self.story());
    }

    fn end_operator(&mut self) {
        // It may have ended already.
        if self.operator.ended(Duration::ZERO).is_none() {
            self.operator.signal(rustix::process::Signal::KILL);
        }
        self.operator.wait(Duration::from_secs(5));
        // So that the next operator need not wait for the expiry of the Lease.
        self.direct.delete("default", "leases", &format!("{}-operator", self.ns));
    }

    fn start_operator(&mut self) {
        self.report.writes += self.proxy.writes().len();
        (self.proxy, self.operator) = operator(&self.ns);
    }

    fn story(&self) -> String {
        let repeat = format!("K8SENSUS_WALK_SEED={} repeats this walk", self.seed);
        format!("{}\n{repeat}", self.log.join("\n"))
    }
}

fn operator(ns: &str) -> (HttpProxy, Program) {
    let proxy = HttpProxy::to(shared());
    let operator = operator_for(ns, &format!("{ns}-operator"), proxy.kubeconfig(), ANYWHERE);
    operator.wait_for("starting to reconcile", Duration::from_secs(20));
    (proxy, operator)
}

fn replace(direct: &Direct, ns: &str, spec: &Value) -> Result<Value, kube::Error> {
    let operation = json!([{ "op": "replace", "path": "/spec", "value": spec }]);
    direct.patch(ns, "electiongroups", "kestrel", &operation)
}

fn group_of(spec: &Value) -> Value {
    json!({ "apiVersion": "k8sensus.dev/v1alpha1", "kind": "ElectionGroup", "metadata": { "name": "kestrel" }, "spec": spec })
}

/// Returns a ServiceAccount that the operator does not own.
fn other_account() -> Value {
    json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "other" } })
}
