//! Deleted or edited children are restored; a foreign object is never changed.

use serde_json::json;

use crate::support::{
    apply, audit_position, candidate, condition, get, group, kubectl, namespace, operated, within, writes_since,
};

fn group_with_children(name: &str) -> String {
    let cluster = operated();
    let ns = namespace(cluster, name);
    apply(cluster, &ns, &group("kestrel", json!({}))).unwrap();
    within(10, "the status", || {
        get(cluster, &ns, "electiongroup/kestrel").filter(|group| !condition(group, "Ready").is_empty())
    });
    ns
}

#[test]
fn each_deleted_child_is_recreated() {
    let cluster = operated();
    let ns = group_with_children("deleted");
    for kind in ["deployment", "serviceaccount", "role", "rolebinding"] {
        let before = get(cluster, &ns, &format!("{kind}/kestrel")).unwrap()["metadata"]["uid"].clone();
        kubectl(cluster, &["delete", "-n", &ns, &format!("{kind}/kestrel")]);
        within(10, &format!("the {kind} to be recreated"), || {
            get(cluster, &ns, &format!("{kind}/kestrel")).filter(|child| child["metadata"]["uid"] != before)
        });
    }
}

#[test]
fn deleted_lease_is_recreated_with_its_transitions() {
    let cluster = operated();
    let ns = group_with_children("lostlease");
    let leader = candidate(cluster, &ns, "kestrel", "otter", &["--create-lease=false"]);
    within(10, "otter to be in the status", || {
        let group = get(cluster, &ns, "electiongroup/kestrel")?;
        (group["status"]["holderIdentity"] == "otter").then_some(())
    });
    let former = get(cluster, &ns, "lease/kestrel").unwrap();
    kubectl(cluster, &["delete", "-n", &ns, "lease/kestrel"]);
    leader.wait_for("Evicted as leader", std::time::Duration::from_secs(2));
    let lease = within(10, "otter to lead again", || {
        let lease = get(cluster, &ns, "lease/kestrel")?;
        let is_new = lease["metadata"]["uid"] != former["metadata"]["uid"];
        (is_new && lease["spec"]["holderIdentity"] == "otter").then_some(lease)
    });
    assert_eq!(lease["spec"]["leaseTransitions"], 2);
}

#[test]
fn edits_are_reverted_and_foreign_additions_stay() {
    let cluster = operated();
    let ns = group_with_children("edited");
    let deployment = "deployment/kestrel";
    kubectl(cluster, &["scale", "-n", &ns, deployment, "--replicas=7"]);
    within(10, "the replicas to be restored", || {
        (get(cluster, &ns, deployment)?["spec"]["replicas"] == 2).then_some(())
    });
    kubectl(
        cluster,
        &[
            "patch",
            "-n",
            &ns,
            "role/kestrel",
            "--type=json",
            "-p",
            r#"[{"op":"add","path":"/rules/0/verbs/-","value":"delete"}]"#,
        ],
    );
    within(10, "the verbs to be restored", || {
        (get(cluster, &ns, "role/kestrel")?["rules"][0]["verbs"].as_array()?.len() == 4).then_some(())
    });
    kubectl(cluster, &["label", "-n", &ns, deployment, "k8sensus.dev/group-", "colour=red"]);
    let labels = within(10, "the label to be restored", || {
        let labels = get(cluster, &ns, deployment)?["metadata"]["labels"].clone();
        (labels["k8sensus.dev/group"] == "kestrel").then_some(labels)
    });
    assert_eq!(labels["colour"], "red");
}

#[test]
fn fields_that_the_spec_no_longer_sets_are_removed() {
    let cluster = operated();
    let ns = namespace(cluster, "changed");
    apply(
        cluster,
        &ns,
        &group("kestrel", json!({ "args": ["--loud"], "serviceAccount": { "annotations": { "colour": "red" } } })),
    )
    .unwrap();
    let loud = |deployment: &serde_json::Value| {
        deployment["spec"]["template"]["spec"]["containers"][0]["args"].to_string().contains("--loud")
    };
    within(10, "the deployment", || get(cluster, &ns, "deployment/kestrel").filter(loud));
    apply(cluster, &ns, &group("kestrel", json!({}))).unwrap();
    within(10, "the argument to go", || get(cluster, &ns, "deployment/kestrel").filter(|found| !loud(found)));
    within(10, "the annotation to go", || {
        get(cluster, &ns, "serviceaccount/kestrel").filter(|found| found["metadata"]["annotations"]["colour"].is_null())
    });
}

