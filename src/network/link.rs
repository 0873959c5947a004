//! Links over rtnetlink(7): bridges, and the pair of ends that joins a container to one. Knows no network, and keeps no state.
//!
//! A pair is made by one request, one end of it in the container's namespace from birth: so there is no moment at which a
//! killed process would leave an end on the host, and with the namespace goes the pair.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::cidr::Cidr;
use super::lease::Mac;
use super::setting;
use crate::error::{Context, Error, Kind, Result};
use crate::namespaces::net_device::{link_body, open_socket_in, set_up, visit};
use crate::sys::netlink::{Request, Socket, find_attribute};

/// Numbers of linux/rtnetlink.h, if_link.h, if_addr.h, veth.h and netlink.h.
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_LINK: u16 = 5;
const LINK_MASTER: u16 = 10;
const LINK_PORT: u16 = 12;
const LINK_INFO: u16 = 18;
const LINK_ALIAS: u16 = 20;
const LINK_NAMESPACE_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const MACVLAN_MODE: u16 = 1;
const IPVLAN_MODE: u16 = 1;
/// `IFLA_BRPORT_ISOLATED` (Linux 4.18), for requests of `PF_BRIDGE`.
const PORT_ISOLATED: u16 = 33;
const BRIDGE_FAMILY: u8 = 7;
const ADDRESS_ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ADDRESS_BROADCAST: u16 = 4;
const ADDRESS_FLAGS: u16 = 8;
const ROUTE_DESTINATION: u16 = 1;
const ROUTE_INTERFACE: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;
const ROUTE_PRIORITY: u16 = 6;
const FLAG_UP: u32 = 1;
const CREATE_NEW: u16 = 0x400 | 0x200;
/// `IFA_F_NODAD`: the address is ours by our own books, and to be used at once.
const NO_DETECTION: u32 = 0x2;
const INET: u8 = 2;
const INET6: u8 = 10;
/// `RT_TABLE_MAIN`, `RTPROT_STATIC`, `RT_SCOPE_UNIVERSE`, `RTN_UNICAST`.
const ROUTE_KIND: [u8; 4] = [254, 4, 0, 1];
/// `rtmsg`.
const ROUTE_BODY_LENGTH: usize = 12;

/// `ifinfomsg`.
const LINK_BODY_LENGTH: usize = 16;

/// What `ip link` shows as the alias of a bridge that was made here.
const MADE_HERE: &[u8] = b"husk";

/// An address of an interface, and the block that is reached by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    pub address: IpAddr,
    pub block: Cidr,
}

/// What an interface upon another of the host's is called for a moment: before Linux 6.14, rtnl_newlink() looks for the name that it
/// is to have where the request is made, and hosts have an eth0 (EEXIST).
const BORN_AS: &str = "husk-new";

/// One container's interface in a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    pub wire: Wire<'a>,
    /// The container's end: `eth0`.
    pub name: &'a str,
    pub mac: Mac,
    pub mtu: Option<u32>,
    pub addresses: Vec<InterfaceAddress>,
    /// Where everything else is sent.
    pub gateways: Vec<IpAddr>,
    pub routes: Vec<Route>,
    /// Of the routes to everywhere.
    pub metric: Option<u32>,
}

/// What leads from a container to its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire<'a> {
    /// A pair of ends, of which the host's is a port of a bridge.
    Bridge { bridge: &'a str, port: &'a str, is_isolated: bool },
    /// An interface upon another of the host's, with an Ethernet address of its own (`MACVLAN_MODE_*`).
    Macvlan { parent: &'a str, mode: u32 },
    /// The same with the other's Ethernet address (`IPVLAN_MODE_*`).
    Ipvlan { parent: &'a str, mode: u16 },
}

/// A way to a block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub to: Cidr,
    pub gateway: IpAddr,
    pub metric: Option<u32>,
}

