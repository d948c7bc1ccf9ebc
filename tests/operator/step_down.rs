//! Step-downs by annotation, against a real API server. The candidates are processes of this machine that campaign
//! under the names of the group's pods. No kubelet runs these pods, so the tests report which of them are ready.

use std::sync::OnceLock;
use std::time::Duration;

use k8sensus_local::Cluster;
use serde_json::{Value, json};

use crate::support::{
    Program, apply, audit_position, candidate, control_plane, get, group, kubectl, namespace, operator, within,
    writes_since,
};

const REQUEST: &str = "k8sensus.dev/step-down-requested-at";
const SOON: Duration = Duration::from_secs(10);

/// Returns a control plane with an operator, for its log.
fn shared_operator() -> &'static (Cluster, Program) {
    static SHARED: OnceLock<(Cluster, Program)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let cluster = control_plane();
        let keeper = operator(&cluster, "keeper", &[]);
        keeper.wait_for("starting to reconcile", SOON);
        (cluster, keeper)
    })
}

struct Scene {
    ns: String,
    cluster: &'static Cluster,
    pods: Vec<String>,
    programs: Vec<Program>,
}

impl Scene {
    /// Creates a group of two pods, which are not ready yet. The first one leads.
    fn of(name: &str, manifest: &Value) -> Self {
        let cluster = &shared_operator().0;
        let ns = namespace(cluster, name);
        apply(cluster, &ns, manifest).unwrap();
        let pods = within(20, "two pods", || {
            let pods = get(cluster, &ns, "pods")?["items"].as_array()?.clone();
            let names: Vec<String> =
                pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect();
            (names.len() == 2).then_some(names)
        });
        let mut scene = Self { ns, cluster, pods, programs: Vec::new() };
        for number in 0..2 {
            let pod = scene.pods[number].clone();
            scene.programs.push(candidate(cluster, &scene.ns, "kestrel", &pod, &["--create-lease=false"]));
            scene.leads(0);
        }
        scene
    }

    fn get(&self, what: &str) -> Value {
        get(self.cluster, &self.ns, what).unwrap_or_else(|| panic!("no {what}"))
    }

    /// Waits until the status names the pod of that number as holder.
    fn leads(&self, number: usize) {
        within(15, &format!("{} in the status", self.pods[number]), || {
            let group = get(self.cluster, &self.ns, "electiongroup/kestrel")?;
            (group["status"]["holderIdentity"] == self.pods[number].as_str()).then_some(())
        });
    }

    fn set_ready(&self, number: usize) {
        let status = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;
        let pod = format!("pod/{}", self.pods[number]);
        kubectl(self.cluster, &["patch", "-n", &self.ns, &pod, "--subresource=status", "--type=merge", "-p", status]);
    }

    fn request(&self, value: &str) {
        let annotation = format!("{REQUEST}={value}");
        kubectl(self.cluster, &["annotate", "-n", &self.ns, "electiongroup/kestrel", &annotation, "--overwrite"]);
    }

    fn handled(&self) -> Value {
        self.get("electiongroup/kestrel")["status"]["lastHandledStepDownAt"].clone()
    }

    fn wait_until_handled(&self, value: &str) {
        within(15, &format!("{value} to be handled"), || (self.handled() == value).then_some(()));
    }

    fn transitions(&self) -> i64 {
        self.get("lease/kestrel")["spec"]["leaseTransitions"].as_i64().unwrap()
    }

    /// Waits until the operator logs a line about this group that contains `text`.
    fn wait_for_log(&self, text: &str) {
        within(20, &format!("the operator to log {text:?}"), || self.lines(text).first().cloned());
    }

    fn lines(&self, text: &str) -> Vec<String> {
        let group = format!("{}/kestrel", self.ns);
        let log = shared_operator().1.output();
        log.lines().filter(|line| line.contains(&group) && line.contains(text)).map(str::to_owned).collect()
    }
}

