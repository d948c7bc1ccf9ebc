//! The addresses of the pod's own node in the pod network, from one of which its kubelet sends the probes.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Returns the node's address `host_ip`, from the downward API, and the gateways of the pod's default routes. On many
/// networks the kubelet's packets come from the gateway, because a bridge has an address of its own. Unknown addresses
/// are left out.
pub(super) fn addresses(host_ip: &str) -> Vec<IpAddr> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let mut found: Vec<IpAddr> = host_ip.parse().into_iter().collect();
    found.extend(gateways(&read("/proc/net/route")).map(IpAddr::from));
    found.extend(gateways_of_ipv6(&read("/proc/net/ipv6_route")).map(IpAddr::from));
    found
}

/// Parses `/proc/net/route`: the interface, the destination and the gateway, in hexadecimal digits of the machine's
/// byte order.
fn gateways(routes: &str) -> impl Iterator<Item = Ipv4Addr> {
    routes.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (destination, gateway) = (fields.next()?, fields.next()?);
        let gateway = u32::from_str_radix(gateway, 16).ok().filter(|gateway| *gateway != 0)?;
        (destination == "00000000").then(|| Ipv4Addr::from(gateway.to_ne_bytes()))
    })
}

/// Parses `/proc/net/ipv6_route`: the destination and its prefix, the source and its prefix, the next hop.
fn gateways_of_ipv6(routes: &str) -> impl Iterator<Item = Ipv6Addr> {
    routes.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [destination, "00", _, _, next_hop, ..] = fields[..] else { return None };
        let number = |digits| u128::from_str_radix(digits, 16).ok();
        let next_hop = number(next_hop).filter(|next_hop| *next_hop != 0)?;
        (number(destination) == Some(0)).then(|| Ipv6Addr::from(next_hop))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_gateways_of_default_routes_are_found() {
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                      eth0\t00000000\t0100F40A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                      eth0\t0000F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                      eth0\t0002F40A\t0900F40A\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(gateways(routes).collect::<Vec<_>>(), [Ipv4Addr::new(10, 244, 0, 1)]);
        let zeros = "00000000000000000000000000000000";
        let routes = format!(
            "fd000000000000000000000000000000 40 {zeros} 00 {zeros} 00000100 00000001 00000000 00000001     eth0\n\
             {zeros} 00 {zeros} 00 fd000000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n\
             {zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200       lo\n"
        );
        assert_eq!(gateways_of_ipv6(&routes).collect::<Vec<_>>(), ["fd00::1".parse::<Ipv6Addr>().unwrap()]);
        assert_eq!(gateways("nonsense\n").count() + gateways_of_ipv6("").count(), 0);
    }

    #[test]
    fn an_unknown_address_is_left_out() {
        assert!(!addresses("").contains(&Ipv4Addr::UNSPECIFIED.into()));
        assert_eq!(addresses("10.0.0.1").first(), Some(&IpAddr::from([10, 0, 0, 1])));
    }
}
