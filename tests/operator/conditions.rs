//! Each condition with each of its reasons, on a real API server with its Deployment controller. There is no kubelet:
//! the tests bind the pods to nodes that do not exist and report them Ready. `refusals` tests Stalled with reason
//! Forbidden, with an operator of its own.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use k8sensus_local::Cluster;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::group::conditions::kstatus;
use crate::support::{apply, candidate, condition, get, group, kubectl, namespace, operated, unusable, within};

/// The group of one test.
struct Stage {
    cluster: &'static Cluster,
    ns: String,
}

impl Stage {
    fn new(name: &str) -> Self {
        let cluster = operated();
        Self { cluster, ns: namespace(cluster, name) }
    }

    fn apply(&self, more: Value) {
        apply(self.cluster, &self.ns, &group("kestrel", more)).unwrap();
    }

    fn group(&self) -> Value {
        get(self.cluster, &self.ns, "electiongroup/kestrel").unwrap()
    }

    /// Waits until each of these conditions has that `status/reason`; empty if it is absent.
    fn shows(&self, wanted: &[(&str, &str)]) -> Value {
        let mut last = Value::Null;
        let start = std::time::Instant::now();
        loop {
            let group = self.group();
            let observed = group["status"]["observedGeneration"] == group["metadata"]["generation"];
            if observed && wanted.iter().all(|(kind, says)| condition(&group, kind) == *says) {
                return group;
            }
            assert!(start.elapsed() < Duration::from_secs(25), "{wanted:?} not within 25 s: {:#}", last["status"]);
            last = group;
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until `number` pods are not being deleted. Returns their names.
    fn pods(&self, number: usize) -> Vec<String> {
        within(20, &format!("{number} pods"), || {
            let pods = get(self.cluster, &self.ns, "pods")?["items"].clone();
            let live = pods.as_array()?.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
            let names: Vec<String> = live.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect();
            (names.len() == number).then_some(names)
        })
    }

    /// Returns the name of a node of this test.
    fn node(&self, name: &str) -> String {
        let name = format!("{}-{name}", self.ns);
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } });
        apply(self.cluster, &self.ns, &node).unwrap();
        name
    }

    fn bind(&self, pod: &str, node: &str) {
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": { "name": pod },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        });
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/binding", self.ns);
        let mut kubectl = self.cluster.kubectl();
        let command = kubectl.args(["create", "--raw", &path, "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(binding.to_string().as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    fn report_ready(&self, pod: &str, ip: &str) {
        let status = json!({ "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
            "conditions": [{ "type": "Ready", "status": "True" }, { "type": "ContainersReady", "status": "True" }],
        } });
        let patch = ["patch", "-n", &self.ns, "pod", pod, "--subresource=status", "-p", &status.to_string()];
        kubectl(self.cluster, &patch);
    }

    fn wait_for(&self, what: &str) {
        kubectl(self.cluster, &["wait", "-n", &self.ns, "--timeout=20s", what, "electiongroup/kestrel"]);
    }
}

#[test]
fn conditions_follow_a_group_from_its_first_pod_to_its_last() {
    let stage = Stage::new("followed");
    stage.apply(json!({}));
    let free = [
        ("Ready", "False/NoLeader"),
        ("LeaderElected", "False/LeaseReleased"),
        ("FailoverReady", "False/NoReadyStandby"),
        ("Reconciling", ""),
    ];
    assert_eq!(kstatus(&stage.shows(&free)), "InProgress");

    let pods = stage.pods(2);
    let leader = candidate(stage.cluster, &stage.ns, "kestrel", &pods[0], &["--create-lease=false"]);
    let led = stage.shows(&[("Ready", "False/InsufficientReplicas"), ("LeaderElected", "True/LeaseHeld")]);
    assert_eq!(kstatus(&led), "InProgress");
    assert_eq!(led["status"]["leader"], json!({ "podName": pods[0], "podTemplateHash": template_hash(&pods[0]) }));
    stage.wait_for(&format!("--for=jsonpath={{.status.holderIdentity}}={}", pods[0]));

    let one = stage.node("one");
    for (pod, ip) in pods.iter().zip(["10.9.0.1", "10.9.0.2"]) {
        stage.bind(pod, &one);
        stage.report_ready(pod, ip);
    }
    stage.wait_for("--for=condition=Ready");
    let ready = stage.shows(&[
        ("Ready", "True/LeaderElected"),
        ("FailoverReady", "False/StandbysOnSameNode"),
        ("Reconciling", ""),
        ("Stalled", ""),
    ]);
    assert_eq!(kstatus(&ready), "Current");
    let status = &ready["status"];
    let described =
        json!({ "podName": pods[0], "nodeName": one, "podIP": "10.9.0.1", "podTemplateHash": template_hash(&pods[0]) });
    assert_eq!(status["leader"], described);
    assert_eq!(status["selector"], "k8sensus.dev/group=kestrel");
    let counts = ["replicas", "readyReplicas", "updatedReplicas"].map(|field| status[field].as_i64().unwrap());
    assert_eq!(counts, [2, 2, 2]);

    kubectl(stage.cluster, &["scale", "-n", &stage.ns, "electiongroup/kestrel", "--replicas=3"]);
    let third = stage.pods(3).into_iter().find(|pod| !pods.contains(pod)).unwrap();
    stage.bind(&third, &stage.node("two"));
    stage.report_ready(&third, "10.9.0.3");
    let safe = stage.shows(&[("Ready", "True/LeaderElected"), ("FailoverReady", "True/StandbyReady")]);
    assert_eq!(safe["status"]["readyReplicas"], 3);

    leader.signal(Signal::KILL);
    let lost = stage.shows(&[("Ready", "False/NoLeader"), ("LeaderElected", "False/LeaseExpired")]);
    assert_eq!(lost["status"]["leaderless"]["reason"], "LeaseExpired");
    stage.apply(json!({ "suspend": true }));
    stage.shows(&[("Ready", "False/Suspended"), ("LeaderElected", "False/Suspended")]);
    stage.apply(json!({ "replicas": 0 }));
    stage.shows(&[("LeaderElected", "False/NoCandidates"), ("FailoverReady", "False/SingleReplica")]);
}

