//! The Service that follows the leader. It has no selector: the operator writes its EndpointSlice.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::child::child;
use crate::spec::group::Group;
use crate::spec::leader_service::name_of;

/// Returns the Service to apply. The API server chooses addresses and node ports.
pub(crate) fn desired(group: &Group) -> Option<Value> {
    let spec = group.leader_service.as_ref()?;
    let mut service = child(group, "v1", "Service", &name_of(&group.name));
    let ports = spec.ports.iter().map(|port| {
        let target = port.target_port.clone().unwrap_or(IntOrString::Int(port.port));
        let mut entry = json!({ "protocol": "TCP", "port": port.port, "targetPort": target });
        if let Some(name) = &port.name {
            entry["name"] = json!(name);
        }
        entry
    });
    service["spec"] = json!({
        "type": spec.type_,
        "ipFamilyPolicy": "SingleStack",
        "ports": ports.collect::<Vec<_>>(),
        // Explicit, because a selector that another client adds would bring in the standbys.
        "selector": null,
    });
    Some(service)
}
