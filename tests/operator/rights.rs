//! The chart grants the operator exactly the rights that it uses.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use k8sensus_local::Cluster;
use serde_json::{Value, json};

use super::installed::{Installed, installed, parsed, rendered};
use crate::support::{
    CANDIDATE, apply, candidate, condition, get, group, kubeconfig_with, kubectl, namespace, shared, within,
};

/// Every child but the Lease. Without its label each counts as missing and is read.
const CHILDREN: [&str; 7] = [
    "deployment/kestrel",
    "serviceaccount/kestrel",
    "role/kestrel",
    "rolebinding/kestrel",
    "poddisruptionbudget/kestrel",
    "service/kestrel-leader",
    "endpointslice/kestrel-leader",
];

/// Granted rights that the group of this test does not need.
const UNUSED: [&str; 6] = [
    // OpenShift's admission requires it.
    "create endpointslices/restricted",
    // The authorizer checks it when the operator adopts a Lease.
    "delete leases",
    // A Role has no immutable field, so it is never recreated.
    "delete roles",
    "get electiongroups",
    "get pods",
    // The update of an Event that repeats within minutes.
    "patch events",
];

#[test]
fn chart_grants_exactly_the_rights_that_the_operator_uses() {
    let (cluster, installed) = installed();
    let ns = namespace(cluster, "rights");
    play_life_of_group(cluster, &ns);

    let requests = requests(cluster, installed, &ns);
    let refused: Vec<_> = requests.iter().filter(|event| event["responseStatus"]["code"] == 403).collect();
    assert!(refused.is_empty(), "{refused:#?}\n{}", installed.operator.output());
    let mut used: BTreeSet<String> = requests.iter().map(right).collect();
    // A server that does not stream a list gets a list request.
    let watched: Vec<_> = used.iter().filter_map(|right| right.strip_prefix("watch ").map(str::to_owned)).collect();
    used.extend(watched.iter().map(|resource| format!("list {resource}")));

    let role = installed.objects.iter().find(|object| object["kind"] == "ClusterRole").unwrap();
    let unused: Vec<_> = granted(role).difference(&used).cloned().collect();
    assert_eq!(unused, UNUSED, "left: granted and never used; right: what is known of it. Used were: {used:#?}");
}

/// The pod of `helm test` as a process of this machine.
#[test]
fn helm_test_may_read_the_lease_of_the_operator_alone_and_finds_its_holder() {
    let (cluster, _) = installed();
    let objects = parsed(cluster, &rendered(cluster, "default", "tests/leader", &[]));
    let (pods, rights): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| object["kind"] == "Pod");
    rights.iter().for_each(|object| apply(cluster, "default", object).unwrap());
    let spec = &pods[0]["spec"];
    let granted = |lease: &str, verb: &str| {
        let account = format!("--as=system:serviceaccount:default:{}", spec["serviceAccountName"].as_str().unwrap());
        let output =
            cluster.kubectl().args(["auth", "can-i", verb, lease, "-n", "default", &account]).output().unwrap();
        output.status.success()
    };
    within(10, "the rights to be known", || granted("leases/k8sensus-operator", "watch").then_some(()));
    let token = kubectl(cluster, &["create", "token", "-n", "default", spec["serviceAccountName"].as_str().unwrap()]);
    let kubeconfig = kubeconfig_with(cluster, json!({ "token": token.trim() }));
    let container = &spec["containers"][0];
    assert_eq!(container["command"], json!(["/k8sensus", "observe"]));
    let mut observe = Command::new(CANDIDATE);
    observe.arg("observe").args(container["args"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()));
    let found = observe.env("KUBECONFIG", kubeconfig.path()).output().unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    assert!(String::from_utf8_lossy(&found.stdout).contains("holder keeper"), "{found:?}");
    assert!(!granted("leases/other", "get") && !granted("leases/k8sensus-operator", "update"));
}

