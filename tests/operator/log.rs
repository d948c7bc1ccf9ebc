//! What the programs log about an API server that cannot be reached.

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tempfile::NamedTempFile;

use super::crashes::ANYWHERE;
use crate::support::http_proxy::operator_for;
use crate::support::{CANDIDATE, Program};

/// Returns a kubeconfig for a port where nothing listens.
fn nowhere() -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "nowhere",
        "clusters": [{ "name": "nowhere", "cluster": { "server": "http://127.0.0.1:1" } }],
        "contexts": [{ "name": "nowhere", "context": { "cluster": "nowhere", "user": "nowhere" } }],
        "users": [{ "name": "nowhere", "user": {} }],
    });
    std::fs::write(file.path(), config.to_string()).unwrap();
    file
}

#[test]
fn failed_connection_is_logged_once_and_not_by_kube() {
    let nowhere = nowhere();
    let operator = operator_for("default", "keeper", nowhere.path(), ANYWHERE);
    let mut command = Command::new(CANDIDATE);
    command.env("K8SENSUS_LEASE_NAME", "kestrel").env("POD_NAME", "otter").env("POD_NAMESPACE", "default");
    command.env("K8SENSUS_LEASE_NAMESPACE", "default").env("KUBECONFIG", nowhere.path());
    let candidate = Program::start("otter", &mut command);
    for program in [&operator, &candidate] {
        program.wait_for("Connection refused", Duration::from_secs(20));
    }
    std::thread::sleep(Duration::from_secs(3));
    for program in [&operator, &candidate] {
        assert!(!program.says("failed with error"), "{}", program.output());
    }
}
