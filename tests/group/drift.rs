use k8sensus_group::desired::drift::{contains, is_as_desired};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{SPECS, by_kind, children, group, with};

fn check(table: &[(&str, Value, Value, bool)]) {
    for (what, live, desired, expected) in table {
        assert_eq!(contains(live, desired), *expected, "{what}: {live} has {desired}");
    }
}

#[test]
fn additions_of_others_are_no_drift() {
    check(&[
        ("a field", json!({ "a": 1, "b": 2 }), json!({ "a": 1 }), true),
        ("a field deep down", json!({ "a": { "b": 1, "c": 2 } }), json!({ "a": { "b": 1 } }), true),
        (
            "a container",
            json!({ "containers": [{ "name": "mesh" }, { "name": "app", "image": "b", "tty": false }] }),
            json!({ "containers": [{ "name": "app", "image": "b" }] }),
            true,
        ),
        (
            "items in another order",
            json!({ "env": [{ "name": "b" }, { "name": "a" }] }),
            json!({ "env": [{ "name": "a" }, { "name": "b" }] }),
            true,
        ),
        (
            "the subjects of a binding",
            json!({ "subjects": [{ "name": "a" }, { "name": "b" }] }),
            json!({ "subjects": [{ "name": "a" }] }),
            false,
        ),
        ("an item without a name", json!([{ "port": 1 }, { "port": 2 }]), json!([{ "port": 1 }]), false),
        ("an argument", json!(["a", "b"]), json!(["a"]), false),
    ]);
}

#[test]
fn changes_and_removals_by_others_are_drift() {
    check(&[
        ("a value", json!({ "a": 2 }), json!({ "a": 1 }), false),
        ("a field", json!({}), json!({ "a": 1 }), false),
        ("false is not nothing", json!({}), json!({ "a": false }), false),
        ("a container", json!([{ "name": "mesh" }]), json!([{ "name": "app" }]), false),
        (
            "a container's image",
            json!({ "containers": [{ "name": "app", "image": "c" }, { "name": "mesh", "image": "b" }] }),
            json!({ "containers": [{ "name": "app", "image": "b" }] }),
            false,
        ),
        ("the order of arguments", json!(["b", "a"]), json!(["a", "b"]), false),
        ("an argument", json!(["a"]), json!(["a", "b"]), false),
        ("a list that is none", json!({ "a": 1 }), json!([{ "name": "a" }]), false),
        ("a mapping that is none", json!([{ "name": "a" }]), json!({ "name": "a" }), false),
        ("a value that became a mapping", json!({ "a": {} }), json!({ "a": 1 }), false),
    ]);
}

#[test]
fn empty_values_may_be_absent() {
    check(&[
        ("a list", json!({}), json!({ "a": [] }), true),
        ("a mapping", json!({}), json!({ "a": {} }), true),
        ("a text", json!({}), json!({ "a": "" }), true),
        ("null", json!({}), json!({ "a": null }), true),
        ("a text that is there", json!({ "a": "x" }), json!({ "a": "" }), false),
        ("a list that is not empty", json!({}), json!({ "a": [1] }), false),
        ("a mapping that is not empty", json!({}), json!({ "a": { "b": 1 } }), false),
        ("a text that is not empty", json!({}), json!({ "a": "x" }), false),
    ]);
}

/// An object with a quantity.
fn limited(quantity: &Value) -> Value {
    json!({ "resources": { "limits": { "cpu": quantity } } })
}