/// Makes a bridge with its addresses, and brings it up; what is there of it is kept.
pub fn make_bridge(name: &str, mtu: Option<u32>, addresses: &[InterfaceAddress]) -> Result<()> {
    let socket = Socket::open().context("open a netlink socket")?;
    let describe = || format!("make bridge {name}");
    let request = new_bridge(name, mtu, addresses).with_context(describe)?;
    let mut is_new = true;
    match socket.call(request, |_| ()) {
        Ok(()) => believe_no_router(name, addresses).with_context(describe)?,
        Err(Errno::EXIST) => is_new = false,
        Err(errno) => return Err(errno).with_context(describe),
    }
    let index = socket.index_of(name).with_context(describe)?;
    // Perhaps it is somebody else's, with settings of its own.
    if !is_new && !Found::look(&socket, index).with_context(describe)?.is_bridge {
        return Err(Error::new(Kind::Exists, format!("{}: it is there, and no bridge", describe())));
    }
    for address in addresses {
        let describe = || format!("give {} to bridge {name}", address.address);
        let request = add_address(index, *address).with_context(describe)?;
        match socket.call(request, |_| ()) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).with_context(describe),
        }
    }
    let describe = || format!("bring up bridge {name}");
    let request = set_up(index, true);
    let request = if is_new { request.attribute(LINK_ALIAS, MADE_HERE).with_context(describe)? } else { request };
    socket.call(request, |_| ()).with_context(describe)
}

/// Takes away of a bridge what [`make_bridge`] has given: the bridge, or of one that somebody else has made the addresses.
pub fn unmake_bridge(name: &str, addresses: &[InterfaceAddress]) -> Result<()> {
    let socket = Socket::open().context("open a netlink socket")?;
    let describe = || format!("look at interface {name}");
    let index = match socket.index_of(name) {
        Ok(index) => index,
        Err(Errno::NODEV) => return Ok(()),
        Err(errno) => return Err(errno).with_context(describe),
    };
    let found = Found::look(&socket, index).with_context(describe)?;
    if found.is_bridge && found.is_made_here {
        return remove_by(&socket, name);
    }
    for address in addresses.iter().filter(|_| found.is_bridge) {
        let describe = || format!("take {} from bridge {name}", address.address);
        let request = address_request(DELETE_ADDRESS, 0, index, *address).with_context(describe)?;
        match socket.call(request, |_| ()) {
            Ok(()) | Err(Errno::ADDRNOTAVAIL | Errno::NODEV) => {}
            Err(errno) => return Err(errno).with_context(describe),
        }
    }
    Ok(())
}

/// What is to be known of an interface that is there.
struct Found {
    is_bridge: bool,
    is_made_here: bool,
}

impl Found {
    fn look(socket: &Socket, index: u32) -> Result<Self, Errno> {
        let mut found = Self { is_bridge: false, is_made_here: false };
        socket.call(Request::act(GET_LINK, &link_body(index, 0, 0)), |object| {
            let attributes = object.get(LINK_BODY_LENGTH..).unwrap_or_default();
            let kind = find_attribute(attributes, LINK_INFO).and_then(|info| find_attribute(info, INFO_KIND));
            found.is_bridge |= kind == Some(b"bridge\0") || kind == Some(b"bridge");
            found.is_made_here |=
                find_attribute(attributes, LINK_ALIAS).is_some_and(|alias| alias.starts_with(MADE_HERE));
        })?;
        Ok(found)
    }
}

/// A bridge that is down yet. Its Ethernet address is its own and stays: else it would be the lowest of its ports', and
/// containers would lose their gateway whenever one comes or goes.
fn new_bridge(name: &str, mtu: Option<u32>, addresses: &[InterfaceAddress]) -> Result<Request, Errno> {
    let mut request =
        Request::act(NEW_LINK, &link_body(0, 0, 0)).with_flags(CREATE_NEW).attribute(LINK_NAME, &terminated(name))?;
    let own: Vec<IpAddr> = addresses.iter().map(|address| address.address).collect();
    if let Some(Mac(bytes)) = bridge_mac(&own) {
        request = request.attribute(LINK_ADDRESS, &bytes)?;
    }
    if let Some(mtu) = mtu {
        request = request.attribute(LINK_MTU, &mtu.to_ne_bytes())?;
    }
    request.nested(LINK_INFO, |info| info.attribute(INFO_KIND, b"bridge"))
}

/// The Ethernet address of a bridge that is made with these addresses.
pub fn bridge_mac(addresses: &[IpAddr]) -> Option<Mac> {
    let last = match addresses.iter().find(|address| address.is_ipv4()).or(addresses.first())? {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => *address.octets().last_chunk()?,
    };
    let [a, b, c, d] = last;
    Some(Mac([0x02, 0x42, a, b, c, d]))
}

