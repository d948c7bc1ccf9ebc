//! The candidate of a group's pods: its condition in the status, and the request to replace it. There is no node: the
//! test plays the kubelet, and a status that records another image stands for an upgrade of the operator.

use std::time::Duration;

use k8sensus_local::Cluster;
use serde_json::{Value, json};

use super::rollout::Play;
use crate::support::{
    Program, apply, candidate_command, condition, control_plane, get, group, kubectl, namespace, operated, operator,
    within,
};

const OWN_IMAGE: &str = "localhost/k8sensus:dev";
const OTHER_IMAGE: &str = "localhost/k8sensus:other";

fn electiongroup(cluster: &Cluster, ns: &str, name: &str) -> Value {
    get(cluster, ns, &format!("electiongroup/{name}")).expect("the group")
}

/// Records another injection in the status, as another operator would.
fn record(cluster: &Cluster, ns: &str, name: &str, injection: &Value) {
    let patch = json!({ "status": { "injection": injection } }).to_string();
    kubectl(cluster, &["patch", "-n", ns, "electiongroup", name, "--subresource=status", "--type=merge", "-p", &patch]);
}

fn request(cluster: &Cluster, ns: &str, name: &str, value: &str) {
    let annotation = format!("k8sensus.dev/update-candidate-requested-at={value}");
    kubectl(cluster, &["annotate", "--overwrite", "-n", ns, "electiongroup", name, &annotation]);
}

fn outdated(cluster: &Cluster, ns: &str, name: &str) -> String {
    condition(&electiongroup(cluster, ns, name), "CandidateOutdated")
}

fn becomes(cluster: &Cluster, ns: &str, name: &str, wanted: &str) {
    within(90, &format!("CandidateOutdated {wanted:?} of {name}"), || {
        (outdated(cluster, ns, name) == wanted).then_some(())
    });
}

/// Waits until the pod template has the candidate image `wanted`.
fn template_gets(cluster: &Cluster, ns: &str, name: &str, wanted: &str) {
    within(90, &format!("candidate image {wanted} in {name}"), || {
        let deployment = get(cluster, ns, &format!("deployment/{name}"))?;
        (deployment["spec"]["template"]["spec"]["initContainers"][0]["image"] == wanted).then_some(())
    });
}

fn create_group(cluster: &Cluster, ns: &str, name: &str) {
    apply(cluster, ns, &group(name, json!({}))).unwrap();
    within(90, "the injection in the status", || {
        (electiongroup(cluster, ns, name)["status"]["injection"]["image"] == OWN_IMAGE).then_some(())
    });
}

#[test]
fn request_gives_the_pods_the_operators_candidate() {
    let (cluster, ns) = (operated(), namespace(operated(), "update"));
    let mut created_with_it = group("kestrel", json!({}));
    created_with_it["metadata"]["annotations"] = json!({ "k8sensus.dev/update-candidate-requested-at": "1" });
    apply(cluster, &ns, &created_with_it).unwrap();
    let handled = |value: &str| {
        within(90, &format!("the request {value} to be handled"), || {
            let status = electiongroup(cluster, &ns, "kestrel")["status"].clone();
            (status["lastHandledCandidateUpdateAt"] == value).then_some(status)
        })
    };
    assert_eq!(handled("1")["injection"]["image"], OWN_IMAGE);
    assert_eq!(outdated(cluster, &ns, "kestrel"), "");

    record(cluster, &ns, "kestrel", &json!({ "image": OTHER_IMAGE }));
    template_gets(cluster, &ns, "kestrel", OTHER_IMAGE);
    becomes(cluster, &ns, "kestrel", "True/ImageDiffers");
    request(cluster, &ns, "kestrel", "2");
    assert_eq!(handled("2")["injection"]["image"], OWN_IMAGE);
    template_gets(cluster, &ns, "kestrel", OWN_IMAGE);
    becomes(cluster, &ns, "kestrel", "");
}

