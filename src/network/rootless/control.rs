//! What a command and the user's network process say to each other: one request, one answer, as JSON over a socket that keeps
//! the borders of messages. A connection is a lease: the process lives while there is one, or a container that it keeps.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use super::device::Dropped;
use super::state::{Holder, Kept};
use crate::error::{Context, Error, Kind, Result};
use crate::network::cidr::Cidr;
use crate::sys::fdpass;

/// The socket in the folder, and the lock that whoever connects holds, and whoever ends.
pub(super) const SOCKET: &str = "control";
pub(super) const LOCK: &str = "lock";

/// Longer than any message.
pub(super) const MESSAGE_BYTES: usize = 64 << 10;

/// What a port is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// Whose port it is, to take it back by.
    pub container: String,
    pub transport: Transport,
    /// Where callers come to; port 0 is any. `[::]` is for IPv6 alone.
    pub host: SocketAddr,
    pub guest: SocketAddr,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// Asks where the namespaces are.
    Hello,
    /// Comes with a descriptor where the caller has a socket of its own.
    Publish(Publication),
    /// Says which blocks of addresses are those of networks inside.
    Know {
        blocks: Vec<Cidr>,
    },
    Withdraw {
        container: String,
    },
    Forget {
        addresses: Vec<IpAddr>,
    },
    /// Says that the caller has the namespaces open.
    Hold(Holder),
    /// Comes with a descriptor of a container's first process: as long as that lives, so does this.
    Keep(Kept),
    Status,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// By the numbers of the process's descriptors.
    Welcome {
        pid: u32,
        user: i32,
        network: i32,
    },
    /// The port, which was the kernel's to choose if it was 0.
    Published {
        port: u16,
    },
    Done,
    Status(Status),
    Failed {
        message: String,
        hint: Option<String>,
        errno: Option<i32>,
    },
}

/// What a process has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub connections: usize,
    /// Of these, those that have the kernel's own sockets at both ends.
    pub carried: usize,
    pub datagram_sockets: usize,
    pub published: usize,
    /// Containers that it is kept by.
    pub kept_by: usize,
    /// Whether the host lets the user send echo requests (`net.ipv4.ping_group_range`).
    pub may_ping: bool,
    pub dropped: Dropped,
}

impl Answer {
    pub(super) fn failure(error: &Error) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self::Failed { message: error.report(), hint, errno: error.errno().map(Errno::raw_os_error) }
    }

    /// Gives the error that a failure is.
    pub(super) fn into_result(self) -> Result<Self> {
        let Self::Failed { message, hint, errno } = self else { return Ok(self) };
        let kind = errno.map_or(Kind::Other, |code| Kind::System(Errno::from_raw_os_error(code)));
        let error = Error::new(kind, Cow::Owned(message));
        Err(match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        })
    }
}

pub(super) fn send(link: impl AsFd, message: &impl Serialize, fd: Option<BorrowedFd<'_>>) -> Result<()> {
    let bytes = serde_json::to_vec(message)?;
    fdpass::send(link, &[&bytes], fd).context("write to the network process")
}

/// Sends an answer if there is room for it.
pub(super) fn try_send(link: impl AsFd, message: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(message)?;
    fdpass::try_send(link, &[&bytes], None).context("write to a command")
}

/// Gives the next message; `None` at the other's end.
pub(super) fn receive<T: for<'de> Deserialize<'de>>(link: impl AsFd) -> Result<Option<(T, Option<OwnedFd>)>> {
    let mut buffer = vec![0; MESSAGE_BYTES];
    let (length, fd) = match fdpass::receive(link, &mut buffer) {
        Err(Errno::CONNRESET) => return Ok(None),
        answer => answer.context("read from the network process")?,
    };
    if length == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(&buffer[..length]).map_err(Error::from).context("read a message")?;
    Ok(Some((message, fd)))
}

/// Listens in a folder; what is there of another is removed, by whoever holds the lock.
pub(super) fn listen(folder: BorrowedFd<'_>) -> Result<OwnedFd> {
    let listen = || -> Result<OwnedFd, Errno> {
        match rustix::fs::unlinkat(folder, SOCKET, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        let socket = socket()?;
        rustix::net::bind(&socket, &address(folder)?)?;
        rustix::net::listen(&socket, 128)?;
        Ok(socket)
    };
    listen().context("listen for commands")
}

/// Connects to the process that listens in a folder; `None` where there is none.
pub(super) fn connect(folder: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    let connect = || -> Result<OwnedFd, Errno> {
        let socket = socket()?;
        rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &address(folder)?))?;
        Ok(socket)
    };
    match connect() {
        Ok(socket) => Ok(Some(socket)),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(errno) => Err(errno).context("connect to the network process"),
    }
}

fn socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// By the folder's descriptor: its path may be longer than an address takes (unix(7): 108 bytes).
fn address(folder: BorrowedFd<'_>) -> Result<SocketAddrUnix, Errno> {
    use std::os::fd::AsRawFd as _;
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        let (here, there) = fdpass::pair().unwrap();
        let said = Request::Publish(Publication {
            container: "a".repeat(64),
            transport: Transport::Udp,
            host: "[::]:53".parse().unwrap(),
            guest: "10.89.0.2:53".parse().unwrap(),
        });
        send(&here, &said, Some(here.as_fd())).unwrap();
        let (heard, fd) = receive::<Request>(&there).unwrap().unwrap();
        assert_eq!((heard, fd.is_some()), (said, true));
        fdpass::send(&here, &[b"{\"publish\":7}"], None).unwrap();
        assert!(receive::<Request>(&there).is_err());
        // What was handed over is the other end, too.
        drop((here, fd));
        assert!(receive::<Request>(&there).unwrap().is_none());
        let error = Error::from(Errno::ADDRINUSE).context("publish 80").with_hint("another");
        let told = Answer::failure(&error).into_result().unwrap_err();
        assert_eq!((told.report(), told.hint()), (error.report(), Some("another")));
        assert_eq!(told.errno(), Some(Errno::ADDRINUSE));
    }
}
