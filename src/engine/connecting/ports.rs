//! Published ports of a container: takes them from the host, and says where they lead.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::io::Errno;

use super::world::World;
use crate::engine::engine::Engine;
use crate::engine::networks::Networks;
use crate::engine::options::PublishedPort;
use crate::engine::record::Record;
use crate::error::{Error, Kind, Result};
use crate::network::firewall::Published;
use crate::network::lease::Lease;
use crate::network::passed::PassedSockets;
use crate::network::port::{BoundPort, Protocol};
use crate::network::relay::{Door, Transport};
use crate::network::rootless::{self, Handle, Publication};

/// How often the kernel is asked for a port that is free for IPv4 and for IPv6.
const TRIES: usize = 16;

/// How long it may take until a port is free that was a killed monitor's.
const REOPENING: Duration = Duration::from_millis(5);
const REOPENINGS: u32 = 40;

/// What was taken from the host.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub(super) doors: Vec<Door>,
    pub(super) bound: Vec<BoundPort>,
}

/// Takes all ports that are to lead to a container, at these addresses of its; `binding` is where those are published that say
/// nothing about it.
pub(super) fn open(
    engine: &Engine,
    world: &World,
    record: &Record,
    binding: Option<IpAddr>,
    targets: &[IpAddr],
    passed: &PassedSockets,
) -> Result<Opened> {
    let mut opened = Opened::default();
    if let Some(handle) = world.handle().filter(|_| !record.options.published.is_empty()) {
        tell_blocks(engine, handle)?;
    }
    for port in &record.options.published {
        if world.handle().is_some() && transport(port.protocol).is_none() {
            let what = format!("publish {}/{}", port.port, port.protocol);
            return Err(Error::unsupported(format!("{what}: an ordinary user's way out carries tcp and udp")));
        }
        let port = PublishedPort { host: port.host.or(binding), ..*port };
        let open = |at: SocketAddr, transport, to| match (world.handle(), passed.find(transport, at)) {
            (Some(handle), socket) => publish(handle, record, at, transport, to, socket).map(|port| (port, None)),
            (None, Some(socket)) => {
                Door::take(transport, socket, at.ip(), to).and_then(|door| Ok((door.port()?, Some(door))))
            }
            (None, None) => Door::open(transport, at, to).and_then(|door| Ok((door.port()?, Some(door)))),
        };
        let opener = Opener { open: &open, passed };
        let (bound, doors) = open_one(&port, targets, &opener).map_err(|error| name_owner(engine, &port, error))?;
        opened.bound.push(bound);
        opened.doors.extend(doors);
    }
    Ok(opened)
}

/// Opens ports again that a container has. One that somebody has taken meanwhile stays theirs: callers from elsewhere do not
/// need it. What the monitor before had open may take a moment to go: a process that it relayed by ends with it.
pub(super) fn reopen(bound: &[BoundPort], targets: &[IpAddr]) -> Vec<Door> {
    let mut tries = REOPENINGS;
    let mut open_again = |transport, at, to| loop {
        match Door::open(transport, at, to) {
            Err(error) if error.kind() == Kind::Exists && tries > 0 => {
                tries -= 1;
                std::thread::sleep(REOPENING);
            }
            answer => return answer.ok(),
        }
    };
    let mut doors = Vec::new();
    for bound in bound {
        for at in addresses(bound.host) {
            if let (Some(transport), Some(to)) = (transport(bound.protocol), target(at, bound.port, targets)) {
                doors.extend(open_again(transport, SocketAddr::new(at, bound.host_port), to));
            }
        }
    }
    doors
}

/// What the rules say of a container's ports.
pub(super) fn published(lease: &Lease) -> Vec<Published> {
    let mut published = Vec::new();
    for bound in &lease.published {
        for to in &lease.addresses {
            let host = match bound.host {
                // Those callers have a relay.
                Some(host) if host.is_loopback() || host.is_ipv6() != to.is_ipv6() => continue,
                host => host.filter(|host| !host.is_unspecified()),
            };
            published.push(Published {
                protocol: bound.protocol.number(),
                host,
                host_port: bound.host_port,
                to: *to,
                to_port: bound.port,
            });
        }
    }
    published
}

/// Has the way out of a user's world listen, and gives the port.
fn publish(
    handle: &Handle,
    record: &Record,
    at: SocketAddr,
    transport: Transport,
    to: SocketAddr,
    socket: Option<BorrowedFd<'_>>,
) -> Result<u16> {
    let transport = match transport {
        Transport::Tcp => rootless::Transport::Tcp,
        Transport::Udp => rootless::Transport::Udp,
    };
    let publication = Publication { container: record.id.to_string(), transport, host: at, guest: to };
    handle.publish(&publication, socket).map_err(|error| match error.errno() {
        Some(Errno::ADDRINUSE) => error.with_kind(Kind::Exists),
        _ => error,
    })
}