#[test]
fn quantities_are_compared_by_value() {
    let same = [
        (json!("500m"), json!("0.5")),
        (json!("500m"), json!(0.5)),
        (json!("500m"), json!(".5")),
        (json!("1"), json!(1)),
        (json!("1"), json!("1000m")),
        (json!("1Gi"), json!("1024Mi")),
        (json!("1536Mi"), json!("1.5Gi")),
        (json!("1Ti"), json!("1024Gi")),
        (json!("1Mi"), json!("1024Ki")),
        (json!("1Ki"), json!("1024")),
        (json!("1k"), json!("1000")),
        (json!("1M"), json!("1000k")),
        (json!("1G"), json!("1000M")),
        (json!("1T"), json!("1000G")),
    ];
    for (live, desired) in same {
        assert!(contains(&limited(&live), &limited(&desired)), "{live} is {desired}");
    }
    let other = [
        (json!("500m"), json!("0.6")),
        (json!("1"), json!(2)),
        (json!("1G"), json!("1Gi")),
        (json!("1M"), json!("1Mi")),
        (json!("1m"), json!("1M")),
        (json!("1"), json!(true)),
        (json!("one"), json!("two")),
        (json!("1x"), json!("1y")),
        (json!("m"), json!("k")),
        (json!("1.2.3"), json!("1.2.4")),
        (json!(""), json!("0")),
        (json!("0.0000000001"), json!("0.0000000002")),
        (json!("0.0001"), json!("0.0002")),
    ];
    for (live, desired) in other {
        assert!(!contains(&limited(&live), &limited(&desired)), "{live} is not {desired}");
    }
}

#[test]
fn numbers_too_large_for_a_quantity_are_compared_as_text() {
    let limited = |text: &str| limited(&json!(text));
    let huge = format!("{}Ti", "9".repeat(36));
    assert!(contains(&limited(&huge), &limited(&huge)));
    assert!(!contains(&limited(&huge), &limited("1")));
    assert!(!contains(&limited(&"9".repeat(60)), &limited(&"9".repeat(61))));
}

#[test]
fn text_that_resembles_a_quantity_is_compared_as_text() {
    let environment = |version: &str| json!({ "env": [{ "name": "VERSION", "value": version }] });
    assert!(!contains(&environment("1.1"), &environment("1.10")));
}

#[test]
fn text_does_not_equal_a_number_outside_quantities() {
    for (live, desired) in [(json!("one"), json!(-1)), (json!("one"), json!(0.0001))] {
        assert!(!contains(&limited(&live), &limited(&desired)), "{live} is not {desired}");
    }
}

#[test]
fn every_child_is_as_desired_after_its_creation() {
    for spec in SPECS {
        for (kind, child) in by_kind(children(&group(spec))).as_object().expect("children by kind") {
            assert!(is_as_desired(child, child), "{kind} of {spec}");
        }
    }
}

