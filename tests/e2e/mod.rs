//! The whole on a real node: operator installed by Helm, pods in containers.

mod groups;
mod helm;
mod images;
mod install;
mod maintenance;
mod original;
mod probes;
mod proof;
mod restart;
mod rollout;
mod samples;
mod service;
mod step_down;
mod unhealthy;

use std::path::Path;
use std::sync::OnceLock;

use k8sensus_local::{Cluster, IMAGE, product_image};
use serde_json::{Value, json};

use crate::support::{get, kubectl, root, within};

const SYSTEM: &str = "k8sensus-system";

/// A node with the product's image and the operator, as the README installs it.
fn node() -> &'static Cluster {
    static NODE: OnceLock<Cluster> = OnceLock::new();
    NODE.get_or_init(|| {
        println!("e2e: building the image (minutes, the first time), then a node (10 s)");
        let archive = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("image-{}.tar", std::process::id()));
        product_image(&archive).unwrap_or_else(|error| panic!("{error}"));
        let node = Cluster::node().start().unwrap_or_else(|error| panic!("{error}"));
        node.load_image(&archive).unwrap_or_else(|error| panic!("{error}"));
        let _ = std::fs::remove_file(&archive);
        let (repository, tag) = IMAGE.rsplit_once(':').unwrap();
        let mut helm = node.helm().unwrap_or_else(|error| panic!("{error}"));
        helm.args(["upgrade", "--install", "k8sensus", "charts/k8sensus", "--namespace", SYSTEM, "--create-namespace"])
            .args(["--set", &format!("image.repository={repository},image.tag={tag}"), "--wait", "--timeout=120s"])
            .current_dir(root());
        let output = helm.output().unwrap();
        if !output.status.success() {
            let pods = ["describe", "pods", "--namespace", SYSTEM];
            let logs =
                ["logs", "--namespace", SYSTEM, "--selector=app.kubernetes.io/name=k8sensus", "--prefix", "--tail=40"];
            for arguments in [&pods[..], &logs] {
                let told = node.kubectl().args(arguments).output().unwrap();
                println!("{}", String::from_utf8_lossy(&told.stdout));
            }
            panic!("{}", String::from_utf8_lossy(&output.stderr));
        }
        node
    })
}

/// A group of two that runs the sample task; the lease is short so that a crash is noticed soon.
fn sample(name: &str, more: Value) -> Value {
    let mut group = crate::support::group(name, json!({ "image": IMAGE, "command": ["/k8sensus", "sample"] }));
    group["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    group
}

/// The group once its condition Ready is True, with a leader that is none of `former`.
fn ready(ns: &str, name: &str, former: &[&str]) -> Value {
    within(90, &format!("group {ns}/{name} to be Ready with a new leader"), || {
        let group = get(node(), ns, &format!("electiongroup/{name}"))?;
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
