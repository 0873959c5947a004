//! What the kernel remembers of conversations: forgotten where a port gets another owner. A caller that goes on sending
//! datagrams to a port would be led to who had it before for as long as it does not stop.

use rustix::io::Errno;

use crate::error::{Context, Result};
use crate::sys::netlink::{Request, Socket, find_attribute};

/// Numbers of linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h.
const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_DESTINATION_PORT: u16 = 3;
const STATUS: u16 = 3;
const ID: u16 = 12;
const ZONE: u16 = 18;
const NESTED: u16 = 0x8000;

/// `IPS_SRC_NAT`.
const SOURCE_TRANSLATED: u32 = 0x10;

/// `nfgenmsg`.
const BODY_LENGTH: usize = 4;
/// IPv4 and IPv6.
const FAMILIES: [u8; 2] = [2, 10];

/// A conversation, by what it is deleted by.
struct Entry {
    family: u8,
    tuple: Vec<u8>,
    id: Vec<u8>,
    zone: Option<Vec<u8>>,
}

/// Forgets all conversations of a protocol (`IPPROTO_*`) that went to one of these ports of this host at first.
pub fn forget(protocol: u8, ports: &[u16]) -> Result<()> {
    let describe = "forget the conversations of a port's former owner";
    let socket = Socket::open_netfilter().context(describe)?;
    let mut entries = Vec::new();
    for family in FAMILIES {
        let request = Request::dump(SUBSYSTEM << 8 | GET, &[family, 0, 0, 0]);
        let read = |object: &[u8]| entries.extend(Entry::read(object, family, protocol, ports));
        match socket.call(request, read) {
            Ok(()) => {}
            // Without the module there is nobody who could be asked; it comes with the first translation.
            Err(Errno::INVAL | Errno::NOENT | Errno::OPNOTSUPP) => return Ok(()),
            Err(errno) => return Err(errno).context(describe),
        }
    }
    for entry in entries {
        let request = entry.delete().context(describe)?;
        match socket.call(request, |_| ()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).context(describe),
        }
    }
    Ok(())
}

impl Entry {
    fn read(object: &[u8], family: u8, protocol: u8, ports: &[u16]) -> Option<Self> {
        let (_, attributes) = object.split_at_checked(BODY_LENGTH)?;
        let tuple = find_attribute(attributes, TUPLE_ORIGINAL)?;
        let of_protocol = find_attribute(tuple, TUPLE_PROTOCOL)?;
        if find_attribute(of_protocol, PROTOCOL_NUMBER)? != [protocol] {
            return None;
        }
        // What this host or a container asks of the world by that port is nobody's former.
        let status = find_attribute(attributes, STATUS)?.try_into().ok().map(u32::from_be_bytes)?;
        if status & SOURCE_TRANSLATED != 0 {
            return None;
        }
        let port = find_attribute(of_protocol, PROTOCOL_DESTINATION_PORT)?.try_into().ok().map(u16::from_be_bytes)?;
        let id = find_attribute(attributes, ID)?.to_vec();
        let zone = find_attribute(attributes, ZONE).map(<[u8]>::to_vec);
        ports.contains(&port).then(|| Self { family, tuple: tuple.to_vec(), id, zone })
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

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::network::firewall::{Firewall, NAME};
    use crate::network::tests::in_own_namespace;

    fn count(port: u16) -> usize {
        let socket = Socket::open_netfilter().unwrap();
        let mut entries = Vec::new();
        let request = Request::dump(SUBSYSTEM << 8 | GET, &[2, 0, 0, 0]);
        socket.call(request, |object| entries.extend(Entry::read(object, 2, 17, &[port]))).unwrap();
        entries.len()
    }

    #[test]
    fn conversations_of_a_port_are_forgotten() {
        in_own_namespace(|| {
            crate::sys::net::bring_up_loopback().unwrap();
            // Something that looks at connections, or the kernel does not.
            let rules = crate::network::firewall::open_socket().unwrap();
            Firewall { name: NAME, gate: None }.write(&rules, false, &[], &[]).unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            for port in [7000, 7001] {
                socket.send_to(b"x", ("127.0.0.1", port)).unwrap();
                assert_eq!(count(port), 1);
            }
            forget(17, &[7000]).unwrap();
            assert_eq!((count(7000), count(7001)), (0, 1));
            forget(6, &[7001]).unwrap();
            assert_eq!(count(7001), 1, "another protocol's");
        });
    }
}
