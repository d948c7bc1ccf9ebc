//! The rollout of a revision of the pod template, against a real API server with its Deployment controller. The test
//! plays the kubelet and the candidates: it reports which containers are ready, and writes the Lease.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8sensus_local::Cluster;
use serde_json::{Value, json};

use crate::support::{apply, condition, get, group, kubectl, namespace, operated, within};

/// A group whose pods and candidates the test plays.
pub(super) struct Play {
    pub(super) cluster: &'static Cluster,
    pub(super) ns: String,
}

/// A step-down request on the Lease.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) value: String,
    pub(super) to: String,
}

impl Play {
    pub(super) fn of(name: &str, more: Value) -> Self {
        let play = Self { cluster: operated(), ns: namespace(operated(), name) };
        play.apply(more);
        within(20, "the lease", || get(play.cluster, &play.ns, "lease/kestrel"));
        play
    }

    /// Applies the group with a long lease duration, and the fields `more`.
    pub(super) fn apply(&self, more: Value) {
        let mut spec = json!({
            "minReadySeconds": 2,
            "election": { "leaseDurationSeconds": 120, "renewDeadlineSeconds": 80, "retryPeriodSeconds": 5 },
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        apply(self.cluster, &self.ns, &group("kestrel", spec)).unwrap();
    }

    pub(super) fn get(&self, what: &str) -> Value {
        get(self.cluster, &self.ns, what).unwrap_or_else(|| panic!("no {what}"))
    }

    pub(super) fn status(&self) -> Value {
        self.get("electiongroup/kestrel")["status"].clone()
    }

    pub(super) fn all_pods(&self) -> Vec<Value> {
        let list = get(self.cluster, &self.ns, "pods").unwrap_or_default();
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        pods.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect()
    }

    /// Waits for `number` pods that are not in `known`. Returns their names.
    pub(super) fn new_pods(&self, number: usize, known: &[String]) -> Vec<String> {
        within(20, &format!("{number} new pods"), || {
            let names = self.all_pods().iter().map(name_of).filter(|name| !known.contains(name)).collect::<Vec<_>>();
            (names.len() == number).then_some(names)
        })
    }

    pub(super) fn report(&self, pod: &str, status: &Value) {
        let patch = json!({ "status": status }).to_string();
        kubectl(self.cluster, &["patch", "-n", &self.ns, "pod", pod, "--subresource=status", "-p", &patch]);
    }

    /// Reports whether the containers of a pod are ready. The pod is ready if its gate is open as well.
    pub(super) fn containers_are(&self, pod: &str, ready: bool) {
        let is = |yes: bool| if yes { "True" } else { "False" };
        let open = self.is_open(pod);
        let conditions = json!([
            { "type": "ContainersReady", "status": is(ready) },
            { "type": "Ready", "status": is(ready && open) },
        ]);
        self.report(pod, &json!({ "phase": "Running", "conditions": conditions }));
    }

    pub(super) fn is_open(&self, pod: &str) -> bool {
        condition(&self.get(&format!("pod/{pod}")), "k8sensus.dev/proven").starts_with("True/")
    }

    /// Reports the containers as ready, waits until the gate is open, and reports the pod as ready.
    pub(super) fn comes_up(&self, pod: &str) {
        self.containers_are(pod, true);
        within(10, &format!("the gate of {pod}"), || self.is_open(pod).then_some(()));
        self.containers_are(pod, true);
    }

    fn patch_lease(&self, patch: &Value) {
        kubectl(self.cluster, &["patch", "-n", &self.ns, "lease/kestrel", "--type=merge", "-p", &patch.to_string()]);
    }

    /// Acquires the Lease for `pod` and reports whether its program is ready.
    pub(super) fn lead(&self, pod: &str, ready: bool) {
        self.lead_after(1, pod, ready);
    }

    /// Acquires the Lease for `pod` after `terms` terms, of which the API server shows only the last.
    fn lead_after(&self, terms: i64, pod: &str, ready: bool) {
        static TERM: AtomicU64 = AtomicU64::new(1);
        let uid = name_of_uid(&self.get(&format!("pod/{pod}")));
        let incarnation = format!("{uid}/app/{:016x}", TERM.fetch_add(1, Ordering::Relaxed));
        let transitions = self.get("lease/kestrel")["spec"]["leaseTransitions"].as_i64().unwrap() + terms;
        let now = now();
        self.patch_lease(&json!({
            // A candidate removes the successor of a former term.
            "metadata": { "annotations": { "k8sensus.dev/incarnation": incarnation, "k8sensus.dev/step-down-to": null } },
            "spec": {
                "holderIdentity": pod, "leaseDurationSeconds": 120, "acquireTime": now, "renewTime": now,
                "leaseTransitions": transitions,
            },
        }));
        if ready {
            self.show_ready(true);
        }
        within(10, &format!("{pod} in the status"), || (self.status()["holderIdentity"] == pod).then_some(()));
    }

    fn term(&self) -> String {
        let lease = self.get("lease/kestrel");
        let incarnation = lease["metadata"]["annotations"]["k8sensus.dev/incarnation"].as_str().unwrap();
        format!("{}/{incarnation}", lease["spec"]["leaseTransitions"])
    }

    pub(super) fn show_ready(&self, ready: bool) {
        let term = ready.then(|| self.term());
        self.patch_lease(&json!({ "metadata": { "annotations": { "k8sensus.dev/ready-of": term } } }));
    }

    pub(super) fn release(&self) {
        let now = now();
        self.patch_lease(&json!({
            "spec": { "holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": now, "renewTime": now },
        }));
    }

    /// Returns the step-down request for the present term, if there is one.
    pub(super) fn step_down_request(&self) -> Option<Mark> {
        let annotations = self.get("lease/kestrel")["metadata"]["annotations"].clone();
        let text = |name: &str| annotations[format!("k8sensus.dev/{name}")].as_str().unwrap_or_default().to_owned();
        (text("step-down-of") == self.term())
            .then(|| Mark { value: text("step-down-requested-at"), to: text("step-down-to") })
    }

    pub(super) fn wait_for_request(&self, value: &str, to: &str) {
        let mark = within(20, &format!("{value} to {to}"), || self.step_down_request());
        assert_eq!(mark, Mark { value: value.to_owned(), to: to.to_owned() });
    }

    /// Follows the request: releases the Lease, and acquires it for the successor.
    pub(super) fn hand_over(&self, ready: bool) {
        let to = self.step_down_request().unwrap().to;
        self.release();
        self.lead(&to, ready);
    }

    pub(super) fn wait_for_event(&self, reason: &str) -> String {
        within(15, &format!("the Event {reason}"), || {
            let events = get(self.cluster, &self.ns, "events.events.k8s.io")?["items"].as_array()?.clone();
            let event = events.iter().find(|event| event["reason"] == reason)?;
            Some(event["note"].as_str().unwrap().to_owned())
        })
    }

    pub(super) fn message(&self, kind: &str) -> String {
        let conditions = self.status()["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|condition| condition["type"] == kind);
        found.map_or_else(String::new, |it| it["message"].as_str().unwrap().to_owned())
    }

    /// Creates a group with two ready pods, of which the first leads and has a ready program.
    pub(super) fn led(name: &str, more: Value) -> (Self, Vec<String>) {
        let play = Self::of(name, more);
        let pods = play.new_pods(2, &[]);
        pods.iter().for_each(|pod| play.comes_up(pod));
        play.lead(&pods[0], true);
        (play, pods)
    }

    fn proven(&self) -> Value {
        self.status()["rollout"]["provenRevision"].clone()
    }

    fn revision_of(&self, pod: &str) -> Value {
        self.get(&format!("pod/{pod}"))["metadata"]["labels"]["k8sensus.dev/revision"].clone()
    }
}

fn name_of(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap().to_owned()
}

fn name_of_uid(pod: &Value) -> String {
    pod["metadata"]["uid"].as_str().unwrap().to_owned()
}

fn now() -> String {
    let now = jiff::Timestamp::now();
    format!("{now:.6}")
}

const NEXT: &str = "registry.example/kestrel:2";

#[test]
fn proven_revision_replaces_the_former_with_one_handover() {
    let (play, mut known) = Play::led("rolled", json!({}));
    let first = play.proven();
    assert_eq!(first, play.revision_of(&known[0]));
    play.apply(json!({ "image": NEXT }));
    let new = play.new_pods(1, &known).remove(0);
    assert_ne!(play.revision_of(&new), first);
    play.containers_are(&new, true);
    play.wait_for_request("Rollout", &new);
    within(5, "the Lease to name the proven revision", || {
        let lease = play.get("lease/kestrel");
        (lease["metadata"]["annotations"]["k8sensus.dev/proven-revision"] == first).then_some(())
    });
    play.hand_over(true);
    assert!(!play.is_open(&new), "not before it has led well");
    assert_eq!(play.proven(), first);
    let second = play.revision_of(&new);
    within(15, "the proof", || (play.proven() == second).then_some(()));
    play.comes_up(&new);
    let note = play.wait_for_event("RevisionProven");
    assert!(note.contains(second.as_str().unwrap()) && note.contains(&new), "{note}");
    within(5, "the Lease to name the new revision", || {
        let lease = play.get("lease/kestrel");
        (lease["metadata"]["annotations"]["k8sensus.dev/proven-revision"] == second).then_some(())
    });

    // The Deployment controller does the rest, and the leader stays.
    known.push(new.clone());
    let last = play.new_pods(1, &[&known[..], &[]].concat()).remove(0);
    play.comes_up(&last);
    within(20, "the end of the former pods", || {
        let mut left: Vec<String> = play.all_pods().iter().map(name_of).collect();
        left.sort();
        let mut wanted = vec![new.clone(), last.clone()];
        wanted.sort();
        (left == wanted).then_some(())
    });
    let status = play.status();
    assert_eq!(status["holderIdentity"], new.as_str());
    assert_eq!(status["history"].as_array().unwrap().len(), 2);
    assert_eq!(status["history"][0]["reason"], "Rollout");
    within(10, "the end of the rollout", || play.message("Reconciling").is_empty().then_some(()));
}

#[test]
fn crashing_revision_hands_back_and_stalls_the_group() {
    let (play, known) = Play::led("broken", json!({}));
    let first = play.proven();
    play.apply(json!({ "image": NEXT }));
    let new = play.new_pods(1, &known).remove(0);
    play.containers_are(&new, true);
    play.wait_for_request("Rollout", &new);
    play.hand_over(false);
    play.release();
    play.lead(&known[1], true);
    let ended = json!({ "exitCode": 3, "reason": "Error", "message": "no such table" });
    let app = json!({
        "name": "app", "image": "i", "imageID": "i", "ready": false, "restartCount": 0, "state": { "terminated": ended },
    });
    play.report(&new, &json!({ "containerStatuses": [app] }));
    let failed = within(15, "the failure", || {
        let group = play.get("electiongroup/kestrel");
        (condition(&group, "Stalled") == "True/RevisionFailed").then_some(group)
    });
    assert_eq!(failed["status"]["rollout"]["failedRevision"], play.revision_of(&new));
    assert_eq!(failed["status"]["rollout"]["provenRevision"], first);
    let message = play.message("Stalled");
    assert!(message.contains("container app exited with code 3: no such table"), "{message}");
    assert_eq!(condition(&failed, "Reconciling"), "");
    play.wait_for_event("RevisionFailed");
    // The container becomes ready again, and gets no second trial.
    let running = json!({
        "name": "app", "image": "i", "imageID": "i", "ready": true, "restartCount": 1,
        "state": { "running": {} }, "lastState": { "terminated": ended },
    });
    play.report(&new, &json!({ "containerStatuses": [running] }));
    play.containers_are(&new, true);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(play.step_down_request(), None);
    assert!(!play.is_open(&new));

    // An election may make it the leader again; then it has to hand back.
    play.release();
    play.lead(&new, true);
    let mark = within(10, "the request to hand back", || play.step_down_request());
    assert!(mark.value == "Rollout" && known.contains(&mark.to), "{mark:?}");
    play.hand_over(true);

    play.apply(json!({ "image": "registry.example/kestrel:3" }));
    let better = play.new_pods(1, &[&known[..], std::slice::from_ref(&new)].concat()).remove(0);
    play.containers_are(&better, true);
    play.wait_for_request("Rollout", &better);
    play.hand_over(true);
    let third = play.revision_of(&better);
    within(15, "the proof", || (play.proven() == third).then_some(()));
    assert_eq!(condition(&play.get("electiongroup/kestrel"), "Stalled"), "");
}

#[test]
fn trial_that_ended_unobserved_is_not_repeated() {
    let (play, known) = Play::led("unobserved", json!({}));
    let first = play.proven();
    play.apply(json!({ "image": NEXT }));
    let new = play.new_pods(1, &known).remove(0);
    play.containers_are(&new, true);
    play.wait_for_request("Rollout", &new);
    // The new pod has acquired and released the Lease meanwhile.
    play.lead_after(2, &known[1], true);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(play.step_down_request(), None, "the working leader is left alone until the kubelet has reported");
    let ended = json!({ "exitCode": 127, "reason": "Error", "message": "cannot start /no/such/program" });
    let app = json!({
        "name": "app", "image": "i", "imageID": "i", "ready": true, "restartCount": 1,
        "state": { "running": {} }, "lastState": { "terminated": ended },
    });
    play.report(&new, &json!({ "containerStatuses": [app] }));
    let failed = within(15, "the failure", || {
        let group = play.get("electiongroup/kestrel");
        (condition(&group, "Stalled") == "True/RevisionFailed").then_some(group)
    });
    let rollout = &failed["status"]["rollout"];
    assert_eq!((&rollout["failedRevision"], &rollout["provenRevision"]), (&play.revision_of(&new), &first));
    let message = play.message("Stalled");
    assert!(message.contains("was asked to lead, and its program ended"), "{message}");
    assert!(message.contains("exited with code 127: cannot start /no/such/program"), "{message}");
    assert_eq!(failed["status"]["leaseTransitions"], 3);
    assert_eq!(play.step_down_request(), None);
}

#[test]
fn refused_step_down_does_not_hit_a_leader_of_the_next_revision() {
    let play = Play::of("lingering", json!({ "replicas": 1 }));
    let known = play.new_pods(1, &[]);
    play.comes_up(&known[0]);
    play.lead(&known[0], true);
    let request = "k8sensus.dev/step-down-requested-at=once";
    kubectl(play.cluster, &["annotate", "-n", &play.ns, "electiongroup/kestrel", request]);
    play.wait_for_event("StepDownRefused");
    play.apply(json!({ "replicas": 1, "image": NEXT }));
    let new = play.new_pods(1, &known).remove(0);
    play.containers_are(&new, true);
    play.wait_for_request("Rollout", &new);
    // The operator does not observe the moment without a holder.
    play.lead(&new, true);
    within(10, "the acknowledgement", || (play.status()["lastHandledStepDownAt"] == "once").then_some(()));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(play.step_down_request(), None);
}

#[test]
fn missing_image_causes_no_handover_and_is_reported() {
    let (play, known) = Play::led("missing", json!({}));
    play.apply(json!({ "image": NEXT }));
    let new = play.new_pods(1, &known).remove(0);
    let waiting = json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } });
    let app =
        json!({ "name": "app", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": waiting });
    play.report(&new, &json!({ "containerStatuses": [app] }));
    let trouble = format!(
        "waits for one of its pods to become ready to lead: pod {new}: container app: ImagePullBackOff: no such image"
    );
    within(15, "the trouble", || play.message("Reconciling").contains(&trouble).then_some(()));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(play.step_down_request(), None);
    assert!(!play.is_open(&new));
    assert_eq!(play.status()["history"].as_array().unwrap().len(), 1);
}
