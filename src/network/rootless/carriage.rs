//! A connection that two sockets of the kernel have taken over: the host's, which it had before, and one in the network namespace,
//! which goes on in place of the translator with the container. Bytes go from one to the other by splice(2), and each side's stack
//! does what it does for any connection.
//!
//! What is long is carried so; what is short has come to its end before it would be worth the while. The container sees nothing of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::sockopt;

use super::tcp::Served;
use crate::network::pump::{Pipes, Pump, Pumped};
use crate::sys::repair::{self, Standing};

/// After so many bytes a connection is long.
pub(super) const LONG: u32 = 1 << 20;

/// How long packets may be on their way that were sent before the other socket was there.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// What the container asks of its peer (keepalive) is answered by the socket beside it: so the host's asks by itself, and the other,
/// too, since nobody else looks whether the container is there.
const QUIET: Duration = Duration::from_mins(2);
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Carriage {
    /// The socket in the network namespace.
    guest: OwnedFd,
    from_guest: Pump,
    to_guest: Pump,
    since: Instant,
    /// The kernel has told of an error of one of the two.
    is_troubled: bool,
}

impl Carriage {
    /// Has a socket of the network namespace take over where a connection stands.
    pub(super) fn begin(guest: OwnedFd, host: &OwnedFd, standing: &Standing, now: Instant) -> Result<Self, Errno> {
        // What somebody in that very namespace sends does not come in there.
        if repair::is_local(guest.as_fd(), standing.peer.ip())? {
            return Err(Errno::ADDRINUSE);
        }
        // Whoever wrote has waited for what there was to wait for; and urgent data are data (RFC 6093).
        let _ = sockopt::set_tcp_nodelay(&guest, true);
        let _ = sockopt::set_socket_oobinline(&guest, true);
        repair::take_over(guest.as_fd(), standing)?;
        for socket in [host, &guest] {
            if !sockopt::socket_keepalive(socket).unwrap_or(true) {
                let _ = sockopt::set_tcp_keepidle(socket, QUIET);
                let _ = sockopt::set_tcp_keepintvl(socket, BETWEEN_QUESTIONS);
                let _ = sockopt::set_socket_keepalive(socket, true);
            }
            // If this process is killed, what was cut off is not to look like what was all.
            let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
        Ok(Self { guest, from_guest: Pump::default(), to_guest: Pump::default(), since: now, is_troubled: false })
    }

    /// Takes note of what the kernel says of one of the sockets: the host's, or the other.
    pub(super) fn hear(&mut self, is_host: bool, flags: EventFlags) {
        let (incoming, outgoing) = if is_host {
            (&mut self.to_guest, &mut self.from_guest)
        } else {
            (&mut self.from_guest, &mut self.to_guest)
        };
        let is_over = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        self.is_troubled |= flags.contains(EventFlags::ERR);
        if is_over || flags.intersects(EventFlags::IN | EventFlags::PRI | EventFlags::RDHUP) {
            incoming.may_take();
        }
        if flags.contains(EventFlags::PRI) {
            incoming.may_be_marked();
        }
        if is_over || flags.contains(EventFlags::OUT) {
            outgoing.may_give();
        }
    }

    /// Moves on what can be moved; `None` once both sides have come to their end. An error is the end of both.
    pub(super) fn serve(&mut self, host: &OwnedFd, pipes: &mut Pipes) -> Result<Option<Served>, Errno> {
        let turns = [self.from_guest.run(&self.guest, host, pipes), self.to_guest.run(host, &self.guest, pipes)];
        if turns == [Ok(Pumped::Done); 2] {
            for socket in [host, &self.guest] {
                let _ = sockopt::set_socket_linger(socket, None);
            }
            return Ok(None);
        }
        if turns.contains(&Ok(Pumped::Again)) {
            return Ok(Some(Served::Again));
        }
        // Who does not listen any more may have said why, and the kernel has not told of it yet.
        if turns[0].is_err() {
            self.to_guest.run_out(host, &self.guest, pipes)?;
        } else if turns[1].is_err() {
            self.from_guest.run_out(&self.guest, host, pipes)?;
        }
        for turn in turns {
            turn?;
        }
        // What came before an error was taken, if there was room for it: if not, nobody asks for the rest.
        if std::mem::take(&mut self.is_troubled) {
            sockopt::socket_error(host)??;
            sockopt::socket_error(&self.guest)??;
        }
        Ok(Some(Served::Through))
    }

    /// Takes note of a packet that the kernel did not give to the socket; says whether it should have.
    pub(super) fn is_passed_by(&self) -> bool {
        rustix::net::getpeername(&self.guest).is_ok()
    }

    /// Whether packets may still come here that are for the socket in the network namespace.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now.duration_since(self.since) < UNDER_WAY
    }
}

impl AsFd for Carriage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.guest.as_fd()
    }
}