/// The Ethernet address of an interface of this network namespace; `None` where there is no such.
pub fn mac_of(name: &str) -> Result<Option<Mac>> {
    let describe = || format!("look at interface {name}");
    let socket = Socket::open().context("open a netlink socket")?;
    let request = Request::act(GET_LINK, &link_body(0, 0, 0)).attribute(LINK_NAME, &terminated(name));
    let mut found = None;
    let read = |body: &[u8]| {
        let attributes = body.get(link_body(0, 0, 0).len()..).unwrap_or_default();
        found = find_attribute(attributes, LINK_ADDRESS).and_then(|bytes| bytes.try_into().ok()).map(Mac);
    };
    match socket.call(request.with_context(describe)?, read) {
        Ok(()) => Ok(found),
        Err(Errno::NODEV) => Ok(None),
        Err(errno) => Err(errno).with_context(describe),
    }
}

/// Nobody on a bridge is the router of this host or of a container (CVE-2020-13401); and an interface without IPv6 has no
/// address of it.
fn believe_no_router(name: &str, addresses: &[InterfaceAddress]) -> std::io::Result<()> {
    let has_ipv6 = addresses.iter().any(|address| address.address.is_ipv6());
    let settings = std::path::Path::new("/proc/sys/net/ipv6/conf").join(name);
    for (setting, value) in [("accept_ra", "0"), ("disable_ipv6", if has_ipv6 { "0" } else { "1" })] {
        let path = settings.join(setting);
        match setting::read(&path) {
            // A kernel without IPv6.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Ok(text) if text == value => {}
            _ => setting::write(&path, value)?,
        }
    }
    Ok(())
}

/// Whether there is an interface of the host by that name.
pub fn is_there(name: &str) -> bool {
    Socket::open().and_then(|socket| socket.index_of(name)).is_ok()
}

/// Removes an interface of the host; that there is none is no error.
pub fn remove(name: &str) -> Result<()> {
    remove_by(&Socket::open().context("open a netlink socket")?, name)
}

fn remove_by(socket: &Socket, name: &str) -> Result<()> {
    let describe = || format!("remove interface {name}");
    let index = match socket.index_of(name) {
        Ok(index) => index,
        Err(Errno::NODEV) => return Ok(()),
        Err(errno) => return Err(errno).with_context(describe),
    };
    match socket.call(Request::act(DELETE_LINK, &link_body(index, 0, 0)), |_| ()) {
        Ok(()) | Err(Errno::NODEV) => Ok(()),
        Err(errno) => Err(errno).with_context(describe),
    }
}

/// Joins a network namespace to a network. The process visits the namespace for a moment.
pub fn connect(link: &Link<'_>, namespace: BorrowedFd<'_>) -> Result<()> {
    let here = Socket::open().context("open a netlink socket")?;
    let there = open_socket_in(namespace).context("open a netlink socket in the container's network namespace")?;
    match link.make(&here, namespace) {
        Err(Errno::EXIST) if link.remove_left(&here)? => link.make(&here, namespace),
        // The other end's name, or that of an interface upon another.
        Err(Errno::EXIST) => {
            return Err(Error::new(Kind::Exists, format!("{} is there already in the container", link.name)));
        }
        answer => answer,
    }
    .with_context(|| link.wire.describe())?;
    let inside = || format!("set up {} in the container", link.name);
    let index = link.find(&there).with_context(inside)?;
    for address in &link.addresses {
        let request = add_address(index, *address).with_context(inside)?;
        there.call(request, |_| ()).with_context(|| format!("give {} to the container", address.address))?;
    }
    visit(namespace, || believe_no_router(link.name, &link.addresses)).with_context(inside)?.with_context(inside)?;
    there.call(set_up(index, true), |_| ()).with_context(inside)?;
    let everywhere = link.gateways.iter().map(|gateway| (None, *gateway, link.metric));
    let routes = link.routes.iter().map(|route| (Some(route.to), route.gateway, route.metric));
    for (to, gateway, metric) in routes.chain(everywhere) {
        let request = add_route(index, to, gateway, metric).with_context(inside)?;
        there.call(request, |_| ()).with_context(|| format!("send the container's packets to {gateway}"))?;
    }
    Ok(())
}

