//! `linux.netDevices`: interfaces of the runtime's network namespace, moved to the container's.
//!
//! The move and the change of name are one request, so that no other interface can take the name in between. The kernel
//! takes the addresses off an interface that moves: the permanent ones of global scope, which somebody set by hand, are
//! given back; those that are the host's, or live for a while only, are not.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{Context, Result};
use crate::sys::netlink::{Request, Socket, find_attribute};

/// Numbers of linux/rtnetlink.h, if_link.h, if_addr.h and netlink.h.
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const LINK_NAME: u16 = 3;
const LINK_NAMESPACE_FD: u16 = 28;
const ADDRESS_ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ADDRESS_BROADCAST: u16 = 4;
const ADDRESS_FLAGS: u16 = 8;
const CREATE_NEW: u16 = 0x400 | 0x200;
const PERMANENT: u32 = 0x80;
const SCOPE_UNIVERSE: u8 = 0;
const FLAG_UP: u32 = 1;
/// `ifaddrmsg`.
const ADDRESS_BODY_LENGTH: usize = 8;

/// One interface to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetDevice {
    /// Its name in the runtime's namespace.
    pub name: String,
    /// Its name in the container.
    pub new_name: String,
}

/// Lists the interfaces to move, in the order of their names.
pub fn plan(spec: &Spec) -> Vec<NetDevice> {
    let listed = spec.linux().as_ref().and_then(|linux| linux.net_devices().as_ref());
    let mut devices: Vec<NetDevice> = listed
        .into_iter()
        .flatten()
        .map(|(name, device)| {
            let new_name = device.name().clone().filter(|name| !name.is_empty());
            NetDevice { name: name.clone(), new_name: new_name.unwrap_or_else(|| name.clone()) }
        })
        .collect();
    devices.sort_by(|one, other| one.name.cmp(&other.name));
    devices
}

/// Moves the interfaces from this process's network namespace to another, whose path is for messages.
///
/// The process visits that namespace for a moment, to open a socket there; it has one thread.
pub fn move_all(devices: &[NetDevice], namespace: BorrowedFd<'_>, path: &str) -> Result<()> {
    let here = Socket::open().context("open a netlink socket")?;
    let there = open_socket_in(namespace).with_context(|| format!("open a netlink socket in {path}"))?;
    devices.iter().try_for_each(|device| move_one(device, &here, &there, namespace, path))
}

/// Opens a socket to rtnetlink in another network namespace. The process visits it for a moment; it has one thread, or this
/// thread alone goes.
pub fn open_socket_in(namespace: BorrowedFd<'_>) -> Result<Socket, Errno> {
    visit(namespace, Socket::open)?
}

/// Does something in another network namespace. This thread goes there, and comes back; should the kernel refuse the way
/// back, the process ends: what it did next would be done to the container's network, and not to the host's.
pub fn visit<T>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> T) -> Result<T, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open(c"/proc/thread-self/ns/net", flags, Mode::empty())?;
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
    let done = work();
    if move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
        std::process::abort();
    }
    Ok(done)
}

fn move_one(device: &NetDevice, here: &Socket, there: &Socket, namespace: BorrowedFd<'_>, path: &str) -> Result<()> {
    let NetDevice { name, new_name } = device;
    let missing = || format!("link not found for interface {name} on runtime namespace");
    let index = here.index_of(name).with_context(missing)?;
    // Down before it goes: nothing of the host is to use it while it changes.
    here.call(set_up(index, false), |_| ()).context("fail to set link down")?;
    let addresses = addresses(here, index).context("fail to get ip addresses")?;

    let describe = || format!("fail to move network device {name} to network namespace {path}");
    let mut named = new_name.clone().into_bytes();
    named.push(0);
    let request = Request::act(NEW_LINK, &link_body(index, 0, 0))
        .attribute(LINK_NAME, &named)
        .and_then(|request| request.attribute(LINK_NAMESPACE_FD, &namespace.as_raw_fd().to_ne_bytes()))
        .with_context(describe)?;
    here.call(request, |_| ()).with_context(describe)?;

    let missing = || format!("link not found for interface {new_name} on namespace {path}");
    let index = there.index_of(new_name).with_context(missing)?;
    for address in addresses {
        let describe = || format!("fail to set up address {} on namespace {path}", address.show());
        let request = address.as_request(index).with_context(describe)?;
        there.call(request, |_| ()).with_context(describe)?;
    }
    there
        .call(set_up(index, true), |_| ())
        .with_context(|| format!("fail to set up interface {new_name} on namespace {path}"))
}

/// `ifinfomsg`, naming an interface by its number.
pub fn link_body(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut body = [0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..].copy_from_slice(&change.to_ne_bytes());
    body
}

/// Asks for an interface to go up, or down.
pub fn set_up(index: u32, is_up: bool) -> Request {
    Request::act(NEW_LINK, &link_body(index, u32::from(is_up) * FLAG_UP, FLAG_UP))
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    family: u8,
    prefix_length: u8,
    bytes: Vec<u8>,
}