#[test]
fn few_groups_at_a_time_replace_their_candidate() {
    let cluster = control_plane();
    let keeper = operator(&cluster, "keeper", &[]);
    keeper.wait_for("starting to reconcile", Duration::from_secs(10));
    let ns = namespace(&cluster, "many");
    let names: Vec<String> = (0..7).map(|number| format!("kestrel-{number}")).collect();
    for name in &names {
        create_group(&cluster, &ns, name);
        let patch = json!({ "spec": { "holderIdentity": "outsider", "leaseDurationSeconds": 3600, "leaseTransitions": 1,
            "renewTime": "2026-01-01T00:00:00.000000Z" } });
        kubectl(&cluster, &["patch", "-n", &ns, "lease", name, "--type=merge", "-p", &patch.to_string()]);
        within(90, "the leader in the status", || {
            (electiongroup(&cluster, &ns, name)["status"]["holderIdentity"] == "outsider").then_some(())
        });
        record(&cluster, &ns, name, &json!({ "image": OTHER_IMAGE }));
    }
    names.iter().for_each(|name| becomes(&cluster, &ns, name, "True/ImageDiffers"));
    for name in &names {
        // Without a pod of the other image, the return to the operator's own would be complete at once. Kubernetes'
        // Deployment controller starts after the API server, so the first groups may have no other pods.
        within(90, &format!("a pod of the other image in {name}"), || {
            let deployment = get(&cluster, &ns, &format!("deployment/{name}"))?;
            let (metadata, status) = (&deployment["metadata"], &deployment["status"]);
            let is_observed = metadata["generation"] == status["observedGeneration"];
            (is_observed && status["updatedReplicas"].as_i64().is_some_and(|updated| updated > 0)).then_some(())
        });
    }
    names.iter().for_each(|name| request(&cluster, &ns, name, "now"));
    let waiting = || -> Vec<&String> {
        names
            .iter()
            .filter(|name| {
                let found = get(&cluster, &ns, &format!("electiongroup/{name}"));
                found.is_some_and(|found| condition(&found, "CandidateOutdated") == "True/UpdatePending")
            })
            .collect()
    };
    let updated = || {
        let image = |name: &String| electiongroup(&cluster, &ns, name)["status"]["injection"]["image"].clone();
        names.iter().filter(|name| image(name) == OWN_IMAGE).count()
    };
    within(90, "five groups to be updated and two to wait", || (updated() == 5 && waiting().len() == 2).then_some(()));
    // No pod becomes ready here, so no group frees its place by itself.
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!((updated(), waiting().len()), (5, 2));
    let first = names.iter().find(|name| !waiting().contains(name)).unwrap();
    kubectl(&cluster, &["delete", "-n", &ns, "electiongroup", first]);
    within(30, "the next group to have its turn", || (waiting().len() == 1).then_some(()));
}