/// Removes an interface of another network namespace; that there is none is no error.
pub fn disconnect(name: &str, namespace: BorrowedFd<'_>) -> Result<()> {
    let there = open_socket_in(namespace).context("open a netlink socket in the container's network namespace")?;
    remove_by(&there, name)
}

/// Finds the interface through which this host reaches everywhere.
pub fn default_interface() -> Result<Option<String>> {
    let socket = Socket::open().context("open a netlink socket")?;
    let mut index = None;
    for is_ipv6 in [false, true] {
        let read = |object: &[u8]| index = index.or_else(|| leads_everywhere(object));
        socket.call(dump_routes(is_ipv6), read).context("list this host's routes")?;
    }
    index.map(|index| socket.name_of(index)).transpose().context("find the interface of this host's default route")
}

/// The interface of a route to everywhere.
fn leads_everywhere(object: &[u8]) -> Option<u32> {
    let (body, attributes) = object.split_at_checked(ROUTE_BODY_LENGTH)?;
    let is_default = body[1] == 0 && body[4] == ROUTE_KIND[0] && body[7] == ROUTE_KIND[3];
    let index = find_attribute(attributes, ROUTE_INTERFACE)?.try_into().ok().map(u32::from_ne_bytes)?;
    is_default.then_some(index)
}

/// The blocks that this host has routes to, but for the one to everywhere: what a new network must not take from it.
pub fn routed_blocks() -> Result<Vec<Cidr>> {
    let socket = Socket::open().context("open a netlink socket")?;
    let mut blocks = Vec::new();
    for is_ipv6 in [false, true] {
        let read = |object: &[u8]| blocks.extend(destination(object));
        socket.call(dump_routes(is_ipv6), read).context("list this host's routes")?;
    }
    Ok(blocks)
}

/// Where a route leads, unless it is everywhere.
fn destination(object: &[u8]) -> Option<Cidr> {
    let (body, attributes) = object.split_at_checked(ROUTE_BODY_LENGTH)?;
    let value = find_attribute(attributes, ROUTE_DESTINATION)?;
    let address = match body[0] {
        INET => IpAddr::from(<[u8; 4]>::try_from(value).ok()?),
        INET6 => IpAddr::from(<[u8; 16]>::try_from(value).ok()?),
        _ => return None,
    };
    Cidr::around(address, body[1]).ok().filter(|block| block.prefix() > 0)
}

/// The host's end of a pair, at a bridge.
fn new_port(name: &str, mtu: Option<u32>, bridge: u32) -> Result<Request, Errno> {
    let request = Request::act(NEW_LINK, &link_body(0, FLAG_UP, FLAG_UP))
        .with_flags(CREATE_NEW)
        .attribute(LINK_NAME, &terminated(name))?
        .attribute(LINK_MASTER, &bridge.to_ne_bytes())?;
    match mtu {
        Some(mtu) => request.attribute(LINK_MTU, &mtu.to_ne_bytes()),
        None => Ok(request),
    }
}

impl Wire<'_> {
    fn describe(&self) -> String {
        match self {
            Self::Bridge { bridge, .. } => format!("join the container to bridge {bridge}"),
            Self::Macvlan { parent, .. } => format!("put the container on {parent} by macvlan"),
            Self::Ipvlan { parent, .. } => format!("put the container on {parent} by ipvlan"),
        }
    }
}

