//! UDP and echo requests: a socket of the host for each port that a container sends from, and for each that is published.
//!
//! One socket a port, whoever it sends to (RFC 4787: endpoint-independent mapping); and through it comes what was sent by an
//! address that the container has sent to (address-dependent filtering), so that nothing is reachable that was not published.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, ipproto};

use super::device::{Device, Gateways};
use super::frame::Obstacle;
use super::packet::Packet;
use super::shares::Shares;
use super::table::{Kind, Table, Token};
use crate::sys::socket;

/// RFC 4787, REQ-5: at least two minutes, and less for those who ask a well-known port (names, time).
const IDLE: Duration = Duration::from_mins(3);
const IDLE_OF_QUESTIONS: Duration = Duration::from_secs(30);
const WELL_KNOWN: u16 = 1024;

/// Addresses that may answer through one socket, and callers that a published port remembers.
const PEERS: usize = 64;
const CALLERS: usize = 256;

/// Datagrams that one socket hands over before others have their turn.
const TURN: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Protocol {
    Udp,
    Echo,
}

/// One socket.
pub(super) struct Mapping {
    protocol: Protocol,
    /// Of an echo, the port is the identifier.
    guest: SocketAddr,
    /// The container's address of the other family, of a published socket that hears both.
    other_guest: Option<SocketAddr>,
    socket: OwnedFd,
    /// The most recent is the last.
    peers: Vec<Peer>,
    /// Whose published port this is.
    pub(super) container: Option<String>,
    last_used: Instant,
    asks_only: bool,
}

/// Somebody outside: as the container sees it, and as the host does; and when something went between them last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Peer {
    seen: SocketAddr,
    real: SocketAddr,
    last: Instant,
}

/// A datagram of a container's.
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) protocol: Protocol,
    pub(super) guest: SocketAddr,
    /// Where to, as the container sees it, and as the host does.
    pub(super) seen: SocketAddr,
    pub(super) real: SocketAddr,
    pub(super) payload: &'a [u8],
}

/// All sockets for datagrams.
pub(super) struct Datagrams {
    pub(super) table: Table<Mapping>,
    of_guest: HashMap<(Protocol, SocketAddr), Vec<Token>>,
    /// Of the sockets that containers have by sending.
    shares: Shares,
}

impl Datagrams {
    pub(super) fn new(most: usize) -> Self {
        Self { table: Table::new(Kind::Datagram, most), of_guest: HashMap::new(), shares: Shares::default() }
    }

    /// Sends what a container sends, in this packet.
    pub(super) fn send(
        &mut self,
        outgoing: &Outgoing<'_>,
        packet: &Packet<'_>,
        now: Instant,
        epoll: &OwnedFd,
        device: &mut Device,
    ) {
        let Outgoing { protocol, guest, seen, real, payload } = *outgoing;
        let found = self.find(protocol, guest, seen).map_or_else(|| self.open(protocol, guest, now, epoll), Ok);
        let token = match found {
            Ok(token) => token,
            Err(Errno::ACCESS | Errno::PERM) if protocol == Protocol::Echo => {
                device.dropped.echo += 1;
                return;
            }
            Err(_) => {
                device.dropped.crowded += 1;
                return;
            }
        };
        let Some(mapping) = self.table.get_mut(token) else { return };
        mapping.last_used = now;
        mapping.remember(Peer { seen, real, last: now });
        // The first error may be of one that was sent before (IP_RECVERR).
        let sent = mapping.send(payload, real).or_else(|_| mapping.send(payload, real));
        if let Some(obstacle) = sent.err().and_then(obstacle) {
            device.send_unreachable(packet.source, packet.destination, obstacle, packet.whole);
        }
    }

    /// Finds the socket through which a container's datagram goes: the published port that a caller used, or the container's own.
    fn find(&self, protocol: Protocol, guest: SocketAddr, to: SocketAddr) -> Option<Token> {
        let tokens = self.of_guest.get(&(protocol, guest))?;
        let of = |token: &&Token| self.table.get(**token);
        let has_called = |found: &Mapping| found.peers.iter().any(|peer| peer.seen == to);
        let called =
            tokens.iter().find(|token| of(token).is_some_and(|found| found.container.is_some() && has_called(found)));
        called.or_else(|| tokens.iter().find(|token| of(token).is_some_and(|found| found.container.is_none()))).copied()
    }

    /// Gives the address of a caller of a published port whom the container knows by this one.
    pub(super) fn called_from(&self, protocol: Protocol, guest: SocketAddr, seen: SocketAddr) -> Option<SocketAddr> {
        let mapping = self.table.get(self.find(protocol, guest, seen)?)?;
        mapping.container.as_ref()?;
        mapping.peers.iter().find(|peer| peer.seen == seen).map(|peer| peer.real)
    }

