//! The veth pair through which this machine reaches a node's API server.

use std::process::Command;

use crate::config::{BRIDGE, BRIDGE_ADDRESS, SERVICE_NETWORK};
use crate::error::{Error, run};
use crate::instance::Node;
use crate::process::Process;

/// The prefix of interface names; a number follows, which is also the third part of the addresses.
const PREFIX: &str = "k8sensus";

/// Chooses a network that no interface of this machine uses: 10.243.`n`.0/30, starting at an `n` derived from the name.
pub(crate) fn choose(name: &str) -> Result<Node, Error> {
    let used = run(Command::new("ip")
        .args(["-oneline", "-4", "address", "show"])
        .env("PATH", crate::programs::search_path()))?;
    let number = free_number(name, &used).ok_or_else(|| Error::Namespaces {
        reason: "all networks 10.243.0.0/30 to 10.243.255.0/30 are in use".into(),
    })?;
    Ok(node(name, number))
}

fn node(name: &str, number: u8) -> Node {
    Node {
        anchor: None,
        interface: format!("{PREFIX}{number}"),
        host_address: format!("10.243.{number}.1"),
        address: format!("10.243.{number}.2"),
        // The number is unique on this machine; the name only among the instances of one state folder.
        cgroup: format!("/{PREFIX}-{name}-{number}"),
    }
}

fn free_number(name: &str, addresses: &str) -> Option<u8> {
    let first = name.bytes().fold(0u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    (0..=u8::MAX).map(|step| first.wrapping_add(step)).find(|number| {
        let prefix = format!("10.243.{number}.");
        !addresses.split_whitespace().any(|part| part.starts_with(&prefix))
    })
}

/// Creates the pair, with one end in the anchor's network. Returns `Ok(false)` if another instance just used the name.
pub(crate) fn create_pair(node: &Node, anchor: Process) -> Result<bool, Error> {
    let ip = || {
        let mut command = Command::new("ip");
        command.env("PATH", crate::programs::search_path());
        command
    };
    let pid = anchor.pid.to_string();
    let add = ["link", "add", &node.interface, "type", "veth", "peer", "name", "eth0", "netns", &pid];
    match run(ip().args(add)) {
        Err(Error::Command { output, .. }) if output.contains("File exists") => return Ok(false),
        added => added?,
    };
    run(ip().args(["address", "add", &format!("{}/30", node.host_address), "dev", &node.interface]))?;
    run(ip().args(["link", "set", &node.interface, "up"]))?;
    Ok(true)
}

/// Removes the pair if it still exists: a network namespace that ends releases it with a delay.
pub(crate) fn remove_pair(node: &Node) {
    let _ =
        run(Command::new("ip").args(["link", "delete", &node.interface]).env("PATH", crate::programs::search_path()));
}

/// Returns the commands that configure the network from inside.
pub(crate) fn inner_script(node: &Node) -> String {
    let address = &node.address;
    format!(
        "set -e\n\
         ip link set lo up\n\
         ip address add {address}/30 dev eth0\n\
         ip link set eth0 up\n\
         ip link add {BRIDGE} type bridge\n\
         ip address add {BRIDGE_ADDRESS}/24 dev {BRIDGE}\n\
         ip link set {BRIDGE} up\n\
         # kube-proxy puts a pod's address in place, but only for what has a route, and a node of ours has no default one.\n\
         ip route add {SERVICE_NETWORK} dev {BRIDGE}\n\
         echo 1 > /proc/sys/net/ipv4/ip_forward\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_gets_its_preferred_network_or_the_next_free_one() {
        let preferred = free_number("demo", "1: lo    inet 127.0.0.1/8 scope host lo").unwrap();
        let used = format!("9: x    inet 10.243.{preferred}.1/30 scope global x");
        assert_eq!(free_number("demo", &used), Some(preferred.wrapping_add(1)));
        assert_eq!(node("demo", preferred).interface.len().max(15), 15, "the kernel's limit for names");
    }

    #[test]
    fn no_network_is_chosen_if_all_are_in_use() {
        let all = (0..=255).map(|number| format!("inet 10.243.{number}.1/30")).collect::<Vec<_>>().join("\n");
        assert_eq!(free_number("demo", &all), None);
    }
}
