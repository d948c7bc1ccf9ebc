//! The kubelet and the candidates of a group whose operator is killed.

use serde_json::{Value, json};

use crate::support::objects::Direct;

/// The kubelet and the candidates of group `kestrel`. They have no memory: an operator may be killed at any time.
#[derive(Clone, Copy)]
pub(super) struct Play<'a> {
    pub(super) direct: &'a Direct,
    pub(super) ns: &'a str,
}

impl Play<'_> {
    /// Returns the pods that are not being deleted, by name.
    pub(super) fn pods(&self) -> Vec<Value> {
        let list = self.direct.get(self.ns, "pods", "").unwrap();
        let mut pods = list["items"].as_array().unwrap().clone();
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        pods.sort_by_key(name_of);
        pods
    }

    fn lease(&self) -> Option<Value> {
        self.direct.get(self.ns, "leases", "kestrel")
    }

    /// Plays one step of the kubelet and the candidates.
    pub(super) fn step(&self) {
        let pods = self.pods();
        pods.iter().for_each(|pod| self.report(pod));
        if let Some(lease) = self.lease() {
            self.campaign(&lease, &pods);
        }
    }

    /// Reports a new pod as running, and as Ready once its gate is open.
    fn report(&self, pod: &Value) {
        let is_new = condition(pod, "ContainersReady").is_empty();
        let is_open = condition(pod, "k8sensus.dev/proven") == "True";
        let becomes_ready = is_open && condition(pod, "ContainersReady") == "True" && condition(pod, "Ready") != "True";
        if !is_new && !becomes_ready {
            return;
        }
        let ready = if is_open { "True" } else { "False" };
        let conditions = json!([{ "type": "ContainersReady", "status": "True" }, { "type": "Ready", "status": ready,
            "reason": if is_open { Value::Null } else { json!("ReadinessGatesNotReady") },
            "message": if is_open { "" } else { "the status of pod readiness gate \"k8sensus.dev/proven\" is not \"True\"" },
        }]);
        self.report_status(
            pod,
            &json!({
                "phase": "Running", "podIP": "10.9.0.1", "podIPs": [{ "ip": "10.9.0.1" }], "conditions": conditions,
            }),
        );
    }

    fn report_status(&self, pod: &Value, status: &Value) {
        self.direct.report(
            self.ns,
            &name_of(pod),
            &json!({ "metadata": { "uid": pod["metadata"]["uid"] }, "status": status }),
        );
    }

    /// Releases the Lease if a step-down of the leader is requested, and acquires a free Lease.
    fn campaign(&self, lease: &Value, pods: &[Value]) {
        let (spec, annotations) = (&lease["spec"], &lease["metadata"]["annotations"]);
        let transitions = spec["leaseTransitions"].as_i64().unwrap_or_default();
        let holder = spec["holderIdentity"].as_str().unwrap_or_default();
        let term = format!("{transitions}/{}", annotations["k8sensus.dev/incarnation"].as_str().unwrap_or_default());
        let is_requested = annotations["k8sensus.dev/step-down-of"] == term;
        if !holder.is_empty() && !is_requested {
            return;
        }
        let named = annotations["k8sensus.dev/step-down-to"].as_str().filter(|_| is_requested);
        let able = pods.iter().filter(|pod| condition(pod, "ContainersReady") == "True").map(name_of);
        let next = named.map(str::to_owned).or_else(|| able.into_iter().find(|name| name != holder));
        if let Some(next) = next {
            self.lead(lease, &next, transitions + 1, &format!("-/app/{:016x}", transitions + 1));
        }
    }

    /// Acquires the Lease for `pod` at the version that was read, with a ready program.
    fn lead(&self, lease: &Value, pod: &str, transitions: i64, incarnation: &str) {
        let now = format!("{:.6}", jiff::Timestamp::now());
        let patch = json!({
            "metadata": { "resourceVersion": lease["metadata"]["resourceVersion"], "annotations": {
                "k8sensus.dev/incarnation": incarnation, "k8sensus.dev/step-down-to": null,
                "k8sensus.dev/ready-of": format!("{transitions}/{incarnation}"),
            } },
            "spec": {
                "holderIdentity": pod, "leaseDurationSeconds": 120, "acquireTime": now, "renewTime": now,
                "leaseTransitions": transitions,
            },
        });
        // After a conflict the next step tries again.
        let _ = self.direct.try_merge(self.ns, "leases", "kestrel", &patch);
    }

    /// Reports the end of the leader's container, with the incarnation that its candidate wrote.
    pub(super) fn leader_dies(&self) {
        let lease = self.lease().unwrap();
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap();
        let pod = self.direct.get(self.ns, "pods", holder).unwrap();
        let incarnation = format!("{}/app/00000000c0ffee11", pod["metadata"]["uid"].as_str().unwrap());
        self.lead(&lease, holder, lease["spec"]["leaseTransitions"].as_i64().unwrap(), &incarnation);
        let ended = json!({ "exitCode": 137, "reason": "Error", "message": incarnation });
        let app = json!({
            "name": "app", "image": "i", "imageID": "i", "ready": false, "restartCount": 0, "state": { "terminated": ended },
        });
        let unready = json!({ "status": "False", "reason": "ContainersNotReady", "message": "[app]" });
        let is = |kind: &str| {
            let mut condition = unready.clone();
            condition["type"] = json!(kind);
            condition
        };
        self.report_status(
            &pod,
            &json!({ "containerStatuses": [app], "conditions": [is("ContainersReady"), is("Ready")] }),
        );
    }
}

pub(in crate::operator) fn name_of(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap().to_owned()
}

/// Returns the status of a condition, empty if there is none.
pub(in crate::operator) fn condition<'a>(pod: &'a Value, kind: &str) -> &'a str {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.find(|condition| condition["type"] == kind);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or_default()
}
