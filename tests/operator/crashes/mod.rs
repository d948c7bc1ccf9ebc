//! An operator that is killed at any of its writes: the next one reaches the same end state as an undisturbed operator.

pub(super) mod play;
pub(super) mod state;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use play::Play;
use serde_json::{Value, json};
use state::{is_pod, state};

use crate::support::http_proxy::{Cut, HttpProxy, operator_for};
use crate::support::objects::Direct;
use crate::support::{Program, group, namespace, shared, within};

/// The children that an operator writes.
pub(super) const PLURALS: [&str; 6] =
    ["deployments", "serviceaccounts", "roles", "rolebindings", "poddisruptionbudgets", "leases"];

pub(super) const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// How many operators run at a time.
const WORKERS: usize = 4;

/// How long a run may take. Other tests share the machine.
const LONGEST: Duration = Duration::from_secs(60);

/// How long nothing may change until a group counts as at rest. A trial takes 2 s.
const QUIET: Duration = Duration::from_secs(4);

/// A change of a group at rest, or its creation.
struct Scenario {
    name: &'static str,
    /// Creates the state before the change.
    prepare: fn(Play<'_>),
    happens: fn(Play<'_>),
    /// Whether the test plays a kubelet and candidates.
    is_led: bool,
    /// The writes that the scenario must contain. The operator must have been killed before and after each of them.
    writes: &'static [&'static str],
}

const SCENARIOS: [Scenario; 10] = [
    Scenario {
        name: "made",
        prepare: |_| {},
        happens: make,
        is_led: false,
        writes: &[
            "POST leases",
            "POST serviceaccounts",
            "POST roles",
            "POST rolebindings",
            "POST deployments",
            "POST poddisruptionbudgets",
            "PATCH electiongroups/kestrel/status",
        ],
    },
    Scenario {
        name: "changed",
        prepare: make,
        happens: |play| patch(play, &json!({ "image": "registry.example/kestrel:2" })),
        is_led: false,
        writes: &["PATCH deployments/kestrel", "PATCH electiongroups/kestrel/status"],
    },
    Scenario {
        name: "suspended",
        prepare: make,
        happens: |play| patch(play, &json!({ "suspend": true })),
        is_led: false,
        writes: &["PUT leases/kestrel", "PATCH deployments/kestrel", "PATCH electiongroups/kestrel/status"],
    },
    Scenario {
        name: "robbed",
        prepare: make,
        happens: |play| play.direct.delete(play.ns, "leases", "kestrel"),
        is_led: false,
        writes: &["POST leases", "PATCH electiongroups/kestrel/status"],
    },
    Scenario {
        name: "adopted",
        prepare: |_| {},
        happens: |play| {
            play.direct.create(play.ns, "leases", &foreign_lease());
            make(play);
        },
        is_led: false,
        writes: &["PUT leases/kestrel", "POST deployments", "PATCH electiongroups/kestrel/status"],
    },
    Scenario {
        name: "stepped-down",
        prepare: make,
        happens: |play| {
            let annotations = json!({ "k8sensus.dev/step-down-requested-at": "now" });
            let patch = json!({ "metadata": { "annotations": annotations } });
            play.direct.merge(play.ns, "electiongroups", "kestrel", &patch);
        },
        is_led: true,
        writes: &["PUT leases/kestrel", "PATCH electiongroups/kestrel/status", "PATCH pods/POD"],
    },
    Scenario {
        name: "rolled-out",
        prepare: make,
        happens: |play| patch(play, &json!({ "image": "registry.example/kestrel:2" })),
        is_led: true,
        writes: &[
            "PATCH deployments/kestrel",
            "PUT leases/kestrel",
            "PATCH electiongroups/kestrel/status",
            "PATCH pods/POD",
            "PATCH pods/POD/status",
        ],
    },
    Scenario {
        name: "released",
        prepare: make,
        happens: |play| play.leader_dies(),
        is_led: true,
        writes: &["PUT leases/kestrel", "PATCH electiongroups/kestrel/status", "PATCH pods/POD"],
    },
    Scenario {
        name: "served",
        prepare: make,
        happens: |play| patch(play, &json!({ "leaderService": { "ports": [{ "port": 80, "targetPort": 8080 }] } })),
        is_led: true,
        writes: &["POST services", "POST endpointslices"],
    },
    Scenario {
        name: "renamed",
        prepare: |play| {
            let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "other" } });
            play.direct.create(play.ns, "serviceaccounts", &account);
            make(play);
        },
        happens: |play| patch(play, &json!({ "serviceAccount": { "name": "other" } })),
        is_led: true,
        writes: &["PATCH rolebindings/kestrel", "PATCH deployments/kestrel", "DELETE serviceaccounts/kestrel"],
    },
];