impl Address {
    /// Reads what the kernel tells of an address of this interface, if it is one to keep.
    fn read(object: &[u8], wanted: u32) -> Option<Self> {
        let (body, attributes) = object.split_at_checked(ADDRESS_BODY_LENGTH)?;
        let [family, prefix_length, short_flags, scope, ..] = *body else { return None };
        let index = u32::from_ne_bytes(body[4..].try_into().ok()?);
        let flags = find_attribute(attributes, ADDRESS_FLAGS).and_then(|value| value.try_into().ok());
        let flags = flags.map_or(u32::from(short_flags), u32::from_ne_bytes);
        if index != wanted || scope != SCOPE_UNIVERSE || flags & PERMANENT == 0 {
            return None;
        }
        // Of a point-to-point interface the other is the peer's.
        let bytes = find_attribute(attributes, ADDRESS_LOCAL).or(find_attribute(attributes, ADDRESS_ADDRESS))?;
        Some(Self { family, prefix_length, bytes: bytes.to_vec() })
    }

    fn as_request(&self, index: u32) -> Result<Request, Errno> {
        let mut body = [self.family, self.prefix_length, 0, SCOPE_UNIVERSE, 0, 0, 0, 0];
        body[4..].copy_from_slice(&index.to_ne_bytes());
        let request = Request::act(NEW_ADDRESS, &body)
            .with_flags(CREATE_NEW)
            .attribute(ADDRESS_LOCAL, &self.bytes)?
            .attribute(ADDRESS_ADDRESS, &self.bytes)?;
        match self.broadcast() {
            Some(broadcast) => request.attribute(ADDRESS_BROADCAST, &broadcast),
            None => Ok(request),
        }
    }

    /// The last address of the network, where it has room for one (RFC 3021: of two addresses none is).
    fn broadcast(&self) -> Option<[u8; 4]> {
        let address = u32::from_be_bytes(self.bytes.as_slice().try_into().ok()?);
        (self.prefix_length < 31).then(|| (address | u32::MAX >> self.prefix_length).to_be_bytes())
    }

    fn show(&self) -> String {
        let address: Option<std::net::IpAddr> = <[u8; 4]>::try_from(self.bytes.as_slice())
            .map(Into::into)
            .or_else(|_| <[u8; 16]>::try_from(self.bytes.as_slice()).map(Into::into))
            .ok();
        address.map_or_else(|| "?".to_owned(), |address| format!("{address}/{}", self.prefix_length))
    }
}

fn addresses(socket: &Socket, index: u32) -> Result<Vec<Address>, Errno> {
    let mut addresses = Vec::new();
    let everything = [0; ADDRESS_BODY_LENGTH];
    socket.call(Request::dump(GET_ADDRESS, &everything), |object| addresses.extend(Address::read(object, index)))?;
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address as the kernel tells of it.
    fn object(flags: u32, scope: u8, index: u32) -> Vec<u8> {
        let mut bytes = vec![2, 24, 0, scope];
        bytes.extend(index.to_ne_bytes());
        for (kind, value) in
            [(ADDRESS_ADDRESS, [10, 0, 0, 9]), (ADDRESS_LOCAL, [10, 0, 0, 5]), (ADDRESS_FLAGS, flags.to_ne_bytes())]
        {
            bytes.extend(8_u16.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
        }
        bytes
    }

    #[test]
    fn what_was_set_by_hand_for_everybody_is_kept() {
        let address = Address::read(&object(PERMANENT, 0, 7), 7).unwrap();
        assert_eq!(address, Address { family: 2, prefix_length: 24, bytes: vec![10, 0, 0, 5] });
        assert_eq!((address.show(), address.broadcast()), ("10.0.0.5/24".to_owned(), Some([10, 0, 0, 255])));
        for (name, object) in [
            ("of another interface", object(PERMANENT, 0, 8)),
            ("for a while", object(0, 0, 7)),
            ("of the host", object(PERMANENT, 254, 7)),
            ("of the link", object(PERMANENT, 253, 7)),
            ("cut off", object(PERMANENT, 0, 7)[..7].to_vec()),
        ] {
            assert_eq!(Address::read(&object, 7), None, "{name}");
        }
    }

    #[test]
    fn only_networks_with_room_have_a_broadcast() {
        for (prefix_length, expected) in [(0, Some([255; 4])), (30, Some([10, 0, 0, 7])), (31, None), (32, None)] {
            let address = Address { family: 2, prefix_length, bytes: vec![10, 0, 0, 5] };
            assert_eq!(address.broadcast(), expected, "{prefix_length}");
        }
        let address = Address { family: 10, prefix_length: 64, bytes: vec![0; 16] };
        assert_eq!((address.broadcast(), address.show()), (None, "::/64".to_owned()));
    }
}
