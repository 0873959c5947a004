//! The translator's end of the tun device: one packet a call, and a count of what went wrong.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::frame::{Frame, Header, Obstacle};
use super::packet::{OFFLOAD_HEADER, Unfit};
use super::tcp::Wire;
use crate::network::cidr::Cidr;

/// What was not translated, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    pub malformed: u64,
    pub fragments: u64,
    /// Of protocols that an ordinary user's sockets do not speak.
    pub protocol: u64,
    /// To addresses that containers are not let to.
    pub forbidden: u64,
    /// Echo requests that this host lets the user send none of.
    pub echo: u64,
    /// For want of room in a table.
    pub crowded: u64,
    /// Refused by the network namespace.
    pub unwritten: u64,
}

/// The device and the packet under construction.
pub(super) struct Device {
    fd: OwnedFd,
    pub(super) frame: Frame,
    pub(super) dropped: Dropped,
    /// Who reports what cannot be reached: the other end of the containers' default route.
    pub(super) gateways: Gateways,
    /// The blocks of the networks that containers are in.
    pub(super) inside: Vec<Cidr>,
}

/// The addresses of the translator itself, which stand for the host's loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateways {
    pub v4: std::net::Ipv4Addr,
    pub v6: std::net::Ipv6Addr,
}

impl Gateways {
    pub fn of(&self, is_ipv4: bool) -> IpAddr {
        if is_ipv4 { self.v4.into() } else { self.v6.into() }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        address == self.of(address.is_ipv4())
    }
}

impl Device {
    pub(super) fn new(fd: OwnedFd, gateways: Gateways) -> Self {
        Self { fd, frame: Frame::default(), dropped: Dropped::default(), gateways, inside: Vec::new() }
    }

    /// Reads the next packet; EAGAIN where there is none.
    pub(super) fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut *buffer))
    }

    /// Gives a packet back to the namespace that it came from, where somebody waits for it by now.
    pub(super) fn put_back(&mut self, packet: &[u8]) {
        self.dropped.unwritten += write(self.fd.as_fd(), packet);
    }

    pub(super) fn count(&mut self, unfit: Unfit) {
        let count = match unfit {
            Unfit::Malformed => &mut self.dropped.malformed,
            Unfit::Fragment => &mut self.dropped.fragments,
            Unfit::Protocol => &mut self.dropped.protocol,
        };
        *count += 1;
    }

    /// Sends a datagram whose payload is in its place.
    pub(super) fn send_udp(&mut self, from: SocketAddr, to: SocketAddr, payload: usize) {
        match self.frame.udp(from, to, payload) {
            Some(packet) => self.dropped.unwritten += write(self.fd.as_fd(), packet),
            None => self.dropped.unwritten += 1,
        }
    }

    /// Sends the answer to an echo, whose message is in its place.
    pub(super) fn send_echo_reply(&mut self, from: IpAddr, to: IpAddr, identifier: u16, length: usize) {
        match self.frame.echo_reply(from, to, identifier, length) {
            Some(packet) => self.dropped.unwritten += write(self.fd.as_fd(), packet),
            None => self.dropped.unwritten += 1,
        }
    }

    /// Tells a packet's sender that it did not get there.
    pub(super) fn send_unreachable(&mut self, source: IpAddr, destination: IpAddr, obstacle: Obstacle, quoted: &[u8]) {
        let from = if obstacle == Obstacle::Port { destination } else { self.gateways.of(source.is_ipv4()) };
        let packet = self.frame.unreachable(from, source, obstacle, quoted);
        self.dropped.unwritten += write(self.fd.as_fd(), packet);
    }

    /// The same of a datagram that is gone: of what was in it, nobody asks for more than the addresses.
    pub(super) fn send_undelivered(&mut self, source: SocketAddr, destination: SocketAddr, obstacle: Obstacle) {
        let quoted = self.frame.udp(source, destination, 0).map(|packet| packet[OFFLOAD_HEADER..].to_vec());
        if let Some(quoted) = quoted {
            self.send_unreachable(source.ip(), destination.ip(), obstacle, &quoted);
        }
    }
}

impl Wire for Device {
    fn payload(&mut self) -> &mut [u8] {
        self.frame.payload()
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, header: &Header, payload: usize) {
        let packet = self.frame.tcp(from, to, header, payload);
        self.dropped.unwritten += write(self.fd.as_fd(), packet);
    }
}

/// Writes a packet, and gives 1 where it was lost: who wants it will ask again.
fn write(fd: BorrowedFd<'_>, packet: &[u8]) -> u64 {
    u64::from(rustix::io::retry_on_intr(|| rustix::io::write(fd, packet)).is_err())
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
