//! An operator that is killed at any of its writes: the next one ends where one would have that was never disturbed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::http_proxy::{Cut, Direct, HttpProxy, operator_for};
use crate::support::{Program, group, namespace, shared, within};

/// What an operator writes; pods are not its own.
pub(super) const PLURALS: [&str; 6] =
    ["deployments", "serviceaccounts", "roles", "rolebindings", "poddisruptionbudgets", "leases"];

pub(super) const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Operators that run at a time.
const WORKERS: usize = 4;

/// What happens to a group that is at rest, or its making.
struct Scenario {
    name: &'static str,
    happens: fn(&Direct, &str),
    /// Writes without which it would be another one; each of them must have been cut before and after.
    writes: &'static [&'static str],
}

const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "made",
        happens: make,
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
        happens: |direct, ns| patch(direct, ns, &json!({ "image": "registry.example/kestrel:2" })),
        writes: &["PATCH deployments/kestrel", "PATCH electiongroups/kestrel/status"],
    },
    Scenario {
        name: "suspended",
        happens: |direct, ns| patch(direct, ns, &json!({ "suspend": true })),
        writes: &["PUT leases/kestrel", "PATCH deployments/kestrel", "PATCH electiongroups/kestrel/status"],
    },
    Scenario {
        name: "robbed",
        happens: |direct, ns| direct.delete(ns, "leases", "kestrel"),
        writes: &["POST leases", "PATCH electiongroups/kestrel/status"],
    },
];

fn make(direct: &Direct, ns: &str) {
    direct.create(ns, "electiongroups", &group("kestrel", json!({})));
}

fn patch(direct: &Direct, ns: &str, spec: &Value) {
    direct.merge(ns, "electiongroups", "kestrel", &json!({ "spec": spec }));
}

/// An undisturbed run: where it began, where it ended, and how many writes lay between.
struct Course {
    before: Value,
    after: Value,
    writes: usize,
}

