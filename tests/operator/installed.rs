//! The operator as the chart installs it, but as a process of this machine: with the rights that the chart grants, no others,
//! and with the environment that it sets.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use k8sensus_local::Cluster;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::{Program, SHORT, control_plane, kubeconfig_with, kubectl, operator, root};

/// What of the chart is applied; its Deployment would bring pods that nothing starts.
const APPLIED: [&str; 4] = ["serviceaccount", "rbac", "leasepolicy", "flowcontrol"];

pub struct Installed {
    pub operator: Program,
    /// As the audit log names it.
    pub user: String,
    pub objects: Vec<Value>,
    _kubeconfig: NamedTempFile,
}

/// A control plane with an operator that has exactly the chart's rights, for the tests that ask about rights.
pub fn installed() -> &'static (Cluster, Installed) {
    static SHARED: OnceLock<(Cluster, Installed)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let cluster = control_plane();
        let installed = install(&cluster, "default", &[]);
        (cluster, installed)
    })
}

/// Applies the chart in `namespace` and starts an operator; `values` are as `--set` takes them.
pub fn install(cluster: &Cluster, namespace: &str, values: &[&str]) -> Installed {
    let objects: Vec<Value> = APPLIED
        .iter()
        .flat_map(|template| {
            let text = rendered(cluster, namespace, template, values);
            let mut command = cluster.kubectl();
            command.args(["apply", "-f", "-"]);
            told(command, &text);
            parsed(cluster, &text)
        })
        .collect();
    let deployment = rendered(cluster, namespace, "deployment", values);
    let deployment = parsed(cluster, &deployment).remove(0);
    let account = deployment["spec"]["template"]["spec"]["serviceAccountName"].as_str().unwrap().to_owned();
    let token = kubectl(cluster, &["create", "token", "-n", namespace, &account]);
    let kubeconfig = kubeconfig_with(cluster, json!({ "token": token.trim() }));
    let own = [("KUBECONFIG", kubeconfig.path().to_str().unwrap()), ("POD_NAMESPACE", namespace)];
    let set = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap().iter();
    let set = set.filter_map(|variable| Some((variable["name"].as_str()?, variable["value"].as_str()?)));
    let environment: Vec<(&str, &str)> = set.chain(SHORT).chain(own).chain([("K8SENSUS_LOG_FORMAT", "text")]).collect();
    let operator = operator(cluster, "keeper", &environment);
    operator.wait_for("reconciles from now on", Duration::from_secs(20));
    let user = format!("system:serviceaccount:{namespace}:{account}");
    Installed { operator, user, objects, _kubeconfig: kubeconfig }
}

/// The objects of a manifest, which is sent to nobody.
pub fn parsed(cluster: &Cluster, manifest: &str) -> Vec<Value> {
    let mut command = cluster.kubectl();
    command.args(["create", "--dry-run=client", "--validate=false", "-f", "-", "-o", "json"]);
    let text = told(command, manifest);
    // One object after the other.
    let objects = serde_json::Deserializer::from_str(&text).into_iter::<Value>().map(Result::unwrap);
    objects.flat_map(items).collect()
}

/// The manifests of one of the chart's templates, as a release named k8sensus has them.
pub fn rendered(cluster: &Cluster, namespace: &str, template: &str, values: &[&str]) -> String {
    let mut helm = cluster.helm().unwrap_or_else(|error| panic!("{error}"));
    helm.args(["template", "k8sensus", "charts/k8sensus", "--namespace", namespace])
        .args(["--show-only", &format!("templates/{template}.yaml")])
        .args(values.iter().flat_map(|value| ["--set", value]))
        .current_dir(root());
    told(helm, "")
}

fn told(mut command: Command, input: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// kubectl makes a List of more than one.
fn items(found: Value) -> Vec<Value> {
    match found["items"].as_array() {
        Some(items) => items.clone(),
        None => vec![found],
    }
}
