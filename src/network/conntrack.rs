//! What the kernel remembers of conversations: forgotten where a port or an address gets another owner. Who goes on sending
//! datagrams to a port would be led to who had it before for as long as it does not stop; and what was let through for one
//! container would be let through for the next that has its address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::io::Errno;

use super::own::is_own;
use crate::error::{Context, Result};
use crate::sys::netlink::{Request, Socket, find_attribute};

/// Numbers of linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h.
const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_ADDRESSES: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
/// Source and destination, of IPv4 and of IPv6.
const SOURCES: [u16; 2] = [1, 3];
const DESTINATIONS: [u16; 2] = [2, 4];
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_DESTINATION_PORT: u16 = 3;
const ID: u16 = 12;
const ZONE: u16 = 18;
const NESTED: u16 = 0x8000;

/// `nfgenmsg`.
const BODY_LENGTH: usize = 4;
/// IPv4 and IPv6.
const FAMILIES: [u8; 2] = [2, 10];

/// A conversation: by what it is deleted by, and who is in it.
struct Entry {
    family: u8,
    tuple: Vec<u8>,
    id: Vec<u8>,
    zone: Option<Vec<u8>>,
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
    /// Where it goes to, of protocols that have ports.
    port: Option<u16>,
    /// Who answers: another than the destination, where that was translated.
    answering: IpAddr,
}

/// Forgets the conversations of a protocol (`IPPROTO_*`) that went to one of these ports of this host at first. What others,
/// and this host itself, ask of the world by such a port goes on.
pub fn forget_ports(protocol: u8, ports: &[u16]) -> Result<()> {
    let goes_there = |entry: &Entry| {
        entry.protocol == protocol && entry.port.is_some_and(|port| ports.contains(&port)) && is_own(entry.destination)
    };
    forget(FAMILIES.into_iter(), goes_there, "forget the conversations of a port's former owner")
}

/// Conversations that have been found, to be forgotten once that is known to be right: to look through all that the kernel
/// remembers takes its time, and to forget some does not.
pub struct Conversations {
    socket: Socket,
    entries: Vec<Entry>,
    describe: &'static str,
}

impl Conversations {
    /// Finds those that these addresses have a part in.
    pub fn of(addresses: &[IpAddr]) -> Result<Self> {
        let describe = "forget the conversations of an address's former owner";
        Self::find(families(addresses), |entry| entry.has_part(addresses), describe)
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets those of them that these addresses have a part in. Each is known by its number: one that began since is another.
    pub fn forget_of(mut self, addresses: &[IpAddr]) -> Result<()> {
        self.entries.retain(|entry| entry.has_part(addresses));
        self.forget()
    }

    fn find(
        families: impl Iterator<Item = u8>,
        is_one: impl Fn(&Entry) -> bool,
        describe: &'static str,
    ) -> Result<Self> {
        let socket = Socket::open_netfilter().context(describe)?;
        let mut entries = Vec::new();
        for family in families {
            let request = Request::dump(SUBSYSTEM << 8 | GET, &[family, 0, 0, 0]);
            let read = |object: &[u8]| entries.extend(Entry::read(object, family).filter(&is_one));
            match socket.call(request, read) {
                Ok(()) => {}
                // Without the module there is nobody who could be asked; it comes with the first translation.
                Err(Errno::INVAL | Errno::NOENT | Errno::OPNOTSUPP) => break,
                Err(errno) => return Err(errno).context(describe),
            }
        }
        Ok(Self { socket, entries, describe })
    }

    fn forget(&self) -> Result<()> {
        for entry in &self.entries {
            let request = entry.delete().context(self.describe)?;
            match self.socket.call(request, |_| ()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).context(self.describe),
            }
        }
        Ok(())
    }
}

/// Forgets the conversations that these addresses have begun, but for those that may go on: by where they go to, with what
/// protocol (`IPPROTO_*`), and to which port, of protocols that have such.
pub fn forget_begun(addresses: &[IpAddr], goes_on: impl Fn(IpAddr, u8, Option<u16>) -> bool) -> Result<()> {
    let is_over =
        |entry: &Entry| addresses.contains(&entry.source) && !goes_on(entry.destination, entry.protocol, entry.port);
    forget(families(addresses), is_over, "forget the conversations that a container has begun")
}

fn families(addresses: &[IpAddr]) -> impl Iterator<Item = u8> {
    FAMILIES.into_iter().filter(|family| addresses.iter().any(|address| family_of(*address) == *family))
}

fn family_of(address: IpAddr) -> u8 {
    FAMILIES[usize::from(address.is_ipv6())]
}

fn forget(families: impl Iterator<Item = u8>, is_over: impl Fn(&Entry) -> bool, describe: &'static str) -> Result<()> {
    Conversations::find(families, is_over, describe)?.forget()
}