#[test]
fn rollback_of_the_operator_keeps_pods_of_the_newer_one() {
    let (cluster, ns) = (operated(), namespace(operated(), "rollback"));
    create_group(cluster, &ns, "kestrel");
    let deployment = || get(cluster, &ns, "deployment/kestrel").unwrap()["spec"].clone();
    let before = deployment()["template"].clone();
    record(cluster, &ns, "kestrel", &json!({ "image": OTHER_IMAGE, "revision": 99 }));
    becomes(cluster, &ns, "kestrel", "True/InjectionNewer");
    // The group continues, and changes that do not concern its pods take effect.
    apply(cluster, &ns, &group("kestrel", json!({ "replicas": 3 }))).unwrap();
    within(90, "three replicas", || (deployment()["replicas"] == 3).then_some(()));
    assert_eq!(deployment()["template"], before);
    let status = electiongroup(cluster, &ns, "kestrel")["status"].clone();
    assert_eq!((&status["injection"]["image"], &status["injection"]["revision"]), (&json!(OTHER_IMAGE), &json!(99)));

    request(cluster, &ns, "kestrel", "now");
    becomes(cluster, &ns, "kestrel", "");
    assert_eq!(electiongroup(cluster, &ns, "kestrel")["status"]["injection"]["image"], OWN_IMAGE);
    // The operator still owns the fields that it applied before: it removes those that it no longer sets.
    apply(
        cluster,
        &ns,
        &group(
            "kestrel",
            json!({ "replicas": 1, "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 2 } } }),
        ),
    )
    .unwrap();
    within(90, "the strategy", || (deployment()["strategy"]["rollingUpdate"]["maxSurge"] == 2).then_some(()));
    apply(cluster, &ns, &group("kestrel", json!({ "replicas": 1 }))).unwrap();
    within(90, "the default strategy", || {
        (deployment()["strategy"]["rollingUpdate"]["maxSurge"] == "25%").then_some(())
    });
}

#[test]
fn missing_candidate_image_is_replaced_if_no_pod_ever_led() {
    let play = Play::of("gone", json!({ "replicas": 1 }));
    let first = play.new_pods(1, &[]);
    record(play.cluster, &play.ns, "kestrel", &json!({ "image": OTHER_IMAGE }));
    template_gets(play.cluster, &play.ns, "kestrel", OTHER_IMAGE);
    let newer = within(90, "a pod with the other image", || {
        play.all_pods().into_iter().find(|pod| pod["spec"]["initContainers"][0]["image"] == OTHER_IMAGE)
    });
    let newer = newer["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(!first.contains(&newer));
    let waiting = json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } });
    let status = json!({ "name": "k8sensus-install", "image": OTHER_IMAGE, "imageID": "", "ready": false,
        "restartCount": 0, "state": waiting });
    play.report(&newer, &json!({ "phase": "Pending", "initContainerStatuses": [status] }));
    template_gets(play.cluster, &play.ns, "kestrel", OWN_IMAGE);
    assert!(play.wait_for_event("CandidateUpdated").contains(OWN_IMAGE));
}

#[test]
fn leader_with_an_unexpected_version_is_reported_and_stays_ready() {
    let cluster = control_plane();
    let keeper = operator(&cluster, "keeper", &[("K8SENSUS_CANDIDATE_VERSION", "9.9.9")]);
    keeper.wait_for("starting to reconcile", Duration::from_secs(10));
    let ns = namespace(&cluster, "skew");
    apply(&cluster, &ns, &group("kestrel", json!({ "replicas": 1 }))).unwrap();
    let pod = within(90, "the pod", || get(&cluster, &ns, "pods")?["items"].as_array()?.first().cloned());
    let (name, uid) = (pod["metadata"]["name"].as_str().unwrap(), pod["metadata"]["uid"].as_str().unwrap());
    let mut command = candidate_command(&cluster, &ns, "kestrel", name, &["exec", "--", "sleep", "1000"]);
    command.env("POD_UID", uid).env("K8SENSUS_CONTAINER", "app");
    let mut leader = Program::start(name, &mut command);
    let status = within(90, "the candidate in the status", || {
        let status = electiongroup(&cluster, &ns, "kestrel")["status"].clone();
        (status["candidate"]["version"] == env!("CARGO_PKG_VERSION")).then_some(status)
    });
    assert_eq!(status["candidate"]["image"], OWN_IMAGE);
    becomes(&cluster, &ns, "kestrel", "True/VersionDiffers");
    assert_eq!(condition(&electiongroup(&cluster, &ns, "kestrel"), "LeaderElected"), "True/LeaseHeld");
    assert!(leader.terminate(Duration::from_secs(10)).success());
    let lease = within(10, "the release", || {
        get(&cluster, &ns, "lease/kestrel").filter(|lease| lease["spec"]["holderIdentity"] == "")
    });
    assert_eq!(lease["metadata"]["annotations"]["k8sensus.dev/candidate-version"], Value::Null);
    becomes(&cluster, &ns, "kestrel", "");
}
