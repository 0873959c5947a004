//! The way to everywhere of a container that is in several networks: through which of them it goes while it runs. Touches no
//! route but those to everywhere, and of these none that the container has made itself.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::link::{RouteFound, add_route, delete_route, dump_routes};
use crate::error::{Context, Result};
use crate::namespaces::net_device::open_socket_in;

/// A way to everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way<'a> {
    /// The container's end of its link.
    pub interface: &'a str,
    pub gateway: IpAddr,
    pub metric: Option<u32>,
}

/// `IP6_RT_PRIO_USER`: what the kernel makes of none.
const IPV6_METRIC: u32 = 1024;

/// Has everything that is for elsewhere go these ways, one of each family, and no more through other gateways of the container's
/// networks.
pub fn lead(ways: &[Way<'_>], gateways: &[IpAddr], namespace: BorrowedFd<'_>) -> Result<()> {
    let describe = || "choose the container's way to everywhere";
    let there = open_socket_in(namespace).with_context(describe)?;
    let mut wanted = Vec::new();
    for way in ways {
        let default = if way.gateway.is_ipv6() { IPV6_METRIC } else { 0 };
        let found = RouteFound {
            interface: there.index_of(way.interface).with_context(describe)?,
            gateway: way.gateway,
            metric: way.metric.unwrap_or(default),
        };
        wanted.push((way, found));
    }
    let mut there_are = Vec::new();
    for is_ipv6 in [false, true] {
        let read = |object: &[u8]| there_are.extend(RouteFound::read(object));
        there.call(dump_routes(is_ipv6), read).with_context(describe)?;
    }
    let is_wanted = |found: &RouteFound| wanted.iter().any(|(_, wanted)| wanted == found);
    for old in there_are.iter().filter(|found| gateways.contains(&found.gateway) && !is_wanted(found)) {
        match there.call(delete_route(old).with_context(describe)?, |_| ()) {
            // It has gone with its interface.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(errno).with_context(describe),
        }
    }
    for (way, found) in wanted.iter().filter(|(_, found)| !there_are.contains(found)) {
        let request = add_route(found.interface, None, way.gateway, way.metric).with_context(describe)?;
        match there.call(request, |_| ()) {
            // The container has one of its own in that place.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => {
                return Err(errno).with_context(|| format!("send the container's packets to {}", way.gateway));
            }
        }
    }
    Ok(())
}
