//! The host's end of a connection: the socket that a translated connection keeps its bytes in, and where streams begin.

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::tcp::Host;
use crate::sys::socket;

/// A stream socket of the host's.
pub(super) struct Socket {
    pub(super) fd: OwnedFd,
    /// Where the kernel's next look begins; `None` where it keeps no such place (before Linux 6.9).
    looks_from: Option<u32>,
}

/// Between two questions that were not answered.
const LONGEST_KEEPALIVE: Duration = Duration::from_secs(75);

/// What is asked of epoll about a stream socket.
pub(super) fn interest() -> epoll::EventFlags {
    use epoll::EventFlags as Flags;
    Flags::IN | Flags::PRI | Flags::OUT | Flags::RDHUP | Flags::ET
}

/// Has a socket of the host's connect.
pub(super) fn open_connection(to: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // The container's own stack has waited for what it wanted to wait for.
    let _ = sockopt::set_tcp_nodelay(&fd, true);
    // Urgent data are data (RFC 6093): a byte that is passed over would be counted by nobody.
    let _ = sockopt::set_socket_oobinline(&fd, true);
    match rustix::net::connect(&fd, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(fd),
        Err(errno) => Err(errno),
    }
}

/// Where streams begin: nobody guesses it, and of the same ends the next is behind the last, so that who remembers that one takes
/// it for a new one (RFC 6528: a clock of 4 µs, and a keyed hash).
pub(super) struct Numbers {
    key: RandomState,
    begun: Instant,
}

impl Numbers {
    pub(super) fn new() -> Self {
        Self { key: RandomState::new(), begun: Instant::now() }
    }

    pub(super) fn first(&self, ends: (SocketAddr, SocketAddr), now: Instant) -> u32 {
        let ticks = now.duration_since(self.begun).as_micros() / 4 % (1 << 32);
        let place = u32::try_from(self.key.hash_one(ends) >> 32).unwrap_or(0);
        place.wrapping_add(u32::try_from(ticks).unwrap_or(0))
    }
}

impl Socket {
    pub(super) fn new(fd: OwnedFd) -> Self {
        let looks_from = socket::set_peek_offset(&fd, 0).is_ok().then_some(0);
        Self { fd, looks_from }
    }
}

impl Host for Socket {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        rustix::net::send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
    }

    fn peek(&mut self, offset: u32, into: &mut [u8]) -> Result<usize, Errno> {
        let Some(looks_from) = &mut self.looks_from else {
            return socket::peek_past(&self.fd, offset as usize, into);
        };
        if *looks_from != offset {
            socket::set_peek_offset(&self.fd, offset)?;
            *looks_from = offset;
        }
        let (length, _) = rustix::net::recv(&self.fd, into, RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
        *looks_from += u32::try_from(length).unwrap_or(0);
        Ok(length)
    }

    fn discard(&mut self, count: u32) -> bool {
        let mut left = count as usize;
        while left > 0 {
            match socket::discard(&self.fd, left) {
                Ok(0) | Err(_) => break,
                Ok(gone) => left = left.saturating_sub(gone),
            }
        }
        match &mut self.looks_from {
            // The kernel moves its place along (sk_peek_offset_bwd).
            Some(looks_from) => {
                *looks_from = looks_from.saturating_sub(count);
                false
            }
            None => true,
        }
    }

    fn room(&mut self) -> (u32, bool) {
        socket::room(&self.fd).map_or((0, true), |room| (room.free, room.is_low))
    }

    fn end(&mut self) {
        // Refused only of what is not connected any more, and then that is told otherwise.
        let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Write);
    }

    fn keep_alive(&mut self, pause: Duration) {
        // As often as the container does (tcp(7)).
        let _ = sockopt::set_tcp_keepidle(&self.fd, pause);
        let _ = sockopt::set_tcp_keepintvl(&self.fd, pause.min(LONGEST_KEEPALIVE));
        let _ = sockopt::set_socket_keepalive(&self.fd, true);
    }

    fn reset(&mut self) {
        // Closed with this, a socket sends RST and forgets (socket(7)).
        let _ = sockopt::set_socket_linger(&self.fd, Some(Duration::ZERO));
    }
}
