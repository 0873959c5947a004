//! The messages between a monitor and whoever attends to its container: the command that started it, over a pair made
//! before the fork, and others, over the container's `attach` socket.
//!
//! ```text
//!  client                                    monitor
//!    │ ◀──────── Warning {text} ───────────── │  the command that starts, alone
//!    │ ◀──────── Failed {error} ───────────── │  the same: it could not be started. The end
//!    │ ───────── Hello {wants} ─────────────▶ │  who connects, alone: first of all
//!    │ ◀──────── Started {terminal} + pidfd ─ │  at each start; to who connects at once
//!    │ ───────── Input {bytes} ─────────────▶ │
//!    │ ───────── EndOfInput ────────────────▶ │
//!    │ ───────── Size {rows, columns} ──────▶ │
//!    │ ◀──────── Output {stream, bytes} ───── │
//!    │ ───────── Closed {stream} ───────────▶ │  nobody reads on: so the workload's pipe is broken, too
//!    │ ───────── Detach ────────────────────▶ │  the command goes, and the container stays
//!    │ ───────── Networks ──────────────────▶ │  it is to be in other networks: its record says in which
//!    │ ◀──────── Heard ────────────────────── │  it is; or Failed {error}, and what can be done is done
//!    │ ───────── Stop {signal, patience} ───▶ │  ends it, and what its restart policy would do
//!    │ ◀──────── Heard ────────────────────── │  the signal is sent
//!    │ ◀──────── Failed {error} ───────────── │  or could not be, and nothing is changed
//!    │ ◀──────── Ended {exit} ─────────────── │  all that it left is cleared. The end
//! ```
//!
//! A SEQPACKET socket: messages arrive whole, and the other side's end is an empty one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::{Context, Error, Kind, Result};
use crate::runtime::foreground::Exit;
use crate::runtime::protocol::{decode_failure, encode_failure};
use crate::sys::fdpass;

/// Bytes of a stream in one message, at most.
pub(super) const CHUNK_SIZE: usize = 32 << 10;

/// The longest message: a chunk and its tag.
pub(super) const MESSAGE_SIZE: usize = CHUNK_SIZE + 16;

/// One end.
pub(super) struct Link(OwnedFd);

/// A stream of the workload's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Output,
    Errors,
}

/// What a client wants of the streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// What the workload writes from now on.
    pub output: bool,
}

/// How a container is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// What it gets first; 0 for nothing: then its restart policy ends, and the container does not.
    pub signal: i32,
    /// How long it may take before it gets SIGKILL; for ever without.
    pub patience_seconds: Option<u32>,
    /// It is started again by who asks: it stays, even if it is to go with its end (`--rm`).
    pub is_kept: bool,
}

/// What is said, by either side.
pub(super) enum Message<'a> {
    /// The workload runs; the descriptor stands for it.
    Started {
        pidfd: OwnedFd,
        has_terminal: bool,
    },
    /// Something that the user should know.
    Warning(String),
    Output(Stream, &'a [u8]),
    /// It has ended, and what it left is cleared.
    Ended(Exit),
    /// It could not be started; or what was asked could not be done.
    Failed(Error),
    /// What was asked is done.
    Heard,
    Hello(Wants),
    Input(&'a [u8]),
    EndOfInput,
    Size {
        rows: u16,
        columns: u16,
    },
    Closed(Stream),
    Detach,
    Networks,
    Stop(Stop),
}

const STARTED: u8 = 1;
const WARNING: u8 = 2;
const OUTPUT: u8 = 3;
const ERRORS: u8 = 4;
const ENDED: u8 = 5;
const FAILED: u8 = 6;
const HELLO: u8 = 7;
const INPUT: u8 = 8;
const END_OF_INPUT: u8 = 9;
const SIZE: u8 = 10;
const CLOSED: u8 = 11;
const DETACH: u8 = 12;
const STOP: u8 = 13;
const HEARD: u8 = 14;
const NETWORKS: u8 = 15;

/// What became of a message that may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Yes,
    /// The other side has not read what was sent before.
    Full,
    /// The other side has gone.
    Gone,
}