/// Publishes ports again of a container whose way out had died. What is still there stays as it is; all that can be is published,
/// and the first failure told.
pub(super) fn publish_again(
    engine: &Engine,
    handle: &Handle,
    record: &Record,
    bound: &[BoundPort],
    targets: &[IpAddr],
    passed: &PassedSockets,
) -> Result<()> {
    let mut all = if bound.is_empty() { Ok(()) } else { tell_blocks(engine, handle) };
    for bound in bound {
        let Some(transport) = transport(bound.protocol) else { continue };
        for at in heard_at(bound.host, bound.host_port, transport, passed) {
            if let Some(to) = target(at, bound.port, targets) {
                let place = SocketAddr::new(at, bound.host_port);
                let answer = publish(handle, record, place, transport, to, passed.find(transport, place));
                all = all.and(match answer {
                    Err(error) if bound.host.is_none() && at.is_ipv6() && is_without_ipv6(&error) => Ok(()),
                    answer => answer.map(drop),
                });
            }
        }
    }
    all
}

/// Callers may have addresses that a network has as well.
fn tell_blocks(engine: &Engine, handle: &Handle) -> Result<()> {
    let networks = Networks::of(engine).recorded()?;
    handle.know(networks.iter().flat_map(|network| &network.subnets).map(|subnet| subnet.block).collect())
}

/// A host without IPv6 has nobody who calls by it.
fn is_without_ipv6(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

/// How ports are opened.
struct Opener<'a> {
    /// Takes a port of the host, 0 for any, and leads it somewhere; gives its number.
    open: &'a dyn Fn(SocketAddr, Transport, SocketAddr) -> Result<(u16, Option<Door>)>,
    passed: &'a PassedSockets,
}

