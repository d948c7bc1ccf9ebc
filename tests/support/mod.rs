//! Shared test support: real API servers, programs that end with their test, and access to objects.

pub mod fixtures;
pub mod http_proxy;
pub mod objects;
pub mod overlap;
pub mod process;
pub mod proxy;
pub mod random;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, OnceLock};
use std::time::{Duration, Instant};

use k8sensus_local::{Builder, Cluster, Profile, product_program};
pub use objects::get;
pub use process::Program;
use serde_json::{Value, json};

pub const CANDIDATE: &str = env!("CARGO_BIN_EXE_k8sensus");
pub const OPERATOR: &str = env!("CARGO_BIN_EXE_k8sensus-operator");
pub const PLUGIN: &str = env!("CARGO_BIN_EXE_kubectl-k8sensus");

/// A lease that is short enough for tests: it expires 3 s after a crash.
pub const SHORT: [(&str, &str); 3] = [
    ("K8SENSUS_LEASE_DURATION_SECONDS", "3"),
    ("K8SENSUS_RENEW_DEADLINE_SECONDS", "2"),
    ("K8SENSUS_RETRY_PERIOD_SECONDS", "1"),
];

/// Installs what the tests need, as root on Debian. Elsewhere prints what is missing; tests that need it fail.
///
/// Runs once and before anything else, because building Kubernetes' programs takes minutes.
pub fn prepare_machine() {
    static PREPARED: Once = Once::new();
    PREPARED.call_once(|| {
        if let Err(lines) = k8sensus_local::ensure_tests() {
            let lines: String = lines.iter().map(|line| format!("  - {line}\n")).collect();
            // Not with eprintln, which the test harness hides until a test fails.
            let _ =
                std::io::stderr().write_all(format!("this machine lacks what some tests need:\n{lines}").as_bytes());
        }
        // A build uses all processors for minutes, so time-critical tests that ran beside it would fail.
        if are_all_tests_wanted() {
            for program in ["k8sensus", "k8sensus-operator"] {
                // An error is reported by the node tests, which need these programs.
                let _ = product_program(program, Profile::Demo);
            }
        }
    });
}

/// Returns whether the tests were started without a filter.
fn are_all_tests_wanted() -> bool {
    std::env::args().skip(1).all(|argument| argument.starts_with('-'))
}

/// Returns the control plane that tests share, without an operator; each test has a namespace of its own.
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(control_plane)
}

/// Returns the control plane that tests share, with one operator that reconciles every namespace.
pub fn operated() -> &'static Cluster {
    static SHARED: OnceLock<(Cluster, Program)> = OnceLock::new();
    &SHARED
        .get_or_init(|| {
            let cluster = control_plane();
            let operator = operator(&cluster, "keeper", &[]);
            operator.wait_for("starting to reconcile", Duration::from_secs(10));
            (cluster, operator)
        })
        .0
}

/// Starts a control plane for one test alone, with the CRD.
pub fn control_plane() -> Cluster {
    control_plane_with(Cluster::control_plane())
}

/// Starts a control plane with the settings of `builder`, with the CRD.
pub fn control_plane_with(builder: Builder) -> Cluster {
    prepare_machine();
    let cluster = builder.audit(true).start().unwrap_or_else(|error| panic!("{error}"));
    let crd = root().join("crds/electiongroups.k8sensus.dev.yaml");
    kubectl(&cluster, &["apply", "-f", crd.to_str().unwrap()]);
    // Not `kubectl wait`, which fails on a new object because it has no conditions yet.
    within(30, "the CRD to be served", || {
        let crd = get(&cluster, "default", "crd/electiongroups.k8sensus.dev")?;
        (condition(&crd, "Established") == "True/InitialNamesAccepted").then_some(())
    });
    cluster
}

/// Returns the root of the repository.
pub fn root() -> &'static Path {
    // The package of the tests is src/bin.
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Starts an operator as a process on this machine; it ends with the test.
pub fn operator(cluster: &Cluster, name: &str, more: &[(&str, &str)]) -> Program {
    let mut command = Command::new(OPERATOR);
    command
        .args(["run", "--candidate-image=localhost/k8sensus:dev", "--listen=127.0.0.1:0"])
        .env("POD_NAME", name)
        .env("POD_NAMESPACE", "default")
        .env("KUBECONFIG", cluster.kubeconfig())
        .envs(SHORT)
        .envs(more.iter().copied());
    Program::start(name, &mut command)
}

/// Starts a candidate as a process on this machine, with a short lease.
pub fn candidate(cluster: &Cluster, namespace: &str, lease: &str, pod: &str, arguments: &[&str]) -> Program {
    Program::start(pod, &mut candidate_command(cluster, namespace, lease, pod, arguments))
}