impl Link {
    pub(super) fn pair() -> Result<(Self, Self)> {
        let (here, there) = fdpass::pair().context("make the monitor's socket")?;
        Ok((Self(here), Self(there)))
    }

    /// Connects to the monitor that listens at `name` below `directory`; `None` where none does.
    pub(super) fn connect(directory: BorrowedFd<'_>, name: &str) -> Result<Option<Self>> {
        let context = || format!("connect to the monitor's {name}");
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .with_context(context)?;
        match rustix::net::connect(&socket, &address(directory, name)?) {
            Ok(()) => Ok(Some(Self(socket))),
            Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).with_context(context),
        }
    }

    pub(super) fn accept(listener: BorrowedFd<'_>) -> Option<Self> {
        rustix::net::accept_with(listener, SocketFlags::CLOEXEC).ok().map(Self)
    }

    pub(super) fn send_started(&self, pidfd: BorrowedFd<'_>, has_terminal: bool) -> Sent {
        self.try_send_with(STARTED, &[u8::from(has_terminal)], Some(pidfd))
    }

    pub(super) fn send_warning(&self, text: &str) -> Sent {
        let end = text.floor_char_boundary(CHUNK_SIZE);
        self.try_send(WARNING, &text.as_bytes()[..end])
    }

    pub(super) fn send_heard(&self) -> Sent {
        self.try_send(HEARD, &[])
    }

    pub(super) fn send_ended(&self, exit: Exit) -> Sent {
        let body = match exit {
            Exit::Code(code) => [0, code],
            Exit::Signal(signal) => [1, signal],
        };
        self.try_send(ENDED, &body)
    }

    pub(super) fn send_failure(&self, error: &Error) -> Sent {
        self.try_send(FAILED, &encode_failure(error))
    }

    pub(super) fn send_output(&self, stream: Stream, bytes: &[u8]) -> Sent {
        let tag = match stream {
            Stream::Output => OUTPUT,
            Stream::Errors => ERRORS,
        };
        self.try_send(tag, bytes)
    }

    pub(super) fn send_input(&self, bytes: &[u8]) -> Sent {
        self.try_send(INPUT, bytes)
    }

    pub(super) fn send_end_of_input(&self) -> Sent {
        self.try_send(END_OF_INPUT, &[])
    }

    pub(super) fn send_size(&self, rows: u16, columns: u16) {
        let ([a, b], [c, d]) = (rows.to_le_bytes(), columns.to_le_bytes());
        let _ = self.send(SIZE, &[a, b, c, d]);
    }

    pub(super) fn send_closed(&self, stream: Stream) {
        let _ = self.send(CLOSED, &[u8::from(stream == Stream::Errors)]);
    }

    pub(super) fn send_detach(&self) {
        let _ = self.send(DETACH, &[]);
    }

    pub(super) fn send_networks(&self) {
        let _ = self.send(NETWORKS, &[]);
    }

    pub(super) fn send_hello(&self, wants: Wants) {
        let _ = self.send(HELLO, &[u8::from(wants.output)]);
    }

    pub(super) fn send_stop(&self, stop: Stop) {
        let mut body = [0; 9];
        body[8] = stop.is_kept.into();
        body[..4].copy_from_slice(&stop.signal.to_le_bytes());
        body[4..8].copy_from_slice(&stop.patience_seconds.unwrap_or(u32::MAX).to_le_bytes());
        let _ = self.send(STOP, &body);
    }

    /// Who has gone needs no telling; that it has is seen elsewhere.
    fn send(&self, tag: u8, body: &[u8]) -> Result<(), Errno> {
        fdpass::send(&self.0, &[&[tag], body], None)
    }

    fn try_send(&self, tag: u8, body: &[u8]) -> Sent {
        self.try_send_with(tag, body, None)
    }

    fn try_send_with(&self, tag: u8, body: &[u8], fd: Option<BorrowedFd<'_>>) -> Sent {
        match fdpass::try_send(&self.0, &[&[tag], body], fd) {
            Ok(()) => Sent::Yes,
            Err(Errno::AGAIN | Errno::NOBUFS) => Sent::Full,
            Err(_) => Sent::Gone,
        }
    }

    /// Waits for the next message; `None` when the other side has gone.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<Option<Message<'a>>> {
        let (length, fd) = match fdpass::receive(&self.0, buffer) {
            // The other side has closed without reading all that it was told. What it said before that is still there, and
            // comes once the error was taken (unix_release_sock of the kernel's af_unix.c).
            Err(Errno::CONNRESET) => match fdpass::receive(&self.0, buffer) {
                Err(Errno::CONNRESET) => return Ok(None),
                answer => answer.context("receive from the monitor")?,
            },
            answer => answer.context("receive from the monitor")?,
        };
        let malformed = || Error::new(Kind::Other, "malformed message to or from the monitor");
        let Some((&tag, body)) = buffer[..length].split_first() else { return Ok(None) };
        Ok(Some(match (tag, body, fd) {
            (STARTED, &[terminal], Some(pidfd)) => Message::Started { pidfd, has_terminal: terminal != 0 },
            (WARNING, text, None) => Message::Warning(String::from_utf8_lossy(text).into_owned()),
            (OUTPUT, bytes, None) => Message::Output(Stream::Output, bytes),
            (ERRORS, bytes, None) => Message::Output(Stream::Errors, bytes),
            (ENDED, &[0, code], None) => Message::Ended(Exit::Code(code)),
            (ENDED, &[1, signal], None) => Message::Ended(Exit::Signal(signal)),
            (HEARD, [], None) => Message::Heard,
            (FAILED, body, None) => Message::Failed(decode_failure(body).ok_or_else(malformed)?),
            (HELLO, &[output], None) => Message::Hello(Wants { output: output != 0 }),
            (INPUT, bytes, None) => Message::Input(bytes),
            (END_OF_INPUT, [], None) => Message::EndOfInput,
            (SIZE, &[a, b, c, d], None) => {
                Message::Size { rows: u16::from_le_bytes([a, b]), columns: u16::from_le_bytes([c, d]) }
            }
            (CLOSED, &[which], None) => Message::Closed(if which == 0 { Stream::Output } else { Stream::Errors }),
            (DETACH, [], None) => Message::Detach,
            (NETWORKS, [], None) => Message::Networks,
            (STOP, body, None) => {
                let (signal, rest) = body.split_first_chunk().ok_or_else(malformed)?;
                let (patience, &[is_kept]) = rest.split_first_chunk().ok_or_else(malformed)? else {
                    return Err(malformed());
                };
                let patience = u32::from_le_bytes(*patience);
                let patience_seconds = (patience != u32::MAX).then_some(patience);
                let is_kept = is_kept != 0;
                Message::Stop(Stop { signal: i32::from_le_bytes(*signal), patience_seconds, is_kept })
            }
            _ => return Err(malformed()),
        }))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Listens at `name` below `directory`. What a monitor before has left there goes.