#[test]
fn new_value_moves_the_leader_once_and_is_acknowledged() {
    let scene = Scene::of("stepdown", &group("kestrel", json!({})));
    (0..2).for_each(|number| scene.set_ready(number));
    assert_eq!(scene.handled(), Value::Null);
    let before = scene.transitions();
    scene.request("first");
    scene.leads(1);
    scene.wait_until_handled("first");
    scene.programs[0].wait_for("Evicted as leader", Duration::from_secs(1));
    assert_eq!(scene.transitions(), before + 1);
    assert_eq!(scene.get("electiongroup/kestrel")["status"]["leaseTransitions"], before + 1);

    // The same value again causes no step-down and no write. Events are written a moment after what they report.
    let by_the_operator = |event: &Value| {
        let agent = event["userAgent"].as_str().unwrap_or_default();
        let candidate = event["objectRef"]["resource"] == "leases" && event["verb"] == "update";
        event["objectRef"]["namespace"] == scene.ns.as_str() && !agent.starts_with("kube") && !candidate
    };
    let start = within(20, "a second without a write", || {
        let start = audit_position(scene.cluster);
        std::thread::sleep(Duration::from_secs(1));
        writes_since(scene.cluster, start, by_the_operator).is_empty().then_some(start)
    });
    scene.request("first");
    kubectl(scene.cluster, &["label", "-n", &scene.ns, "electiongroup/kestrel", "colour=red"]);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(writes_since(scene.cluster, start, by_the_operator), Vec::<String>::new());
    scene.leads(1);
    assert_eq!(scene.transitions(), before + 1);

    scene.request("second");
    scene.leads(0);
    scene.wait_until_handled("second");
    assert_eq!(scene.transitions(), before + 2);
    // The request that remains on the Lease has no further effect.
    std::thread::sleep(Duration::from_secs(4));
    scene.leads(0);
    assert_eq!(scene.transitions(), before + 2);
    assert_eq!(scene.lines("StepDownRequested").len(), 2);
}

#[test]
fn step_down_is_refused_without_a_ready_standby() {
    let scene = Scene::of("alone", &group("kestrel", json!({})));
    scene.request("in-vain");
    scene.wait_for_log("StepDownRefused: no standby is ready to follow");
    // The request is withdrawn: a pending one is never carried out.
    kubectl(scene.cluster, &["annotate", "-n", &scene.ns, "electiongroup/kestrel", &format!("{REQUEST}-")]);
    (0..2).for_each(|number| scene.set_ready(number));
    std::thread::sleep(Duration::from_secs(2));
    scene.leads(0);
    assert_eq!(scene.handled(), Value::Null);

    let unready = r#"{"status":{"conditions":[{"type":"Ready","status":"False"}]}}"#;
    let standby = format!("pod/{}", scene.pods[1]);
    let patch = ["patch", "-n", &scene.ns, &standby, "--subresource=status", "--type=merge", "-p", unready];
    kubectl(scene.cluster, &patch);
    within(10, "one ready pod", || {
        let (deployment, group) = (scene.get("deployment/kestrel"), scene.get("electiongroup/kestrel"));
        (deployment["status"]["readyReplicas"] == 1 && group["status"]["readyReplicas"] == 1).then_some(())
    });
    scene.request("patient");
    within(10, "the second refusal", || (scene.lines("StepDownRefused").len() == 2).then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    scene.leads(0);
    assert_eq!(scene.handled(), Value::Null);
    scene.set_ready(1);
    scene.leads(1);
    scene.wait_until_handled("patient");
    assert_eq!(scene.lines("StepDownRefused").len(), 2, "it is logged once");
}

#[test]
fn step_down_waits_while_paused_and_ignores_a_value_from_the_manifest() {
    let mut manifest = group("kestrel", json!({}));
    manifest["metadata"]["annotations"] = json!({ REQUEST: "restored" });
    let scene = Scene::of("paused", &manifest);
    scene.wait_until_handled("restored");
    (0..2).for_each(|number| scene.set_ready(number));
    let pause = |paused: bool| {
        let patch = json!({ "spec": { "paused": paused } }).to_string();
        kubectl(scene.cluster, &["patch", "-n", &scene.ns, "electiongroup/kestrel", "--type=merge", "-p", &patch]);
    };
    pause(true);
    scene.request("later");
    scene.wait_for_log("StepDownPending: spec.paused is true");
    scene.leads(0);
    assert_eq!(scene.handled(), "restored");
    pause(false);
    scene.leads(1);
    scene.wait_until_handled("later");
}

#[test]
fn native_leader_is_evicted_once_its_disruption_budget_permits() {
    let container = json!({ "name": "app", "image": "registry.example/kestrel:1" });
    let mut manifest = group(
        "kestrel",
        json!({
            "candidate": { "mode": "Native" },
            "template": { "spec": { "containers": [container] } },
            "podDisruptionBudget": { "maxUnavailable": 0 },
        }),
    );
    for field in ["image", "command"] {
        manifest["spec"].as_object_mut().unwrap().remove(field);
    }
    let mut scene = Scene::of("native", &manifest);
    (0..2).for_each(|number| scene.set_ready(number));
    within(10, "the budget to be counted", || {
        (scene.get("pdb/kestrel")["status"]["currentHealthy"] == 2).then_some(())
    });
    scene.request("drained");
    scene.wait_for_log("StepDownPending: cannot evict pod");
    let line = scene.lines("StepDownPending").remove(0);
    assert!(line.contains("disruption budget"), "{line}");
    let leader = format!("pod/{}", scene.pods[0]);
    assert_eq!(scene.get(&leader)["metadata"]["deletionTimestamp"], Value::Null);
    assert_eq!(scene.handled(), Value::Null);

    let permitted = json!({ "spec": { "podDisruptionBudget": { "maxUnavailable": 1 } } }).to_string();
    kubectl(scene.cluster, &["patch", "-n", &scene.ns, "elg/kestrel", "--type=merge", "-p", &permitted]);
    within(20, "the eviction", || get(scene.cluster, &scene.ns, &leader).is_none().then_some(()));
    // As the kubelet does.
    let leader = &mut scene.programs[0];
    assert!(!leader.says("Evicted as leader"), "a Native leader must not react to the request on the Lease");
    leader.terminate(SOON);
    scene.leads(1);
    scene.wait_until_handled("drained");
    assert_eq!(scene.lines("was evicted").len(), 1);
}

#[test]
fn eviction_of_an_unhealthy_native_leader_is_retried() {
    let container = json!({ "name": "app", "image": "registry.example/kestrel:1" });
    let mut manifest = group(
        "kestrel",
        json!({
            "candidate": { "mode": "Native", "unhealthyTimeoutSeconds": 2 },
            "template": { "spec": { "containers": [container] } },
        }),
    );
    for field in ["image", "command"] {
        manifest["spec"].as_object_mut().unwrap().remove(field);
    }
    let scene = Scene::of("stubborn", &manifest);
    // The API server evicts no pod that has two disruption budgets.
    let second = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "second" },
        "spec": { "maxUnavailable": 1, "selector": { "matchLabels": { "k8sensus.dev/group": "kestrel" } } },
    });
    apply(scene.cluster, &scene.ns, &second).unwrap();
    let leader = format!("pod/{}", scene.pods[0]);
    let unready = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"False"}]}}"#;
    kubectl(scene.cluster, &["patch", "-n", &scene.ns, &leader, "--subresource=status", "--type=merge", "-p", unready]);
    scene.set_ready(1);
    scene.wait_for_log("StepDownPending: cannot evict pod");
    kubectl(scene.cluster, &["delete", "-n", &scene.ns, "pdb/second"]);
    within(25, "the eviction", || get(scene.cluster, &scene.ns, &leader).is_none().then_some(()));
}

