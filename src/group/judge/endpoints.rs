//! The EndpointSlice of the leader Service: its only endpoint is the leader's pod, or it has none.
//!
//! It is built from the live Service, not from the group's spec, so that it follows the leader even while the spec
//! waits (`paused`) or cannot be read.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::names::label;
use crate::api::{GROUP, KIND, VERSION};
use crate::observed::lease::LeaseView;
use crate::observed::pod::{PodView, pod_of};
use crate::spec::leader_service::name_of;

/// The label of Kubernetes that binds an EndpointSlice to its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that keeps the controllers of Kubernetes from changing the EndpointSlice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// A port of the Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, empty if it has none.
    pub name: String,
    /// The port of the pod.
    pub target: Target,
}

/// A port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By number.
    Number(i32),
    /// By the name that it has in one of the pod's containers.
    Name(String),
}

/// Returns the ports of a live Service.
pub fn ports_of(service: &Value) -> Vec<ServicePort> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let port = |port: &Value| {
        let number = |value: &Value| value.as_i64().and_then(|number| i32::try_from(number).ok());
        let target = match &port["targetPort"] {
            Value::String(name) => Target::Name(name.clone()),
            target => Target::Number(number(target).or_else(|| number(&port["port"]))?),
        };
        Some(ServicePort { name: port["name"].as_str().unwrap_or_default().to_owned(), target })
    };
    ports.filter_map(port).collect()
}

/// The inputs of the EndpointSlice.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The group's name.
    pub name: &'a str,
    /// The group's namespace.
    pub namespace: &'a str,
    /// The group's uid.
    pub uid: &'a str,
    /// The ports of the Service.
    pub ports: &'a [ServicePort],
    /// The Lease while it is held and valid: [`leading`](crate::status::leading).
    pub lease: Option<&'a LeaseView>,
    /// The group's pods.
    pub pods: &'a [PodView],
    /// Whether the group is suspended, so that no pod may lead.
    pub suspended: bool,
    /// How much longer the former address may stay after a release just now. A standby acquires the Lease within
    /// milliseconds, so that both changes become one write.
    pub handing_over: Option<Duration>,
    /// `addressType` of the live slice; `None` if there is none.
    pub address_type: Option<&'a str>,
}

/// The decision about the EndpointSlice.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Write it like this.
    Write(Box<Value>),
    /// Leave it as it is for so long, then decide again.
    Wait(Duration),
}

/// Decides what to do about the EndpointSlice. The same question always has the same answer.
pub fn decide(question: &Question<'_>) -> Decision {
    let Question { lease, suspended, handing_over, address_type, .. } = *question;
    match handing_over.filter(|_| lease.is_none() && !suspended && address_type.is_some()) {
        Some(left) => Decision::Wait(left),
        None => Decision::Write(Box::new(slice(question))),
    }
}

/// Returns the pod that gets the traffic: the holder's, if it is not being deleted and its program is ready.
fn leader<'a>(question: &Question<'a>) -> Option<&'a PodView> {
    let lease = question.lease.filter(|lease| !question.suspended && !lease.expired)?;
    let pod = pod_of(&lease.holder, question.pods)?;
    (pod.program_is_ready(lease) && !pod.terminating && is_of(lease, pod)).then_some(pod)
}

/// Whether the holder runs in this very pod, and not in a former pod of that name.
fn is_of(lease: &LeaseView, pod: &PodView) -> bool {
    // A pod with the gate has our candidate, which writes its incarnation. Other clients leave the former holder's in
    // place.
    if pod.proven.is_none() {
        return true;
    }
    let holder = lease.incarnation.as_deref().and_then(|incarnation| incarnation.split('/').next());
    // A dash stands for a uid that the candidate does not know.
    holder.filter(|uid| !matches!(*uid, "" | "-")).is_none_or(|uid| pod.uid.as_deref() == Some(uid))
}

fn slice(question: &Question<'_>) -> Value {
    let leader = leader(question).and_then(|pod| Some((pod, pod.ip.as_deref()?, family(pod.ip.as_deref()?)?)));
    // Without a leader any address type will do; that of the pods saves recreating the slice for the first leader.
    let usual = || question.pods.iter().find_map(|pod| family(pod.ip.as_deref()?)).unwrap_or("IPv4");
    let address_type = match leader {
        Some((_, _, family)) => family,
        None => question.address_type.unwrap_or_else(usual),
    };
    let endpoints = leader.map_or_else(|| json!([]), |(pod, ip, _)| json!([endpoint(question, pod, ip)]));
    let ports = leader.map_or_else(|| json!([]), |(pod, ..)| ports(question.ports, pod));
    let Question { name, namespace, uid, .. } = *question;
    let labels = json!({
        SERVICE_NAME: name_of(name),
        MANAGED_BY: GROUP,
        label::MANAGED_BY: label::MANAGED_BY_VALUE,
        label::GROUP: name,
    });
    let owner = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND, "name": name, "uid": uid, "controller": true,
    });
    assemble(namespace, &name_of(name), labels, json!([owner]), json!(address_type), endpoints, ports)
}

fn assemble(
    namespace: &str,
    name: &str,
    labels: Value,
    owners: Value,
    address_type: Value,
    endpoints: Value,
    ports: Value,
) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": name, "namespace": namespace, "labels": labels, "ownerReferences": owners },
        "addressType": address_type,
        "endpoints": endpoints,
        "ports": ports,
    })
}

fn family(ip: &str) -> Option<&'static str> {
    Some(match ip.parse().ok()? {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    })
}

fn endpoint(question: &Question<'_>, pod: &PodView, ip: &str) -> Value {
    let mut endpoint = json!({
        "addresses": [ip],
        "conditions": { "ready": true, "serving": true, "terminating": false },
        "targetRef": { "kind": "Pod", "namespace": question.namespace, "name": pod.name, "uid": pod.uid },
    });
    if let Some(node) = &pod.node {
        endpoint["nodeName"] = json!(node);
    }
    endpoint
}

/// Returns the ports of the EndpointSlice. A named port that the pod does not have is left out: a pod of another
/// revision may not have it yet, or no longer.
fn ports(ports: &[ServicePort], pod: &PodView) -> Value {
    let number = |target: &Target| match target {
        Target::Number(number) => Some(*number),
        Target::Name(name) => pod.ports.iter().find(|(own, _)| own == name).map(|(_, number)| *number),
    };
    let ports = ports.iter().filter_map(|port| {
        let number = number(&port.target)?;
        Some(json!({ "name": port.name, "port": number, "protocol": "TCP" }))
    });
    Value::Array(ports.collect())
}

/// Returns a live slice in the form of those that [`decide`] builds. If it differs from the wanted slice, it was edited
/// or is out of date. Labels that others add are ignored.
pub fn comparable(live: &Value) -> Value {
    let list = |value: &Value| if value.is_null() { json!([]) } else { value.clone() };
    let metadata = &live["metadata"];
    let ours = [SERVICE_NAME, MANAGED_BY, label::MANAGED_BY, label::GROUP];
    let labels = ours.into_iter().filter(|key| !metadata["labels"][key].is_null());
    let labels = labels.map(|key| (key.to_owned(), metadata["labels"][key].clone())).collect();
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    let owners: Vec<&Value> = owners.filter(|owner| owner["controller"] == true).collect();
    let text = |value: &'static str| metadata[value].as_str().unwrap_or_default();
    assemble(
        text("namespace"),
        text("name"),
        Value::Object(labels),
        json!(owners),
        live["addressType"].clone(),
        list(&live["endpoints"]),
        list(&live["ports"]),
    )
}