/// Plays the life of a group: creation, election, foreign edits, loss of its Lease, another account, suspension,
/// deletion.
fn play_life_of_group(cluster: &Cluster, ns: &str) {
    let service = json!({ "leaderService": { "ports": [{ "port": 80 }] } });
    apply(cluster, ns, &group("kestrel", service)).unwrap();
    for child in CHILDREN {
        within(20, child, || get(cluster, ns, child));
    }
    let mut leader = candidate(cluster, ns, "kestrel", "otter", &["--create-lease=false"]);
    let status = |what: &str, wanted: &dyn Fn(&Value) -> bool| {
        within(20, what, || get(cluster, ns, "electiongroup/kestrel").filter(|group| wanted(group)))
    };
    status("otter in the status", &|group| group["status"]["holderIdentity"] == "otter");
    for child in CHILDREN {
        kubectl(cluster, &["label", "-n", ns, child, "k8sensus.dev/group-"]);
        within(20, &format!("the label of the {child}"), || {
            (get(cluster, ns, child)?["metadata"]["labels"]["k8sensus.dev/group"] == "kestrel").then_some(())
        });
    }
    leader.terminate(std::time::Duration::from_secs(10));
    kubectl(cluster, &["delete", "-n", ns, "lease/kestrel"]);
    within(20, "the lease to be recreated", || get(cluster, ns, "lease/kestrel"));
    recreate_with_other_immutable_fields(cluster, ns);
    request_step_down_of_native_leader(cluster, ns);
    let other = json!({ "suspend": true, "replicas": 1, "serviceAccount": { "name": "other" } });
    apply(cluster, ns, &group("kestrel", other)).unwrap();
    status("the suspension", &|group| condition(group, "Ready") == "False/Suspended");
    within(30, "the own account to go", || get(cluster, ns, "serviceaccount/kestrel").is_none().then_some(()));
    within(30, "the budget to go", || get(cluster, ns, "poddisruptionbudget/kestrel").is_none().then_some(()));
    kubectl(cluster, &["delete", "-n", ns, "electiongroup/kestrel"]);
    within(30, "the end of the children", || get(cluster, ns, "deployment/kestrel").is_none().then_some(()));
}

/// Changes immutable fields of children by recreating them while no operator runs.
fn recreate_with_other_immutable_fields(cluster: &Cluster, ns: &str) {
    apply(cluster, ns, &group("kestrel", json!({ "paused": true }))).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let mut binding = get(cluster, ns, "rolebinding/kestrel").unwrap();
    binding["roleRef"]["name"] = json!("other");
    let mut deployment = get(cluster, ns, "deployment/kestrel").unwrap();
    for labels in ["/spec/selector/matchLabels", "/spec/template/metadata/labels"] {
        deployment.pointer_mut(labels).unwrap()["k8sensus.dev/group"] = json!("other");
    }
    for object in [binding, deployment] {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), object.to_string()).unwrap();
        kubectl(cluster, &["replace", "--force", "-f", file.path().to_str().unwrap()]);
    }
    apply(cluster, ns, &group("kestrel", json!({}))).unwrap();
    within(30, "the role of the binding", || {
        (get(cluster, ns, "rolebinding/kestrel")?["roleRef"]["name"] == "kestrel").then_some(())
    });
    within(30, "the selector of the Deployment", || {
        let selector = get(cluster, ns, "deployment/kestrel")?["spec"]["selector"]["matchLabels"].clone();
        (selector["k8sensus.dev/group"] == "kestrel").then_some(())
    });
}

/// Requests a step-down of a Native leader.
fn request_step_down_of_native_leader(cluster: &Cluster, ns: &str) {
    apply(cluster, ns, &group("heron", json!({ "candidate": { "mode": "Native" } }))).unwrap();
    let pods: Vec<String> = within(30, "two pods", || {
        let pods = kubectl(cluster, &["get", "pods", "-n", ns, "-l", "k8sensus.dev/group=heron", "-o", "name"]);
        let pods = pods.lines().map(|pod| pod.trim_start_matches("pod/").to_owned()).collect::<Vec<_>>();
        (pods.len() == 2).then_some(pods)
    });
    for pod in &pods {
        let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }).to_string();
        kubectl(cluster, &["patch", "-n", ns, "pod", pod, "--subresource=status", "-p", &ready]);
    }
    let pod = &pods[0];
    let _leader = candidate(cluster, ns, "heron", pod, &["--create-lease=false"]);
    within(20, "its leadership in the status", || {
        (get(cluster, ns, "electiongroup/heron")?["status"]["holderIdentity"] == pod.as_str()).then_some(())
    });
    let now = kubectl(cluster, &["get", "-n", ns, "lease/heron", "-o", "jsonpath={.spec.renewTime}"]);
    kubectl(
        cluster,
        &["annotate", "-n", ns, "electiongroup/heron", &format!("k8sensus.dev/step-down-requested-at={now}")],
    );
    within(30, "the pod to be evicted", || {
        let found = get(cluster, ns, &format!("pod/{pod}"));
        found.is_none_or(|pod| pod["metadata"]["deletionTimestamp"].is_string()).then_some(())
    });
}

