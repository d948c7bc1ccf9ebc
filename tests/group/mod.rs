//! The meaning of an ElectionGroup: refusals, children, drift, decisions, status and Events. No API server and no
//! clock.
//!
//! The fixture is called billing in namespace shop, unlike any name in the product, so that a swapped name is noticed.

mod candidate;
pub mod conditions;
mod desired;
mod drift;
mod endpoints;
mod events;
mod history;
mod inject;
mod probe;
mod proof;
mod refusal;
mod rollout;
mod service;
mod shape;
mod status;
mod step_down;
mod suspension;
mod trouble;
mod unhealthy;
mod valid;

use k8sensus_api::ElectionGroup;
use k8sensus_group::{Desired, Group};
use serde_json::{Value, json};

const CANDIDATE_IMAGE: &str = "registry.example/k8sensus:0.1.0";
const UID: &str = "5ad1f6b4-6bd0-4f0c-a7a5-0d7a2f5b9c11";

const MINIMAL: &str = "
image: registry.example/billing:1.4
command: [/app/billing]
";

/// Two containers of which the second leads, with everything that our additions must coexist with.
const TEMPLATE: &str = r#"
replicas: 3
candidate: { container: main }
template:
  metadata:
    labels: { team: money }
    annotations: { example.com/scrape: "true" }
  spec:
    terminationGracePeriodSeconds: 45
    initContainers:
      - { name: migrate, image: registry.example/migrate:2 }
    containers:
      - { name: proxy, image: registry.example/proxy:7, env: [{ name: POD_NAME, value: proxys-own }] }
      - name: main
        image: registry.example/billing:1.4
        command: [/app/billing]
        args: [--queue, orders]
        env:
          - { name: QUEUE, value: orders }
          - { name: POD_NAME, value: not-the-pod }
          - { name: WHO, value: billing/$(POD_NAME) }
        volumeMounts: [{ name: data, mountPath: /data }]
    volumes:
      - { name: data, emptyDir: {} }
"#;

const NATIVE: &str = "
candidate: { mode: Native }
election: { leaseName: billing-leader }
template:
  spec:
    containers:
      - name: main
        image: registry.example/billing:1.4
        args: [--elect]
        ports: [{ containerPort: 8080 }]
        readinessProbe: { httpGet: { path: /ready, port: 8080 } }
        livenessProbe: { httpGet: { path: /live, port: 8080 } }
";

const SIDECAR: &str = "
candidate: { mode: Sidecar, httpPort: 4141 }
template:
  spec:
    initContainers: [{ name: migrate, image: registry.example/migrate:2 }]
    containers:
      - name: main
        image: registry.example/billing:1.4
        env: [{ name: QUEUE, value: orders }]
        readinessProbe: { httpGet: { path: /ready, port: 8080 } }
";

/// A spec of each kind, for tests of all of them.
const SPECS: [&str; 4] = [MINIMAL, TEMPLATE, SIDECAR, NATIVE];

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("the fixture is YAML")
}

/// Returns the group shop/billing with this spec, as an API server returns it.
fn group_of(spec: Value) -> ElectionGroup {
    let manifest = json!({
        "apiVersion": "k8sensus.dev/v1alpha1",
        "kind": "ElectionGroup",
        "metadata": { "name": "billing", "namespace": "shop", "uid": UID, "generation": 7 },
        "spec": spec,
    });
    serde_json::from_str(&manifest.to_string()).expect("the fixture is an ElectionGroup")
}

fn group(spec: &str) -> ElectionGroup {
    group_of(yaml(spec))
}

/// Returns the spec `base` with further top-level fields.
fn with(base: &str, more: &str) -> ElectionGroup {
    let mut spec = yaml(base);
    let Value::Object(more) = yaml(more) else { panic!("a mapping") };
    spec.as_object_mut().expect("a mapping").extend(more);
    group_of(spec)
}

fn valid(group: &ElectionGroup) -> Group {
    Group::check(group).expect("the fixture is valid")
}

/// Returns the children of a group that has no status yet.
fn children(group: &ElectionGroup) -> Desired {
    Desired::of(&valid(group), None, CANDIDATE_IMAGE)
}

/// Returns all children by kind, without `..`: a new child must be added here, and so appears in the snapshots.
fn by_kind(desired: Desired) -> Value {
    let Desired {
        service_account,
        role,
        role_binding,
        lease,
        deployment,
        disruption_budget,
        service,
        injection,
        keeps_pods: _,
    } = desired;
    let mut children = json!({
        "ServiceAccount": service_account,
        "Role": role,
        "RoleBinding": role_binding,
        "Lease": lease,
        "Deployment": deployment,
        "PodDisruptionBudget": disruption_budget,
        "injection": injection,
    });
    // Most groups have no Service.
    if let Some(service) = service {
        children["Service"] = service;
    }
    children
}