fn make(play: Play<'_>) {
    let election = json!({ "leaseDurationSeconds": 120, "renewDeadlineSeconds": 80, "retryPeriodSeconds": 5 });
    play.direct.create(
        play.ns,
        "electiongroups",
        &group("kestrel", json!({ "election": election, "minReadySeconds": 1 })),
    );
}

fn patch(play: Play<'_>, spec: &Value) {
    play.direct.merge(play.ns, "electiongroups", "kestrel", &json!({ "spec": spec }));
}

/// Returns a Lease that another program left behind.
fn foreign_lease() -> Value {
    let now = format!("{:.6}", jiff::Timestamp::now());
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "kestrel" },
        "spec": {
            "holderIdentity": "stork", "leaseDurationSeconds": 120, "acquireTime": now, "renewTime": now,
            "leaseTransitions": 3,
        },
    })
}

/// An undisturbed run: its start, its end, and the writes in between.
struct Course {
    before: Value,
    after: Value,
    writes: Vec<String>,
}

#[test]
fn operator_killed_at_any_write_is_followed_by_the_same_end_state() {
    // All scenarios take many minutes, and load the API server of the other tests.
    let everything = std::env::var("K8SENSUS_CRASHES").is_ok_and(|crashes| crashes == "all");
    let scenarios: Vec<&Scenario> = SCENARIOS.iter().filter(|scenario| everything || scenario.is_quick()).collect();
    let direct = Direct::to(shared());
    let courses: Vec<Course> = thread::scope(|scope| {
        let runs: Vec<_> = scenarios.iter().map(|&scenario| scope.spawn(|| undisturbed(scenario, &direct))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let mut jobs = Vec::new();
    for (&scenario, course) in scenarios.iter().zip(&courses) {
        println!("{}: {} writes", scenario.name, course.writes.len());
        // No decision depends on Events, and the compared state does not contain them.
        let is_cut = |(_, write): &(usize, &String)| *write != "POST events";
        for (write, _) in (1..).zip(&course.writes).filter(is_cut) {
            jobs.extend([Cut::Before, Cut::After].map(|cut| (scenario, course, write, cut)));
        }
    }
    let (next, cuts) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((scenario, course, write, cut)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let at = disturbed(scenario, course, &direct, *write, *cut);
                    cuts.lock().unwrap().push((scenario.name, *cut, at));
                }
            });
        }
    });
    let cuts = cuts.into_inner().unwrap();
    let made = cuts.iter().filter(|(_, _, at)| at.is_some()).count();
    println!("{made} operators were killed, {} had no such write, in {:?}", cuts.len() - made, start.elapsed());
    let made: BTreeSet<String> =
        cuts.iter().filter_map(|(name, cut, at)| Some(format!("{name}: {cut:?} {}", at.as_ref()?))).collect();
    for scenario in scenarios {
        for write in scenario.writes {
            for cut in [Cut::Before, Cut::After] {
                let wanted = format!("{}: {cut:?} {write}", scenario.name);
                assert!(made.contains(&wanted), "no operator was killed at {wanted}: {made:#?}");
            }
        }
    }
}

fn undisturbed(scenario: &Scenario, direct: &Direct) -> Course {
    let (ns, proxy) = (namespace(shared(), scenario.name), HttpProxy::to(shared()));
    let _operator = operator(&ns, proxy.kubeconfig());
    let play = Play { direct, ns: &ns };
    (scenario.prepare)(play);
    let before = match state(direct, &ns) {
        Value::Null => Value::Null,
        _ => at_rest(scenario, play, &proxy),
    };
    let written = proxy.writes().len();
    (scenario.happens)(play);
    let after = at_rest(scenario, play, &proxy);
    assert_ne!(before, after, "{}: nothing happened", scenario.name);
    assert!(!after["electiongroup"]["status"].is_null(), "{after}");
    Course { before, after, writes: proxy.writes().split_off(written) }
}