#[test]
fn former_account_keeps_its_rights_until_its_pods_are_gone() {
    let cluster = operated();
    let ns = group_with_children("account");
    within(10, "a pod of the former account", || {
        let pods = get(cluster, &ns, "pods")?["items"].clone();
        (pods.as_array()?.len() == 2).then_some(())
    });
    let other = json!({ "serviceAccount": { "name": "other" } });
    apply(cluster, &ns, &group("kestrel", other)).unwrap();
    let subjects = || -> Vec<String> {
        let binding = get(cluster, &ns, "rolebinding/kestrel").unwrap();
        let subjects = binding["subjects"].as_array().unwrap().iter();
        subjects.map(|subject| subject["name"].as_str().unwrap().to_owned()).collect()
    };
    // No pod becomes Ready here, so the rollout does not end: the leader must keep its rights.
    within(10, "the binding to have both", || (subjects() == ["other", "kestrel"]).then_some(()));
    assert!(get(cluster, &ns, "serviceaccount/kestrel").is_some());
    let suspended = json!({ "serviceAccount": { "name": "other" }, "suspend": true });
    apply(cluster, &ns, &group("kestrel", suspended)).unwrap();
    within(20, "the own account to go", || get(cluster, &ns, "serviceaccount/kestrel").is_none().then_some(()));
    within(10, "the binding to have one", || (subjects() == ["other"]).then_some(()));
}

#[test]
fn group_may_name_its_own_account() {
    let cluster = operated();
    let ns = group_with_children("sameaccount");
    let same = json!({ "serviceAccount": { "name": "kestrel" }, "suspend": true });
    apply(cluster, &ns, &group("kestrel", same)).unwrap();
    within(10, "the suspension", || {
        get(cluster, &ns, "electiongroup/kestrel").filter(|group| condition(group, "Ready") == "False/Suspended")
    });
    assert!(get(cluster, &ns, "serviceaccount/kestrel").is_some());
}

#[test]
fn foreign_subject_of_the_binding_is_removed() {
    let cluster = operated();
    let ns = group_with_children("subject");
    let suspended = json!({ "suspend": true });
    apply(cluster, &ns, &group("kestrel", suspended)).unwrap();
    let patch = r#"[{"op":"add","path":"/subjects/-","value":{"kind":"ServiceAccount","name":"stranger","namespace":"default"}}]"#;
    within(10, "the rollout to be over", || {
        (get(cluster, &ns, "electiongroup/kestrel")?["status"]["replicas"] == 0).then_some(())
    });
    kubectl(cluster, &["patch", "-n", &ns, "rolebinding/kestrel", "--type=json", "-p", patch]);
    within(10, "the subject to go", || {
        (get(cluster, &ns, "rolebinding/kestrel")?["subjects"].as_array()?.len() == 1).then_some(())
    });
}

#[test]
fn group_in_conflict_over_a_lease_shows_no_leader_and_grants_nothing() {
    let cluster = operated();
    let ns = group_with_children("thief");
    let _leader = candidate(cluster, &ns, "kestrel", "otter", &["--create-lease=false"]);
    within(10, "otter in the status", || {
        (get(cluster, &ns, "electiongroup/kestrel")?["status"]["holderIdentity"] == "otter").then_some(())
    });
    let election = json!({ "leaseName": "kestrel", "leaseDurationSeconds": 3, "renewDeadlineSeconds": 2, "retryPeriodSeconds": 1 });
    apply(cluster, &ns, &group("thief", json!({ "election": election }))).unwrap();
    let thief = within(10, "the conflict", || {
        get(cluster, &ns, "electiongroup/thief").filter(|group| condition(group, "Stalled") == "True/Conflict")
    });
    assert!(thief["status"].get("holderIdentity").is_none());
    assert!(thief["status"].get("leaseName").is_none());
    assert!(get(cluster, &ns, "role/thief").is_none());
}

