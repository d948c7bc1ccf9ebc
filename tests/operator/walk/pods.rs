//! The kubelet and the candidates of a group of any mode, whatever becomes of its spec.

use serde_json::{Value, json};

use crate::operator::crashes::play::{condition, name_of};
use crate::support::objects::Direct;

/// What a pod waits for that is proven by leading well.
const GATE: &str = "k8sensus.dev/proven";

/// How old a renewal is before the leader renews again, in seconds.
const RENEWED_AFTER: i64 = 20;

/// Group `kestrel` in one namespace. It remembers nothing.
#[derive(Clone, Copy)]
pub struct Pods<'a> {
    pub direct: &'a Direct,
    pub ns: &'a str,
}

impl Pods<'_> {
    /// One step of what kubelets and candidates do by themselves. Returns the pods that are to stay.
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

    /// A new pod comes up. It is Ready once its gate is open, if it has one.
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

    /// The leader renews, hands over where it is asked to, and releases the Lease where its pod ends. A Lease that is free is
    /// acquired, unless the group is to have no pods.
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

    /// A program that elects by itself leaves the annotations as they are.
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

    /// Unless the Lease was changed since it was read: the next step sees that.
    fn write(&self, lease: &Value, mut patch: Value) {
        patch["metadata"]["resourceVersion"] = lease["metadata"]["resourceVersion"].clone();
        let _ = self.direct.try_merge(self.ns, "leases", "kestrel", &patch);
    }
}

/// Whether the pod is of a mode with a candidate.
fn is_gated(pod: &Value) -> bool {
    let mut gates = pod["spec"]["readinessGates"].as_array().into_iter().flatten();
    gates.any(|gate| gate["conditionType"] == GATE)
}

fn now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}