    fn open(&mut self, protocol: Protocol, guest: SocketAddr, now: Instant, epoll: &OwnedFd) -> Result<Token, Errno> {
        let (family, of_echo) = match guest {
            SocketAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
            SocketAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let number = if protocol == Protocol::Echo { of_echo } else { ipproto::UDP };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(number))?;
        let _ = socket::want_refusals(&socket, guest.is_ipv6());
        if !self.shares.allow(guest.ip(), self.table.room()) {
            self.make_room(|mapping| mapping.guest.ip() == guest.ip());
        }
        let token = self.insert(
            Mapping {
                protocol,
                guest,
                other_guest: None,
                socket,
                peers: Vec::new(),
                container: None,
                last_used: now,
                asks_only: true,
            },
            epoll,
        )?;
        self.shares.take(guest.ip());
        Ok(token)
    }

    /// Takes a socket that listens at a published port.
    pub(super) fn publish(
        &mut self,
        container: &str,
        guest: SocketAddr,
        socket: OwnedFd,
        now: Instant,
        epoll: &OwnedFd,
    ) -> Result<(), Errno> {
        if let Some(token) = self.find_published(container, &socket) {
            return self.lead_also_to(token, guest);
        }
        let _ = socket::want_refusals(&socket, is_ipv6(&socket));
        let container = Some(container.to_owned());
        let (peers, protocol, other_guest) = (Vec::new(), Protocol::Udp, None);
        let mapping =
            Mapping { protocol, guest, other_guest, socket, peers, container, last_used: now, asks_only: false };
        self.insert(mapping, epoll).map(drop)
    }

    /// Finds the mapping of a socket that hears both families, and is published for one already: it is one socket, whatever
    /// number it comes by, and whoever read it first would have all callers.
    fn find_published(&self, container: &str, socket: &OwnedFd) -> Option<Token> {
        let cookie = rustix::net::sockopt::socket_cookie(socket).ok()?;
        let is_same = |mapping: &Mapping| {
            mapping.container.as_deref() == Some(container)
                && rustix::net::sockopt::socket_cookie(&mapping.socket) == Ok(cookie)
        };
        self.table.entries().find(|(_, mapping)| is_same(mapping)).map(|(token, _)| token)
    }

    fn lead_also_to(&mut self, token: Token, guest: SocketAddr) -> Result<(), Errno> {
        let Some(mapping) = self.table.get_mut(token) else { return Err(Errno::NOENT) };
        if mapping.guests().any(|other| other == guest) {
            return Ok(());
        }
        if mapping.other_guest.is_some() || mapping.guest.is_ipv4() == guest.is_ipv4() {
            return Err(Errno::ADDRINUSE);
        }
        mapping.other_guest = Some(guest);
        self.of_guest.entry((mapping.protocol, guest)).or_default().push(token);
        Ok(())
    }

    /// Takes back what a container has published.
    pub(super) fn withdraw(&mut self, container: &str, epoll: &OwnedFd) {
        for token in self.table.tokens() {
            let published = self.table.get(token).filter(|mapping| mapping.container.as_deref() == Some(container));
            if let Some(mapping) = published {
                // Closing does not take out what others hold, too: a socket that was passed would be told of for ever (epoll(7)).
                let _ = epoll::delete(epoll, &mapping.socket);
                self.remove(token);
            }
        }
    }

    fn insert(&mut self, mapping: Mapping, epoll: &OwnedFd) -> Result<Token, Errno> {
        if self.table.is_full() {
            self.make_room(|_| true);
        }
        let key = (mapping.protocol, mapping.guest);
        epoll::add(epoll, &mapping.socket, epoll::EventData::new_u64(self.table.next().0), epoll::EventFlags::IN)?;
        let token = self.table.insert(mapping).map_err(|_| Errno::NFILE)?;
        self.of_guest.entry(key).or_default().push(token);
        Ok(token)
    }

    /// Lets go of the socket, of those, that was used least recently.
    fn make_room(&mut self, is_one: impl Fn(&Mapping) -> bool) {
        let candidates = self.table.entries().filter(|(_, mapping)| mapping.container.is_none() && is_one(mapping));
        if let Some((_, oldest)) = candidates.map(|(token, mapping)| (mapping.last_used, token)).min() {
            self.remove(oldest);
        }
    }

    pub(super) fn remove(&mut self, token: Token) {
        let Some(mapping) = self.table.remove(token) else { return };
        if mapping.container.is_none() {
            self.shares.give_back(mapping.guest());
        }
        for guest in mapping.guests() {
            if let Entry::Occupied(mut tokens) = self.of_guest.entry((mapping.protocol, guest)) {
                tokens.get_mut().retain(|other| *other != token);
                if tokens.get().is_empty() {
                    tokens.remove();
                }
            }
        }
    }

