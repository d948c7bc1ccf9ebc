//! The paths of the HTTP server, and which requests each of them answers.
//!
//! # Guarantees
//! - A path for the pod alone is answered only on a connection that stays inside the pod: its peer's address *and* its
//!   local address are loopback addresses. A service mesh forwards connections of the whole network from a loopback
//!   address (127.0.0.6), but to the pod's own address.
//! - Such a request names a loopback host, or none at all. A web page whose name was rebound to 127.0.0.1 names its own
//!   host.
//! - A request that changes something carries none of the headers by which browsers mark the requests of web pages.

use std::net::IpAddr;

use http::request::Parts;
use http::uri::Authority;
use http::{Method, header};

use crate::protocol::paths;
use crate::runtime::origin::Origin;

/// The peers that get an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// The pod's own containers.
    Pod,
    /// All peers that reach the pod.
    All,
}

const READ: &str = "GET, HEAD";
const CHANGE: &str = "POST";

/// Each path with its methods and its audience.
pub(super) const PATHS: [(&str, &str, Audience); 10] = [
    (paths::STATE, READ, Audience::Pod),
    (paths::LEADER, READ, Audience::Pod),
    (paths::REPLICA, READ, Audience::Pod),
    (paths::STEP_DOWN, CHANGE, Audience::Pod),
    (paths::STOPPED, CHANGE, Audience::Pod),
    (paths::LIVEZ, READ, Audience::All),
    (paths::READYZ, READ, Audience::All),
    (paths::APP_LIVENESS, READ, Audience::All),
    (paths::APP_READINESS, READ, Audience::All),
    (paths::METRICS, READ, Audience::All),
];

/// Returns why a request for a path of `audience` is refused; `None` if it is answered.
pub(super) fn refusal(head: &Parts, audience: Audience, origin: Origin) -> Option<String> {
    let path = head.uri.path();
    if audience == Audience::All {
        return None;
    }
    if origin != Origin::Pod {
        return Some(format!(
            "{path} is answered only within the pod, over its loopback interface: ask http://localhost"
        ));
    }
    if let Some(host) = foreign_host(head) {
        return Some(format!(
            "{path} is answered only within the pod: expected the host localhost or a loopback address, found {host:?}: ask \
             http://localhost"
        ));
    }
    let mark = [header::ORIGIN.as_str(), "sec-fetch-site"].into_iter().find(|name| head.headers.contains_key(*name));
    match mark {
        Some(name) if head.method == Method::POST => {
            Some(format!("{path} accepts no request from a web page, found the header {name}: remove it"))
        }
        _ => None,
    }
}

/// Returns the host that the request names, if it is not the pod's own.
fn foreign_host(head: &Parts) -> Option<String> {
    let written =
        head.headers.get_all(header::HOST).iter().map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let in_target = head.uri.authority().map(|authority| authority.to_string());
    written.chain(in_target).find(|host| !host.is_empty() && !is_own_host(host))
}

fn is_own_host(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => name.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_hosts_are_the_pods_own() {
        for host in ["localhost", "LocalHost:4040", "localhost.", "127.0.0.1:4040", "127.9.9.9", "[::1]:4040", "[::1]"]
        {
            assert!(is_own_host(host), "{host}");
        }
        for host in
            ["billing", "localhost.example", "127.0.0.1.example", "10.1.0.7:4040", "0.0.0.0:4040", "[::]", "a b"]
        {
            assert!(!is_own_host(host), "{host}");
        }
    }
}
