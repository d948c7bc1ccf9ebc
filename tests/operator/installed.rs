//! The operator as the chart installs it, but as a process of this machine: with exactly the rights that the chart
//! grants, and with the environment that it sets.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use k8sensus_local::Cluster;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::{Program, SHORT, control_plane, kubeconfig_with, kubectl, operator, root};

/// The templates of the chart that are applied. Nothing would start the pods of its Deployment.
const APPLIED: [&str; 4] = ["serviceaccount", "rbac", "leasepolicy", "flowcontrol"];

pub struct Installed {
    pub operator: Program,
    /// Its name in the audit log.
    pub user: String,
    pub objects: Vec<Value>,
    _kubeconfig: NamedTempFile,
}

/// Returns a control plane with an operator that has exactly the chart's rights.
pub fn installed() -> &'static (Cluster, Installed) {
    static SHARED: OnceLock<(Cluster, Installed)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let cluster = control_plane();
        let installed = install(&cluster, "default", &[]);
        (cluster, installed)
    })
}

/// Applies the chart in `namespace` and starts an operator. `values` have the form of `--set`.
pub fn install(cluster: &Cluster, namespace: &str, values: &[&str]) -> Installed {
    let objects: Vec<Value> = APPLIED
        .iter()
        .flat_map(|template| {
            let text = rendered(cluster, namespace, template, values);
            let mut command = cluster.kubectl();
            command.args(["apply", "-f", "-"]);
            output_of(command, &text);
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
    operator.wait_for("starting to reconcile", Duration::from_secs(20));
    let user = format!("system:serviceaccount:{namespace}:{account}");
    Installed { operator, user, objects, _kubeconfig: kubeconfig }
}

/// Returns the objects of a manifest, without sending it.
pub fn parsed(cluster: &Cluster, manifest: &str) -> Vec<Value> {
    let mut command = cluster.kubectl();
    command.args(["create", "--dry-run=client", "--validate=false", "-f", "-", "-o", "json"]);
    let text = output_of(command, manifest);
    // kubectl prints one object after the other.
    let objects = serde_json::Deserializer::from_str(&text).into_iter::<Value>().map(Result::unwrap);
    objects.flat_map(items).collect()
}

/// Returns the manifests of one of the chart's templates, for a release named k8sensus.
pub fn rendered(cluster: &Cluster, namespace: &str, template: &str, values: &[&str]) -> String {
    let mut helm = cluster.helm().unwrap_or_else(|error| panic!("{error}"));
    helm.args(["template", "k8sensus", "charts/k8sensus", "--namespace", namespace])
        .args(["--show-only", &format!("templates/{template}.yaml")])
        .args(values.iter().flat_map(|value| ["--set", value]))
        .current_dir(root());
    output_of(helm, "")
}

fn output_of(mut command: Command, input: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the items of a List, or the object itself: kubectl prints a List for more than one object.
fn items(found: Value) -> Vec<Value> {
    match found["items"].as_array() {
        Some(items) => items.clone(),
        None => vec![found],
    }
}
