//! The leader Service: its name, and the check of its spec.
//!
//! It has no selector, so that no controller of the cluster gives it endpoints. The operator alone writes them:
//! [`endpoints`](crate::judge::endpoints).

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::invalid::{Invalid, invalid};
use crate::api::{ElectionGroupSpec, LeaderServicePort, LeaderServiceSpec, ServiceType};

/// The suffix of the group's name in the names of the Service and of its EndpointSlice.
pub const SUFFIX: &str = "-leader";

/// The limit of names that an error lists.
const SHOWN: usize = 8;

/// Returns the name of the Service of `group`, and of its EndpointSlice.
pub fn name_of(group: &str) -> String {
    format!("{group}{SUFFIX}")
}

/// Returns the user's leader Service, checked against the pods of `template`.
pub(crate) fn checked(spec: &ElectionGroupSpec, template: &Value) -> Result<Option<LeaderServiceSpec>, Invalid> {
    let Some(service) = &spec.leader_service else { return Ok(None) };
    if service.type_ == ServiceType::Unknown {
        let rule = "is not known to this version of the operator; use ClusterIP, NodePort or LoadBalancer, or upgrade \
                    the operator";
        return Err(invalid("spec.leaderService.type", rule));
    }
    for (index, port) in service.ports.iter().enumerate() {
        let at = |field: &str| format!("spec.leaderService.ports[{index}].{field}");
        let before = &service.ports[..index];
        match &port.name {
            None if service.ports.len() > 1 => {
                return Err(invalid(at("name"), "must be set when there is more than one port"));
            }
            Some(name) if before.iter().any(|other| other.name.as_ref() == Some(name)) => {
                return Err(invalid(at("name"), format!("must be unique, found {name:?} again")));
            }
            _ => {}
        }
        check_target(port, template, spec.template.is_some(), at("targetPort"))?;
    }
    Ok(Some(service.clone()))
}

fn check_target(port: &LeaderServicePort, template: &Value, has_template: bool, at: String) -> Result<(), Invalid> {
    let name = match &port.target_port {
        None => return Ok(()),
        Some(IntOrString::Int(number)) if (1..=65_535).contains(number) => return Ok(()),
        Some(IntOrString::Int(number)) => {
            return Err(invalid(at, format!("must be from 1 to 65535, found {number}")));
        }
        Some(IntOrString::String(name)) => name,
    };
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_name = (1..=15).contains(&name.len())
        && name.chars().all(inner)
        && name.contains(|c: char| c.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !is_name {
        let rule = format!(
            "must be a number or the name of a container's port (1 to 15 of a to z, 0 to 9 and -, with a letter, not \
             beginning or ending with -), found {name:?}"
        );
        return Err(invalid(at, rule));
    }
    let names = port_names(template);
    if names.contains(&name.as_str()) {
        return Ok(());
    }
    let rule = if !has_template {
        format!("must be a number where spec.image is used, whose ports have no names, found {name:?}")
    } else if names.is_empty() {
        format!("must be a number: no container of spec.template has a named TCP port, found {name:?}")
    } else {
        let shown: Vec<&str> = names.into_iter().take(SHOWN).collect();
        format!("must name a TCP port of a container of spec.template ({}), found {name:?}", shown.join(", "))
    };
    Err(invalid(at, rule))
}

/// Returns the names of the TCP ports of all containers that keep running, in order.
fn port_names(template: &Value) -> Vec<&str> {
    let items = |value: &'static str| template["spec"][value].as_array().map(Vec::as_slice).unwrap_or_default();
    let keeps_running = |init: &&Value| init["restartPolicy"] == "Always";
    let containers = items("containers").iter().chain(items("initContainers").iter().filter(keeps_running));
    let ports = containers.flat_map(|one| one["ports"].as_array().map(Vec::as_slice).unwrap_or_default());
    let tcp = ports.filter(|port| port["protocol"].is_null() || port["protocol"] == "TCP");
    tcp.filter_map(|port| port["name"].as_str()).collect()
}
