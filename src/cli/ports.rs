//! A container's ports as docker writes them: in `ps`, a line for all of them, and in `port`, a line each.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::engine::options::ports::{ContainerPort, Ports};
use crate::network::port::BoundPort;

/// A port of the container, and where it can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reach {
    pub(super) inside: ContainerPort,
    /// `None` where it is exposed and no more.
    pub(super) outside: Option<SocketAddr>,
}

/// Puts ports together, in docker's order. What is bound everywhere is bound at two addresses, one of each family.
pub(super) fn reach(exposed: &[ContainerPort], bound: &[BoundPort]) -> Vec<Reach> {
    let mut all = BTreeSet::new();
    for port in bound {
        let inside = ContainerPort { port: port.port, protocol: port.protocol };
        let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let addresses = port.host.as_ref().map_or(&everywhere[..], std::slice::from_ref);
        let outside = |address: &IpAddr| Some(SocketAddr::new(*address, port.host_port));
        all.extend(addresses.iter().map(|address| Reach { inside, outside: outside(address) }));
    }
    let is_bound =
        |port: &&ContainerPort| !bound.iter().any(|bound| (bound.port, bound.protocol) == (port.port, port.protocol));
    all.extend(exposed.iter().filter(is_bound).map(|port| Reach { inside: *port, outside: None }));
    all.into_iter().collect()
}

/// Docker's cell: neighbours that lead to neighbours are one range.
pub(super) fn cell(ports: &[Reach]) -> String {
    let mut groups: Vec<(IpOrNone, ContainerPort, Ports)> = Vec::new();
    let mut others = Vec::new();
    for Reach { inside, outside } in ports {
        if let Some(outside) = outside
            && outside.port() != inside.port
        {
            others.push(format!("{outside}->{inside}"));
            continue;
        }
        let address = outside.map(|outside| outside.ip());
        let fits = |(ip, first, range): &&mut (IpOrNone, ContainerPort, Ports)| {
            *ip == address && first.protocol == inside.protocol && range.last.checked_add(1) == Some(inside.port)
        };
        match groups.iter_mut().find(fits) {
            Some((_, _, range)) => range.last = inside.port,
            None => groups.push((address, *inside, Ports::one(inside.port))),
        }
    }
    let group = |(address, ContainerPort { protocol, .. }, range): (IpOrNone, ContainerPort, Ports)| match address {
        Some(IpAddr::V6(address)) => format!("[{address}]:{range}->{range}/{protocol}"),
        Some(address) => format!("{address}:{range}->{range}/{protocol}"),
        None => format!("{range}/{protocol}"),
    };
    groups.into_iter().map(group).chain(others).collect::<Vec<_>>().join(", ")
}

type IpOrNone = Option<IpAddr>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::options::ports::parse_exposed;

    #[test]
    fn cells_are_dockers() {
        for (exposed, bound, expected) in [
            (&[][..], &[][..], ""),
            (&["80/tcp"], &[], "80/tcp"),
            (&["80-82/tcp", "81/udp"], &[], "80-82/tcp, 81/udp"),
            (&["80/tcp"], &["*:8080->80/tcp"], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
            (&[], &["127.0.0.1:80->80/tcp", "127.0.0.1:81->81/tcp"], "127.0.0.1:80-81->80-81/tcp"),
            (
                &["443/tcp"],
                &["*:80->80/tcp", "*:81->81/tcp", "[::1]:5353->53/udp"],
                "0.0.0.0:80-81->80-81/tcp, [::]:80-81->80-81/tcp, 443/tcp, [::1]:5353->53/udp",
            ),
        ] {
            let exposed: Vec<ContainerPort> = exposed.iter().flat_map(|text| parse_exposed(text).unwrap()).collect();
            let bound: Vec<BoundPort> = bound.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(cell(&reach(&exposed, &bound)), expected);
        }
    }
}
