//! The messages between a monitor and its client, over one SEQPACKET pair.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Context, Error, Kind, Result};
use crate::runtime::foreground::Exit;
use crate::runtime::protocol::{MESSAGE_SIZE, decode_failure, encode_failure};
use crate::sys::fdpass;

/// One end.
pub(super) struct Link(OwnedFd);

/// What a monitor says.
pub(super) enum Message {
    /// The workload runs; the descriptor stands for it.
    Started { pidfd: OwnedFd },
    /// The master of its terminal.
    Terminal { master: OwnedFd },
    /// Something that the user should know.
    Warning(String),
    /// It has ended, and what it left is cleared.
    Ended(Exit),
    /// It could not be started, or not be cleared.
    Failed(Error),
}

const STARTED: u8 = 1;
const TERMINAL: u8 = 2;
const WARNING: u8 = 3;
const ENDED: u8 = 4;
const FAILED: u8 = 5;

impl Link {
    pub(super) fn pair() -> Result<(Self, Self)> {
        let (here, there) = fdpass::pair().context("make the monitor's socket")?;
        Ok((Self(here), Self(there)))
    }

    pub(super) fn send_started(&self, pidfd: BorrowedFd<'_>) {
        self.send(STARTED, &[], Some(pidfd));
    }

    pub(super) fn send_terminal(&self, master: BorrowedFd<'_>) {
        self.send(TERMINAL, &[], Some(master));
    }

    pub(super) fn send_warning(&self, text: &str) {
        let end = text.floor_char_boundary(MESSAGE_SIZE - 1);
        self.send(WARNING, &text.as_bytes()[..end], None);
    }

    pub(super) fn send_ended(&self, exit: Exit) {
        let body = match exit {
            Exit::Code(code) => [0, code],
            Exit::Signal(signal) => [1, signal],
        };
        self.send(ENDED, &body, None);
    }

    pub(super) fn send_failure(&self, error: &Error) {
        self.send(FAILED, &encode_failure(error), None);
    }

    /// A client that has gone needs no telling; the monitor sees that elsewhere.
    fn send(&self, tag: u8, body: &[u8], fd: Option<BorrowedFd<'_>>) {
        let _ = fdpass::send(&self.0, &[&[tag], body], fd);
    }

    /// Waits for the next message; `None` when the other side has gone.
    pub(super) fn receive(&self) -> Result<Option<Message>> {
        let mut buffer = [0; MESSAGE_SIZE];
        let (length, fd) = match fdpass::receive(&self.0, &mut buffer) {
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            answer => answer.context("receive from the monitor")?,
        };
        let malformed = || Error::new(Kind::Other, "malformed message from the monitor");
        let Some((&tag, body)) = buffer[..length].split_first() else { return Ok(None) };
        Ok(Some(match (tag, body, fd) {
            (STARTED, [], Some(pidfd)) => Message::Started { pidfd },
            (TERMINAL, [], Some(master)) => Message::Terminal { master },
            (WARNING, text, None) => Message::Warning(String::from_utf8_lossy(text).into_owned()),
            (ENDED, &[0, code], None) => Message::Ended(Exit::Code(code)),
            (ENDED, &[1, signal], None) => Message::Ended(Exit::Signal(signal)),
            (FAILED, body, None) => Message::Failed(decode_failure(body).ok_or_else(malformed)?),
            _ => return Err(malformed()),
        }))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_arrives_as_it_was() {
        let (client, monitor) = Link::pair().unwrap();
        for exit in [Exit::Code(0), Exit::Code(255), Exit::Signal(9)] {
            monitor.send_ended(exit);
            assert!(matches!(client.receive().unwrap(), Some(Message::Ended(received)) if received == exit));
        }
        monitor.send_warning(&"ä".repeat(MESSAGE_SIZE));
        assert!(matches!(client.receive().unwrap(), Some(Message::Warning(text)) if text.starts_with('ä')));
        drop(monitor);
        assert!(client.receive().unwrap().is_none());
    }
}
