//! The finished CustomResourceDefinition.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSONSchemaProps};
use kube::CustomResourceExt;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::schema;
use super::spec::ElectionGroup;

const HEADER: &str = "# Generated from src/api by `cargo run --bin k8sensus-operator -- crd`; do not edit.\n";

/// The limit of characters of a part of the schema that is written on one line. With it the file stays below 100 KB.
const ONE_LINE: usize = 1200;

/// Returns the CustomResourceDefinition of [`ElectionGroup`], for an API server of Kubernetes 1.33 or newer.
///
/// # Panics
/// Only because of a defect in this crate, which every test finds: see [`schema::finish`].
pub fn crd() -> CustomResourceDefinition {
    let mut crd = ElectionGroup::crd();
    for version in &mut crd.spec.versions {
        let validation = version.schema.as_mut().expect("the derive makes a schema");
        let derived = validation.open_api_v3_schema.as_mut().expect("the derive makes a schema");
        let mut json = serde_json::to_value(&*derived).expect("a schema is JSON");
        schema::finish(&mut json);
        *derived = serde_json::from_value::<JSONSchemaProps>(json).expect("a finished schema is a schema");
    }
    crd
}

/// Returns [`crd`] as YAML, the content of the committed file `crds/electiongroups.k8sensus.dev.yaml`. The bytes are
/// the same every time.
///
/// # Panics
/// As [`crd`].
pub fn crd_yaml() -> String {
    // The keys of a Value are sorted, so the file does not depend on the order of struct fields.
    let mut json = serde_json::to_value(crd()).expect("a CustomResourceDefinition is JSON");
    make_integers(&mut json);
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let yaml = serde_saphyr::to_string_with_options(&Compact(&json), options).expect("JSON is YAML");
    format!("{HEADER}{yaml}")
}

/// A value that is written with its small parts without descriptions on one line.
struct Compact<'a>(&'a Value);

impl Serialize for Compact<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(map) if has_text(self.0) || self.0.to_string().len() > ONE_LINE => {
                serializer.collect_map(map.iter().map(|(key, value)| (key, Compact(value))))
            }
            Value::Object(map) => serde_saphyr::FlowMap(map).serialize(serializer),
            Value::Array(items) if items.iter().any(Value::is_object) => {
                serializer.collect_seq(items.iter().map(Compact))
            }
            Value::Array(items) => serde_saphyr::FlowSeq(items).serialize(serializer),
            other => other.serialize(serializer),
        }
    }
}

/// Turns bounds into integers: k8s-openapi has them as doubles, and would write 3600 as 3600.0.
fn make_integers(node: &mut Value) {
    match node {
        Value::Object(map) => map.values_mut().for_each(make_integers),
        Value::Array(items) => items.iter_mut().for_each(make_integers),
        Value::Number(number) if number.is_f64() => {
            if let Some(double) = number.as_f64().filter(|double| double.fract() == 0.0) {
                *node = Value::from(double as i64);
            }
        }
        _ => {}
    }
}

/// Whether `node` or a part of it has a description or a rule.
fn has_text(node: &Value) -> bool {
    match node {
        Value::Object(map) => map.contains_key("description") || map.contains_key("rule") || map.values().any(has_text),
        Value::Array(items) => items.iter().any(has_text),
        _ => false,
    }
}