impl Link<'_> {
    /// Removes what a monitor that was killed has left: the other end is in a namespace that has ended, or is about to. Says
    /// whether there was something.
    fn remove_left(&self, here: &Socket) -> Result<bool> {
        let Wire::Bridge { port, .. } = self.wire else { return Ok(false) };
        let is_there = here.index_of(port).is_ok();
        remove_by(here, port)?;
        Ok(is_there)
    }

    fn make(&self, here: &Socket, namespace: BorrowedFd<'_>) -> Result<(), Errno> {
        let request = match self.wire {
            Wire::Bridge { bridge, port, .. } => {
                new_port(port, self.mtu, here.index_of(bridge)?)?.nested(LINK_INFO, |info| {
                    info.attribute(INFO_KIND, b"veth")?
                        .nested(INFO_DATA, |data| data.nested(VETH_PEER, |peer| self.write_peer(peer, namespace)))
                })?
            }
            Wire::Macvlan { parent, mode } => self
                .upon(here.index_of(parent)?, namespace)?
                .attribute(LINK_ADDRESS, &self.mac.0)?
                .nested(LINK_INFO, |info| {
                    info.attribute(INFO_KIND, b"macvlan")?
                        .nested(INFO_DATA, |data| data.attribute(MACVLAN_MODE, &mode.to_ne_bytes()))
                })?,
            Wire::Ipvlan { parent, mode } => {
                self.upon(here.index_of(parent)?, namespace)?.nested(LINK_INFO, |info| {
                    info.attribute(INFO_KIND, b"ipvlan")?
                        .nested(INFO_DATA, |data| data.attribute(IPVLAN_MODE, &mode.to_ne_bytes()))
                })?
            }
        };
        here.call(request, |_| ())?;
        match self.wire {
            Wire::Bridge { port, is_isolated: true, .. } => {
                let mut body = link_body(here.index_of(port)?, 0, 0);
                body[0] = BRIDGE_FAMILY;
                let isolated = |port: Request| port.attribute(PORT_ISOLATED, &[1]);
                here.call(Request::act(NEW_LINK, &body).nested(LINK_PORT, isolated)?, |_| ())
            }
            _ => Ok(()),
        }
    }

    /// Finds the container's end, and gives it its name where it was born with another.
    fn find(&self, there: &Socket) -> Result<u32, Errno> {
        if matches!(self.wire, Wire::Bridge { .. }) {
            return there.index_of(self.name);
        }
        let index = there.index_of(BORN_AS)?;
        let renamed = Request::act(NEW_LINK, &link_body(index, 0, 0)).attribute(LINK_NAME, &terminated(self.name))?;
        there.call(renamed, |_| ()).inspect_err(|_| {
            // The failure is the one to tell.
            let _ = there.call(Request::act(DELETE_LINK, &link_body(index, 0, 0)), |_| ());
        })?;
        Ok(index)
    }

    /// An interface upon another, in the container from birth.
    fn upon(&self, parent: u32, namespace: BorrowedFd<'_>) -> Result<Request, Errno> {
        let request = Request::act(NEW_LINK, &link_body(0, 0, 0)).with_flags(CREATE_NEW);
        self.write_own(request, BORN_AS, namespace)?.attribute(LINK_LINK, &parent.to_ne_bytes())
    }

    fn write_peer(&self, peer: Request, namespace: BorrowedFd<'_>) -> Result<Request, Errno> {
        self.write_own(peer.bytes(&link_body(0, 0, 0)), self.name, namespace)?.attribute(LINK_ADDRESS, &self.mac.0)
    }

    fn write_own(&self, request: Request, name: &str, namespace: BorrowedFd<'_>) -> Result<Request, Errno> {
        let request = request
            .attribute(LINK_NAME, &terminated(name))?
            .attribute(LINK_NAMESPACE_FD, &namespace.as_raw_fd().to_ne_bytes())?;
        match self.mtu {
            Some(mtu) => request.attribute(LINK_MTU, &mtu.to_ne_bytes()),
            None => Ok(request),
        }
    }
}

fn add_address(index: u32, of: InterfaceAddress) -> Result<Request, Errno> {
    address_request(NEW_ADDRESS, CREATE_NEW, index, of)
}

fn address_request(kind: u16, flags: u16, index: u32, of: InterfaceAddress) -> Result<Request, Errno> {
    let InterfaceAddress { address, block } = of;
    let family = if address.is_ipv4() { INET } else { INET6 };
    let mut body = [family, block.prefix(), 0, 0, 0, 0, 0, 0];
    body[4..].copy_from_slice(&index.to_ne_bytes());
    let request = Request::act(kind, &body).with_flags(flags);
    match address {
        IpAddr::V4(address) => {
            let octets = address.octets();
            let request = request.attribute(ADDRESS_LOCAL, &octets)?.attribute(ADDRESS_ADDRESS, &octets)?;
            match block.last() {
                // RFC 3021: of two addresses none is everybody's.
                IpAddr::V4(last) if block.prefix() < 31 => request.attribute(ADDRESS_BROADCAST, &last.octets()),
                _ => Ok(request),
            }
        }
        IpAddr::V6(address) => {
            let octets = address.octets();
            request
                .attribute(ADDRESS_LOCAL, &octets)?
                .attribute(ADDRESS_ADDRESS, &octets)?
                .attribute(ADDRESS_FLAGS, &NO_DETECTION.to_ne_bytes())
        }
    }
}

