//! A group whose pods the test creates, and the endpoint of its Service.

use std::thread::sleep;
use std::time::Duration;

use k8sensus_local::Cluster;
use serde_json::{Value, json};

use crate::support::{
    Program, apply, audit_position, candidate, condition, get, group, kubectl, namespace, operated, within,
    writes_since,
};

pub const SERVICE: &str = "service/kestrel-leader";
pub const SLICE: &str = "endpointslice/kestrel-leader";

/// How the readiness of a pod's program is reported.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// On the Lease, by the candidate.
    Exec,
    /// By the kubelet, for its containers.
    Sidecar,
}

/// A namespace with the group kestrel, whose pods the test creates.
pub struct Bench<'a> {
    pub cluster: &'a Cluster,
    pub ns: String,
}

impl Bench<'static> {
    pub fn new(name: &str, service: Value) -> Self {
        let cluster = operated();
        let bench = Self { cluster, ns: namespace(cluster, name) };
        bench.apply(json!({ "leaderService": service }));
        within(20, "the slice", || get(cluster, &bench.ns, SLICE));
        bench
    }
}

impl Bench<'_> {
    /// Applies the group. Its template names a port, which a pod of the test may have with another number.
    pub fn apply(&self, more: Value) {
        let container = json!({
            "name": "app", "image": "registry.example/kestrel:1", "command": ["/kestrel"],
            "ports": [{ "name": "http", "containerPort": 8080 }],
        });
        let mut spec = json!({ "replicas": 0, "template": { "spec": { "containers": [container] } } });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut manifest = group("kestrel", spec);
        for shortcut in ["image", "command"] {
            manifest["spec"].as_object_mut().unwrap().remove(shortcut);
        }
        apply(self.cluster, &self.ns, &manifest).unwrap();
    }

    pub fn pod(&self, name: &str, kind: Kind, ip: &str, port: i32) {
        let env = if kind == Kind::Exec { json!([{ "name": "K8SENSUS_LOCK_PATH", "value": "/l" }]) } else { json!([]) };
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "labels": { "k8sensus.dev/group": "kestrel", "app": "kestrel" } },
            "spec": {
                "readinessGates": [{ "conditionType": "k8sensus.dev/proven" }],
                "containers": [{
                    "name": "app", "image": "registry.example/kestrel:1", "env": env,
                    "ports": [{ "name": "http", "containerPort": port }],
                }],
            },
        });
        within(20, "the namespace's default account", || apply(self.cluster, &self.ns, &pod).ok());
        self.status(name, json!({ "podIP": ip, "podIPs": [{ "ip": ip }] }));
        self.containers_ready(name, true);
    }

    fn status(&self, pod: &str, status: Value) {
        let patch = json!({ "status": status }).to_string();
        kubectl(self.cluster, &["patch", "-n", &self.ns, "pod", pod, "--subresource=status", "-p", &patch]);
    }

    pub fn containers_ready(&self, pod: &str, are_ready: bool) {
        let status = if are_ready { "True" } else { "False" };
        self.status(pod, json!({ "conditions": [{ "type": "ContainersReady", "status": status }] }));
    }

    pub fn candidate(&self, pod: &str) -> Program {
        candidate(self.cluster, &self.ns, "kestrel", pod, &["--create-lease=false"])
    }

    pub fn get(&self, what: &str) -> Option<Value> {
        get(self.cluster, &self.ns, what)
    }

    /// Reports a ready program on the Lease, as a candidate of mode Exec does, until the Service routes to `pod`. The
    /// candidate of this test has no program and removes the report with its next renewal.
    pub fn report_ready_until_routed_to(&self, pod: &str) {
        within(10, &format!("{SERVICE} to lead to {pod}"), || {
            let lease = self.get("lease/kestrel").unwrap();
            let incarnation = lease["metadata"]["annotations"]["k8sensus.dev/incarnation"].as_str().unwrap();
            let term = format!("k8sensus.dev/ready-of={}/{incarnation}", lease["spec"]["leaseTransitions"]);
            kubectl(self.cluster, &["annotate", "-n", &self.ns, "lease/kestrel", "--overwrite", &term]);
            self.get(SLICE).filter(|slice| behind(slice) == Some(pod))
        });
    }

    /// Waits until the Service routes to `pod`, or to no pod.
    pub fn routes_to(&self, pod: Option<&str>) -> Value {
        within(10, &format!("{SERVICE} to lead to {pod:?}"), || self.get(SLICE).filter(|slice| behind(slice) == pod))
    }

    /// Asserts for a second that the Service routes to `pod`, or to no pod.
    pub fn keeps_routing_to(&self, pod: Option<&str>) {
        for _ in 0..10 {
            let slice = self.get(SLICE).unwrap();
            assert_eq!(behind(&slice), pod, "{slice}");
            sleep(Duration::from_millis(100));
        }
    }

    pub fn stalled(&self, reason: &str) -> String {
        within(20, reason, || {
            let group = self.get("electiongroup/kestrel")?;
            let stalled = condition(&group, "Stalled") == format!("True/{reason}");
            stalled.then(|| group["status"]["conditions"][0]["message"].as_str().unwrap().to_owned())
        })
    }

    /// Returns the seconds without a leader before `holder`, as the status shows them.
    pub fn gap_before(&self, holder: &str) -> f64 {
        within(10, &format!("{holder} in the history"), || {
            let last = self.get("electiongroup/kestrel")?["status"]["history"][0].clone();
            (last["holderIdentity"] == holder).then(|| last["leaderlessSeconds"].as_f64().unwrap_or(f64::INFINITY))
        })
    }

    pub fn position(&self) -> usize {
        audit_position(self.cluster)
    }

    pub fn writes(&self, since: usize) -> Vec<String> {
        writes(self.cluster, &self.ns, since)
    }
}

fn writes(cluster: &Cluster, ns: &str, since: usize) -> Vec<String> {
    let ours = ["services", "endpointslices"];
    writes_since(cluster, since, |event| {
        let object = &event["objectRef"];
        object["namespace"] == ns && ours.contains(&object["resource"].as_str().unwrap_or_default())
    })
}

pub fn behind(slice: &Value) -> Option<&str> {
    let endpoints = slice["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert!(endpoints.len() < 2, "{slice}");
    endpoints.first().map(|endpoint| endpoint["targetRef"]["name"].as_str().unwrap())
}