#[test]
fn foreign_object_is_a_conflict_and_left_alone() {
    let cluster = operated();
    let ns = namespace(cluster, "conflict");
    kubectl(cluster, &["create", "-n", &ns, "role", "kestrel", "--verb=get", "--resource=pods"]);
    let before = get(cluster, &ns, "role/kestrel").unwrap();
    apply(cluster, &ns, &group("kestrel", json!({}))).unwrap();
    let group = within(10, "the conflict", || {
        get(cluster, &ns, "electiongroup/kestrel").filter(|group| condition(group, "Stalled") == "True/Conflict")
    });
    assert_eq!(condition(&group, "Ready"), "False/Conflict");
    let message = group["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains(&format!("Role {ns}/kestrel exists and is not this group's")), "{message}");
    assert_eq!(get(cluster, &ns, "role/kestrel").unwrap(), before);
    assert!(get(cluster, &ns, "deployment/kestrel").is_none());
    kubectl(cluster, &["delete", "-n", &ns, "role/kestrel"]);
    within(20, "the group to go on", || get(cluster, &ns, "deployment/kestrel"));
}

#[test]
fn lease_without_an_owner_is_adopted_unchanged() {
    let cluster = operated();
    let ns = namespace(cluster, "adopted");
    let _leader = candidate(cluster, &ns, "kestrel", "otter", &[]);
    within(10, "otter to lead", || {
        get(cluster, &ns, "lease/kestrel").filter(|lease| lease["spec"]["holderIdentity"] == "otter")
    });
    apply(cluster, &ns, &group("kestrel", json!({}))).unwrap();
    let lease = within(10, "the adoption", || {
        get(cluster, &ns, "lease/kestrel").filter(|lease| !lease["metadata"]["ownerReferences"].is_null())
    });
    assert_eq!(lease["spec"]["holderIdentity"], "otter");
    assert_eq!(lease["spec"]["leaseTransitions"], 0);
    within(10, "otter in the status", || {
        (get(cluster, &ns, "electiongroup/kestrel")?["status"]["holderIdentity"] == "otter").then_some(())
    });
}

#[test]
fn first_lease_has_a_wait_if_a_pod_already_runs() {
    let cluster = operated();
    let ns = namespace(cluster, "leftover");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "leftover", "labels": { "k8sensus.dev/group": "kestrel" } },
        "spec": { "containers": [{ "name": "app", "image": "registry.example/kestrel:1" }] },
    });
    // The namespace's default account may not exist yet.
    within(10, "the pod", || apply(cluster, &ns, &pod).ok());
    apply(cluster, &ns, &group("kestrel", json!({}))).unwrap();
    let lease = within(10, "the lease", || get(cluster, &ns, "lease/kestrel"));
    assert_eq!(lease["spec"]["holderIdentity"], "k8sensus.dev/recreated");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 3);
}

#[test]
fn spelling_that_the_server_normalises_is_applied_only_once() {
    let cluster = operated();
    let ns = namespace(cluster, "spelling");
    // Stored as "1T"; `drift` does not know the suffix "P".
    let container = json!({
        "name": "app", "image": "registry.example/kestrel:1", "command": ["/kestrel"],
        "resources": { "requests": { "ephemeral-storage": "0.001P" } },
    });
    let mut odd = group("kestrel", json!({ "template": { "spec": { "containers": [container] } } }));
    let spec = odd["spec"].as_object_mut().unwrap();
    spec.retain(|key, _| key == "template" || key == "election");
    apply(cluster, &ns, &odd).unwrap();
    within(10, "the status", || {
        get(cluster, &ns, "electiongroup/kestrel").filter(|group| !condition(group, "Ready").is_empty())
    });
    let deployment = get(cluster, &ns, "deployment/kestrel").unwrap();
    let stored = deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"].to_string();
    assert!(stored.contains("1T"), "the server stores it as it is, so this test shows nothing: {stored}");
    std::thread::sleep(std::time::Duration::from_secs(3));
    let start = audit_position(cluster);
    for colour in ["red", "blue", "green"] {
        kubectl(cluster, &["label", "-n", &ns, "electiongroup/kestrel", &format!("colour={colour}"), "--overwrite"]);
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    std::thread::sleep(std::time::Duration::from_secs(1));
    let writes = writes_since(cluster, start, |event| {
        let object = &event["objectRef"];
        object["namespace"] == ns.as_str() && object["resource"] == "deployments"
    });
    assert!(writes.is_empty(), "{writes:?}");
}
