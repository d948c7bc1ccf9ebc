//! A candidate as the operator's pods start it, with any environment that its program may have.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::exec::file;
use crate::support::{CANDIDATE, Program, candidate_command, get, kubectl, namespace, shared};

const SOON: Duration = Duration::from_secs(10);

/// The environment of a program that uses another cluster through a proxy.
const HOSTILE: [(&str, &str); 14] = [
    ("KUBECONFIG", "/nowhere/config"),
    ("KUBERNETES_SERVICE_HOST", "203.0.113.1"),
    ("KUBERNETES_SERVICE_PORT", "1"),
    ("HTTPS_PROXY", "http://203.0.113.1:1"),
    ("https_proxy", "http://203.0.113.1:1"),
    ("HTTP_PROXY", "http://203.0.113.1:1"),
    ("ALL_PROXY", "socks5://203.0.113.1:1"),
    ("NO_PROXY", "*,not a host/"),
    ("SSL_CERT_FILE", "/nowhere/cert"),
    ("SSL_CERT_DIR", "/nowhere"),
    ("RUST_LOG", "off"),
    ("HOME", "/nowhere"),
    ("KUBE_RS_DEBUG_OVERRIDE_URL", "https://203.0.113.1:1"),
    ("KUBE_RS_DEBUG_IMPERSONATE_USER", "nobody"),
];

/// Creates the mount of a service account with all rights in `ns`.
fn service_account(ns: &str) -> tempfile::TempDir {
    kubectl(shared(), &["create", "-n", ns, "serviceaccount", "boatman"]);
    let subject = format!("--serviceaccount={ns}:boatman");
    kubectl(shared(), &["create", "-n", ns, "rolebinding", "boatman", "--clusterrole=cluster-admin", &subject]);
    let mount = tempfile::tempdir().unwrap();
    let token = kubectl(shared(), &["create", "-n", ns, "token", "boatman"]);
    fs::write(mount.path().join("token"), token.trim()).unwrap();
    fs::write(mount.path().join("namespace"), ns).unwrap();
    let authority = "jsonpath={.clusters[0].cluster.certificate-authority-data}";
    let encoded = kubectl(shared(), &["config", "view", "--raw", "--flatten", "-o", authority]);
    fs::write(mount.path().join("ca.base64"), encoded).unwrap();
    let decoded = Command::new("base64").arg("-d").arg(mount.path().join("ca.base64")).output().unwrap();
    fs::write(mount.path().join("ca.crt"), decoded.stdout).unwrap();
    mount
}

fn server() -> String {
    kubectl(shared(), &["config", "view", "--raw", "-o", "jsonpath={.clusters[0].cluster.server}"])
}

#[test]
fn the_programs_environment_does_not_affect_the_candidate() {
    let ns = namespace(shared(), "in-pod");
    let (mount, folder) = (service_account(&ns), tempfile::tempdir().unwrap());
    fs::write(folder.path().join("api-server"), server()).unwrap();
    let script = "env > $DIR/env; echo done > $DIR/started; exec sleep 1000";
    let direct = candidate_command(shared(), &ns, "weir", "otter", &["exec", "--", "/bin/sh", "-c", script]);
    // The kubelet's mount, in a mount namespace of the candidate's own.
    let account = "mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io && \
                   cp -r \"$ACCOUNT\" /run/secrets/kubernetes.io/serviceaccount && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--", "sh", "-c", account, "sh", CANDIDATE]);
    command.args(direct.get_args()).envs(direct.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("ACCOUNT", mount.path()).env("DIR", folder.path()).envs(HOSTILE);
    command.env("K8SENSUS_API_SERVER_FILE", folder.path().join("api-server"));
    let mut leader = Program::start("otter", &mut command);
    leader.wait_for("leading with fencing token", SOON);
    file(folder.path(), "started");
    let lease = get(shared(), &ns, "lease/weir").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "otter", "on its own cluster");
    let environment = fs::read_to_string(folder.path().join("env")).unwrap();
    for (name, value) in HOSTILE {
        let line = format!("{name}={value}");
        assert!(environment.lines().any(|found| found == line), "{line} is not in {environment}");
    }
    assert!(leader.terminate(SOON).success());
}

/// Returns the exit code and the only line of a candidate that finds no cluster.
fn refusal(address: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(CANDIDATE);
    command.args(["exec", "--", "true"]).env_clear().envs(HOSTILE);
    command.env("K8SENSUS_LEASE_NAME", "weir").env("POD_NAME", "otter").env("K8SENSUS_API_SERVER_FILE", address);
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn without_an_api_server_address_or_account_the_error_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("api-server");
    let (code, error) = refusal(&missing);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains(&format!("cannot read the API server's address from {}", missing.display())), "{error}");
    fs::write(&missing, "https://127.0.0.1:9").unwrap();
    let (code, error) = refusal(&missing);
    assert!(code == Some(1) && error.contains("cannot use this pod's service account"), "{error}");
}

#[test]
fn a_named_kubeconfig_overrides_the_pods_own_account() {
    let ns = namespace(shared(), "named");
    let folder = tempfile::tempdir().unwrap();
    let address = folder.path().join("none");
    let mut command = candidate_command(shared(), &ns, "weir", "otter", &["exec"]);
    command.arg("--kubeconfig").arg(shared().kubeconfig()).args(["--", "true"]);
    let output = command.env("KUBECONFIG", "/nowhere").env("K8SENSUS_API_SERVER_FILE", address).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn install_writes_the_url_of_the_api_server() {
    let install = |host: &str| -> Option<Value> {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(CANDIDATE);
        command.arg("install").arg(folder.path().join("k8sensus")).env_clear();
        command.env("KUBERNETES_SERVICE_HOST", host).env("KUBERNETES_SERVICE_PORT", "6443");
        assert!(command.status().unwrap().success());
        fs::read_to_string(folder.path().join("api-server")).ok().map(Value::from)
    };
    assert_eq!(install("10.96.0.1"), Some("https://10.96.0.1:6443".into()));
    assert_eq!(install("fd00::1"), Some("https://[fd00::1]:6443".into()));
    assert_eq!(install(""), None);
}