#[test]
fn deployment_with_server_defaults_is_as_desired() {
    let desired = children(&group(super::TEMPLATE)).deployment;
    let mut live = desired.clone();
    live["metadata"]["resourceVersion"] = json!("4711");
    live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!("1");
    live["spec"]["revisionHistoryLimit"] = json!(10);
    live["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
    live["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
    live["status"] = json!({ "replicas": 3 });
    assert!(is_as_desired(&desired, &live));
}

#[test]
fn manual_scaling_and_patches_are_drift() {
    let desired = children(&group(super::TEMPLATE)).deployment;
    for (pointer, value) in [
        ("/spec/replicas", json!(9)),
        ("/spec/template/spec/containers/1/image", json!("registry.example/billing:0.9")),
        ("/spec/template/spec/containers/1/command/1", json!("run")),
        ("/spec/template/spec/serviceAccountName", json!("default")),
        ("/metadata/ownerReferences/0/controller", json!(false)),
        ("/metadata/ownerReferences", json!([])),
        ("/metadata/labels/k8sensus.dev~1group", json!("other")),
    ] {
        let mut live = desired.clone();
        *live.pointer_mut(pointer).expect(pointer) = value;
        assert!(!is_as_desired(&desired, &live), "{pointer}");
    }
}

#[test]
fn field_that_is_no_longer_desired_changes_the_hash() {
    let annotated = with(super::MINIMAL, "serviceAccount: { annotations: { example.com/role: billing } }");
    let before = children(&annotated).service_account.expect("an account");
    let after = children(&group(super::MINIMAL)).service_account.expect("an account");
    let mut without_hashes = [before.clone(), after.clone()];
    for object in &mut without_hashes {
        object["metadata"]["annotations"].as_object_mut().expect("annotations").remove("k8sensus.dev/applied-hash");
    }
    assert!(contains(&without_hashes[0], &without_hashes[1]), "only the hash differs");
    assert!(!is_as_desired(&after, &before));
}

#[test]
fn child_without_its_hash_is_not_as_desired() {
    let desired = children(&group(super::MINIMAL)).role;
    let mut live = desired.clone();
    live["metadata"]["annotations"] = json!({});
    assert!(!is_as_desired(&desired, &live));
}

#[test]
fn child_with_a_hash_is_not_as_desired_without_one() {
    let live = children(&group(super::MINIMAL)).role;
    let mut desired = live.clone();
    desired["metadata"].as_object_mut().expect("metadata").remove("annotations");
    assert!(contains(&live, &desired));
    assert!(!is_as_desired(&desired, &live));
}

/// Any JSON. The items of lists with names have distinct names, as the API server ensures.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z0-9.]{0,6}".prop_map(Value::from),
        "[0-9]{1,3}(\\.[0-9]{1,2})?(m|k|Mi|Gi)?".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 5, |inner| {
        let fields = || prop::collection::btree_map("[a-e]", inner.clone(), 0..4);
        let object = fields().prop_map(|fields| Value::Object(fields.into_iter().collect()));
        let named = prop::collection::btree_map("[a-z]{1,3}", fields(), 1..4).prop_map(|items| {
            let item = |(name, fields): (String, std::collections::BTreeMap<String, Value>)| {
                let mut item = Value::Object(fields.into_iter().collect());
                item["name"] = Value::from(name);
                item
            };
            items.into_iter().map(item).collect()
        });
        let list = prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array);
        prop_oneof![object, named, list]
    })
}

/// Collects JSON pointers to all values that are neither objects nor lists.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| leaves(value, &format!("{at}/{key}"), found)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, item)| leaves(item, &format!("{at}/{i}"), found)),
        _ => found.push(at.to_owned()),
    }
}

fn another(leaf: &Value) -> Value {
    match leaf {
        Value::Bool(bool) => Value::from(!bool),
        Value::Number(number) => Value::from(number.as_i64().unwrap_or_default() + 1),
        Value::String(text) => Value::from(format!("{text}!")),
        _ => Value::from("!"),
    }
}

/// Adds what defaults, webhooks and users add.
fn with_additions(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut map: serde_json::Map<_, _> =
                map.iter().map(|(key, value)| (key.clone(), with_additions(value))).collect();
            map.insert("foreign".to_owned(), json!({ "a": 1 }));
            Value::Object(map)
        }
        Value::Array(items) => items.iter().map(with_additions).collect(),
        other => other.clone(),
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn everything_contains_itself(value in anything()) {
        prop_assert!(contains(&value, &value));
    }

    #[test]
    fn additions_are_never_drift(value in anything()) {
        prop_assert!(contains(&with_additions(&value), &value));
    }

    #[test]
    fn any_changed_leaf_is_drift(value in anything(), pick in any::<prop::sample::Index>()) {
        let mut found = Vec::new();
        leaves(&value, "", &mut found);
        prop_assume!(!found.is_empty());
        let at = pick.get(&found);
        let mut live = value.clone();
        let leaf = live.pointer_mut(at).expect("a leaf");
        *leaf = another(leaf);
        prop_assert!(!contains(&live, &value), "{at} of {live}");
    }

    #[test]
    fn any_text_is_compared_without_a_panic(live in "\\PC{0,50}", desired in "[0-9.]{0,50}[a-zA-Z]{0,2}") {
        let _ = contains(&limited(&Value::from(live)), &limited(&Value::from(desired)));
    }
}
