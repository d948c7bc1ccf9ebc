//! Generated files match their sources.

use std::fmt;
use std::fs;
use std::marker::PhantomData;
use std::process::Command;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::support::{OPERATOR, root, shared};

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn operator_prints_the_committed_crd() {
    let output = Command::new(OPERATOR).arg("crd").output().unwrap();
    assert!(output.status.success());
    let path = "crds/electiongroups.k8sensus.dev.yaml";
    assert!(
        String::from_utf8(output.stdout).unwrap() == read(path),
        "{path} is stale: cargo run --bin k8sensus-operator -- crd > {path}"
    );
}

#[test]
fn chart_contains_the_committed_crd() {
    let (source, copy) =
        ("crds/electiongroups.k8sensus.dev.yaml", "charts/k8sensus/files/electiongroups.k8sensus.dev.yaml");
    assert!(read(source) == read(copy), "stale: cp {source} {copy}");
}

#[test]
fn kustomize_base_matches_the_rendered_chart() {
    let path = "deploy/base/operator.yaml";
    let base = read(path);
    let mut lines = base.splitn(3, '\n');
    let (_, command, committed) = (lines.next(), lines.next().unwrap(), lines.next().unwrap());
    let command = command.strip_prefix("# helm ").expect("the second line names the command");
    let helm = shared().helm().unwrap().args(command.split(' ')).current_dir(root()).output().unwrap();
    assert!(helm.status.success(), "{}", String::from_utf8_lossy(&helm.stderr));
    assert!(
        String::from_utf8(helm.stdout).unwrap() == committed,
        "{path} is stale: regenerate it with the command in its second line"
    );
}

#[test]
fn helm_lint_passes() {
    let lint =
        shared().helm().unwrap().args(["lint", "--strict", "charts/k8sensus"]).current_dir(root()).output().unwrap();
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
}

#[test]
fn chart_and_crate_have_the_same_version() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = read("charts/k8sensus/Chart.yaml");
    assert!(
        chart.contains(&format!("appVersion: {version}")) || chart.contains(&format!("appVersion: \"{version}\"")),
        "{chart}"
    );
}

#[test]
fn image_is_built_from_the_package_of_the_programs() {
    let package = read("src/bin/Cargo.toml").lines().find_map(|line| line.strip_prefix("name = ")).map(str::to_owned);
    let package = package.expect("a package has a name");
    let package = package.trim_matches('"');
    // The plugin runs on the users' own machines, so it is no part of the image.
    let build = format!("cargo build --locked --package {package} --bin k8sensus --bin k8sensus-operator");
    assert!(read("deploy/image/Dockerfile").contains(&build), "deploy/image/Dockerfile must have: {build}");
}

/// The markers of the table of values in the chart's README.
const TABLE: [&str; 2] = ["<!-- Generated table: see CONTRIBUTING.md -->\n", "<!-- End of the generated table -->\n"];

#[test]
fn readme_of_the_chart_has_the_table_of_its_values() {
    let path = "charts/k8sensus/README.md";
    let readme = read(path);
    let (before, rest) = readme.split_once(TABLE[0]).expect("the table begins with a marker");
    let (committed, after) = rest.split_once(TABLE[1]).expect("the table ends with a marker");
    let table = table_of_values();
    if committed == table {
        return;
    }
    let command = "INSTA_UPDATE=always cargo test --test all architecture::generated::readme";
    assert!(std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always"), "{path} is stale: {command}");
    fs::write(root().join(path), [before, TABLE[0], &table, TABLE[1], after].concat()).unwrap();
}

#[test]
fn every_value_of_the_chart_is_described() {
    let mut missing = Vec::new();
    undescribed("", &schema(), &mut missing);
    assert!(missing.is_empty(), "values.schema.json: no description of {missing:?}");
}

#[test]
fn every_value_of_the_chart_has_a_default() {
    let mut missing: Vec<_> = values().into_iter().filter(|value| value.default.is_none()).collect();
    // A condition of a parent chart, which the chart itself does not read.
    missing.retain(|value| value.name != "enabled");
    let missing: Vec<_> = missing.iter().map(|value| &value.name).collect();
    assert!(missing.is_empty(), "values.yaml: no default of {missing:?}");
}

/// A JSON schema, as far as the table needs it.
#[derive(Deserialize)]
struct Schema {
    #[serde(default)]
    description: String,
    #[serde(default)]
    properties: Properties<Schema>,
    items: Option<Box<Schema>>,
}

/// The entries of a JSON object in their order.
struct Properties<T>(Vec<(String, T)>);

impl<T> Default for Properties<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Properties<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Properties<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Properties(entries))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// One row of the table.
struct ChartValue {
    name: String,
    default: Option<Value>,
    description: String,
}

fn schema() -> Schema {
    serde_json::from_str(&read("charts/k8sensus/values.schema.json")).unwrap()
}

/// Returns the chart's values in the order of the schema. An object is one value if the schema leaves its fields to
/// Kubernetes, as for `affinity`.
fn values() -> Vec<ChartValue> {
    let defaults: Value = serde_saphyr::from_str(&read("charts/k8sensus/values.yaml")).unwrap();
    let mut values = Vec::new();
    collect("", &schema(), Some(&defaults), &mut values);
    values
}

fn collect(prefix: &str, schema: &Schema, defaults: Option<&Value>, values: &mut Vec<ChartValue>) {
    for (name, property) in &schema.properties.0 {
        let default = defaults.and_then(|defaults| defaults.get(name));
        let name = format!("{prefix}{name}");
        if property.properties.0.is_empty() {
            values.push(ChartValue { name, default: default.cloned(), description: property.description.clone() });
        } else {
            collect(&format!("{name}."), property, default, values);
        }
    }
}

fn undescribed(path: &str, schema: &Schema, missing: &mut Vec<String>) {
    for (name, property) in &schema.properties.0 {
        let path = format!("{path}.{name}");
        if property.description.is_empty() {
            missing.push(path.clone());
        }
        undescribed(&path, property, missing);
    }
    if let Some(items) = &schema.items {
        undescribed(&format!("{path}[]"), items, missing);
    }
}

/// Returns the table of the values that have a default.
fn table_of_values() -> String {
    let rows = values().into_iter().filter_map(|ChartValue { name, default, description }| {
        let default = match default? {
            Value::String(text) if !text.is_empty() => text,
            other => other.to_string(),
        };
        Some(format!("| `{name}` | `{default}` | {} |\n", description.replace('|', "\\|")))
    });
    let head = "| Value | Default | Meaning |\n|---|---|---|\n".to_owned();
    std::iter::once(head).chain(rows).collect()
}
