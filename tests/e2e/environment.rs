//! Environment variables of the program that must not affect its candidate.

use serde_json::{Value, json};

use super::images::{BUSYBOX, load};
use super::{holder, logs, namespace, node, ready};
use crate::support::{apply, get, group, within};

/// Returns variables that once sent the candidate to another server or Lease, or disabled its log.
fn hostile() -> Value {
    json!({
        "KUBECONFIG": "/nowhere/config",
        "KUBERNETES_SERVICE_HOST": "203.0.113.1",
        "KUBERNETES_SERVICE_PORT": "1",
        "HTTPS_PROXY": "http://203.0.113.1:1",
        "SSL_CERT_FILE": "/nowhere/cert",
        "RUST_LOG": "off",
        "K8SENSUS_LEASE_NAME": "another",
        "K8SENSUS_APP": "{",
        "K8SENSUS_API_SERVER_FILE": "/nowhere/url",
        "POD_NAME": "another",
    })
}

#[test]
fn env_and_env_from_do_not_reach_the_exec_candidate() {
    load(BUSYBOX);
    let ns = namespace("environment");
    let config =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "hostile" }, "data": hostile() });
    apply(node(), &ns, &config).unwrap();
    let env: Vec<Value> = ["KUBECONFIG", "KUBERNETES_SERVICE_HOST", "HTTPS_PROXY", "RUST_LOG"]
        .map(|name| json!({ "name": name, "value": hostile()[name] }))
        .to_vec();
    for (source, more) in
        [("env", json!({ "env": env })), ("envFrom", json!({ "envFrom": [{ "configMapRef": { "name": "hostile" } }] }))]
    {
        let script = "env | sort; echo up; trap 'exit 0' TERM; while :; do sleep 0.2 & wait $!; done";
        let mut app = json!({ "name": "app", "image": BUSYBOX, "command": ["/bin/sh", "-c", script] });
        app.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let name = format!("of-{}", source.to_lowercase());
        let mut manifest = group(&name, json!({ "template": { "spec": { "containers": [app] } } }));
        manifest["spec"].as_object_mut().unwrap().retain(|field, _| !["image", "command"].contains(&field.as_str()));
        apply(node(), &ns, &manifest).unwrap();
        let leader = holder(&ready(&ns, &name, &[]));
        let output = within(20, "the program's environment", || {
            Some(logs(&ns, &leader)).filter(|output| output.lines().any(|line| line == "up"))
        });
        println!("{source}: {leader} leads");
        for variable in ["KUBECONFIG", "KUBERNETES_SERVICE_HOST", "HTTPS_PROXY", "RUST_LOG"] {
            let line = format!("{variable}={}", hostile()[variable].as_str().unwrap());
            assert!(output.lines().any(|found| found == line), "{source}: {line} is not in {output}");
        }
        assert!(output.contains("leading with fencing token"), "{source}: the candidate's log is missing: {output}");
        let pods = get(node(), &ns, "pods").unwrap();
        let statuses = pods["items"].as_array().unwrap().iter();
        let mut containers = statuses.flat_map(|pod| pod["status"]["containerStatuses"].as_array().unwrap());
        assert!(containers.all(|container| container["restartCount"] == 0), "{source}: {pods}");
    }
}