impl Entry {
    fn has_part(&self, addresses: &[IpAddr]) -> bool {
        [self.source, self.destination, self.answering].iter().any(|address| addresses.contains(address))
    }

    fn read(object: &[u8], family: u8) -> Option<Self> {
        let (_, attributes) = object.split_at_checked(BODY_LENGTH)?;
        let tuple = find_attribute(attributes, TUPLE_ORIGINAL)?;
        let of_protocol = find_attribute(tuple, TUPLE_PROTOCOL)?;
        let [protocol] = *find_attribute(of_protocol, PROTOCOL_NUMBER)? else { return None };
        let port = find_attribute(of_protocol, PROTOCOL_DESTINATION_PORT).and_then(|port| port.try_into().ok());
        Some(Self {
            family,
            tuple: tuple.to_vec(),
            id: find_attribute(attributes, ID)?.to_vec(),
            zone: find_attribute(attributes, ZONE).map(<[u8]>::to_vec),
            protocol,
            source: address(tuple, SOURCES)?,
            destination: address(tuple, DESTINATIONS)?,
            port: port.map(u16::from_be_bytes),
            answering: address(find_attribute(attributes, TUPLE_REPLY)?, SOURCES)?,
        })
    }

    fn delete(&self) -> Result<Request, Errno> {
        let request = Request::act(SUBSYSTEM << 8 | DELETE, &[self.family, 0, 0, 0])
            .attribute(TUPLE_ORIGINAL | NESTED, &self.tuple)?
            .attribute(ID, &self.id)?;
        match &self.zone {
            Some(zone) => request.attribute(ZONE, zone),
            None => Ok(request),
        }
    }
}

/// One of a tuple's addresses.
fn address(tuple: &[u8], [ipv4, ipv6]: [u16; 2]) -> Option<IpAddr> {
    let addresses = find_attribute(tuple, TUPLE_ADDRESSES)?;
    let short =
        || <[u8; 4]>::try_from(find_attribute(addresses, ipv4)?).ok().map(|octets| Ipv4Addr::from(octets).into());
    let long =
        || <[u8; 16]>::try_from(find_attribute(addresses, ipv6)?).ok().map(|octets| Ipv6Addr::from(octets).into());
    short().or_else(long)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::network::firewall::{Firewall, NAME};
    use crate::network::forwarding::Apart;
    use crate::network::tests::in_own_namespace;

    fn count(is_counted: impl Fn(&Entry) -> bool) -> usize {
        let socket = Socket::open_netfilter().unwrap();
        let mut entries = Vec::new();
        let request = Request::dump(SUBSYSTEM << 8 | GET, &[2, 0, 0, 0]);
        socket.call(request, |object| entries.extend(Entry::read(object, 2).filter(&is_counted))).unwrap();
        entries.len()
    }

    #[test]
    fn conversations_of_a_port_or_an_address_are_forgotten() {
        in_own_namespace(|| {
            crate::sys::net::bring_up_loopback().unwrap();
            // Something that looks at connections, or the kernel does not.
            let rules = crate::network::firewall::open_socket().unwrap();
            Firewall { name: NAME, gate: None }.write(&rules, false, &[], &[], &Apart::default()).unwrap();
            // The world is beyond a bridge on which there is nobody.
            let near: IpAddr = "10.89.0.1".parse().unwrap();
            let at = crate::network::link::InterfaceAddress { address: near, block: "10.89.0.0/24".parse().unwrap() };
            crate::network::link::make_bridge("world", None, &[at]).unwrap();
            let far: IpAddr = "10.89.0.9".parse().unwrap();
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for to in ["127.0.0.1:7000", "127.0.0.1:7001", "10.89.0.9:7000"] {
                socket.send_to(b"x", to).unwrap();
            }
            let near_ones = |port: u16| count(|entry| entry.port == Some(port) && entry.destination.is_loopback());
            let far_ones = || count(|entry| entry.destination == far);
            assert_eq!((near_ones(7000), near_ones(7001), far_ones()), (1, 1, 1));
            forget_ports(17, &[7000]).unwrap();
            assert_eq!(
                (near_ones(7000), near_ones(7001), far_ones()),
                (0, 1, 1),
                "what was asked of the world goes on"
            );
            forget_ports(6, &[7001]).unwrap();
            assert!(Conversations::of(&["10.89.0.8".parse().unwrap()]).unwrap().is_empty());
            assert_eq!((near_ones(7001), far_ones()), (1, 1), "another protocol's, and another's");
            let found = Conversations::of(&[far]).unwrap();
            // What begins once they have been looked through goes on.
            socket.send_to(b"x", "10.89.0.9:7007").unwrap();
            found.forget_of(&[far]).unwrap();
            assert_eq!((near_ones(7001), far_ones()), (1, 1));
            Conversations::of(&[far]).unwrap().forget_of(&[far]).unwrap();
            assert_eq!((near_ones(7001), far_ones()), (1, 0));
        });
    }
}
