//! A leader whose container the kubelet reported dead is followed at once; whatever proves less has to wait. The candidates
//! are processes of this machine, and the kubelet is kubectl: the operator cannot tell.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Program, apply, candidate_command, get, group, kubectl, namespace, operated, within};

const SOON: Duration = Duration::from_secs(10);
/// Longer than a reconcile takes, by far.
const A_WHILE: Duration = Duration::from_millis(1_200);

/// So long that nothing in these tests runs out.
const LONG: [(&str, &str); 3] = [
    ("K8SENSUS_LEASE_DURATION_SECONDS", "120"),
    ("K8SENSUS_RENEW_DEADLINE_SECONDS", "80"),
    ("K8SENSUS_RETRY_PERIOD_SECONDS", "5"),
];

/// A group whose leader was killed and could tell nobody.
struct Led {
    ns: String,
    pod: String,
    uid: String,
    incarnation: String,
}

impl Led {
    fn by(name: &str, more: Value) -> Self {
        let ns = namespace(operated(), name);
        let mut spec = json!({
            "replicas": 1,
            "election": { "leaseDurationSeconds": 120, "renewDeadlineSeconds": 80, "retryPeriodSeconds": 5 },
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        apply(operated(), &ns, &group("kestrel", spec)).unwrap();
        let pod = within(20, "a pod", || get(operated(), &ns, "pods")?["items"].get(0).cloned());
        let text = |field: &str| pod["metadata"][field].as_str().unwrap().to_owned();
        let mut led = Self { ns, pod: text("name"), uid: text("uid"), incarnation: String::new() };
        let leader = led.candidate(&led.pod, &led.uid);
        leader.wait_for("leading with fencing token", SOON);
        led.incarnation =
            led.lease()["metadata"]["annotations"]["k8sensus.dev/incarnation"].as_str().unwrap().to_owned();
        leader.signal(Signal::KILL);
        led
    }

    fn candidate(&self, pod: &str, uid: &str) -> Program {
        let arguments = ["exec", "--create-lease=false", "--", "/bin/sleep", "1000"];
        let mut command = candidate_command(operated(), &self.ns, "kestrel", pod, &arguments);
        command.env("POD_UID", uid).env("K8SENSUS_CONTAINER", "app").envs(LONG);
        Program::start(pod, &mut command)
    }

    fn lease(&self) -> Value {
        get(operated(), &self.ns, "lease/kestrel").unwrap()
    }

    fn patch_lease(&self, patch: &Value) {
        kubectl(operated(), &["patch", "-n", &self.ns, "lease/kestrel", "--type=merge", "-p", &patch.to_string()]);
    }

    fn patch_group(&self, spec: &Value) {
        let patch = json!({ "spec": spec }).to_string();
        kubectl(operated(), &["patch", "-n", &self.ns, "electiongroup/kestrel", "--type=merge", "-p", &patch]);
    }

    /// Reports `status` as the pod's, as a kubelet does.
    fn report(&self, status: &Value) {
        let patch = json!({ "status": status }).to_string();
        let pod = format!("pod/{}", self.pod);
        kubectl(operated(), &["patch", "-n", &self.ns, &pod, "--subresource=status", "--type=merge", "-p", &patch]);
    }

    /// Reports the container `name` in a state, with nothing before it.
    fn report_container(&self, name: &str, state: &Value) {
        self.report(&json!({ "containerStatuses": [{ "name": name, "state": state, "lastState": {} }] }));
    }

    fn is_held(&self) -> bool {
        self.lease()["spec"]["holderIdentity"] != ""
    }

    /// After what was done just now.
    fn stays_held(&self, why: &str) {
        std::thread::sleep(A_WHILE);
        assert!(self.is_held(), "released: {why}");
    }

    fn is_released(&self, why: &str) {
        within(5, &format!("the release: {why}"), || (!self.is_held()).then_some(()));
    }

    fn proof(&self) -> Value {
        terminated(&format!("{}\n", self.incarnation), "Error")
    }
}

fn terminated(message: &str, reason: &str) -> Value {
    json!({ "terminated": { "exitCode": 137, "reason": reason, "message": message } })
}

#[test]
fn a_reported_death_frees_the_lease_and_a_standby_takes_it_at_once() {
    let led = Led::by("reported", json!({}));
    kubectl(operated(), &["annotate", "-n", &led.ns, "lease/kestrel", "example.com/note=kept"]);
    let before = led.lease();
    led.report_container("app", &led.proof());
    led.is_released("the kubelet reports the end of that very container");
    let after = led.lease();
    assert_eq!(after["spec"]["leaseDurationSeconds"], 1);
    assert_eq!(after["spec"]["leaseTransitions"], before["spec"]["leaseTransitions"]);
    assert_eq!(after["spec"]["renewTime"], after["spec"]["acquireTime"]);
    assert_ne!(after["spec"]["renewTime"], before["spec"]["renewTime"]);
    assert_eq!(after["metadata"]["annotations"], json!({ "example.com/note": "kept" }));
    assert_eq!(after["metadata"]["labels"], before["metadata"]["labels"]);
    assert_eq!(after["metadata"]["ownerReferences"], before["metadata"]["ownerReferences"]);

    let leader = led.candidate("heron", "another-pod");
    leader.wait_for("leading with fencing token", SOON);
    assert_eq!(led.lease()["spec"]["leaseTransitions"], 2);
    led.report(&json!({ "phase": "Failed" }));
    led.stays_held("the old report says nothing of the new leader");
}

#[test]
fn the_death_of_a_container_that_runs_again_is_a_proof_too() {
    let led = Led::by("again", json!({}));
    // It comes up again in the same pod, under the same name, before the operator has seen anything.
    let again = led.candidate(&led.pod, &led.uid);
    again.wait_for(&format!("attempting to acquire leader lease {}/kestrel", led.ns), SOON);
    let running = json!({ "running": {} });
    led.report(&json!({ "containerStatuses": [{ "name": "app", "restartCount": 1, "state": running, "lastState": led.proof() }] }));
    again.wait_for("leading with fencing token", SOON);
    assert_ne!(led.lease()["metadata"]["annotations"]["k8sensus.dev/incarnation"], led.incarnation.as_str());
    led.report(&json!({ "phase": "Running" }));
    led.stays_held("its own start is alive");
}

#[test]
fn what_is_no_proof_frees_nothing() {
    let led = Led::by("unproved", json!({}));
    led.report(&json!({ "phase": "Failed", "reason": "Evicted", "message": led.incarnation }));
    led.stays_held("phase Failed");
    let unready = json!({ "type": "Ready", "status": "False", "reason": "PodFailed", "message": led.incarnation });
    led.report(&json!({ "phase": "Running", "conditions": [unready] }));
    led.stays_held("not ready");
    led.report_container("app", &terminated("", "Error"));
    led.stays_held("terminated without a message");
    led.report_container("app", &terminated("out of orders", "Error"));
    led.stays_held("the program's own message");
    led.report_container("app", &terminated(&led.incarnation, "ContainerStatusUnknown"));
    led.stays_held("ContainerStatusUnknown");
    led.report_container("proxy", &led.proof());
    led.stays_held("another container's status");
    led.report_container("proxy", &terminated(&led.incarnation.replace("/app/", "/proxy/"), "Error"));
    led.stays_held("another container's end");
    led.report_container("app", &terminated(&led.incarnation.replace(&led.uid, "77f0f3a4-9a3c"), "Error"));
    led.stays_held("another pod's");
    let (place, nonce) = led.incarnation.rsplit_once('/').unwrap();
    let other_nonce: String = nonce.chars().rev().map(|digit| if digit == '0' { '1' } else { '0' }).collect();
    led.report_container("app", &terminated(&format!("{place}/{other_nonce}"), "Error"));
    led.stays_held("another start of that container");
    led.report_container("app", &json!({ "waiting": { "reason": "CrashLoopBackOff", "message": led.incarnation } }));
    led.stays_held("not said to be terminated");

    // All that keeps it from being a proof is who holds the Lease.
    led.patch_lease(&json!({ "spec": { "holderIdentity": "heron" } }));
    led.report_container("app", &led.proof());
    led.stays_held("held by another, who left the annotation");
    led.patch_lease(&json!({
        "metadata": { "annotations": { "k8sensus.dev/incarnation": null } },
        "spec": { "holderIdentity": led.pod },
    }));
    led.stays_held("no incarnation");
    led.patch_lease(&json!({ "metadata": { "annotations": { "k8sensus.dev/incarnation": led.incarnation } } }));
    led.is_released("the proof was good but for the Lease");
}

#[test]
fn a_deleted_pod_frees_nothing() {
    let led = Led::by("deleted", json!({}));
    kubectl(operated(), &["delete", "-n", &led.ns, "pod", &led.pod, "--grace-period=0", "--force"]);
    within(10, "the pod to be gone", || get(operated(), &led.ns, &format!("pod/{}", led.pod)).is_none().then_some(()));
    led.stays_held("an absent pod");
}

#[test]
fn a_paused_group_is_left_alone() {
    let led = Led::by("paused", json!({}));
    led.patch_group(&json!({ "paused": true }));
    within(10, "the pause to be seen", || {
        let group = get(operated(), &led.ns, "electiongroup/kestrel")?;
        (group["status"]["observedGeneration"] == group["metadata"]["generation"]).then_some(())
    });
    led.report_container("app", &led.proof());
    led.stays_held("the group is paused");
    led.patch_group(&json!({ "paused": false }));
    led.is_released("the pause is over");
}

#[test]
fn a_group_that_elects_by_itself_is_left_alone() {
    let led = Led::by("native", json!({ "candidate": { "mode": "Native" } }));
    led.report_container("app", &led.proof());
    led.stays_held("mode Native: nothing is known of the program's processes");
}
