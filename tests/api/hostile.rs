//! Manifests of attackers and careless users, one file each, with what refuses it and the message.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8sensus_api::ElectionGroup;
use k8sensus_group::Group;
use k8sensus_local::Cluster;
use serde_json::Value;

use crate::support::{condition, get, namespace, operated, root, shared, within};

/// A manifest and its first lines.
pub struct Hostile {
    pub name: String,
    /// A part of the message that the user reads.
    pub expect: String,
    /// kubectl, api server or operator.
    pub by: String,
    /// The start of the operator's message if the API server accepts the manifest.
    pub again: Option<String>,
    pub text: String,
}

/// Manifests that only an API server can refuse: the operator gets neither unknown fields nor invalid metadata.
const ONLY_THERE: &[&str] =
    &["annotation-of-a-megabyte", "field-of-another-kind", "field-that-does-not-exist", "owner-without-an-identity"];

pub fn manifests() -> Vec<Hostile> {
    let mut found: Vec<Hostile> =
        fs::read_dir(root().join("tests/api/hostile")).unwrap().map(|entry| read(&entry.unwrap().path())).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn read(path: &std::path::Path) -> Hostile {
    let text = fs::read_to_string(path).unwrap();
    let line = |prefix: &str| text.lines().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned);
    Hostile {
        name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
        expect: line("# expect: ").unwrap_or_else(|| panic!("{} lacks the line `# expect:`", path.display())),
        by: line("# refused by: ").unwrap_or_else(|| panic!("{} lacks the line `# refused by:`", path.display())),
        again: line("# again by the operator: "),
        // Longer than any limit, and too long for a file.
        text: text.replace("REPEATED", &"x".repeat(300_000)),
    }
}

/// Returns kubectl's error message, `None` if it succeeds.
pub fn complaint(cluster: &Cluster, ns: &str, text: &str, more: &[&str]) -> Option<String> {
    let mut child = cluster
        .kubectl()
        .args(["apply", "-n", ns, "-f", "-"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // kubectl may fail before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    let output = child.wait_with_output().unwrap();
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn manifests_are_numerous_and_each_names_what_refuses_it() {
    let found = manifests();
    assert!(found.len() >= 50, "{}", found.len());
    for Hostile { name, by, again, .. } in &found {
        let known = ["kubectl", "api server", "operator"].contains(&by.as_str());
        assert!(known, "{name}: refused by {by:?}");
        let must_again = by == "api server" && !ONLY_THERE.contains(&name.as_str());
        assert_eq!(again.is_some(), must_again, "{name}: must have the operator's message, or be in ONLY_THERE");
    }
}

#[test]
fn kubectl_or_the_api_server_refuses_with_the_expected_message() {
    let ns = namespace(shared(), "hostile");
    let found = manifests();
    let judge = |manifest: &Hostile| {
        let complaint = complaint(shared(), &ns, &manifest.text, &["--dry-run=server"]);
        let right = match &complaint {
            None => manifest.by == "operator",
            Some(complaint) => manifest.by != "operator" && complaint.contains(&manifest.expect),
        };
        let shown: String = complaint.unwrap_or_else(|| "accepted".to_owned()).chars().take(600).collect();
        (!right).then(|| format!("{}: expected {:?} by {}, found {shown}", manifest.name, manifest.expect, manifest.by))
    };
    // kubectl spends most of its time waiting.
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let parts: Vec<_> = found.chunks(found.len().div_ceil(4)).collect();
        let threads: Vec<_> =
            parts.into_iter().map(|part| scope.spawn(|| part.iter().filter_map(judge).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn refusals_by_the_operator_are_in_the_status() {
    let cluster = operated();
    let ns = namespace(cluster, "hostile");
    let found: Vec<Hostile> = manifests().into_iter().filter(|manifest| manifest.by == "operator").collect();
    for manifest in &found {
        assert_eq!(complaint(cluster, &ns, &manifest.text, &[]), None, "{}", manifest.name);
    }
    let wrong: Vec<String> = found
        .iter()
        .filter_map(|manifest| {
            let message = stalled(cluster, &ns, &manifest.name);
            (!message.starts_with(&manifest.expect) || message.len() > 400)
                .then(|| format!("{}: expected {:?}, found {message:?}", manifest.name, manifest.expect))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Waits until the group is Invalid, and returns the message of condition Stalled.
pub fn stalled(cluster: &Cluster, ns: &str, name: &str) -> String {
    let group = within(20, &format!("the refusal of {name}"), || {
        get(cluster, ns, &format!("electiongroup/{name}")).filter(|group| condition(group, "Stalled") == "True/Invalid")
    });
    let conditions = group["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|c| c["type"] == "Stalled").unwrap()["message"].as_str().unwrap().to_owned()
}

#[test]
fn operator_also_refuses_what_the_api_server_should_refuse() {
    let mut wrong = Vec::new();
    for manifest in manifests() {
        let Some(expect) = &manifest.again else { continue };
        let found = judged(&manifest.text).err().unwrap_or_else(|| "accepted".to_owned());
        if !found.starts_with(expect) {
            wrong.push(format!("{}: expected {expect:?}, found {found:?}", manifest.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Returns the operator's verdict on a manifest as it is in the file.
fn judged(text: &str) -> Result<(), String> {
    let manifest: Value = serde_saphyr::from_str(text).map_err(|error| format!("no YAML: {error}"))?;
    let spec = Group::parse(&manifest["spec"].to_string()).map_err(|invalid| invalid.to_string())?;
    let name = manifest["metadata"]["name"].as_str().map(str::to_owned);
    let metadata = ObjectMeta { name, namespace: Some("shop".to_owned()), ..ObjectMeta::default() };
    Group::check(&ElectionGroup { metadata, spec, status: None }).map(drop).map_err(|invalid| invalid.to_string())
}
