//! The examples, run as documented in their headers and with the permissions named there.

mod controller;
mod fence;
mod fencing;
pub mod postgres;
mod service;
mod singleton;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k8sensus_local::Cluster;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::{Program, apply, kubeconfig_with, kubectl, namespace, requests_since, root, shared};

/// A generous limit, reached only in case of an error.
const LIMIT: Duration = Duration::from_secs(60);

/// A namespace with a service account that has exactly the documented permissions of an example.
struct Stage {
    cluster: &'static Cluster,
    namespace: String,
    example: &'static str,
    kubeconfig: NamedTempFile,
}

impl Stage {
    fn new(example: &'static str) -> Self {
        let cluster = shared();
        let namespace = namespace(cluster, &format!("example-{example}"));
        let metadata = json!({ "name": example });
        let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": example });
        let subjects = json!([{ "kind": "ServiceAccount", "name": example, "namespace": namespace }]);
        let rbac = "rbac.authorization.k8s.io/v1";
        for manifest in [
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata }),
            json!({ "apiVersion": rbac, "kind": "Role", "metadata": metadata, "rules": rules(example) }),
            json!({ "apiVersion": rbac, "kind": "RoleBinding", "metadata": metadata, "roleRef": role, "subjects": subjects }),
        ] {
            apply(cluster, &namespace, &manifest).unwrap();
        }
        let token = kubectl(cluster, &["create", "token", example, "-n", &namespace]);
        let kubeconfig = kubeconfig_with(cluster, json!({ "token": token.trim() }));
        Self { cluster, namespace, example, kubeconfig }
    }

    /// Returns the command that starts a replica in the pod of that name.
    fn command(&self, pod: &str) -> Command {
        let mut command = Command::new(built(self.example));
        command.env("POD_NAME", pod).env("POD_NAMESPACE", &self.namespace).env("KUBECONFIG", self.kubeconfig.path());
        command
    }

    fn replica(&self, pod: &str, arguments: &[&str]) -> Program {
        Program::start(pod, self.command(pod).args(arguments))
    }

    fn holder(&self) -> String {
        let path = format!("jsonpath={{.items[?(@.metadata.name==\"{}\")].spec.holderIdentity}}", self.example);
        kubectl(self.cluster, &["get", "leases", "-n", &self.namespace, "-o", &path])
    }

    /// Asserts that the documented permissions of the example suffice.
    fn assert_nothing_was_forbidden(&self) {
        let user = format!("system:serviceaccount:{}:{}", self.namespace, self.example);
        let own = |event: &Value| event["user"]["username"] == user.as_str();
        assert!(!requests_since(self.cluster, 0, own).is_empty(), "the audit log must know {user}");
        let forbidden = requests_since(self.cluster, 0, |event| own(event) && event["responseStatus"]["code"] == 403);
        assert!(forbidden.is_empty(), "{forbidden:#?}");
    }
}

/// Returns the rules in the example's documentation.
fn rules(example: &str) -> Value {
    let text = fs::read_to_string(source(example)).unwrap();
    let lines = text.lines().skip_while(|line| *line != "//! ```yaml").skip(1).take_while(|line| *line != "//! ```");
    let yaml: Vec<&str> = lines.map(|line| line.trim_start_matches("//! ")).collect();
    let mut role: Value = serde_saphyr::from_str(&yaml.join("\n")).unwrap();
    role["rules"].take()
}

fn source(example: &str) -> PathBuf {
    let folder = root().join("examples");
    let file = folder.join(format!("{example}.rs"));
    if file.exists() { file } else { folder.join(example).join("main.rs") }
}

/// Returns the path of the example's program. `cargo test` builds it, `cargo test --test all` does not.
pub fn built(example: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join("examples").join(example);
    let advice = "build it: cargo build --examples";
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let Ok(made) = changed(&program) else { panic!("{} is missing, {advice}", program.display()) };
    // Cargo lists the sources in this file, with spaces in paths escaped.
    let list = fs::read_to_string(program.with_extension("d")).unwrap().replace("\\ ", "\0");
    for path in list.split_whitespace().skip(1).map(|path| PathBuf::from(path.replace('\0', " "))) {
        let newer = changed(&path).map_or(true, |time| time > made);
        assert!(!newer, "{} is older than {}, {advice}", program.display(), path.display());
    }
    program
}

/// Returns the names of all examples.
fn examples() -> Vec<String> {
    let entries = fs::read_dir(root().join("examples")).unwrap();
    entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn each_example_documents_its_command_and_permissions() {
    for name in examples() {
        let text = fs::read_to_string(source(&name)).unwrap();
        let documentation: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        let command = format!("cargo run --example {name}");
        assert!(documentation.iter().any(|line| line.contains(&command)), "{name} must document: {command}");
        let rules = rules(&name);
        assert!(rules.as_array().is_some_and(|rules| !rules.is_empty()), "{name} must name its permissions");
    }
}

#[test]
fn examples_are_short_and_use_only_the_public_api() {
    for name in examples() {
        let text = fs::read_to_string(source(&name)).unwrap();
        assert!(text.lines().count() <= 160, "{name} is too long to copy");
        for used in text.lines().filter(|line| line.contains("k8sensus::")) {
            let public = ["use k8sensus::campaign::{", "use k8sensus::shutdown::Shutdown;"];
            assert!(public.iter().any(|import| used.starts_with(import)), "{name}: {used}");
        }
    }
}
