//! The origin of a connection: the pod itself, its node, or elsewhere.

use std::net::IpAddr;

/// The origin of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The pod itself.
    Pod,
    /// The pod's node, whose kubelet sends the probes.
    Node,
    /// Everywhere else.
    Elsewhere,
}

impl Origin {
    /// Returns the origin of a connection from `peer` to `local`, the accepted socket's own address. `node` are the
    /// node's addresses.
    pub fn of(peer: IpAddr, local: Option<IpAddr>, node: &[IpAddr]) -> Self {
        let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
        if is_loopback(peer) && local.is_some_and(is_loopback) {
            Self::Pod
        } else if node.contains(&peer.to_canonical()) {
            Self::Node
        } else {
            Self::Elsewhere
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(peer: &str, local: &str) -> Origin {
        let node = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        Origin::of(peer.parse().unwrap(), Some(local.parse().unwrap()), &node)
    }

    #[test]
    fn only_connections_between_loopback_addresses_are_inside_the_pod() {
        for (peer, local) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.6", "127.0.0.1"),
            ("::1", "::1"),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
        ] {
            assert_eq!(origin(peer, local), Origin::Pod, "{peer} to {local}");
        }
        for (peer, local) in [
            ("127.0.0.6", "10.1.0.7"),
            ("::ffff:127.0.0.6", "::ffff:10.1.0.7"),
            ("::1", "fd00::7"),
            ("10.1.0.7", "10.1.0.7"),
            ("10.1.0.7", "127.0.0.1"),
        ] {
            assert_eq!(origin(peer, local), Origin::Elsewhere, "{peer} to {local}");
        }
        assert_eq!(Origin::of("127.0.0.1".parse().unwrap(), None, &[]), Origin::Elsewhere, "nothing is known of it");
        assert_eq!(origin("::ffff:10.0.0.1", "::ffff:10.1.0.7"), Origin::Node);
        assert_eq!(origin("fd00::1", "fd00::7"), Origin::Node);
    }
}
