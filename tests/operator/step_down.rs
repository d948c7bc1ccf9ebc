//! A step-down that is asked for by annotation, against a real API server. The candidates are processes of this machine that
//! campaign under the names of the group's pods; nothing runs these, so the tests say which of them are ready.

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

/// A control plane with an operator whose log can be read.
fn kept() -> &'static (Cluster, Program) {
    static KEPT: OnceLock<(Cluster, Program)> = OnceLock::new();
    KEPT.get_or_init(|| {
        let cluster = control_plane();
        let keeper = operator(&cluster, "keeper", &[]);
        keeper.wait_for("reconciles from now on", SOON);
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
    /// A group of two pods, as yet not ready, of which the first leads.
    fn of(name: &str, manifest: &Value) -> Self {
        let cluster = &kept().0;
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

    /// Waits until the pod of that number is the status' holder.
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

    fn ask(&self, value: &str) {
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

    /// Waits for a line of the operator's about this group.
    fn is_told(&self, text: &str) {
        within(20, &format!("the operator to say {text:?}"), || self.lines(text).first().cloned());
    }

    fn lines(&self, text: &str) -> Vec<String> {
        let group = format!("{}/kestrel", self.ns);
        let log = kept().1.output();
        log.lines().filter(|line| line.contains(&group) && line.contains(text)).map(str::to_owned).collect()
    }
}

#[test]
fn a_new_value_moves_the_leader_once_and_is_acknowledged() {
    let scene = Scene::of("stepdown", &group("kestrel", json!({})));
    (0..2).for_each(|number| scene.set_ready(number));
    assert_eq!(scene.handled(), Value::Null);
    let before = scene.transitions();
    scene.ask("first");
    scene.leads(1);
    scene.wait_until_handled("first");
    scene.programs[0].wait_for("Evicted as leader", Duration::from_secs(1));
    assert_eq!(scene.transitions(), before + 1);
    assert_eq!(scene.get("electiongroup/kestrel")["status"]["leaseTransitions"], before + 1);

    // The same again is nothing new: nobody steps down, nothing is written.
    let start = audit_position(scene.cluster);
    scene.ask("first");
    kubectl(scene.cluster, &["label", "-n", &scene.ns, "electiongroup/kestrel", "colour=red"]);
    std::thread::sleep(Duration::from_secs(4));
    let by_the_operator = |event: &Value| {
        let agent = event["userAgent"].as_str().unwrap_or_default();
        let candidate = event["objectRef"]["resource"] == "leases" && event["verb"] == "update";
        event["objectRef"]["namespace"] == scene.ns.as_str() && !agent.starts_with("kube") && !candidate
    };
    assert_eq!(writes_since(scene.cluster, start, by_the_operator), Vec::<String>::new());
    scene.leads(1);
    assert_eq!(scene.transitions(), before + 1);

    scene.ask("second");
    scene.leads(0);
    scene.wait_until_handled("second");
    assert_eq!(scene.transitions(), before + 2);
    // Nobody heeds what still stands on the Lease.
    std::thread::sleep(Duration::from_secs(4));
    scene.leads(0);
    assert_eq!(scene.transitions(), before + 2);
    assert_eq!(scene.lines("StepDownRequested").len(), 2);
}

#[test]
fn without_a_ready_standby_it_is_refused_until_there_is_one() {
    let scene = Scene::of("alone", &group("kestrel", json!({})));
    scene.ask("in-vain");
    scene.is_told("StepDownRefused: no standby is ready to follow");
    // Withdrawn: what was only pending will not come any more.
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
    scene.ask("patient");
    within(10, "the second refusal", || (scene.lines("StepDownRefused").len() == 2).then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    scene.leads(0);
    assert_eq!(scene.handled(), Value::Null);
    scene.set_ready(1);
    scene.leads(1);
    scene.wait_until_handled("patient");
    assert_eq!(scene.lines("StepDownRefused").len(), 2, "it is said once");
}

#[test]
fn a_paused_group_waits_and_a_value_from_its_manifest_deposes_nobody() {
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
    scene.ask("later");
    scene.is_told("StepDownPending: spec.paused is true");
    scene.leads(0);
    assert_eq!(scene.handled(), "restored");
    pause(false);
    scene.leads(1);
    scene.wait_until_handled("later");
}

#[test]
fn a_native_leader_is_evicted_when_its_disruption_budget_permits() {
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
    scene.ask("drained");
    scene.is_told("StepDownPending: cannot evict pod");
    let told = scene.lines("StepDownPending").remove(0);
    assert!(told.contains("disruption budget"), "{told}");
    let leader = format!("pod/{}", scene.pods[0]);
    assert_eq!(scene.get(&leader)["metadata"]["deletionTimestamp"], Value::Null);
    assert_eq!(scene.handled(), Value::Null);

    let permitted = json!({ "spec": { "podDisruptionBudget": { "maxUnavailable": 1 } } }).to_string();
    kubectl(scene.cluster, &["patch", "-n", &scene.ns, "elg/kestrel", "--type=merge", "-p", &permitted]);
    within(20, "the eviction", || get(scene.cluster, &scene.ns, &leader).is_none().then_some(()));
    // What the kubelet would do.
    let leader = &mut scene.programs[0];
    assert!(!leader.says("Evicted as leader"), "a Native leader must not heed the mark");
    leader.terminate(SOON);
    scene.leads(1);
    scene.wait_until_handled("drained");
    assert_eq!(scene.lines("was evicted").len(), 1);
}

#[test]
fn an_unhealthy_native_leader_is_evicted_though_it_could_not_be_at_first() {
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
    // The API server evicts no pod that has two budgets.
    let second = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "second" },
        "spec": { "maxUnavailable": 1, "selector": { "matchLabels": { "k8sensus.dev/group": "kestrel" } } },
    });
    apply(scene.cluster, &scene.ns, &second).unwrap();
    let leader = format!("pod/{}", scene.pods[0]);
    let unready = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"False"}]}}"#;
    kubectl(scene.cluster, &["patch", "-n", &scene.ns, &leader, "--subresource=status", "--type=merge", "-p", unready]);
    scene.set_ready(1);
    scene.is_told("StepDownPending: cannot evict pod");
    kubectl(scene.cluster, &["delete", "-n", &scene.ns, "pdb/second"]);
    within(25, "the eviction", || get(scene.cluster, &scene.ns, &leader).is_none().then_some(()));
}

#[test]
fn an_operator_that_starts_anew_goes_on_with_what_was_asked() {
    let cluster = control_plane();
    let mut keeper = operator(&cluster, "keeper", &[]);
    keeper.wait_for("reconciles from now on", SOON);
    let ns = namespace(&cluster, "anew");
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
    // As an operator leaves it that dies right after its first write.
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
    keeper.wait_for("the leader that was asked leads no more: heron does", SOON);
    std::thread::sleep(Duration::from_secs(4));
    holder("heron");
    assert_eq!(get(&cluster, &ns, "lease/kestrel").unwrap()["spec"]["leaseTransitions"], 2);
}
