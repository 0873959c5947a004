//! Datagrams with the address of this host that they were sent to: an answer comes from there, or is none to who asks.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrLike as _, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use rustix::io::Errno;

/// Has a socket tell where what comes was sent to (ip(7), IP_PKTINFO; ipv6(7), IPV6_RECVPKTINFO).
pub fn tell_destinations(socket: impl AsFd, is_ipv6: bool) -> Result<(), Errno> {
    let socket = socket.as_fd();
    let answer = if is_ipv6 {
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)
    } else {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)
    };
    answer.map_err(errno)
}

/// A datagram that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    pub length: usize,
    pub from: SocketAddr,
    /// The address of this host that it was sent to.
    pub at: IpAddr,
}

/// Takes the next datagram; EAGAIN where there is none.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Received, Errno> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let message =
        recvmsg::<SockaddrStorage>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)
            .map_err(errno)?;
    let at = message.cmsgs().map_err(errno)?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr))))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr))),
        _ => None,
    });
    let from = message.address.as_ref().and_then(socket_address);
    let (Some(from), Some(at)) = (from, at) else { return Err(Errno::BADMSG) };
    Ok(Received { length: message.bytes, from, at })
}

/// Sends a datagram in the name of one of this host's addresses.
pub fn send(socket: impl AsFd, bytes: &[u8], to: SocketAddr, from: IpAddr) -> Result<(), Errno> {
    let parts = [IoSlice::new(bytes)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let to = SockaddrStorage::from(to);
    let send = |control| sendmsg(socket.as_fd().as_raw_fd(), &parts, &[control], flags, Some(&to));
    let sent = match from {
        IpAddr::V4(address) => {
            let address = libc::in_addr { s_addr: u32::from(address).to_be() };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: address };
            send(ControlMessage::Ipv4PacketInfo(&info))
        }
        IpAddr::V6(address) => {
            let ipi6_addr = libc::in6_addr { s6_addr: address.octets() };
            send(ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 }))
        }
    };
    sent.map(drop).map_err(errno)
}

fn socket_address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    match storage.family()? {
        nix::sys::socket::AddressFamily::Inet => {
            storage.as_sockaddr_in().map(|address| SocketAddr::V4((*address).into()))
        }
        nix::sys::socket::AddressFamily::Inet6 => {
            storage.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into()))
        }
        _ => None,
    }
}

fn errno(errno: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(errno as i32)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn an_answer_comes_from_where_the_question_went() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        tell_destinations(&server, false).unwrap();
        let asker = UdpSocket::bind("127.0.0.1:0").unwrap();
        asker.connect(("127.0.0.7", server.local_addr().unwrap().port())).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(receive(&server, &mut buffer), Err(Errno::AGAIN));
        asker.send(b"ask").unwrap();
        let received = receive(&server, &mut buffer).unwrap();
        assert_eq!((received.length, received.from), (3, asker.local_addr().unwrap()));
        assert_eq!(received.at.to_string(), "127.0.0.7");
        send(&server, b"answer", received.from, received.at).unwrap();
        // A socket that is connected hears nobody else.
        assert_eq!(asker.recv(&mut buffer).unwrap(), 6);
    }
}