pub fn candidate_command(cluster: &Cluster, namespace: &str, lease: &str, pod: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(CANDIDATE);
    command
        .args(arguments)
        .env("K8SENSUS_LEASE_NAME", lease)
        .env("K8SENSUS_LEASE_NAMESPACE", namespace)
        .env("POD_NAME", pod)
        .env("KUBECONFIG", cluster.kubeconfig())
        .envs(SHORT);
    command
}

/// Writes the cluster's kubeconfig with other credentials.
pub fn kubeconfig_with(cluster: &Cluster, user: Value) -> tempfile::NamedTempFile {
    let text = kubectl(cluster, &["config", "view", "--raw", "-o", "json"]);
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["users"][0]["user"] = user;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config.to_string()).unwrap();
    file
}

/// Creates a namespace for one test.
pub fn namespace(cluster: &Cluster, name: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("{name}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    kubectl(cluster, &["create", "namespace", &name]);
    name
}

/// Arguments for the `kubectl delete` that runs when the test ends, because tests share the cluster.
pub struct Deleted {
    cluster: &'static Cluster,
    what: Vec<String>,
}

impl Deleted {
    pub fn at_the_end(cluster: &'static Cluster, what: &[&str]) -> Self {
        Self { cluster, what: what.iter().map(|&argument| argument.to_owned()).collect() }
    }
}

impl Drop for Deleted {
    fn drop(&mut self) {
        let mut command = self.cluster.kubectl();
        command.args(["delete", "--ignore-not-found", "--wait=false"]).args(&self.what);
        match command.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => eprintln!("cannot delete {:?}: {}", self.what, String::from_utf8_lossy(&output.stderr)),
            Err(error) => eprintln!("cannot delete {:?}: {error}", self.what),
        }
    }
}

/// Runs kubectl, which must succeed, and returns its output.
pub fn kubectl(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = cluster.kubectl().args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl {}: {error}", arguments.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

/// Applies a manifest; returns kubectl's error if it is rejected.
pub fn apply(cluster: &Cluster, namespace: &str, manifest: &Value) -> Result<(), String> {
    let mut child = cluster
        .kubectl()
        .args(["apply", "-n", namespace, "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(manifest.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Returns a group of the given name; `more` is added to its spec. Its image is never run in these tests.
pub fn group(name: &str, more: Value) -> Value {
    let mut spec = json!({
        "image": "registry.example/kestrel:1",
        "command": ["/kestrel"],
        "election": { "leaseDurationSeconds": 3, "renewDeadlineSeconds": 2, "retryPeriodSeconds": 1 },
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "apiVersion": "k8sensus.dev/v1alpha1", "kind": "ElectionGroup", "metadata": { "name": name }, "spec": spec })
}

/// Returns a spec that the API server accepts and the operator refuses: no container has the Service's target port.
pub fn unusable() -> Value {
    json!({ "leaderService": { "ports": [{ "port": 80, "targetPort": "nowhere" }] } })
}

/// Returns the condition of that type as `status/reason`.
pub fn condition(object: &Value, kind: &str) -> String {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    found.map_or_else(String::new, |condition| {
        format!("{}/{}", condition["status"].as_str().unwrap(), condition["reason"].as_str().unwrap())
    })
}

/// Polls until `poll` returns a value, and returns it. `what` describes it in the message of a timeout.
pub fn within<T>(seconds: u64, what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(seconds), "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns the `wanted` writes in the audit log since line `from`, as "verb resource name".
pub fn writes_since(cluster: &Cluster, from: usize, wanted: impl Fn(&Value) -> bool) -> Vec<String> {
    let mut requests = requests_since(cluster, from, wanted);
    requests.retain(|request| !["get ", "list ", "watch "].iter().any(|verb| request.starts_with(verb)));
    requests
}

/// Returns the `wanted` requests in the audit log since line `from`, as "verb resource name".
pub fn requests_since(cluster: &Cluster, from: usize, wanted: impl Fn(&Value) -> bool) -> Vec<String> {
    let text = std::fs::read_to_string(cluster.audit_log()).unwrap();
    let events = text.lines().skip(from).filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events
        .filter(|event| event["stage"] == "ResponseComplete")
        .filter(|event| wanted(event))
        .map(|event| {
            let object = &event["objectRef"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let sub = text(&object["subresource"]);
            let slash = if sub.is_empty() { "" } else { "/" };
            format!("{} {}{slash}{sub} {}", text(&event["verb"]), text(&object["resource"]), text(&object["name"]))
        })
        .collect()
}

/// Returns the number of lines in the audit log.
pub fn audit_position(cluster: &Cluster) -> usize {
    std::fs::read_to_string(cluster.audit_log()).unwrap().lines().count()
}
