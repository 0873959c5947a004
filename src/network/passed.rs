//! Sockets that the caller has bound already, and hands over by number: a service manager (sd_listen_fds(3)) has rights to ports
//! that an ordinary user has not, and has callers wait while a container is started anew. They serve the ports that are
//! published where they are bound.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::relay::Transport;

/// The first that is passed.
const FIRST: RawFd = 3;
/// More are nobody's: a manager gives a handful.
const MOST: u32 = 4096;

#[derive(Debug)]
struct Passed {
    fd: OwnedFd,
    transport: Transport,
    at: SocketAddr,
    /// An IPv6 socket that hears IPv4 as well (ipv6(7), `IPV6_V6ONLY`).
    hears_both: bool,
}

#[derive(Debug, Default)]
pub struct PassedSockets(Vec<Passed>);

impl PassedSockets {
    /// Copies those of so many descriptors that are sockets which listen, or, of UDP, are bound. What else there is is not for us.
    pub fn copy(count: u32) -> Self {
        Self(numbered(count).map(|(_, passed)| passed).collect())
    }

    /// Gives the numbers of those: what else has been passed may be closed.
    pub fn numbers(count: u32) -> Vec<RawFd> {
        numbered(count).map(|(number, _)| number).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Finds the one that hears whoever calls a port at an address of this host.
    pub fn find(&self, transport: Transport, at: SocketAddr) -> Option<BorrowedFd<'_>> {
        let passed = self.0.iter().find(|passed| passed.transport == transport && passed.hears(at))?;
        Some(passed.fd.as_fd())
    }
}

fn numbered(count: u32) -> impl Iterator<Item = (RawFd, Passed)> {
    let own = if count == 0 { None } else { pidfd_open(getpid(), PidfdFlags::empty()).ok() };
    let copy = move |number| pidfd_getfd(own.as_ref()?, number, PidfdGetfdFlags::empty()).ok();
    let numbers = (FIRST..).zip(0..count.min(MOST)).map(|(number, _)| number);
    numbers.filter_map(move |number| Some((number, Passed::of(copy(number)?)?)))
}

impl Passed {
    fn of(fd: OwnedFd) -> Option<Self> {
        let transport = match sockopt::socket_type(&fd).ok()? {
            SocketType::STREAM if sockopt::socket_acceptconn(&fd).ok()? => Transport::Tcp,
            SocketType::DGRAM => Transport::Udp,
            _ => return None,
        };
        let hears_both = match sockopt::socket_domain(&fd).ok()? {
            AddressFamily::INET => false,
            AddressFamily::INET6 => !sockopt::ipv6_v6only(&fd).ok()?,
            _ => return None,
        };
        let at = SocketAddr::try_from(rustix::net::getsockname(&fd).ok()?).ok().filter(|at| at.port() != 0)?;
        Some(Self { fd, transport, at, hears_both })
    }

    fn hears(&self, at: SocketAddr) -> bool {
        let is_everybodys = self.at.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && self.hears_both;
        at.port() == self.at.port() && (at.ip() == self.at.ip() || (is_everybodys && at.ip().is_unspecified()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_socket_serves_where_it_is_bound() {
        let both = TcpListener::bind("[::]:0").unwrap();
        let (one, datagrams) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let ports = [both.local_addr(), one.local_addr(), datagrams.local_addr()].map(|at| at.unwrap().port());
        let fds = [both.into(), one.into(), datagrams.into(), std::fs::File::open("/dev/null").unwrap().into()];
        let passed = PassedSockets(fds.into_iter().filter_map(Passed::of).collect());
        assert_eq!(passed.0.len(), 3);
        let finds = |transport, at: &str, port: usize| {
            passed.find(transport, SocketAddr::new(at.parse().unwrap(), ports[port])).is_some()
        };
        for (transport, at, port, expected) in [
            (Transport::Tcp, "0.0.0.0", 0, true),
            (Transport::Tcp, "::", 0, true),
            (Transport::Tcp, "127.0.0.1", 0, false),
            (Transport::Udp, "::", 0, false),
            (Transport::Tcp, "127.0.0.1", 1, true),
            (Transport::Tcp, "0.0.0.0", 1, false),
            (Transport::Udp, "127.0.0.1", 2, true),
            (Transport::Tcp, "127.0.0.1", 2, false),
        ] {
            assert_eq!(finds(transport, at, port), expected, "{transport:?} {at} {port}");
        }
        assert!(PassedSockets::copy(0).is_empty());
    }
}