#[test]
fn restarted_operator_continues_a_requested_step_down() {
    let cluster = control_plane();
    let mut keeper = operator(&cluster, "keeper", &[]);
    keeper.wait_for("starting to reconcile", SOON);
    let ns = namespace(&cluster, "restarted");
    apply(&cluster, &ns, &group("kestrel", json!({}))).unwrap();
    within(20, "the status", || get(&cluster, &ns, "electiongroup/kestrel")?["status"]["observedGeneration"].as_i64());
    let holder = |pod: &str| {
        within(15, &format!("{pod} to lead"), || {
            (get(&cluster, &ns, "lease/kestrel")?["spec"]["holderIdentity"] == pod).then_some(())
        });
    };
    let otter = candidate(&cluster, &ns, "kestrel", "otter", &["--create-lease=false"]);
    holder("otter");
    let heron = candidate(&cluster, &ns, "kestrel", "heron", &["--create-lease=false"]);
    heron.wait_for("New leader is: otter", SOON);
    assert!(keeper.terminate(SOON).success());
    // The state that an operator leaves if it dies right after its first write.
    let lease = get(&cluster, &ns, "lease/kestrel").unwrap();
    let incarnation = lease["metadata"]["annotations"]["k8sensus.dev/incarnation"].as_str().unwrap().to_owned();
    kubectl(&cluster, &["annotate", "-n", &ns, "electiongroup/kestrel", &format!("{REQUEST}=once")]);
    let of = format!("k8sensus.dev/step-down-of=1/{incarnation}");
    kubectl(&cluster, &["annotate", "-n", &ns, "lease/kestrel", &format!("{REQUEST}=once"), &of]);
    holder("heron");
    otter.wait_for("Evicted as leader", SOON);
    let keeper = operator(&cluster, "keeper", &[]);
    within(15, "the acknowledgement", || {
        let group = get(&cluster, &ns, "electiongroup/kestrel")?;
        (group["status"]["lastHandledStepDownAt"] == "once").then_some(())
    });
    keeper.wait_for("the leader that was asked to step down is no longer the leader: heron is", SOON);
    std::thread::sleep(Duration::from_secs(4));
    holder("heron");
    assert_eq!(get(&cluster, &ns, "lease/kestrel").unwrap()["spec"]["leaseTransitions"], 2);
}
