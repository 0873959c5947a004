//! A descriptor in reserve. Where a process has no more, whoever calls cannot be accepted, and would be announced for ever: so one
//! is given up for a moment, the caller taken, and sent away.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::net::SocketFlags;

#[derive(Debug)]
pub(super) struct Spare(Option<OwnedFd>);

impl Spare {
    /// Keeps a copy of any descriptor.
    pub(super) fn new(any: impl AsFd) -> Self {
        Self(copy(any))
    }

    /// Deals with what accept(2) has failed with; says whether there may be more callers.
    pub(super) fn send_away(&mut self, listener: impl AsFd, errno: Errno) -> bool {
        match errno {
            Errno::MFILE | Errno::NFILE => {
                self.0 = None;
                let gone = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC).is_ok();
                self.0 = copy(listener);
                gone
            }
            Errno::NOBUFS | Errno::NOMEM => {
                // The machine has other worries: a moment of peace.
                let moment = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
                let _ = rustix::event::poll(&mut [], Some(&moment));
                false
            }
            // The caller has gone by itself.
            Errno::CONNABORTED => true,
            _ => false,
        }
    }
}

fn copy(any: impl AsFd) -> Option<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(any, 3).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn who_cannot_be_taken_is_sent_away() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut spare = Spare::new(&listener);
        assert!(spare.send_away(&listener, Errno::MFILE));
        assert_eq!(caller.read(&mut [0]).unwrap(), 0);
        assert!(!spare.send_away(&listener, Errno::MFILE), "nobody is left");
        assert!(spare.0.is_some() && !spare.send_away(&listener, Errno::AGAIN));
    }
}