pub(super) fn listen(directory: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let context = || format!("listen at the monitor's {name}");
    match rustix::fs::unlinkat(directory, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno).with_context(context),
    }
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .with_context(context)?;
    rustix::net::bind(&socket, &address(directory, name)?).with_context(context)?;
    rustix::net::listen(&socket, BACKLOG).with_context(context)?;
    Ok(socket)
}

/// Who may wait to be accepted.
const BACKLOG: i32 = 16;

/// A path of a socket has 107 bytes at most (unix(7)), and that of a container's folder has more: so by its descriptor.
fn address(directory: BorrowedFd<'_>, name: &str) -> Result<SocketAddrUnix> {
    use std::os::fd::AsRawFd;
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd())).context("name the monitor's socket")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_they_were() {
        let (client, monitor) = Link::pair().unwrap();
        let mut buffer = vec![0; MESSAGE_SIZE];
        for exit in [Exit::Code(0), Exit::Code(255), Exit::Signal(9)] {
            assert_eq!(monitor.send_ended(exit), Sent::Yes);
            assert!(matches!(client.receive(&mut buffer).unwrap(), Some(Message::Ended(received)) if received == exit));
        }
        assert_eq!(monitor.send_warning(&"ä".repeat(MESSAGE_SIZE)), Sent::Yes);
        assert!(matches!(client.receive(&mut buffer).unwrap(), Some(Message::Warning(text)) if text.starts_with('ä')));
        let stop = Stop { signal: 15, patience_seconds: None, is_kept: false };
        for stop in [stop, Stop { signal: 0, patience_seconds: Some(0), is_kept: true }] {
            client.send_stop(stop);
            assert!(matches!(monitor.receive(&mut buffer).unwrap(), Some(Message::Stop(received)) if received == stop));
        }
        client.send_size(24, 80);
        let size = monitor.receive(&mut buffer).unwrap();
        assert!(matches!(size, Some(Message::Size { rows: 24, columns: 80 })));
        let chunk = vec![7; CHUNK_SIZE];
        assert_eq!(monitor.send_output(Stream::Errors, &chunk), Sent::Yes);
        let output = client.receive(&mut buffer).unwrap();
        assert!(matches!(output, Some(Message::Output(Stream::Errors, bytes)) if bytes == chunk));
        drop(monitor);
        assert!(client.receive(&mut buffer).unwrap().is_none());
        assert_eq!(client.send_input(b"x"), Sent::Gone);
    }

    /// `husk kill` asks, and does not wait for an answer.
    #[test]
    fn what_was_said_before_the_end_is_heard() {
        let (client, monitor) = Link::pair().unwrap();
        let mut buffer = vec![0; MESSAGE_SIZE];
        let stop = Stop { signal: 9, patience_seconds: None, is_kept: false };
        client.send_stop(stop);
        assert_eq!(monitor.send_warning("not read"), Sent::Yes);
        drop(client);
        assert!(matches!(monitor.receive(&mut buffer).unwrap(), Some(Message::Stop(received)) if received == stop));
        assert!(monitor.receive(&mut buffer).unwrap().is_none());
    }

    #[test]
    fn who_does_not_read_is_not_waited_for() {
        let (_client, monitor) = Link::pair().unwrap();
        let sent = (0..1000).find_map(|_| {
            let sent = monitor.send_output(Stream::Output, &vec![0; CHUNK_SIZE]);
            (sent != Sent::Yes).then_some(sent)
        });
        assert_eq!(sent, Some(Sent::Full));
    }

    #[test]
    fn a_socket_is_found_in_its_folder() {
        let directory = tempfile::tempdir().unwrap();
        let folder = std::fs::File::open(directory.path()).unwrap();
        assert!(Link::connect(folder.as_fd(), "attach").unwrap().is_none());
        let listener = listen(folder.as_fd(), "attach").unwrap();
        drop(listener);
        assert!(Link::connect(folder.as_fd(), "attach").unwrap().is_none(), "nobody listens any more");
        let listener = listen(folder.as_fd(), "attach").unwrap();
        let client = Link::connect(folder.as_fd(), "attach").unwrap().unwrap();
        client.send_hello(Wants { output: true });
        let monitor = Link::accept(listener.as_fd()).unwrap();
        let mut buffer = vec![0; MESSAGE_SIZE];
        let hello = monitor.receive(&mut buffer).unwrap();
        assert!(matches!(hello, Some(Message::Hello(Wants { output: true }))));
    }
}