    /// Removes what containers have by sending.
    pub(super) fn forget(&mut self, is_its: impl Fn(&Mapping) -> bool) {
        for token in self.table.tokens() {
            if self.table.get(token).is_some_and(&is_its) {
                self.remove(token);
            }
        }
    }

    /// Hands over what a socket has received, and what the network refused of what it sent.
    pub(super) fn receive(&mut self, token: Token, now: Instant, device: &mut Device) {
        let Some(mapping) = self.table.get_mut(token) else { return };
        let mut has_received = false;
        for _ in 0..TURN {
            match mapping.receive(now, device) {
                Ok(()) => has_received = true,
                Err(Errno::AGAIN) => break,
                Err(_) => mapping.tell_refusals(device),
            }
        }
        // Sending has taken the error away, and left what it is about in the queue: that would be told of for ever.
        if !has_received {
            mapping.tell_refusals(device);
        }
    }

    /// Lets go of sockets that nobody has used for long.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.forget(|mapping| {
            let idle = if mapping.asks_only { IDLE_OF_QUESTIONS } else { IDLE };
            mapping.container.is_none() && now.duration_since(mapping.last_used) > idle
        });
        // A caller's port may be somebody else's by now, who called nobody.
        for mapping in self.table.iter_mut().filter(|mapping| mapping.container.is_some()) {
            mapping.peers.retain(|peer| now.duration_since(peer.last) <= IDLE);
        }
    }

    /// Says whether there is something that may grow old.
    pub(super) fn has_aging(&self) -> bool {
        self.table.iter().any(|mapping| mapping.container.is_none() || !mapping.peers.is_empty())
    }
}

impl Mapping {
    /// Hands on what the network refused of what was sent: somebody's answers, in a queue of their own.
    fn tell_refusals(&mut self, device: &mut Device) {
        for _ in 0..TURN {
            match socket::refused(&self.socket) {
                Ok(Some(refused)) => self.tell(refused, device),
                Ok(None) | Err(_) => return,
            }
        }
    }

    pub(super) fn guest(&self) -> IpAddr {
        self.guest.ip()
    }

    fn guests(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        std::iter::once(self.guest).chain(self.other_guest)
    }

    /// Where a caller is led, who has an address of this family.
    fn guest_for(&self, is_ipv4: bool) -> SocketAddr {
        self.guests().find(|guest| guest.is_ipv4() == is_ipv4).unwrap_or(self.guest)
    }

    fn send(&self, payload: &[u8], to: SocketAddr) -> Result<(), Errno> {
        let to = match (to, is_ipv6(&self.socket)) {
            // A published socket of both families.
            (SocketAddr::V4(to), true) => SocketAddr::new(to.ip().to_ipv6_mapped().into(), to.port()),
            (to, _) => to,
        };
        rustix::net::sendto(&self.socket, payload, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &to).map(drop)
    }

    fn remember(&mut self, peer: Peer) {
        let is_same = |other: &Peer| match self.container {
            Some(_) => other.seen == peer.seen,
            None => other.seen.ip() == peer.seen.ip(),
        };
        self.asks_only &= self.protocol == Protocol::Echo || peer.real.port() < WELL_KNOWN;
        if let Some(last) = self.peers.last_mut().filter(|last| is_same(last)) {
            last.last = peer.last;
            return;
        }
        self.peers.retain(|other| !is_same(other));
        let most = if self.container.is_some() { CALLERS } else { PEERS };
        if self.peers.len() >= most {
            self.peers.remove(0);
        }
        self.peers.push(peer);
    }

    fn receive(&mut self, now: Instant, device: &mut Device) -> Result<(), Errno> {
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        let (_, length, from) = rustix::net::recvfrom(&self.socket, device.frame.payload(), flags)?;
        let Some(from) = from.and_then(address) else { return Ok(()) };
        let Some(seen) = self.seen(from, now, device) else { return Ok(()) };
        self.last_used = now;
        match self.protocol {
            // An address that is not the caller's own is the gateway's, of the family of whom it is led to.
            Protocol::Udp => device.send_udp(seen, self.guest_for(seen.is_ipv4()), length),
            Protocol::Echo => {
                // Of IPv6 the kernel gives other messages too, for which there is no filter by then.
                let is_reply = matches!(device.frame.payload().first(), Some(0 | 129));
                if is_reply {
                    device.send_echo_reply(seen.ip(), self.guest.ip(), self.guest.port(), length);
                }
            }
        }
        Ok(())
    }

