//! The kubelet and the candidates of a group of any mode, for any change of its spec.

use serde_json::{Value, json};

use crate::operator::crashes::play::{condition, name_of};
use crate::support::objects::Direct;

/// The readiness gate of a pod whose revision has to be proven.
const GATE: &str = "k8sensus.dev/proven";

/// The age of a renewal, in seconds, at which the leader renews again.
const RENEWED_AFTER: i64 = 20;

/// The kubelet and the candidates of group `kestrel` in one namespace. They have no memory.
#[derive(Clone, Copy)]
pub struct Pods<'a> {
    pub direct: &'a Direct,
    pub ns: &'a str,
}

impl Pods<'_> {
    /// Plays one step of the kubelet and the candidates. Returns the pods that are not being deleted.
    pub fn step(&self) -> Vec<Value> {
        let list = self.direct.get(self.ns, "pods", "").unwrap();
        let mut pods = list["items"].as_array().unwrap().clone();
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        pods.sort_by_key(name_of);
        pods.iter().for_each(|pod| self.report(pod));
        if let Some(lease) = self.direct.get(self.ns, "leases", "kestrel") {
            self.campaign(&lease, &pods);
        }
        pods
    }

    /// Reports a new pod as running, and as Ready once its gate is open, if it has one.
    fn report(&self, pod: &Value) {
        let is_open = !is_gated(pod) || condition(pod, GATE) == "True";
        let is_up = condition(pod, "ContainersReady") == "True";
        if is_up && (!is_open || condition(pod, "Ready") == "True") {
            return;
        }
        let ready = match is_open {
            true => json!({ "type": "Ready", "status": "True" }),
            false => json!({
                "type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady",
                "message": "the status of pod readiness gate \"k8sensus.dev/proven\" is not \"True\"",
            }),
        };
        let status = json!({
            "phase": "Running", "podIP": "10.9.0.1", "podIPs": [{ "ip": "10.9.0.1" }],
            "conditions": [{ "type": "ContainersReady", "status": "True" }, ready],
        });
        let report = json!({ "metadata": { "uid": pod["metadata"]["uid"] }, "status": status });
        self.direct.report(self.ns, &name_of(pod), &report);
    }

    /// Plays the leader, which renews, releases the Lease if a step-down is requested or its pod ends, and a standby,
    /// which acquires a free Lease unless the group has no pods.
    fn campaign(&self, lease: &Value, pods: &[Value]) {
        let (spec, annotations) = (&lease["spec"], &lease["metadata"]["annotations"]);
        let transitions = spec["leaseTransitions"].as_i64().unwrap_or_default();
        let holder = spec["holderIdentity"].as_str().unwrap_or_default();
        let term = format!("{transitions}/{}", annotations["k8sensus.dev/incarnation"].as_str().unwrap_or_default());
        let able: Vec<&Value> = pods.iter().filter(|pod| condition(pod, "ContainersReady") == "True").collect();
        let leader = pods.iter().find(|pod| name_of(pod) == holder);
        let next = match leader {
            Some(leader) if is_gated(leader) && annotations["k8sensus.dev/step-down-of"] == term => {
                let named = able.iter().find(|pod| annotations["k8sensus.dev/step-down-to"] == name_of(pod));
                named.or_else(|| able.iter().find(|pod| name_of(pod) != holder))
            }
            Some(_) => return self.renew(lease),
            None if !holder.is_empty() => return self.release(lease),
            None if annotations["k8sensus.dev/suspended"].as_str() == Some(&*transitions.to_string()) => return,
            None => {
                let proven = &annotations["k8sensus.dev/proven-revision"];
                let is_proven = |pod: &&&Value| pod["metadata"]["labels"]["k8sensus.dev/revision"] == *proven;
                able.iter().find(is_proven).or_else(|| able.first())
            }
        };
        if let Some(next) = next {
            self.acquire(lease, next, transitions + 1);
        }
    }

    fn renew(&self, lease: &Value) {
        let renewed: jiff::Timestamp = lease["spec"]["renewTime"].as_str().unwrap().parse().unwrap();
        if jiff::Timestamp::now().duration_since(renewed).as_secs() >= RENEWED_AFTER {
            self.write(lease, json!({ "spec": { "renewTime": now() } }));
        }
    }

    fn release(&self, lease: &Value) {
        let now = now();
        let spec = json!({ "holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": now, "renewTime": now });
        self.write(lease, json!({ "spec": spec }));
    }

    /// Acquires the Lease for `pod`. A Native program leaves the annotations as they are.
    fn acquire(&self, lease: &Value, pod: &Value, transitions: i64) {
        let now = now();
        let spec = json!({
            "holderIdentity": name_of(pod), "leaseDurationSeconds": 120, "acquireTime": now, "renewTime": now,
            "leaseTransitions": transitions,
        });
        let mut patch = json!({ "spec": spec });
        if is_gated(pod) {
            let incarnation = format!("{}/app/{transitions:016x}", pod["metadata"]["uid"].as_str().unwrap());
            patch["metadata"]["annotations"] = json!({
                "k8sensus.dev/incarnation": incarnation, "k8sensus.dev/step-down-to": null,
                "k8sensus.dev/ready-of": format!("{transitions}/{incarnation}"),
            });
        }
        self.write(lease, patch);
    }

    /// Patches the Lease at the version that was read. After a conflict the next step tries again.
    fn write(&self, lease: &Value, mut patch: Value) {
        patch["metadata"]["resourceVersion"] = lease["metadata"]["resourceVersion"].clone();
        let _ = self.direct.try_merge(self.ns, "leases", "kestrel", &patch);
    }
}

/// Whether the pod has the readiness gate, as in modes with a candidate.
fn is_gated(pod: &Value) -> bool {
    let mut gates = pod["spec"]["readinessGates"].as_array().into_iter().flatten();
    gates.any(|gate| gate["conditionType"] == GATE)
}

fn now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}
