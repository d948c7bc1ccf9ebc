//! The Service that follows the leader. It has no selector: the operator writes its EndpointSlice.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::child::child;
use crate::group::spec::group::Group;
use crate::group::spec::leader_service::name_of;

/// The Service as it is applied. Addresses and node ports are the server's to choose.
pub(in crate::group) fn desired(group: &Group) -> Option<Value> {
    let spec = group.leader_service.as_ref()?;
    let mut service = child(group, "v1", "Service", &name_of(&group.name));
    let ports = spec.ports.iter().map(|port| {
        let target = port.target_port.clone().unwrap_or(IntOrString::Int(port.port));
        let mut written = json!({ "protocol": "TCP", "port": port.port, "targetPort": target });
        if let Some(name) = &port.name {
            written["name"] = json!(name);
        }
        written
    });
    service["spec"] = json!({
        "type": spec.type_,
        "ipFamilyPolicy": "SingleStack",
        "ports": ports.collect::<Vec<_>>(),
        // Said, for a selector that somebody adds would bring the standbys in.
        "selector": null,
    });
    Some(service)
}