/// A route to everywhere, as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RouteFound {
    pub(super) interface: u32,
    pub(super) gateway: IpAddr,
    pub(super) metric: u32,
}

impl RouteFound {
    /// Reads one of the main table that goes by a gateway.
    pub(super) fn read(object: &[u8]) -> Option<Self> {
        let (body, attributes) = object.split_at_checked(ROUTE_BODY_LENGTH)?;
        let number = |kind| find_attribute(attributes, kind)?.try_into().ok().map(u32::from_ne_bytes);
        let gateway = find_attribute(attributes, ROUTE_GATEWAY)?;
        let gateway = match body[0] {
            INET => IpAddr::from(<[u8; 4]>::try_from(gateway).ok()?),
            INET6 => IpAddr::from(<[u8; 16]>::try_from(gateway).ok()?),
            _ => return None,
        };
        let is_default = body[1] == 0 && body[4] == ROUTE_KIND[0] && body[7] == ROUTE_KIND[3];
        let metric = number(ROUTE_PRIORITY).unwrap_or(0);
        is_default.then_some(Self { interface: number(ROUTE_INTERFACE)?, gateway, metric })
    }
}

pub(super) fn dump_routes(is_ipv6: bool) -> Request {
    let mut body = [0; ROUTE_BODY_LENGTH];
    body[0] = if is_ipv6 { INET6 } else { INET };
    Request::dump(GET_ROUTE, &body)
}

pub(super) fn delete_route(route: &RouteFound) -> Result<Request, Errno> {
    let mut body = [0; ROUTE_BODY_LENGTH];
    body[0] = if route.gateway.is_ipv4() { INET } else { INET6 };
    body[4] = ROUTE_KIND[0];
    body[7] = ROUTE_KIND[3];
    let request = by_gateway(Request::act(DELETE_ROUTE, &body), route.gateway)?;
    request
        .attribute(ROUTE_PRIORITY, &route.metric.to_ne_bytes())?
        .attribute(ROUTE_INTERFACE, &route.interface.to_ne_bytes())
}

fn by_gateway(request: Request, gateway: IpAddr) -> Result<Request, Errno> {
    match gateway {
        IpAddr::V4(address) => request.attribute(ROUTE_GATEWAY, &address.octets()),
        IpAddr::V6(address) => request.attribute(ROUTE_GATEWAY, &address.octets()),
    }
}