/// Returns the pod-template-hash in a pod's name.
fn template_hash(pod: &str) -> &str {
    pod.rsplit('-').nth(1).unwrap()
}

#[test]
fn conditions_report_a_rollout_and_a_stuck_rollout() {
    let stage = Stage::new("rolled");
    stage.apply(json!({ "replicas": 1 }));
    let first = stage.pods(1).remove(0);
    stage.bind(&first, &stage.node("one"));
    stage.report_ready(&first, "10.9.1.1");
    stage.shows(&[("Reconciling", "")]);

    stage.apply(json!({ "replicas": 1, "image": "registry.example/kestrel:2" }));
    // The new pod never becomes Ready, so the old one stays.
    let second = stage.pods(2).into_iter().find(|pod| *pod != first).unwrap();
    let rolling = within(20, "two pods in the status", || {
        Some(stage.group()).filter(|group| group["status"]["replicas"] == 2 && group["status"]["updatedReplicas"] == 1)
    });
    assert_ne!(template_hash(&second), template_hash(&first));
    assert_eq!(condition(&rolling, "Reconciling"), "True/RollingOut");
    assert_eq!(kstatus(&rolling), "InProgress");

    // The Deployment controller gives up. The operator sets a deadline of more than ten minutes; while the group is
    // paused, the test's deadline stays.
    stage.apply(json!({ "replicas": 1, "image": "registry.example/kestrel:2", "paused": true }));
    within(20, "the operator to see that it is paused", || {
        let group = stage.group();
        (group["status"]["observedGeneration"] == group["metadata"]["generation"]).then_some(())
    });
    let patch = r#"{"spec":{"progressDeadlineSeconds":2}}"#;
    kubectl(stage.cluster, &["patch", "-n", &stage.ns, "deployment/kestrel", "-p", patch]);
    let stuck = stage.shows(&[("Stalled", "True/ProgressDeadlineExceeded"), ("Reconciling", "")]);
    assert_eq!(kstatus(&stuck), "Failed");
    stage.report_ready(&second, "10.9.1.2");
    stage.shows(&[("Stalled", "")]);
}

#[test]
fn conditions_report_pods_that_cannot_be_created() {
    let stage = Stage::new("scaled");
    kubectl(stage.cluster, &["create", "quota", "-n", &stage.ns, "one", "--hard=count/pods=1"]);
    stage.apply(json!({}));
    let scaling = stage.shows(&[("Reconciling", "True/Scaling")]);
    assert_eq!(kstatus(&scaling), "InProgress");
    // A change of the template while only one pod may exist.
    stage.pods(1);
    stage.apply(json!({ "image": "registry.example/kestrel:2" }));
    stage.shows(&[("Reconciling", "True/RollingOut")]);
}

