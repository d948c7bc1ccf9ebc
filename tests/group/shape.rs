//! The check of single fields by the schema: their types, bounds and forms.

use std::collections::BTreeSet;
use std::time::Duration;

use k8sensus_api::crd;
use k8sensus_group::Group;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

fn refusal(spec: Value) -> String {
    Group::parse(&spec.to_string()).expect_err("must be refused").to_string()
}

fn pod(spec: Value) -> Value {
    json!({ "template": { "spec": spec } })
}

fn container(more: Value) -> Value {
    let mut container = json!({ "name": "main", "image": "kestrel" });
    container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    pod(json!({ "containers": [container] }))
}

#[test]
fn wrong_type_is_reported_with_its_field_at_any_depth() {
    assert_eq!(refusal(json!({ "replicas": "two" })), r#"spec.replicas: must be an integer, found "two""#);
    assert_eq!(refusal(json!({ "replicas": {} })), "spec.replicas: must be an integer, found {}");
    assert_eq!(refusal(json!({ "suspend": 1 })), "spec.suspend: must be true or false, found 1");
    assert_eq!(refusal(json!({ "image": ["a"] })), r#"spec.image: must be a string, found ["a"]"#);
    assert_eq!(refusal(json!({ "election": [] })), "spec.election: must be an object, found []");
    assert_eq!(refusal(json!({ "podDisruptionBudget": { "maxUnavailable": true } })), {
        "spec.podDisruptionBudget.maxUnavailable: must be an integer or a string, found true"
    });
    assert_eq!(refusal(container(json!({ "env": [{ "name": "A", "value": 1 }] }))), {
        "spec.template.spec.containers[0].env[0].value: must be a string, found 1"
    });
    assert_eq!(refusal(json!([])), "spec: must be an object, found []");
    assert!(Group::parse("{").unwrap_err().to_string().starts_with("spec: must be JSON, found EOF"));
}

#[test]
fn long_value_is_cut() {
    let refusal = refusal(json!({ "replicas": "ä".repeat(100_000) }));
    assert!(refusal.ends_with("ää...") && refusal.chars().count() < 120, "{refusal}");
}

#[test]
fn sizes_are_reported_with_their_bounds() {
    assert_eq!(refusal(json!({ "args": vec!["x"; 101] })), "spec.args: must have at most 100 items, found 101");
    assert_eq!(
        refusal(json!({ "command": ["ä".repeat(4097)] })),
        "spec.command[0]: must have at most 4096 characters, found 4097"
    );
    assert!(Group::parse(&json!({ "command": ["ä".repeat(4096)] }).to_string()).is_ok(), "characters, not bytes");
    let many: serde_json::Map<String, Value> = (0..65).map(|i| (format!("k{i}"), "v".into())).collect();
    assert_eq!(refusal(json!({ "serviceAccount": { "annotations": many } })), {
        "spec.serviceAccount.annotations: must have at most 64 entries, found 65"
    });
    assert_eq!(
        refusal(pod(json!({ "containers": [{ "name": "a", "image": "b" }], "priority": 2_147_483_648_i64 }))),
        { "spec.template.spec.priority: must be from -2147483648 to 2147483647, found 2147483648" }
    );
    assert_eq!(
        refusal(json!({ "replicas": u64::MAX })),
        "spec.replicas: must be from 0 to 100, found 18446744073709551615"
    );
}

/// The limit of processor time to check a spec of a megabyte in an unoptimised build. An optimised build needs a
/// fraction; comparing the entries pairwise needs more than ten seconds.
const LONGEST_CHECK: Duration = Duration::from_millis(250);

/// A list with as many entries as an object of a megabyte can have, in a group whose CRD has no schema any more.
#[test]
fn twenty_five_thousand_entries_are_checked_in_linear_time() {
    let aliases: Vec<Value> = (0..25_000).map(|i| json!({ "ip": format!("10.{}.{}.1", i / 256, i % 256) })).collect();
    let spec = pod(json!({ "containers": [{ "name": "a", "image": "b" }], "hostAliases": aliases })).to_string();
    let (refusal, elapsed) = timed(|| Group::parse(&spec).expect_err("must be refused").to_string());
    println!("refused {} bytes after {elapsed:?}", spec.len());
    assert_eq!(refusal, "spec.template.spec.hostAliases: must have at most 256 items, found 25000");
    assert!(elapsed < LONGEST_CHECK, "{elapsed:?}");

    // The largest allowed number of variables.
    let env = |c: usize| (0..1000).map(|i| json!({ "name": format!("V{c}_{i}"), "value": "x" })).collect::<Vec<_>>();
    let containers: Vec<Value> =
        (0..25).map(|c| json!({ "name": format!("c{c}"), "image": "b", "env": env(c) })).collect();
    let spec = pod(json!({ "containers": containers })).to_string();
    let (parsed, elapsed) = timed(|| Group::parse(&spec));
    println!("checked {} bytes in {elapsed:?}", spec.len());
    assert!(parsed.is_ok());
    assert!(elapsed < LONGEST_CHECK, "{elapsed:?}");
}

/// Returns the shortest of ten runs in processor time of this thread, because other processes share the machine.
fn timed<T>(run: impl Fn() -> T) -> (T, Duration) {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.try_into().unwrap())
    };
    let runs = (0..10).map(|_| {
        let start = now();
        (run(), now() - start)
    });
    runs.min_by_key(|(_, elapsed)| *elapsed).unwrap()
}

