//! The published schema.

use k8sensus_api::{crd, crd_yaml};
use serde_json::Value;

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crds/electiongroups.k8sensus.dev.yaml");
/// Less than the 262,144 bytes of the annotation in which a client-side apply stores the whole object.
const LIMIT: usize = 100_000;

fn definition() -> Value {
    serde_json::to_value(crd()).expect("it is JSON")
}

fn schema() -> Value {
    definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take()
}

fn at<'a>(schema: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(schema, |node, step| {
        let inner = if step == "items" { &node["items"] } else { &node["properties"][step] };
        assert!(!inner.is_null(), "no {step} of {path}");
        inner
    })
}

/// Visits each property below `node` with its path.
fn properties(node: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    for (name, property) in node["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        visit(&path, property);
        properties(property, &path, visit);
    }
    for inner in ["items", "additionalProperties"] {
        if node[inner].is_object() {
            properties(&node[inner], path, visit);
        }
    }
}

#[test]
fn committed_file_is_the_generated_one() {
    let committed = std::fs::read_to_string(COMMITTED).unwrap_or_default();
    assert!(
        committed == crd_yaml(),
        "{COMMITTED} is out of date: cargo run --bin k8sensus-operator -- crd > crds/electiongroups.k8sensus.dev.yaml"
    );
}

#[test]
fn file_is_deterministic_and_names_its_source() {
    assert_eq!(crd_yaml(), crd_yaml());
    assert!(crd_yaml().starts_with("# Generated from src/api by `cargo run --bin k8sensus-operator -- crd`"));
}

#[test]
fn file_parses_as_the_definition() {
    let read: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition =
        serde_saphyr::from_str(&crd_yaml()).expect("it is YAML");
    assert_eq!(serde_json::to_value(read).expect("it is JSON"), definition());
}

#[test]
fn file_is_small_enough_for_a_plain_kubectl_apply() {
    let json = definition().to_string().len();
    let yaml = crd_yaml().len();
    assert!(json < LIMIT && yaml < LIMIT, "JSON {json}, YAML {yaml}");
}

#[test]
fn every_field_is_described_except_below_the_template() {
    let schema = schema();
    properties(&schema, "", &mut |path, property| {
        if path.starts_with(".spec.template.") {
            assert!(property["description"].is_null(), "{path} is described");
        } else if path != ".metadata" {
            let words = property["description"].as_str().unwrap_or_default();
            assert!(words.len() > 10 && !words.contains('`'), "{path}: {words:?}");
        }
    });
}

#[test]
fn no_field_is_nullable() {
    properties(&schema(), "", &mut |path, property| assert!(property["nullable"].is_null(), "{path}"));
}

#[test]
fn every_number_string_and_list_of_the_spec_is_bounded() {
    properties(&schema(), "", &mut |path, property| {
        let foreign = [".spec.template.", ".spec.strategy.", ".spec.candidate.resources."];
        if !path.starts_with(".spec.") || foreign.iter().any(|prefix| path.starts_with(prefix)) {
            return;
        }
        let bounds: &[&str] = match property["type"].as_str() {
            Some("integer") => &["minimum", "maximum"],
            Some("string") if property["enum"].is_null() => &["maxLength"],
            Some("array") => &["maxItems"],
            _ => &[],
        };
        for bound in bounds {
            assert!(!property[*bound].is_null(), "{path} has no {bound}");
        }
    });
}

/// The lists of the pod template included: without a maximum a single object can keep the operator busy.
#[test]
fn every_list_of_the_spec_has_a_maximum() {
    let mut unbounded = Vec::new();
    properties(&schema(), "", &mut |path, property| {
        if path.starts_with(".spec.") && property["type"] == "array" && property["maxItems"].is_null() {
            unbounded.push(path.to_owned());
        }
    });
    assert_eq!(unbounded, Vec::<String>::new());
}

#[test]
fn lists_with_keys_are_merged_by_them() {
    let schema = schema();
    let keyed = [
        ("spec.template.spec.containers", "name"),
        ("spec.template.spec.initContainers", "name"),
        ("spec.template.spec.volumes", "name"),
        ("spec.template.spec.containers.items.env", "name"),
        ("spec.template.spec.initContainers.items.env", "name"),
        ("spec.template.spec.containers.items.volumeMounts", "mountPath"),
        ("spec.template.spec.containers.items.ports", "containerPort,protocol"),
        ("spec.leaderService.ports", "port"),
        ("status.conditions", "type"),
    ];
    for (path, keys) in keyed {
        let list = at(&schema, path);
        let found: Vec<_> =
            list["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert_eq!(
            (list["x-kubernetes-list-type"].as_str(), found.join(",")),
            (Some("map"), keys.to_owned()),
            "{path}"
        );
    }
    let protocol = at(&schema, "spec.template.spec.containers.items.ports.items.protocol");
    assert_eq!(protocol["default"], "TCP");
}

#[test]
fn ports_and_quantities_accept_numbers_and_strings() {
    let schema = schema();
    let limits = &at(&schema, "spec.template.spec.containers.items.resources.limits")["additionalProperties"];
    assert_eq!(limits["x-kubernetes-int-or-string"], true);
    assert!(limits["pattern"].is_string());
    let size = at(&schema, "spec.template.spec.volumes.items.emptyDir.sizeLimit");
    assert!(size["pattern"].is_string() && size["x-kubernetes-int-or-string"] == true);
    let port = at(&schema, "spec.template.spec.containers.items.livenessProbe.httpGet.port");
    assert!(port["pattern"].is_null() && port["x-kubernetes-int-or-string"] == true);
}

#[test]
fn defaults_are_explicit_and_computed_defaults_are_absent() {
    let schema = schema();
    assert_eq!(at(&schema, "spec.election")["default"].as_object().map(|fields| fields.len()), Some(3));
    for path in [
        "spec.election.leaseName",
        "spec.election.renewIntervalSeconds",
        "spec.candidate.container",
        "spec.candidate.stopGracePeriodSeconds",
    ] {
        assert!(at(&schema, path)["default"].is_null(), "{path}");
    }
}

#[test]
fn kubectl_get_has_the_documented_columns() {
    let definition = definition();
    let columns = definition["spec"]["versions"][0]["additionalPrinterColumns"].as_array().expect("there are columns");
    let names = |wide: bool| {
        let shown = columns.iter().filter(|column| (column["priority"] == 1) == wide);
        shown.filter_map(|column| column["name"].as_str()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(false), "Desired Ready Holder Transitions Held Status Age");
    assert_eq!(names(true), "Mode Node Lease");
}