    /// Gives the address by which the container knows a sender, if it may send.
    fn seen(&mut self, from: SocketAddr, now: Instant, device: &Device) -> Option<SocketAddr> {
        if self.container.is_some() {
            let seen = seen_as(from, self.guest_for(from.is_ipv4()), device);
            self.remember(Peer { seen, real: from, last: now });
            return Some(seen);
        }
        let peer = self.peers.iter().rev().find(|peer| peer.real.ip() == from.ip())?;
        Some(SocketAddr::new(peer.seen.ip(), from.port()))
    }

    fn tell(&self, refused: socket::Refused, device: &mut Device) {
        let destination = canonical(refused.destination);
        let known = self.peers.iter().rev().find(|peer| peer.real.ip() == destination.ip());
        if let (Protocol::Udp, Some(peer), Some(obstacle)) = (self.protocol, known, obstacle(refused.cause)) {
            let seen = SocketAddr::new(peer.seen.ip(), destination.port());
            device.send_undelivered(self.guest_for(seen.is_ipv4()), seen, obstacle);
        }
    }
}

/// The address by which a container knows a caller: its own, where the container could answer there.
pub(super) fn seen_as(caller: SocketAddr, guest: SocketAddr, device: &Device) -> SocketAddr {
    let is_link_local = matches!(caller.ip(), IpAddr::V6(address) if address.is_unicast_link_local());
    // What has such an address inside is a neighbour, or nobody.
    let is_near = || device.inside.iter().any(|block| block.contains(caller.ip()));
    let is_ours = caller.ip().is_loopback() || is_link_local || caller.is_ipv4() != guest.is_ipv4() || is_near();
    let address = if is_ours { device.gateways.of(guest.is_ipv4()) } else { caller.ip() };
    SocketAddr::new(address, caller.port())
}

/// What a container is told of an error of the host.
pub(super) fn obstacle(errno: Errno) -> Option<Obstacle> {
    match errno {
        Errno::NETUNREACH | Errno::NETDOWN | Errno::ADDRNOTAVAIL => Some(Obstacle::Network),
        Errno::HOSTUNREACH | Errno::HOSTDOWN => Some(Obstacle::Host),
        Errno::CONNREFUSED => Some(Obstacle::Port),
        Errno::ACCESS | Errno::PERM => Some(Obstacle::Forbidden),
        _ => None,
    }
}

/// An IPv4 address as such, also where a socket of both families gave it. One of a link keeps the link.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

pub(super) fn address(any: SocketAddrAny) -> Option<SocketAddr> {
    SocketAddr::try_from(any).ok().map(canonical)
}

fn is_ipv6(socket: impl AsFd) -> bool {
    rustix::net::sockopt::socket_domain(socket).is_ok_and(|family| family == AddressFamily::INET6)
}

/// Says whether the host lets this user send echo requests (`net.ipv4.ping_group_range`, icmp(7)).
pub fn may_ping() -> bool {
    let flags = SocketFlags::CLOEXEC;
    rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, Some(ipproto::ICMP)).is_ok()
}

/// Where on the host a container's packet goes: `None` is nowhere.
pub(super) fn outside(destination: IpAddr, gateways: Gateways, reaches_host: bool) -> Option<IpAddr> {
    if gateways.contains(destination) {
        let loopback = match destination {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        return reaches_host.then_some(loopback);
    }
    let is_for_somebody = match destination {
        // To the kernel 0.0.0.0 is this host; the block is nobody's (RFC 6890).
        IpAddr::V4(address) => {
            !address.is_loopback() && address.octets()[0] != 0 && !address.is_multicast() && !address.is_broadcast()
        }
        // `::` is this host as well, and `::ffff:127.0.0.1` (and whatever else is IPv4 in disguise) its loopback.
        IpAddr::V6(address) => {
            address.segments()[..5] != [0; 5] && !address.is_multicast() && !address.is_unicast_link_local()
        }
    };
    is_for_somebody.then_some(destination)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_no_disguise() {
        let gateways = super::super::world::GATEWAYS;
        for nowhere in [
            "127.0.0.1",
            "127.1.2.3",
            "0.0.0.0",
            "0.1.2.3",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "::ffff:192.0.2.1",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
            "fe80::1",
            "10.0.2.2",
            "fd00:6875:736b::2",
        ] {
            assert_eq!(outside(nowhere.parse().unwrap(), gateways, false), None, "{nowhere}");
        }
        for somewhere in ["192.0.2.1", "10.0.2.3", "2001:db8::1", "fd00::2", "64:ff9b::c000:201"] {
            let somewhere = somewhere.parse().unwrap();
            assert_eq!(outside(somewhere, gateways, false), Some(somewhere));
        }
        for (gateway, loopback) in [("10.0.2.2", "127.0.0.1"), ("fd00:6875:736b::2", "::1")] {
            let expected = Some(loopback.parse().unwrap());
            assert_eq!(outside(gateway.parse().unwrap(), gateways, true), expected, "where that is allowed");
        }
    }
}