#[test]
fn null_is_not_set() {
    let spec =
        Group::parse(r#"{ "image": null, "replicas": null, "election": { "leaseName": null }, "candidate": null }"#);
    let spec = spec.expect("nothing is set");
    assert_eq!((spec.replicas, spec.image, spec.election.lease_name), (2, None, None));
    let refusal = refusal(pod(json!({ "containers": null })));
    assert_eq!(refusal, "spec.template.spec.containers: must be set");
}

#[test]
fn fields_of_a_newer_version_are_ignored() {
    let spec =
        Group::parse(r#"{ "image": "b", "colour": { "red": 1 }, "candidate": { "mode": "Telepathy", "range": 3 } }"#);
    assert_eq!(spec.expect("it is read").candidate.mode, k8sensus_api::Mode::Unknown);
}

#[test]
fn each_form_accepts_what_its_pattern_accepts() {
    type Examples = (fn(&str) -> Value, &'static [&'static str], &'static [&'static str]);
    let forms: [Examples; 5] = [
        (
            |text| json!({ "candidate": { "container": text } }),
            &["a", "a-b", "4"],
            &["-a", "a-", "A", "a.b", "ä", "a b"],
        ),
        (|text| json!({ "election": { "leaseName": text } }), &["a", "a.b-c.4"], &["a..b", ".a", "a.-b", "a/b"]),
        (
            |text| json!({ "image": text }),
            &["a", "host:5000/a/b@sha256:00", "A_b"],
            &["a b", "a\u{a0}", "аb", "a\n", "a\u{200b}"],
        ),
        (
            |text| {
                let mut spec = container(json!({}));
                spec["template"]["metadata"] = json!({ "labels": { "team": text } });
                spec
            },
            &["", "a", "A_b.c-4"],
            &["-a", "a.", "a b", "a/b", "ä"],
        ),
        (
            |text| container(json!({ "resources": { "limits": { "memory": text } } })),
            &["1", "0.5", ".5", "5.", "-1", "+1Gi", "100m", "1e3", "1E-3", "1.5e+.5", "3k"],
            &["", "1 GB", "1GB", "Gi", "1.2.3", "1e", "1K", "1mi", "0x10", "--1", "1e3Gi", "."],
        ),
    ];
    for (spec, right, wrong) in forms {
        for text in right {
            let parsed = Group::parse(&spec(text).to_string());
            assert!(parsed.is_ok(), "{text:?}: {}", parsed.unwrap_err());
        }
        for text in wrong {
            assert!(Group::parse(&spec(text).to_string()).is_err(), "{text:?} in {}", spec(text));
        }
    }
}

/// A pattern without a form would not be checked.
#[test]
fn every_pattern_has_a_form() {
    let mut found = BTreeSet::new();
    patterns(&serde_json::to_value(crd()).unwrap(), &mut found);
    assert_eq!(found.len(), 5, "each needs a form in src/group/spec/schema_check.rs, and examples above: {found:#?}");
}

fn patterns(node: &Value, found: &mut BTreeSet<String>) {
    if let Some(pattern) = node["pattern"].as_str() {
        found.insert(pattern.to_owned());
    }
    match node {
        Value::Object(map) => map.values().for_each(|inner| patterns(inner, found)),
        Value::Array(items) => items.iter().for_each(|inner| patterns(inner, found)),
        _ => {}
    }
}