fn open_one(port: &PublishedPort, targets: &[IpAddr], opener: &Opener<'_>) -> Result<(BoundPort, Vec<Door>)> {
    let bound = |host_port| BoundPort { host: port.host, host_port, port: port.port, protocol: port.protocol };
    let Some(ports) = port.host_ports else {
        let mut failure = Error::new(Kind::Exists, "no port of this host is free");
        for _ in 0..TRIES {
            match open_at(port, 0, targets, opener) {
                Ok((host_port, doors)) => return Ok((bound(host_port), doors)),
                // Free for the one family, and not for the other.
                Err(error) if error.kind() == Kind::Exists => failure = error,
                Err(error) => return Err(error),
            }
        }
        return Err(failure);
    };
    let mut failure = None;
    for number in ports.iter() {
        match open_at(port, number, targets, opener) {
            Ok((_, doors)) => return Ok((bound(number), doors)),
            Err(error) if error.kind() == Kind::Exists => failure = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(failure.unwrap_or_else(|| Error::invalid("an empty range of ports")))
}

/// Opens a port at all addresses where it is published, by the same number; 0 for any.
fn open_at(port: &PublishedPort, number: u16, targets: &[IpAddr], opener: &Opener<'_>) -> Result<(u16, Vec<Door>)> {
    let Some(transport) = transport(port.protocol) else {
        // Nobody else can be asked whether it is free.
        return match number {
            0 => Err(Error::invalid(format!("port {}/{}: the host's port is to be named", port.port, port.protocol))),
            number => Ok((number, Vec::new())),
        };
    };
    let mut doors: Vec<Door> = Vec::new();
    let mut number = number;
    for at in heard_at(port.host, number, transport, opener.passed) {
        let Some(to) = target(at, port.port, targets) else {
            return Err(Error::invalid(format!("publish {at}: the container has no address that it could lead to")));
        };
        match (opener.open)(SocketAddr::new(at, number), transport, to) {
            Ok((taken, door)) => {
                number = taken;
                doors.extend(door);
            }
            Err(error) if port.host.is_none() && at.is_ipv6() && is_without_ipv6(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((number, doors))
}

fn transport(protocol: Protocol) -> Option<Transport> {
    match protocol {
        Protocol::Tcp => Some(Transport::Tcp),
        Protocol::Udp => Some(Transport::Udp),
        Protocol::Sctp => None,
    }
}

/// The addresses where a port is opened: of one that is published everywhere, and that the caller has a socket for, those where
/// that hears. Who has said where is not told otherwise.
fn heard_at(host: Option<IpAddr>, port: u16, transport: Transport, passed: &PassedSockets) -> Vec<IpAddr> {
    let mut at = addresses(host);
    let has_socket = |at: &IpAddr| passed.find(transport, SocketAddr::new(*at, port)).is_some();
    if at.iter().any(has_socket) {
        at.retain(has_socket);
    }
    at
}

fn addresses(host: Option<IpAddr>) -> Vec<IpAddr> {
    match host {
        Some(address) => vec![address],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    }
}

/// Where callers at an address are led: to the container's of that family, or to the one that it has.
pub(super) fn target(at: IpAddr, port: u16, targets: &[IpAddr]) -> Option<SocketAddr> {
    let same = targets.iter().find(|address| address.is_ipv6() == at.is_ipv6());
    same.or(targets.first()).map(|address| SocketAddr::new(*address, port))
}

/// Says who has a port that is taken, where it is a container.
fn name_owner(engine: &Engine, port: &PublishedPort, error: Error) -> Error {
    let at = port.host.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let what = format!("publish {}:{}/{}", at, port.host_word(), port.protocol);
    if error.kind() != Kind::Exists {
        return error.context(what);
    }
    // Docker's words.
    let taken = Error::new(Kind::Exists, format!("{what}: port is already allocated"));
    match owner(engine, port) {
        Some(name) => taken.with_hint(format!("container {name} has it")),
        None => taken.with_hint("a process outside of husk's containers has it: ss -lnp"),
    }
}

fn owner(engine: &Engine, port: &PublishedPort) -> Option<String> {
    let has_it = |bound: &BoundPort| {
        bound.protocol == port.protocol
            && port.host_ports.is_some_and(|ports| ports.iter().any(|number| number == bound.host_port))
    };
    let leases = Networks::of(engine).everybodys().ok()?.into_values().flatten();
    leases.map(|(_, lease)| lease).find(|lease| lease.published.iter().any(has_it)).map(|lease| lease.name)
}

/// Refuses a port that a container has.
pub(super) fn allocated(port: &BoundPort, owner: &str) -> Error {
    let at = port.host.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    // Docker's words.
    let text = format!("publish {at}:{}/{}: port is already allocated", port.host_port, port.protocol);
    Error::new(Kind::Exists, text).with_hint(format!("container {owner} has it"))
}

/// The first of these ports that somebody else has by a lease, and what that one is called.
pub(super) fn anothers(networks: &Networks<'_>, id: &str, bound: &[BoundPort]) -> Result<Option<(BoundPort, String)>> {
    if bound.is_empty() {
        return Ok(None);
    }
    let is_same = |one: &BoundPort, other: &BoundPort| {
        one.protocol == other.protocol
            && one.host_port == other.host_port
            && (one.host == other.host || one.host.is_none() || other.host.is_none())
    };
    let has = |lease: &Lease, ours: &BoundPort| lease.published.iter().any(|theirs| is_same(ours, theirs));
    let others = networks.everybodys()?.into_iter().filter(|(holder, _)| holder != id);
    Ok(others.flat_map(|(_, leases)| leases.into_values()).find_map(|lease| {
        let ours = bound.iter().find(|ours| has(&lease, ours))?;
        Some((*ours, lease.name))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> Lease {
        Lease { addresses: vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()], ..Lease::default() }
    }

    fn open(at: SocketAddr, transport: Transport, to: SocketAddr) -> Result<(u16, Option<Door>)> {
        let door = Door::open(transport, at, to)?;
        Ok((door.port()?, Some(door)))
    }

    #[test]
    fn a_port_is_taken_of_both_families_or_of_none() {
        let passed = PassedSockets::default();
        let open = Opener { open: &open, passed: &passed };
        let any: PublishedPort = "80".parse().unwrap();
        let (bound, doors) = open_one(&any, &lease().addresses, &open).unwrap();
        assert!(doors.iter().all(|door| door.port().unwrap() == bound.host_port));
        let again: PublishedPort = format!("{}:80", bound.host_port).parse().unwrap();
        assert_eq!(open_one(&again, &lease().addresses, &open).unwrap_err().kind(), Kind::Exists);
        // The next of a range.
        let next = bound.host_port.checked_add(40).unwrap();
        let range: PublishedPort = format!("{}-{next}:80", bound.host_port).parse().unwrap();
        let (second, _doors) = open_one(&range, &lease().addresses, &open).unwrap();
        assert!(second.host_port > bound.host_port && second.host_port <= next, "{second}");
    }

    #[test]
    fn rules_lead_to_addresses_of_the_same_family() {
        let of = |text: &str| {
            let lease = Lease { published: vec![text.parse().unwrap()], ..lease() };
            published(&lease).iter().map(|published| (published.host, published.to.to_string())).collect::<Vec<_>>()
        };
        assert_eq!(of("*:80->80/tcp"), [(None, "10.0.0.2".to_owned()), (None, "fd00::2".to_owned())]);
        assert_eq!(of("0.0.0.0:80->80/tcp"), [(None, "10.0.0.2".to_owned())]);
        let host = Some("192.0.2.1".parse().unwrap());
        assert_eq!(of("192.0.2.1:80->80/tcp"), [(host, "10.0.0.2".to_owned())]);
        assert_eq!(of("127.0.0.1:80->80/tcp"), []);
        assert_eq!(of("[::1]:80->80/tcp"), []);
    }
}