/// A route by an address that a neighbour has; to everywhere, where no block is named.
pub(super) fn add_route(index: u32, to: Option<Cidr>, gateway: IpAddr, metric: Option<u32>) -> Result<Request, Errno> {
    let mut body = [0; ROUTE_BODY_LENGTH];
    body[0] = if gateway.is_ipv4() { INET } else { INET6 };
    body[4..8].copy_from_slice(&ROUTE_KIND);
    let mut bytes = Vec::new();
    if let Some(to) = to {
        body[1] = to.prefix();
        match to.first() {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    let mut request = Request::act(NEW_ROUTE, &body).with_flags(CREATE_NEW);
    if !bytes.is_empty() {
        request = request.attribute(ROUTE_DESTINATION, &bytes)?;
    }
    request = by_gateway(request, gateway)?;
    if let Some(metric) = metric {
        request = request.attribute(ROUTE_PRIORITY, &metric.to_ne_bytes())?;
    }
    request.attribute(ROUTE_INTERFACE, &index.to_ne_bytes())
}

fn terminated(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;
    use crate::network::tests::in_own_namespace;

    fn at(address: &str, block: &str) -> InterfaceAddress {
        InterfaceAddress { address: address.parse().unwrap(), block: block.parse().unwrap() }
    }

    #[test]
    fn a_container_reaches_its_bridge_and_its_neighbour() {
        in_own_namespace(|| {
            make_bridge("husk0", None, &[at("10.89.0.1", "10.89.0.0/24"), at("fd00:89::1", "fd00:89::/64")]).unwrap();
            make_bridge("husk0", None, &[at("10.89.0.1", "10.89.0.0/24")]).unwrap();
            let blocks = routed_blocks().unwrap();
            assert!(blocks.contains(&"10.89.0.0/24".parse().unwrap()), "{blocks:?}");
            assert!(blocks.contains(&"fd00:89::/64".parse().unwrap()), "{blocks:?}");
            let host = File::open("/proc/thread-self/ns/net").unwrap();
            let outcome = std::thread::scope(|scope| {
                let guest = scope.spawn(|| {
                    crate::sys::clone::unshare(crate::sys::clone::CloneFlags::NEWNET).unwrap();
                    let inside = File::open("/proc/thread-self/ns/net").unwrap();
                    let link = Link {
                        wire: Wire::Bridge { bridge: "husk0", port: "vh1", is_isolated: true },
                        name: "eth0",
                        mac: "02:42:0a:59:00:02".parse().unwrap(),
                        mtu: Some(1400),
                        addresses: vec![at("10.89.0.2", "10.89.0.0/24"), at("fd00:89::2", "fd00:89::/64")],
                        gateways: vec!["10.89.0.1".parse().unwrap(), "fd00:89::1".parse().unwrap()],
                        routes: vec![Route {
                            to: "198.51.100.0/24".parse().unwrap(),
                            gateway: "10.89.0.9".parse().unwrap(),
                            metric: Some(7),
                        }],
                        metric: None,
                    };
                    let back = rustix::thread::LinkNameSpaceType::Network;
                    rustix::thread::move_into_link_name_space(host.as_fd(), Some(back)).unwrap();
                    connect(&link, inside.as_fd()).unwrap();
                    rustix::thread::move_into_link_name_space(inside.as_fd(), Some(back)).unwrap();
                    let listener = |address: &str| std::net::TcpListener::bind((address, 80)).unwrap();
                    let listeners = [listener("10.89.0.2"), listener("fd00:89::2")];
                    let here = routed_blocks().unwrap();
                    (inside, listeners, here)
                });
                guest.join().unwrap()
            });
            let (_inside, listeners, blocks) = outcome;
            assert!(blocks.contains(&"10.89.0.0/24".parse().unwrap()), "{blocks:?}");
            assert!(blocks.contains(&"198.51.100.0/24".parse().unwrap()), "{blocks:?}");
            for (listener, address) in listeners.iter().zip(["10.89.0.2:80", "[fd00:89::2]:80"]) {
                let caller = std::net::TcpStream::connect(address).unwrap();
                let (_, seen) = listener.accept().unwrap();
                assert_eq!(seen, caller.local_addr().unwrap());
            }
            remove("vh1").unwrap();
            remove("vh1").unwrap();
            unmake_bridge("husk0", &[]).unwrap();
            assert!(!is_there("husk0"));
        });
    }

    #[test]
    fn a_bridge_of_somebody_else_stays_and_another_interface_is_none() {
        in_own_namespace(|| {
            let socket = Socket::open().unwrap();
            for kind in ["bridge", "dummy"] {
                let request = Request::act(NEW_LINK, &link_body(0, 0, 0)).with_flags(CREATE_NEW);
                let request = request.attribute(LINK_NAME, &terminated(&format!("{kind}0"))).unwrap();
                let request = request.nested(LINK_INFO, |info| info.attribute(INFO_KIND, kind.as_bytes())).unwrap();
                match socket.call(request, |_| ()) {
                    Err(Errno::OPNOTSUPP) if kind == "dummy" => return,
                    made => made.unwrap(),
                }
            }
            let address = at("10.89.0.1", "10.89.0.0/24");
            let refused = make_bridge("dummy0", None, &[address]).unwrap_err();
            assert!(refused.kind() == Kind::Exists && refused.report().contains("no bridge"), "{refused:?}");
            make_bridge("bridge0", None, &[address]).unwrap();
            let is_routed = || routed_blocks().unwrap().contains(&"10.89.0.0/24".parse().unwrap());
            assert!(is_routed());
            for name in ["bridge0", "dummy0", "nobody0"] {
                unmake_bridge(name, &[address]).unwrap();
            }
            assert!(is_there("bridge0") && is_there("dummy0"));
            assert!(!is_routed());
        });
    }
}