#[test]
fn conditions_explain_pods_that_the_api_server_refuses() {
    let privileged = |pod: Value| {
        let app = json!({
            "name": "app", "image": "registry.example/kestrel:1", "securityContext": { "privileged": true },
            "resources": { "limits": { "cpu": "2" } },
        });
        let mut template = json!({ "containers": [app] });
        template.as_object_mut().unwrap().extend(pod.as_object().unwrap().clone());
        json!({ "candidate": { "mode": "Sidecar" }, "template": { "spec": template } })
    };
    let mut account = privileged(json!({}));
    account["serviceAccount"] = json!({ "name": "nobody" });
    let stages = [
        ("quota", privileged(json!({})), "exceeded quota: none, requested: count/pods=1"),
        ("limits", privileged(json!({})), "maximum cpu usage per Container is 1, but limit is 2"),
        ("security", privileged(json!({})), "violates PodSecurity \"baseline:latest\": privileged"),
        ("account", account, "serviceaccount \"nobody\" not found"),
        (
            "priority",
            privileged(json!({ "priorityClassName": "nowhere" })),
            "no PriorityClass with name nowhere was found",
        ),
        ("runtime", privileged(json!({ "runtimeClassName": "nowhere" })), "RuntimeClass \"nowhere\" not found"),
    ];
    let stages = stages.map(|(name, spec, quote)| (Stage::new(name), name, spec, quote));
    for (stage, name, spec, _) in &stages {
        match *name {
            "quota" => {
                kubectl(stage.cluster, &["create", "quota", "-n", &stage.ns, "none", "--hard=count/pods=0"]);
            }
            "limits" => {
                let limits = json!([{ "type": "Container", "max": { "cpu": "1" } }]);
                let range = json!({
                    "apiVersion": "v1", "kind": "LimitRange", "metadata": { "name": "small" }, "spec": { "limits": limits },
                });
                apply(stage.cluster, &stage.ns, &range).unwrap();
            }
            "security" => {
                let level = "pod-security.kubernetes.io/enforce=baseline";
                kubectl(stage.cluster, &["label", "namespace", &stage.ns, level]);
            }
            _ => {}
        }
        let mut group = group("kestrel", spec.clone());
        group["spec"].as_object_mut().unwrap().retain(|field, _| !["image", "command"].contains(&field.as_str()));
        apply(stage.cluster, &stage.ns, &group).unwrap();
    }
    for (stage, name, _, quote) in &stages {
        let message = within(20, &format!("the reason why there are no pods: {name}"), || {
            let group = stage.group();
            let mut conditions = group["status"]["conditions"].as_array()?.iter();
            let ready = conditions.find(|condition| condition["type"] == "Ready")?;
            ready["message"].as_str().filter(|message| message.contains(quote)).map(str::to_owned)
        });
        println!("{name}: {message}");
        assert!(message.contains("; pods cannot be created: FailedCreate: "), "{message}");
    }
}

#[test]
fn refused_spec_is_reported_for_its_own_generation() {
    let stage = Stage::new("generation");
    stage.apply(json!({}));
    let good = stage.shows(&[("Stalled", "")]);
    stage.apply(unusable());
    let bad = stage.shows(&[("Ready", "False/Invalid"), ("Stalled", "True/Invalid"), ("Reconciling", "")]);
    assert_eq!(kstatus(&bad), "Failed");
    let [then, now] = [&good, &bad].map(|group| group["status"]["observedGeneration"].as_i64().unwrap());
    assert_eq!(now, then + 1);
    for condition in bad["status"]["conditions"].as_array().unwrap() {
        assert_eq!(condition["observedGeneration"], now, "{condition}");
    }
    let failed = stage
        .cluster
        .kubectl()
        .args(["wait", "-n", &stage.ns, "--timeout=1s", "--for=condition=Ready"])
        .arg("electiongroup/kestrel")
        .output();
    assert!(!failed.unwrap().status.success(), "it is not ready");
    stage.wait_for("--for=condition=Stalled");
}

#[test]
fn foreign_object_is_reported_as_a_conflict() {
    let stage = Stage::new("foreign");
    kubectl(stage.cluster, &["create", "-n", &stage.ns, "serviceaccount", "kestrel"]);
    stage.apply(json!({}));
    let conflict = stage.shows(&[("Ready", "False/Conflict"), ("Stalled", "True/Conflict"), ("Reconciling", "")]);
    assert_eq!(kstatus(&conflict), "Failed");
}

#[test]
fn repeated_reconciles_do_not_change_conditions() {
    let stage = Stage::new("steady");
    stage.apply(json!({}));
    let leader = candidate(stage.cluster, &stage.ns, "kestrel", "otter", &["--create-lease=false"]);
    stage.shows(&[("LeaderElected", "True/LeaseHeld"), ("Reconciling", "")]);
    leader.signal(Signal::KILL);
    let before = stage.shows(&[("LeaderElected", "False/LeaseExpired")]);
    for colour in ["red", "blue", "green"] {
        kubectl(
            stage.cluster,
            &["label", "-n", &stage.ns, "electiongroup/kestrel", "--overwrite", &format!("colour={colour}")],
        );
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(stage.group()["status"], before["status"]);
}
