//! kubectl's own commands on a group, which must behave like a built-in kind.

use serde_json::{Value, json};

use super::hostile::complaint;
use crate::support::{get, group, kubectl, namespace, operated, shared, within};

/// Returns a file with this manifest.
fn file(manifest: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), manifest.to_string()).unwrap();
    file
}

#[test]
fn second_apply_is_unchanged_and_shows_no_difference() {
    let ns = namespace(shared(), "twice");
    let template = json!({ "metadata": { "labels": { "team": "falcons" } }, "spec": {
        "containers": [{
            "name": "main", "image": "kestrel", "command": ["/kestrel"],
            "ports": [{ "containerPort": 80, "protocol": "TCP" }], "resources": { "limits": { "memory": "0.5Gi", "cpu": 1 } },
        }],
    } });
    let mut group =
        group("kestrel", json!({ "template": template, "podDisruptionBudget": { "maxUnavailable": "50%" } }));
    group["spec"].as_object_mut().unwrap().retain(|key, _| key != "image" && key != "command");
    let file = file(&group);
    let path = file.path().to_str().unwrap();
    let apply = || kubectl(shared(), &["apply", "-n", &ns, "-f", path]);
    assert_eq!(apply().trim(), "electiongroup.k8sensus.dev/kestrel created");
    assert_eq!(apply().trim(), "electiongroup.k8sensus.dev/kestrel unchanged");
    // `kubectl diff` exits with 1 if there is a difference.
    assert_eq!(kubectl(shared(), &["diff", "-n", &ns, "-f", path]), "");
    // kubectl does not know the default within a list. It sends the list again, which changes nothing.
    group["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 80 }]);
    std::fs::write(file.path(), group.to_string()).unwrap();
    assert_eq!(kubectl(shared(), &["diff", "-n", &ns, "-f", path]), "");
    assert_eq!(apply().trim(), "electiongroup.k8sensus.dev/kestrel configured");
    assert_eq!(get(shared(), &ns, "electiongroup/kestrel").unwrap()["metadata"]["generation"], 1);
}

#[test]
fn group_is_scaled_and_patched_within_its_bounds() {
    let ns = namespace(shared(), "scaled");
    assert_eq!(complaint(shared(), &ns, &group("kestrel", json!({})).to_string(), &[]), None);
    let replicas = || get(shared(), &ns, "elg/kestrel").unwrap()["spec"]["replicas"].clone();
    kubectl(shared(), &["scale", "-n", &ns, "electiongroup/kestrel", "--replicas=5"]);
    assert_eq!(replicas(), 5);
    kubectl(shared(), &["patch", "-n", &ns, "elg/kestrel", "--type=merge", "-p", r#"{"spec":{"replicas":3}}"#]);
    assert_eq!(replicas(), 3);
    for refused in [
        ["scale", "electiongroup/kestrel", "--replicas=101", "-n", &ns].as_slice(),
        ["patch", "electiongroup/kestrel", "--type=merge", "-p", r#"{"spec":{"replicas":101}}"#, "-n", &ns].as_slice(),
    ] {
        let output = shared().kubectl().args(refused).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        let part = "spec.replicas: Invalid value: 101: spec.replicas in body should be less than or equal to 100";
        assert!(!output.status.success() && error.contains(part), "{error}");
    }
    // Only built-in kinds support a strategic merge, and kubectl reports that.
    let output = shared()
        .kubectl()
        .args(["patch", "-n", &ns, "elg/kestrel", "--type=strategic", "-p", r#"{"spec":{"replicas":3}}"#])
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("strategic-merge-patch+json is not supported"),
        "{output:?}"
    );
}

#[test]
fn two_managers_of_two_containers_are_merged_by_name() {
    let ns = namespace(shared(), "merged");
    let with = |spec: Value| {
        json!({ "apiVersion": "k8sensus.dev/v1alpha1", "kind": "ElectionGroup", "metadata": { "name": "kestrel" }, "spec": spec })
            .to_string()
    };
    let containers = |containers: Value| with(json!({ "template": { "spec": { "containers": containers } } }));
    let main = json!({ "name": "main", "image": "kestrel:1", "command": ["/kestrel"], "env": [{ "name": "WING", "value": "left" }] });
    let by = |manager: &str, text: &str| {
        complaint(shared(), &ns, text, &["--server-side", &format!("--field-manager={manager}")])
    };
    assert_eq!(by("pilot", &containers(json!([main]))), None);
    assert_eq!(by("radio", &containers(json!([{ "name": "radio", "image": "radio:1" }]))), None);
    let variable = json!([{ "name": "main", "env": [{ "name": "TAIL", "value": "short" }] }]);
    assert_eq!(by("tailor", &containers(variable)), None);
    let found =
        || get(shared(), &ns, "electiongroup/kestrel").unwrap()["spec"]["template"]["spec"]["containers"].clone();
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&found()), ["main", "radio"]);
    assert_eq!(names(&found()[0]["env"]), ["WING", "TAIL"]);
    let complaint = by("thief", &containers(json!([{ "name": "main", "image": "cuckoo:1" }]))).unwrap_or_default();
    let part = r#"conflict with "pilot": .spec.template.spec.containers[name="main"].image"#;
    assert!(complaint.contains(part), "{complaint}");
    // Only the field that its manager no longer sets is removed.
    assert_eq!(by("radio", &with(json!({}))), None);
    assert_eq!(names(&found()), ["main"]);
}

#[test]
fn get_shows_the_documented_columns_and_values() {
    let cluster = operated();
    let ns = namespace(cluster, "columns");
    assert_eq!(complaint(cluster, &ns, &group("kestrel", json!({ "replicas": 3 })).to_string(), &[]), None);
    let line = within(10, "the status to be shown", || {
        let text = kubectl(cluster, &["get", "elections", "-n", &ns, "-o", "wide"]);
        let (head, line) = text.split_once('\n').unwrap();
        let columns: Vec<&str> = head.split_whitespace().collect();
        assert_eq!(columns.join(" "), "NAME DESIRED READY HOLDER TRANSITIONS HELD STATUS AGE MODE NODE LEASE");
        line.contains("NoLeader").then(|| line.to_owned())
    });
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!((words[0], words[1], words[2]), ("kestrel", "3", "0"), "{line}");
    assert!(words.contains(&"Exec") && words.ends_with(&["kestrel"]), "{line}");
}
