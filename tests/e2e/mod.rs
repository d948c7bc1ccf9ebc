//! End-to-end tests on a real node: Helm installs the operator, and pods run in containers.

mod ends;
mod environment;
mod faults;
mod groups;
mod helm;
mod hostile;
mod images;
mod install;
mod maintenance;
mod observer;
mod original;
mod probes;
mod proof;
mod restart;
mod rollout;
mod samples;
mod service;
mod skew;
mod step_down;
mod trouble;
mod unhealthy;
mod uninstall;
mod workload;

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use k8sensus_local::{Cluster, IMAGE, Profile, product_image};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Deleted, apply, get, kubectl, prepare_machine, root, within};

const SYSTEM: &str = "k8sensus-system";

/// Returns the node that tests share, with the product's image and the operator as the README installs it.
fn node() -> &'static Cluster {
    static NODE: OnceLock<Cluster> = OnceLock::new();
    NODE.get_or_init(|| {
        prepare_machine();
        println!("e2e: building the image (takes minutes the first time), then starting a node (10 s)");
        let existing = std::env::var("K8SENSUS_CLUSTER").ok();
        let node = existing.as_deref().map_or_else(new_node, existing_node);
        install_operator(&node, "crds.keep=true");
        if existing.is_some() {
            // The tag of the image is the same as before.
            let operator = ["-n", SYSTEM, "deployment/k8sensus-operator"];
            kubectl(&node, &[&["rollout", "restart"], &operator[..]].concat());
            kubectl(&node, &[&["rollout", "status", "--timeout=120s"], &operator[..]].concat());
        }
        observer::start();
        node
    })
}

/// Returns the running cluster of that name, as `cargo demo -- --name NAME up` leaves it, with the product's image. It
/// keeps running after the tests.
fn existing_node(name: &str) -> Cluster {
    with_image(|| Cluster::open(name))
}

/// Starts a node with the product's image.
fn new_node() -> Cluster {
    with_image(|| Cluster::node().start())
}

fn with_image(node: impl FnOnce() -> Result<Cluster, k8sensus_local::Error>) -> Cluster {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("image-{}-{}.tar", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let archive = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    product_image(&archive, Profile::Demo).unwrap_or_else(|error| panic!("{error}"));
    let node = node().unwrap_or_else(|error| panic!("{error}"));
    node.load_image(&archive).unwrap_or_else(|error| panic!("{error}"));
    let _ = std::fs::remove_file(&archive);
    node
}

/// Installs or upgrades the chart; `value` is an additional value.
fn install_operator(node: &Cluster, value: &str) {
    let (repository, tag) = IMAGE.rsplit_once(':').unwrap();
    let mut helm = node.helm().unwrap_or_else(|error| panic!("{error}"));
    helm.args(["upgrade", "--install", "k8sensus", "charts/k8sensus", "--namespace", SYSTEM, "--create-namespace"])
        .args(["--set", &format!("image.repository={repository},image.tag={tag},{value}"), "--wait", "--timeout=120s"])
        .current_dir(root());
    let output = helm.output().unwrap();
    if !output.status.success() {
        let pods = ["describe", "pods", "--namespace", SYSTEM];
        let logs =
            ["logs", "--namespace", SYSTEM, "--selector=app.kubernetes.io/name=k8sensus", "--prefix", "--tail=40"];
        for arguments in [&pods[..], &logs] {
            let shown = node.kubectl().args(arguments).output().unwrap();
            println!("{}", String::from_utf8_lossy(&shown.stdout));
        }
        panic!("{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Waits until Kubernetes' garbage collector has discovered the kind of groups. It discovers new kinds every 30 s and
/// never removes the dependents of a kind that existed only in between.
fn wait_until_the_garbage_collector_knows_groups(node: &Cluster) {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    within(90, "the garbage collection of an object whose group does not exist", || {
        // A new object each time: the collector retries an object with an owner of unknown kind ever less often.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("dependent-{number}");
        let owner = json!({
            "apiVersion": "k8sensus.dev/v1alpha1", "kind": "ElectionGroup", "name": "missing",
            "uid": format!("00000000-0000-4000-8000-{number:012}"),
        });
        let dependent = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "ownerReferences": [owner] },
        });
        apply(node, "default", &dependent).unwrap();
        thread::sleep(Duration::from_secs(2));
        get(node, "default", &format!("configmap/{name}")).is_none().then_some(())
    });
}

/// A namespace for one test. It is deleted with the test, so that the node runs no unneeded pods.
struct Namespace {
    name: String,
    /// Dropped in this order: once its group is gone, the operator recreates nothing.
    _groups_first: Deleted,
    _then_the_rest: Deleted,
}

fn namespace(name: &str) -> Namespace {
    let name = crate::support::namespace(node(), name);
    Namespace {
        _groups_first: Deleted::at_the_end(node(), &["-n", &name, "electiongroups", "--all"]),
        _then_the_rest: Deleted::at_the_end(node(), &["namespace", &name]),
        name,
    }
}

impl Deref for Namespace {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

impl Drop for Namespace {
    /// Checks in every test that at most one program of a group works at a time and that tokens rise.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            observer::judge(&self.name);
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn sample_path(sample: &str) -> PathBuf {
    root().join("deploy/samples").join(sample)
}

/// Applies a sample that names its own namespace; deletes it when the test ends.
fn apply_sample(sample: &str) -> Deleted {
    let path = sample_path(sample);
    let file = ["-f", path.to_str().unwrap()];
    let deleted = Deleted::at_the_end(node(), &file);
    kubectl(node(), &["apply", file[0], file[1]]);
    deleted
}

/// Returns a group of two that runs the sample task, with a short lease so that it expires soon after a crash.
fn sample(name: &str, more: Value) -> Value {
    let mut group = crate::support::group(name, json!({ "image": IMAGE, "command": ["/k8sensus", "sample"] }));
    group["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    group
}

/// Waits until the condition Ready is True with a leader that is not in `former`; returns the group.
fn ready(ns: &str, name: &str, former: &[&str]) -> Value {
    ready_on(node(), ns, name, former)
}

fn ready_on(node: &Cluster, ns: &str, name: &str, former: &[&str]) -> Value {
    within(180, &format!("group {ns}/{name} to be Ready with a new leader"), || {
        let group = get(node, ns, &format!("electiongroup/{name}"))?;
        let holder = group["status"]["holderIdentity"].as_str().unwrap_or_default();
        let ready = crate::support::condition(&group, "Ready") == "True/LeaderElected";
        (ready && !former.contains(&holder)).then_some(group)
    })
}

fn holder(group: &Value) -> String {
    group["status"]["holderIdentity"].as_str().unwrap().to_owned()
}

fn logs(ns: &str, pod: &str) -> String {
    kubectl(node(), &["logs", "-n", ns, pod])
}

fn uid(ns: &str, pod: &str) -> String {
    get(node(), ns, &format!("pod/{pod}")).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// Kills a candidate and its command once both run; returns the time of the kill.
fn kill(ns: &str, pod: &str) -> Instant {
    let uid = uid(ns, pod);
    within(60, &format!("the candidate and its command in {pod}"), || {
        (node().pids_in_pod(&uid).len() == 2).then_some(())
    });
    let killed = Instant::now();
    assert_eq!(node().signal_pod(&uid, Signal::KILL.as_raw()).unwrap(), 2, "the candidate and its command");
    killed
}