#[test]
fn rights_of_an_install_allow_no_privilege_escalation() {
    for values in [&[][..], &["namespaces={team-a,team-b}"]] {
        let rights: BTreeSet<String> = roles(values).iter().flat_map(granted).collect();
        assert!(!rights.is_empty());
        for right in rights {
            let (verb, resource) = right.split_once(' ').unwrap();
            let climbing = ["*", "escalate", "bind", "impersonate", "deletecollection"];
            assert!(!climbing.contains(&verb), "{right}");
            let opening =
                ["*", "secrets", "pods/exec", "pods/attach", "pods/ephemeralcontainers", "nodes", "clusterroles"];
            assert!(!opening.contains(&resource), "{right}");
        }
    }
}

#[test]
fn install_for_namespaces_has_rights_only_there_and_on_its_lease() {
    let objects = parsed(shared(), &rendered(shared(), "k8sensus-system", "rbac", &["namespaces={team-a,team-b}"]));
    let mut found: Vec<String> = objects
        .iter()
        .map(|object| {
            format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["namespace"].as_str().unwrap())
        })
        .collect();
    found.sort();
    let (roles, bindings) = (
        ["Role k8sensus-system", "Role team-a", "Role team-b"],
        ["RoleBinding k8sensus-system", "RoleBinding team-a", "RoleBinding team-b"],
    );
    assert_eq!(found, [roles, bindings].concat());
    let of = |namespace: &str| {
        let role = objects.iter().find(|o| o["kind"] == "Role" && o["metadata"]["namespace"] == namespace).unwrap();
        (granted(role), role["rules"].clone())
    };
    let everywhere = self::roles(&[]);
    assert_eq!(of("team-a").0, granted(&everywhere[0]));
    let own = json!([
        {
            "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["k8sensus-operator"],
            "verbs": ["get", "list", "watch", "update"],
        },
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"] },
    ]);
    assert_eq!(of("k8sensus-system").1, own);
    let policy =
        parsed(shared(), &rendered(shared(), "k8sensus-system", "leasepolicy", &["namespaces={team-a,team-b}"]));
    let selector = &policy[1]["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"][0];
    assert_eq!(selector["values"], json!(["team-a", "team-b"]));
}

fn roles(values: &[&str]) -> Vec<Value> {
    let mut objects = parsed(shared(), &rendered(shared(), "k8sensus-system", "rbac", values));
    objects.retain(|object| object["rules"].is_array());
    objects
}

/// Returns the rights of a role as "verb resource". The operator's resources have distinct names.
fn granted(role: &Value) -> BTreeSet<String> {
    let words = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let rules = role["rules"].as_array().unwrap().iter();
    rules
        .flat_map(|rule| {
            let (verbs, resources) = (words(&rule["verbs"]), words(&rule["resources"]));
            verbs.into_iter().flat_map(move |verb| resources.clone().into_iter().map(move |r| format!("{verb} {r}")))
        })
        .collect()
}

fn right(event: &Value) -> String {
    let object = &event["objectRef"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (verb, resource, sub) = (text(&event["verb"]), text(&object["resource"]), text(&object["subresource"]));
    format!("{verb} {resource}{}{sub}", if sub.is_empty() { "" } else { "/" })
}

/// Returns the operator's requests for `ns`, for all namespaces or for its own Lease. A watch counts from its start.
fn requests(cluster: &Cluster, installed: &Installed, ns: &str) -> Vec<Value> {
    let text = fs::read_to_string(cluster.audit_log()).unwrap();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ours = |event: &Value| {
        let namespace = event["objectRef"]["namespace"].as_str().unwrap_or_default();
        event["user"]["username"] == installed.user.as_str() && ["", "default", ns].contains(&namespace)
    };
    events.filter(ours).filter(|event| event["objectRef"].is_object()).collect()
}
