//! Stricter clusters such as OpenShift: owner references need a permission, and namespaces assign users.

use std::fs;

use k8sensus_local::Cluster;
use serde_json::{Value, json};

use super::installed::{install, parsed, rendered};
use crate::support::{apply, candidate, control_plane_with, get, group, kubectl, namespace, shared, within};

#[test]
fn group_works_with_owner_reference_enforcement() {
    let plugin = "--enable-admission-plugins=OwnerReferencesPermissionEnforcement";
    let cluster = control_plane_with(Cluster::control_plane().api_server_arg(plugin));
    let installed = install(&cluster, "default", &[]);
    let ns = namespace(&cluster, "guarded");
    // An existing Lease, as of a program that elected before the group was created.
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "kestrel" },
        "spec": { "holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 7 },
    });
    apply(&cluster, &ns, &lease).unwrap();
    apply(&cluster, &ns, &group("kestrel", json!({ "leaderService": { "ports": [{ "port": 80 }] } }))).unwrap();
    within(20, "the Lease to be adopted", || {
        (get(&cluster, &ns, "lease/kestrel")?["metadata"]["ownerReferences"][0]["kind"] == "ElectionGroup")
            .then_some(())
    });
    let _leader = candidate(&cluster, &ns, "kestrel", "otter", &["--create-lease=false"]);
    within(20, "otter in the status", || {
        (get(&cluster, &ns, "electiongroup/kestrel")?["status"]["holderIdentity"] == "otter").then_some(())
    });
    for child in ["role/kestrel", "deployment/kestrel", "endpointslice/kestrel-leader"] {
        within(20, child, || get(&cluster, &ns, child));
    }
    // A child that was deleted or lost its label is restored.
    kubectl(&cluster, &["delete", "-n", &ns, "role/kestrel"]);
    kubectl(&cluster, &["label", "-n", &ns, "deployment/kestrel", "k8sensus.dev/group-"]);
    for child in ["role/kestrel", "deployment/kestrel"] {
        within(20, &format!("the {child} to be restored"), || {
            (get(&cluster, &ns, child)?["metadata"]["labels"]["k8sensus.dev/group"] == "kestrel").then_some(())
        });
    }
    let text = fs::read_to_string(cluster.audit_log()).unwrap();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let refused: Vec<_> = events
        .filter(|event| event["user"]["username"] == installed.user.as_str() && event["responseStatus"]["code"] == 403)
        .collect();
    assert!(refused.is_empty(), "{refused:#?}\n{}", installed.operator.output());
}

#[test]
fn chart_leaves_the_operators_user_to_the_image_and_namespace() {
    let pod = |values: &[&str]| {
        let deployment = parsed(shared(), &rendered(shared(), "k8sensus-system", "deployment", values)).remove(0);
        let spec = &deployment["spec"]["template"]["spec"];
        (spec["securityContext"].clone(), spec["containers"][0]["securityContext"].clone())
    };
    let (of_pod, of_container) = pod(&[]);
    assert_eq!(of_pod, json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } }));
    for field in ["runAsUser", "runAsGroup"] {
        assert!(of_container[field].is_null(), "{of_container}");
    }
    let (of_pod, _) = pod(&["podSecurityContext.runAsUser=1000700001"]);
    assert_eq!(of_pod["runAsUser"], 1_000_700_001);
}