/// Returns the write at which the operator was killed, if it reached that write.
fn disturbed(scenario: &Scenario, course: &Course, direct: &Direct, write: usize, cut: Cut) -> Option<String> {
    let (ns, proxy) = (namespace(shared(), scenario.name), HttpProxy::to(shared()));
    let mut first = operator(&ns, proxy.kubeconfig());
    let play = Play { direct, ns: &ns };
    (scenario.prepare)(play);
    same(scenario, play, &course.before, "the group as it was before");
    proxy.kill_at(write, cut, &first);
    (scenario.happens)(play);
    let start = Instant::now();
    while proxy.killed_at().is_none() {
        scenario.step(play);
        if state(direct, &ns) == course.after && start.elapsed() > QUIET {
            // This run wrote one status where the other run wrote two.
            return None;
        }
        assert!(start.elapsed() < LONGEST, "{} {write} {cut:?}: neither", scenario.name);
        thread::sleep(Duration::from_millis(20));
    }
    let at = proxy.killed_at();
    first.wait(Duration::from_secs(5));
    // So that the next operator need not wait for the expiry of the Lease.
    direct.delete("default", "leases", &format!("{ns}-operator"));
    let _second = operator(&ns, shared().kubeconfig());
    let what = format!("{} after a kill {cut:?} {}", scenario.name, at.as_deref().unwrap_or_default());
    same(scenario, play, &course.after, &what);
    thread::sleep(Duration::from_millis(300));
    same(scenario, play, &course.after, &what);
    at.map(|at| anonymous(&at))
}

/// Replaces the name of a pod in a write.
fn anonymous(write: &str) -> String {
    let part = |part| if is_pod(part) { "POD" } else { part };
    write.split('/').map(part).collect::<Vec<_>>().join("/")
}

impl Scenario {
    /// Whether it runs without `K8SENSUS_CRASHES=all`: it needs no kubelet and no candidates.
    fn is_quick(&self) -> bool {
        ["made", "changed", "suspended", "robbed"].contains(&self.name)
    }

    /// Plays one step of the kubelet and the candidates, if there are any.
    fn step(&self, play: Play<'_>) {
        if self.is_led {
            play.step();
        }
    }
}

fn operator(ns: &str, kubeconfig: &Path) -> Program {
    let operator = operator_for(ns, &format!("{ns}-operator"), kubeconfig, ANYWHERE);
    operator.wait_for("starting to reconcile", Duration::from_secs(20));
    operator
}

/// Waits until nothing was written and nothing changed for [`QUIET`], and the Deployment controller, which may have
/// started late, has created its pods.
fn at_rest(scenario: &Scenario, play: Play<'_>, proxy: &HttpProxy) -> Value {
    let Play { direct, ns } = play;
    let observe = || {
        scenario.step(play);
        (state(direct, ns), proxy.writes().len())
    };
    let (mut last, mut since) = (observe(), Instant::now());
    within(LONGEST.as_secs(), &format!("{ns} to be at rest"), || {
        let now = observe();
        let (pods, wanted) =
            (&now.0["electiongroup"]["status"]["replicas"], &now.0["deployments"][0]["spec"]["replicas"]);
        if now != last || pods.is_null() || pods.as_i64() < wanted.as_i64() {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() > QUIET).then(|| last.0.clone())
    })
}

fn same(scenario: &Scenario, play: Play<'_>, wanted: &Value, what: &str) {
    let start = Instant::now();
    loop {
        scenario.step(play);
        let found = state(play.direct, play.ns);
        if found == *wanted {
            return;
        }
        let late = start.elapsed() > LONGEST;
        assert!(!late, "not within {LONGEST:?}: {what}, expected\n{wanted:#}\nfound\n{found:#}");
        thread::sleep(Duration::from_millis(50));
    }
}