#[test]
fn an_operator_that_is_killed_at_any_write_is_followed_by_one_that_ends_where_it_would_have() {
    let direct = Direct::to(shared());
    let courses: Vec<Course> = thread::scope(|scope| {
        let runs = SCENARIOS.each_ref().map(|scenario| scope.spawn(|| undisturbed(scenario, &direct)));
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let mut jobs = Vec::new();
    for (scenario, course) in SCENARIOS.iter().zip(&courses) {
        println!("{}: {} writes", scenario.name, course.writes);
        for write in 1..=course.writes {
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
    for scenario in &SCENARIOS {
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
    let _operator = operator(&ns, "first", proxy.kubeconfig());
    let mut before = Value::Null;
    if scenario.name != "made" {
        make(direct, &ns);
        before = at_rest(direct, &ns, &proxy);
    }
    let written = proxy.writes().len();
    (scenario.happens)(direct, &ns);
    let after = at_rest(direct, &ns, &proxy);
    assert_ne!(before, after, "{}: nothing happened", scenario.name);
    assert!(!after["electiongroup"]["status"].is_null(), "{after}");
    Course { before, after, writes: proxy.writes().len() - written }
}

/// Returns the write at which the operator was killed, if it came so far.
fn disturbed(scenario: &Scenario, course: &Course, direct: &Direct, write: usize, cut: Cut) -> Option<String> {
    let (ns, proxy) = (namespace(shared(), scenario.name), HttpProxy::to(shared()));
    let mut first = operator(&ns, "first", proxy.kubeconfig());
    if scenario.name != "made" {
        make(direct, &ns);
        same(direct, &ns, &course.before, "the group as it was before");
    }
    proxy.kill_at(write, cut, &first);
    (scenario.happens)(direct, &ns);
    let start = Instant::now();
    while proxy.killed_at().is_none() {
        if state(direct, &ns) == course.after && start.elapsed() > Duration::from_secs(3) {
            // Two statuses that one run wrote were one in this.
            return None;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{} {write} {cut:?}: neither", scenario.name);
        thread::sleep(Duration::from_millis(20));
    }
    let at = proxy.killed_at();
    first.wait(Duration::from_secs(5));
    // With a Lease of its own, not to wait for that of the dead.
    let _second = operator(&ns, "second", shared().kubeconfig());
    let told = format!("{} after a kill {cut:?} {}", scenario.name, at.as_deref().unwrap_or_default());
    same(direct, &ns, &course.after, &told);
    thread::sleep(Duration::from_millis(300));
    same(direct, &ns, &course.after, &told);
    at
}

fn operator(ns: &str, which: &str, kubeconfig: &Path) -> Program {
    let operator = operator_for(ns, &format!("{ns}-{which}"), kubeconfig, ANYWHERE);
    operator.wait_for("reconciles from now on", Duration::from_secs(20));
    operator
}

/// Waits until nothing has been written and nothing has changed for two seconds, and the Deployment controller, which may have
/// begun only now, has done its part.
fn at_rest(direct: &Direct, ns: &str, proxy: &HttpProxy) -> Value {
    let look = || (state(direct, ns), proxy.writes().len());
    let (mut last, mut since) = (look(), Instant::now());
    within(40, &format!("{ns} to be at rest"), || {
        let now = look();
        let (pods, wanted) =
            (&now.0["electiongroup"]["status"]["replicas"], &now.0["deployments"][0]["spec"]["replicas"]);
        if now != last || pods.is_null() || pods.as_i64() < wanted.as_i64() {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_secs(2)).then(|| last.0.clone())
    })
}

fn same(direct: &Direct, ns: &str, wanted: &Value, what: &str) {
    let start = Instant::now();
    loop {
        let found = state(direct, ns);
        if found == *wanted {
            return;
        }
        let late = start.elapsed() > Duration::from_secs(30);
        assert!(!late, "not within 30 s: {what}, expected\n{wanted:#}\nfound\n{found:#}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Everything in a namespace that an operator writes, without what differs from one run to the next.
fn state(direct: &Direct, ns: &str) -> Value {
    let Some(group) = direct.get(ns, "electiongroups", "kestrel") else { return Value::Null };
    let mut state = json!({ "electiongroup": stripped(&group, true) });
    for plural in PLURALS {
        let list = direct.get(ns, plural, "").unwrap();
        let items = list["items"].as_array().unwrap().iter().filter(|item| item["metadata"]["name"] != "default");
        state[plural] = items.map(|item| stripped(item, false)).collect();
    }
    let uid = group["metadata"]["uid"].as_str().unwrap();
    serde_json::from_str(&state.to_string().replace(uid, "UID").replace(ns, "NAMESPACE")).unwrap()
}

fn stripped(object: &Value, with_status: bool) -> Value {
    let mut stripped = object.clone();
    let metadata = &object["metadata"];
    let managers = metadata["managedFields"].as_array().cloned().unwrap_or_default();
    let ours = managers.iter().filter(|entry| entry["manager"] == "k8sensus-operator");
    let ours: BTreeSet<String> =
        ours.map(|entry| json!([entry["operation"], entry["subresource"], entry["fieldsV1"]]).to_string()).collect();
    stripped["metadata"] = json!({
        "name": metadata["name"], "labels": metadata["labels"], "annotations": metadata["annotations"],
        "ownerReferences": metadata["ownerReferences"], "ours": ours,
    });
    // Of the whole object, with the uid of its owner.
    if let Some(hash) = stripped.pointer_mut("/metadata/annotations/k8sensus.dev~1applied-hash") {
        *hash = json!("HASH");
    }
    if !with_status {
        stripped.as_object_mut().unwrap().remove("status");
    }
    without_times(&mut stripped);
    stripped
}

fn without_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !["lastTransitionTime", "acquireTime", "renewTime"].contains(&key.as_str()));
            fields.values_mut().for_each(without_times);
        }
        Value::Array(items) => items.iter_mut().for_each(without_times),
        _ => {}
    }
}
