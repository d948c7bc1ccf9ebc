//! A standby follows at once if the kubelet reports the death of the leader's container; without proof it waits. The
//! candidates are processes of this machine, and kubectl plays the kubelet: the operator sees no difference.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Program, apply, candidate_command, get, group, kubectl, namespace, operated, within};

const SOON: Duration = Duration::from_secs(10);
/// Much longer than a reconcile takes.
const A_WHILE: Duration = Duration::from_millis(1_200);

/// Durations so long that no Lease expires in these tests.
const LONG: [(&str, &str); 3] = [
    ("K8SENSUS_LEASE_DURATION_SECONDS", "120"),
    ("K8SENSUS_RENEW_DEADLINE_SECONDS", "80"),
    ("K8SENSUS_RETRY_PERIOD_SECONDS", "5"),
];

/// A group whose leader was killed before it could release the Lease.
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

    /// Reports the pod's status, as a kubelet does.
    fn report(&self, status: &Value) {
        let patch = json!({ "status": status }).to_string();
        let pod = format!("pod/{}", self.pod);
        kubectl(operated(), &["patch", "-n", &self.ns, &pod, "--subresource=status", "--type=merge", "-p", &patch]);
    }

    /// Reports the state of the container `name`, without a last state.
    fn report_container(&self, name: &str, state: &Value) {
        self.report(&json!({ "containerStatuses": [{ "name": name, "state": state, "lastState": {} }] }));
    }

    fn is_held(&self) -> bool {
        self.lease()["spec"]["holderIdentity"] != ""
    }

    /// Asserts that the Lease stays held for [`A_WHILE`].
    fn assert_stays_held(&self, why: &str) {
        std::thread::sleep(A_WHILE);
        assert!(self.is_held(), "released: {why}");
    }

    fn wait_for_release(&self, why: &str) {
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
fn reported_death_releases_the_lease_and_a_standby_acquires_it_at_once() {
    let led = Led::by("reported", json!({}));
    kubectl(operated(), &["annotate", "-n", &led.ns, "lease/kestrel", "example.com/note=kept"]);
    let before = led.lease();
    led.report_container("app", &led.proof());
    led.wait_for_release("the kubelet reports the end of that very container");
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
    led.assert_stays_held("the old report says nothing of the new leader");
}

#[test]
fn death_of_a_restarted_container_is_also_a_proof() {
    let led = Led::by("again", json!({}));
    // It restarts in the same pod, under the same name, before the operator observes anything.
    let again = led.candidate(&led.pod, &led.uid);
    again.wait_for(&format!("attempting to acquire leader lease {}/kestrel", led.ns), SOON);
    let running = json!({ "running": {} });
    led.report(&json!({ "containerStatuses": [{ "name": "app", "restartCount": 1, "state": running, "lastState": led.proof() }] }));
    again.wait_for("leading with fencing token", SOON);
    assert_ne!(led.lease()["metadata"]["annotations"]["k8sensus.dev/incarnation"], led.incarnation.as_str());
    led.report(&json!({ "phase": "Running" }));
    led.assert_stays_held("its own incarnation is alive");
}

#[test]
fn lease_is_not_released_without_proof() {
    let led = Led::by("unproved", json!({}));
    led.report(&json!({ "phase": "Failed", "reason": "Evicted", "message": led.incarnation }));
    led.assert_stays_held("phase Failed");
    let unready = json!({ "type": "Ready", "status": "False", "reason": "PodFailed", "message": led.incarnation });
    led.report(&json!({ "phase": "Running", "conditions": [unready] }));
    led.assert_stays_held("not ready");
    led.report_container("app", &terminated("", "Error"));
    led.assert_stays_held("terminated without a message");
    led.report_container("app", &terminated("out of orders", "Error"));
    led.assert_stays_held("the program's own message");
    led.report_container("app", &terminated(&led.incarnation, "ContainerStatusUnknown"));
    led.assert_stays_held("ContainerStatusUnknown");
    led.report_container("proxy", &led.proof());
    led.assert_stays_held("another container's status");
    led.report_container("proxy", &terminated(&led.incarnation.replace("/app/", "/proxy/"), "Error"));
    led.assert_stays_held("another container's end");
    led.report_container("app", &terminated(&led.incarnation.replace(&led.uid, "77f0f3a4-9a3c"), "Error"));
    led.assert_stays_held("another pod's");
    let (place, nonce) = led.incarnation.rsplit_once('/').unwrap();
    let other_nonce: String = nonce.chars().rev().map(|digit| if digit == '0' { '1' } else { '0' }).collect();
    led.report_container("app", &terminated(&format!("{place}/{other_nonce}"), "Error"));
    led.assert_stays_held("another start of that container");
    led.report_container("app", &json!({ "waiting": { "reason": "CrashLoopBackOff", "message": led.incarnation } }));
    led.assert_stays_held("a state other than terminated");

    // The report would be a proof, but another candidate holds the Lease.
    led.patch_lease(&json!({ "spec": { "holderIdentity": "heron" } }));
    led.report_container("app", &led.proof());
    led.assert_stays_held("held by another candidate, which left the annotation");
    led.patch_lease(&json!({
        "metadata": { "annotations": { "k8sensus.dev/incarnation": null } },
        "spec": { "holderIdentity": led.pod },
    }));
    led.assert_stays_held("no incarnation");
    led.patch_lease(&json!({ "metadata": { "annotations": { "k8sensus.dev/incarnation": led.incarnation } } }));
    led.wait_for_release("the same report proves the death of the present holder");
}

#[test]
fn deleted_pod_releases_nothing() {
    let led = Led::by("deleted", json!({}));
    kubectl(operated(), &["delete", "-n", &led.ns, "pod", &led.pod, "--grace-period=0", "--force"]);
    within(10, "the pod to be gone", || get(operated(), &led.ns, &format!("pod/{}", led.pod)).is_none().then_some(()));
    led.assert_stays_held("an absent pod");
}

#[test]
fn lease_of_a_paused_group_is_left_alone() {
    let led = Led::by("paused", json!({}));
    led.patch_group(&json!({ "paused": true }));
    within(10, "the pause to be observed", || {
        let group = get(operated(), &led.ns, "electiongroup/kestrel")?;
        (group["status"]["observedGeneration"] == group["metadata"]["generation"]).then_some(())
    });
    led.report_container("app", &led.proof());
    led.assert_stays_held("the group is paused");
    led.patch_group(&json!({ "paused": false }));
    led.wait_for_release("the pause is over");
}

#[test]
fn lease_of_a_native_group_is_left_alone() {
    let led = Led::by("native", json!({ "candidate": { "mode": "Native" } }));
    led.report_container("app", &led.proof());
    led.assert_stays_held("mode Native: the operator does not know the program's processes");
}
