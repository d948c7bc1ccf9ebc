//! A group on the node with faults, and the checks after its own fault.

use std::sync::OnceLock;
use std::time::Duration;

use k8sensus_local::Cluster;
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::super::workload::{Mode, Workload};
use super::super::{holder, install_operator, new_node, ready_on};
use super::{Scenario, Then, restore};
use crate::support::overlap::Stretch;
use crate::support::{Deleted, apply, condition, get, namespace, prepare_machine, within};

/// The default lease duration of groups.
pub const LEASE: Duration = Duration::from_secs(15);
/// The longest time from the leader's death to its successor with default timings: lease duration plus retry period.
const PROMISED: Duration = Duration::from_secs(15 + 2);
/// How much longer a busy machine may take to start the successor's program.
const SLACK: Duration = Duration::from_secs(8);

/// A group whose leader works.
pub struct Scene {
    scenario: &'static Scenario,
    pub ns: String,
    pub workload: Workload,
    pub leader: String,
    pub uid: String,
    transitions: i64,
    /// The token of the leader's term.
    token: Option<u64>,
    /// The number of terms until then: on a busy machine the first may be short.
    terms: usize,
    _namespace: Deleted,
}

/// Returns the node of these tests, which is not shared because they kill its components.
pub fn node() -> &'static Cluster {
    static NODE: OnceLock<Cluster> = OnceLock::new();
    NODE.get_or_init(|| {
        prepare_machine();
        let node = new_node();
        install_operator(&node, "crds.keep=true");
        node
    })
}

/// Returns the time on the clock of the programs' stamps.
pub fn now() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.try_into().unwrap(), now.tv_nsec.try_into().unwrap())
}

fn uid(ns: &str, pod: &str) -> String {
    get(node(), ns, &format!("pod/{pod}")).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned()
}

impl Scene {
    /// Creates a group whose leader's program works and whose other pod is a standby.
    pub fn set(scenario: &'static Scenario) -> Self {
        let name = scenario.name;
        let ns = namespace(node(), name);
        let deleted = Deleted::at_the_end(node(), &["namespace", &ns]);
        let workload = Workload::new(Mode::Exec, 1, 10);
        apply(node(), &ns, &workload.group("kestrel", json!({}))).unwrap();
        let group = within(120, &format!("{name}: both pods"), || {
            Some(ready_on(node(), &ns, "kestrel", &[])).filter(|group| group["status"]["readyReplicas"] == 2)
        });
        let leader = holder(&group);
        within(30, &format!("{name}: the leader's program to work"), || {
            workload.workers().contains(&leader).then_some(())
        });
        let report = workload.report();
        Self {
            token: report.stretches.last().unwrap().token,
            terms: report.incarnations(),
            scenario,
            uid: uid(&ns, &leader),
            transitions: group["status"]["leaseTransitions"].as_i64().unwrap(),
            ns,
            workload,
            leader,
            _namespace: deleted,
        }
    }

