//! A CRD without its validations: the operator refuses invalid specs itself, and continues with all other groups.

use serde_json::{Value, json};

use super::hostile::{complaint, manifests, stalled};
use crate::support::{apply, control_plane, get, group, namespace, operator, root, within};

/// The keywords of a schema besides types.
const VALIDATIONS: &[&str] = &[
    "x-kubernetes-validations",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "required",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
];

/// Returns the CRD with schemas without validations.
fn stripped() -> Value {
    let text = std::fs::read_to_string(root().join("crds/electiongroups.k8sensus.dev.yaml")).unwrap();
    let mut crd: Value = serde_saphyr::from_str(&text).unwrap();
    strip(&mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
    crd
}

fn strip(schema: &mut Value) {
    let Value::Object(schema) = schema else { return };
    schema.retain(|key, _| !VALIDATIONS.contains(&key.as_str()));
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().for_each(strip);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(inner) {
            strip(inner);
        }
    }
}

#[test]
fn specs_accepted_without_rules_are_refused_by_field() {
    let cluster = control_plane();
    apply(&cluster, "default", &stripped()).unwrap();
    let ns = namespace(&cluster, "bypassed");
    within(30, "the schema without rules to be served", || {
        // Except for replicas: the API server checks those of a scale subresource without a schema.
        let free = group("free", json!({ "election": { "leaseDurationSeconds": 0 } })).to_string();
        complaint(&cluster, &ns, &free, &["--dry-run=server"]).is_none().then_some(())
    });
    let _keeper = operator(&cluster, "keeper", &[]);
    let mut accepted = Vec::new();
    let mut refused = Vec::new();
    for manifest in manifests() {
        let Some(again) = manifest.again else { continue };
        // The last-applied annotation would be too long for the longest manifest.
        match complaint(&cluster, &ns, &manifest.text, &["--server-side"]) {
            None => accepted.push((manifest.name, again)),
            Some(_) => refused.push(manifest.name),
        }
    }
    assert!(accepted.len() >= 40, "too few were accepted; refused: {refused:#?}");
    apply(&cluster, &ns, &group("kestrel", json!({}))).unwrap();
    let mut wrong = Vec::new();
    for (file, again) in accepted {
        let name = if again.starts_with("metadata.name") { name_in(&file) } else { file.clone() };
        let message = stalled(&cluster, &ns, &name);
        if !message.starts_with(&again) {
            wrong.push(format!("{file}: expected {again:?}, found {message:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    within(10, "the good group beside all these", || get(&cluster, &ns, "deployment/kestrel"));
}

/// Returns the name in the manifest: some manifests are refused because of it.
fn name_in(file: &str) -> String {
    let manifest = manifests().into_iter().find(|manifest| manifest.name == file).unwrap();
    let manifest: Value = serde_saphyr::from_str(&manifest.text).unwrap();
    manifest["metadata"]["name"].as_str().unwrap().to_owned()
}
