//! Invalid Leases and credentials, on a real API server.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    CANDIDATE, Program, candidate, candidate_command, get, kubeconfig_with, kubectl, namespace, shared, within,
};

const SOON: Duration = Duration::from_secs(15);

/// Creates the Lease `name` with that spec; returns the objection of the API server.
fn create(ns: &str, name: &str, spec: &Value) -> Result<(), String> {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name, "namespace": ns },
        "spec": spec,
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lease.to_string()).unwrap();
    // Create, not apply, which would copy the spec to an annotation, where a megabyte is too long.
    let output = shared().kubectl().args(["create", "-f"]).arg(file.path()).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn held(more: Value) -> Value {
    let mut spec = json!({ "holderIdentity": "heron", "leaseDurationSeconds": 3, "leaseTransitions": 3 });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

#[test]
fn every_record_the_api_server_accepts_can_be_acquired_after_expiry() {
    let ns = namespace(shared(), "absurd");
    let specs = [
        json!(null),
        json!({}),
        json!({ "holderIdentity": null, "leaseDurationSeconds": null, "leaseTransitions": null, "renewTime": null }),
        json!({ "leaseTransitions": 5 }),
        held(json!({ "leaseDurationSeconds": null })),
        held(json!({ "leaseTransitions": i32::MAX })),
        held(json!({ "renewTime": "9999-12-31T23:59:59.999999Z", "acquireTime": "9999-12-31T23:59:59.999999Z" })),
        held(json!({ "renewTime": "0001-01-01T00:00:00.000000Z", "acquireTime": "0001-01-01T00:00:00.000000Z" })),
        held(json!({ "strategy": "river.example/Bully" })),
        held(json!({ "strategy": "OldestEmulationVersion", "preferredHolder": "kite" })),
        held(json!({ "holderIdentity": "x".repeat(1_000_000) })),
    ];
    std::thread::scope(|scope| {
        for (number, spec) in specs.iter().enumerate() {
            let ns = &ns;
            scope.spawn(move || {
                let name = format!("weir-{number}");
                create(ns, &name, spec).unwrap();
                let before = get(shared(), ns, &format!("lease/{name}")).unwrap()["spec"].clone();
                let mut otter = candidate(shared(), ns, &name, "otter", &[]);
                otter.wait_for("I'm the new leader!", SOON);
                let after = get(shared(), ns, &format!("lease/{name}")).unwrap()["spec"].clone();
                assert_eq!(after["holderIdentity"], "otter", "{name}");
                assert_eq!(
                    (&after["strategy"], &after["preferredHolder"]),
                    (&before["strategy"], &before["preferredHolder"])
                );
                let transitions = before["leaseTransitions"].as_i64().unwrap_or(0);
                let expected = (transitions + 1).min(i32::MAX.into());
                assert_eq!(after["leaseTransitions"], expected, "{name}");
                assert!(otter.terminate(SOON).success(), "{name}");
                assert!(!otter.says("panicked") && !otter.says("ERROR"), "{name}");
            });
        }
    });
}

#[test]
fn a_holder_that_asks_for_68_years_is_not_disturbed() {
    let ns = namespace(shared(), "greedy");
    create(&ns, "weir", &held(json!({ "leaseDurationSeconds": i32::MAX }))).unwrap();
    let mut otter = candidate(shared(), &ns, "weir", "otter", &[]);
    otter.wait_for("New leader is: heron", SOON);
    std::thread::sleep(Duration::from_secs(5));
    assert!(!otter.says("I'm the new leader!"), "{}", otter.output());
    // The remedy is manual: the form of a release.
    let released = r#"{"spec":{"holderIdentity":"","leaseDurationSeconds":1}}"#;
    kubectl(shared(), &["patch", "-n", &ns, "lease/weir", "--type=merge", "-p", released]);
    otter.wait_for("I'm the new leader!", SOON);
    assert!(otter.terminate(SOON).success());
}

#[test]
fn an_identity_of_100_kilobytes_leads_and_releases() {
    let ns = namespace(shared(), "longname");
    let name = "o".repeat(100_000);
    let mut command = candidate_command(shared(), &ns, "weir", &name, &[]);
    let mut otter = Program::start("longname", &mut command);
    otter.wait_for("I'm the new leader!", SOON);
    assert_eq!(get(shared(), &ns, "lease/weir").unwrap()["spec"]["holderIdentity"], name.as_str());
    assert!(otter.terminate(SOON).success());
    assert_eq!(get(shared(), &ns, "lease/weir").unwrap()["spec"]["holderIdentity"], "");
}

#[test]
fn an_invalid_token_is_reported_and_retried() {
    let ns = namespace(shared(), "stale");
    let kubeconfig = kubeconfig_with(shared(), json!({ "token": "eyJhbGciOiJSUzI1NiJ9.e30.c3RhbGU" }));
    let mut command = candidate_command(shared(), &ns, "weir", "otter", &[]);
    let mut otter = Program::start("stale", command.env("KUBECONFIG", kubeconfig.path()));
    let warning = format!("cannot get lease {ns}/weir: Unauthorized (401)");
    within(15, "three tries", || (otter.output().matches(&warning).count() >= 3).then_some(()));
    otter.signal(Signal::TERM);
    assert!(otter.wait(SOON).success());
    assert!(get(shared(), &ns, "lease/weir").is_none());
}

#[test]
fn a_deleted_kubeconfig_leaves_the_leader_and_fails_the_next_start() {
    let ns = namespace(shared(), "vanished");
    let text = kubectl(shared(), &["config", "view", "--raw", "--flatten"]);
    let kubeconfig = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(kubeconfig.path(), text).unwrap();
    let path = kubeconfig.path().to_owned();
    let start = || {
        let mut command = candidate_command(shared(), &ns, "weir", "otter", &[]);
        command.env("KUBECONFIG", &path);
        command
    };
    let mut otter = Program::start("otter", &mut start());
    otter.wait_for("I'm the new leader!", SOON);
    drop(kubeconfig);
    let renewed = || get(shared(), &ns, "lease/weir").unwrap()["spec"]["renewTime"].clone();
    for _ in 0..4 {
        let before = renewed();
        within(15, "a renewal", || (renewed() != before).then_some(()));
    }
    assert!(!otter.says("Evicted") && !otter.says("WARN"), "{}", otter.output());
    assert!(otter.terminate(SOON).success());

    let output = start().output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("cannot use kubeconfig") && error.contains(path.to_str().unwrap()), "{error}");
}

#[test]
fn an_invalid_kubeconfig_is_refused_by_its_name() {
    for text in ["", "null", "[]", "not: [closed", "<html></html>", "apiVersion: v1\nkind: Pod\n", "\u{0}\u{1}"] {
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(kubeconfig.path(), text).unwrap();
        for program in [&["--lease-name=weir"][..], &["observe", "--lease-name=weir"]] {
            let mut command = Command::new(CANDIDATE);
            command.args(program).env_clear().env("POD_NAME", "otter").env("RUST_LOG", "off");
            let output = command.arg("--kubeconfig").arg(kubeconfig.path()).output().unwrap();
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{text:?}: {error}");
            assert!(error.contains("cannot use kubeconfig"), "{text:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{text:?}: {error}");
        }
    }
}
