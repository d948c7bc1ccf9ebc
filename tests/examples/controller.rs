use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{LIMIT, Stage};
use crate::support::{Program, apply, get, kubectl, within};

const NAMES: [&str; 3] = ["fern", "moss", "reed"];

/// A greeting that was written.
#[derive(Debug)]
struct Greeting {
    version: u64,
    by: String,
    token: u64,
}

/// Returns the greetings that `kubectl get --watch` printed, in the order of their versions.
fn greetings(watch: &Program) -> Vec<Greeting> {
    let output = watch.output();
    let objects = serde_json::Deserializer::from_str(&output).into_iter::<Value>();
    let mut last: HashMap<String, Value> = HashMap::new();
    let mut found = Vec::new();
    // kubectl may still be printing the last object.
    for object in objects.map_while(Result::ok) {
        let (metadata, data) = (&object["metadata"], &object["data"]);
        let before = last.insert(metadata["name"].as_str().unwrap().to_owned(), data["greeting"].clone());
        if !data["greeting"].is_null() && before.as_ref() != Some(&data["greeting"]) {
            let number = |value: &Value| value.as_str().unwrap().parse().unwrap();
            let by = data["by"].as_str().unwrap().to_owned();
            found.push(Greeting { version: number(&metadata["resourceVersion"]), by, token: number(&data["token"]) });
        }
    }
    found.sort_by_key(|greeting| greeting.version);
    found
}

/// Renames until `enough` is set, so that there is always something to reconcile; returns the number of rounds.
fn rename(stage: &Stage, enough: &AtomicBool) -> usize {
    for round in 1.. {
        for name in NAMES {
            let patch = json!({ "data": { "name": format!("{name} {round}") } }).to_string();
            kubectl(stage.cluster, &["patch", "configmap", name, "-n", &stage.namespace, "-p", &patch]);
        }
        if enough.load(Ordering::Relaxed) {
            return round;
        }
    }
    unreachable!("the rounds do not end by themselves")
}

#[test]
fn only_the_leading_controller_reconciles() {
    let stage = Stage::new("controller");
    let watching = ["get", "configmaps", "-l", "example=greeting", "--watch", "-o", "json", "-n", &stage.namespace];
    let watch = Program::start("watch", stage.cluster.kubectl().args(watching));
    for name in NAMES {
        let metadata = json!({ "name": name, "labels": { "example": "greeting" } });
        let configmap =
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "name": name } });
        apply(stage.cluster, &stage.namespace, &configmap).unwrap();
    }
    let written_by = |pod: &str| greetings(&watch).iter().filter(|greeting| greeting.by == pod).count();

    let mut otter = stage.replica("otter", &[]);
    within(60, "a greeting", || (written_by("otter") > 0).then_some(()));
    let mut heron = stage.replica("heron", &[]);
    let enough = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let renaming = scope.spawn(|| rename(&stage, &enough));
        // Ends the renaming even if an assertion below fails.
        let _end = OnDrop(|| enough.store(true, Ordering::Relaxed));
        within(60, "greetings beside a standby", || (written_by("otter") >= 12).then_some(()));
        assert!(!heron.says("reconciles"), "{}", heron.output());
        assert!(otter.terminate(LIMIT).success(), "{}", otter.output());
        within(60, "greetings of the successor", || (written_by("heron") >= 6).then_some(()));
        enough.store(true, Ordering::Relaxed);
        renaming.join().unwrap()
    });
    for name in NAMES {
        within(60, "the last greeting", || {
            let configmap = get(stage.cluster, &stage.namespace, &format!("configmap/{name}")).unwrap();
            (configmap["data"]["greeting"] == format!("Hello, {name} {rounds}.")).then_some(())
        });
    }
    assert!(heron.terminate(LIMIT).success(), "{}", heron.output());
    assert_eq!(stage.holder(), "", "the Lease must be released");

    let greetings = greetings(&watch);
    let change = greetings.iter().position(|greeting| greeting.by == "heron").unwrap();
    let (first, second) = greetings.split_at(change);
    assert!(first.iter().all(|greeting| greeting.by == "otter" && greeting.token == first[0].token), "{greetings:#?}");
    let token = second[0].token;
    assert!(second.iter().all(|greeting| greeting.by == "heron" && greeting.token == token), "{greetings:#?}");
    // Resource versions count the writes of one etcd: the first leader's last write precedes the second's acquisition.
    assert!(first.iter().all(|greeting| greeting.version < token), "{greetings:#?}");
    assert!(second.iter().all(|greeting| greeting.version > token), "{greetings:#?}");
    stage.assert_nothing_was_forbidden();
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
