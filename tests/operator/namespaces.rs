//! An operator for some namespaces neither has rights in other namespaces nor watches them.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use super::installed::install;
use crate::support::{apply, candidate, condition, control_plane, get, group, kubectl, within};

#[test]
fn operator_for_two_namespaces_accesses_only_these() {
    let cluster = control_plane();
    for ns in ["team-a", "team-b", "team-c"] {
        kubectl(&cluster, &["create", "namespace", ns]);
    }
    // It runs in a namespace whose groups it does not reconcile.
    let installed = install(&cluster, "default", &["namespaces={team-a,team-b}"]);
    for ns in ["team-a", "team-b", "team-c"] {
        apply(&cluster, ns, &group("kestrel", json!({}))).unwrap();
    }
    for ns in ["team-a", "team-b"] {
        within(20, &format!("the status in {ns}"), || {
            get(&cluster, ns, "electiongroup/kestrel").filter(|group| !condition(group, "Ready").is_empty())
        });
        let _leader = candidate(&cluster, ns, "kestrel", "otter", &["--create-lease=false"]);
        within(20, &format!("otter in the status in {ns}"), || {
            (get(&cluster, ns, "electiongroup/kestrel")?["status"]["holderIdentity"] == "otter").then_some(())
        });
        kubectl(&cluster, &["delete", "-n", ns, "role/kestrel"]);
        within(20, &format!("the role to be recreated in {ns}"), || get(&cluster, ns, "role/kestrel"));
    }
    sleep(Duration::from_secs(2));
    let other = get(&cluster, "team-c", "electiongroup/kestrel").unwrap();
    let unseen = other["status"]["conditions"].is_null();
    assert!(unseen && get(&cluster, "team-c", "lease/kestrel").is_none(), "{other}");

    let text = fs::read_to_string(cluster.audit_log()).unwrap();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let requests: Vec<Value> = events.filter(|event| event["user"]["username"] == installed.user.as_str()).collect();
    let strayed: Vec<_> = requests
        .iter()
        .filter(|event| {
            let object = &event["objectRef"];
            let own = object["namespace"] == "default" && object["resource"] == "leases";
            object.is_object() && !own && object["namespace"] != "team-a" && object["namespace"] != "team-b"
        })
        .collect();
    assert!(!requests.is_empty() && strayed.is_empty(), "{strayed:#?}");
    let refused: Vec<_> = requests.iter().filter(|event| event["responseStatus"]["code"] == 403).collect();
    assert!(refused.is_empty(), "{refused:#?}\n{}", installed.operator.output());
}