    pub fn name(&self) -> &'static str {
        self.scenario.name
    }

    pub fn group(&self) -> Option<Value> {
        get(node(), &self.ns, "electiongroup/kestrel")
    }

    /// Returns whether a pod runs a candidate and a program.
    pub fn works(&self, pod: &str) -> bool {
        node().pids_in_pod(&uid(&self.ns, pod)).len() >= 2
    }

    /// Kills the candidate of a pod and its program.
    pub fn kill(&self, pod: &str) {
        within(10, &format!("{}: the program of {pod}", self.name()), || self.works(pod).then_some(()));
        node().signal_pod(&uid(&self.ns, pod), Signal::KILL.as_raw()).unwrap();
    }

    /// Returns the last work of the leader and the first of its successor.
    pub fn change(&self) -> Option<(Stretch, Stretch)> {
        let stretches = self.workload.report().stretches;
        let first = stretches.iter().position(|stretch| stretch.token > self.token)?;
        let (former, next) = (&stretches[..first], stretches[first].clone());
        let last = former.iter().rfind(|stretch| stretch.token < next.token)?.clone();
        Some((last, next))
    }

    /// Asserts that no fault has affected the group yet.
    fn assert_undisturbed(&self) {
        let report = self.workload.report();
        assert_eq!(
            report.incarnations(),
            self.terms,
            "{}: disturbed by the fault of another group: {report}",
            self.name()
        );
        assert_eq!(holder(&self.group().unwrap()), self.leader, "{}", self.name());
    }

    /// Returns the changes of leadership since the group was set up, oldest first.
    fn changes(&self, group: &Value) -> Vec<Value> {
        let history = group["status"]["history"].as_array().unwrap().iter().rev();
        history.filter(|change| change["leaseTransitions"].as_i64() > Some(self.transitions)).cloned().collect()
    }

    /// Injects the fault and checks the group afterwards; returns a line that describes the outcome.
    pub fn play(&self) -> String {
        self.assert_undisturbed();
        (self.scenario.fault)(self);
        let (reasons, must_change) = match self.scenario.then {
            Then::Changes(reasons) => (reasons, true),
            Then::MayChange(reasons) => (reasons, false),
            Then::IsRestored => return restore::judge(self),
        };
        let name = self.name();
        let change = || within(60, &format!("{name}: the work of a successor"), || self.change());
        if must_change {
            change();
        }
        let group = self.wait_until_healthy();
        let changes = self.changes(&group);
        assert!(changes.len() <= 1, "{name}: {changes:?}");
        let line = match changes.first() {
            Some(entry) => {
                let (last, next) = change();
                let gap = next.from.saturating_sub(last.until);
                assert!(gap <= PROMISED + SLACK, "{name}: no program worked for {gap:?}: {}", self.workload.report());
                let (reason, leaderless) = (entry["reason"].as_str().unwrap(), entry["leaderlessSeconds"].as_f64());
                assert!(reasons.contains(&reason), "{name}: {entry}");
                // A renewal may be dated up to a second ahead.
                let has_expired = leaderless.is_some_and(|seconds| seconds + 1.0 >= LEASE.as_secs_f64());
                assert!(reason != "LeaseExpired" || has_expired, "{name}: {entry}");
                format!("{} to {}, {reason}, no program worked for {gap:?}", last.identity, next.identity)
            }
            None => {
                assert!(!must_change, "{name}: the history has no change: {group}");
                format!("{} remains the leader", self.leader)
            }
        };
        self.assert_no_crash_loop();
        let report = self.workload.checked_report();
        assert!(report.overlaps.is_empty() && report.stale.is_empty(), "{name}: {report}");
        format!("{name}: {line}")
    }

    /// Waits until the group is Ready with all its pods and its status matches its Lease; returns the group.
    pub fn wait_until_healthy(&self) -> Value {
        within(60, &format!("{}: the group to be Ready with all its pods", self.name()), || {
            let group = self.group()?;
            let lease = get(node(), &self.ns, "lease/kestrel")?;
            let is_current = group["status"]["leaseTransitions"] == lease["spec"]["leaseTransitions"]
                && group["status"]["holderIdentity"] == lease["spec"]["holderIdentity"];
            let is_ready = condition(&group, "Ready") == "True/LeaderElected" && group["status"]["readyReplicas"] == 2;
            (is_current && is_ready).then_some(group)
        })
    }

    pub fn assert_no_crash_loop(&self) {
        let pods = get(node(), &self.ns, "pods").unwrap();
        for pod in pods["items"].as_array().unwrap() {
            for status in pod["status"]["containerStatuses"].as_array().unwrap() {
                let restarts = status["restartCount"].as_i64().unwrap();
                assert!(restarts <= 1 && status["state"]["waiting"].is_null(), "{}: {status}", self.name());
            }
        }
    }
}
