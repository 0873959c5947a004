//! sd_notify(3) for the workload: takes its READY=1 at a socket of the container's and hands it to the service manager of
//! whoever called husk, with the pid that the manager is to watch.
//!
//! ```text
//! <root>/<id>/notify/              bound on /run/notify, read-only (runc's place)
//!   notify.sock                    where the workload writes; there once somebody reads it
//!   .<pid>.sock                    it, before its reader has won the right to start the container
//! ```
//!
//! The manager's own socket never gets into the container: of all that can be said there (another main pid, descriptors
//! to keep, a barrier) only a line that begins with `READY=` is passed on. Nobody stays to read what comes after it,
//! unless `run` is in the foreground anyway.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Mount;
use rustix::event::epoll;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, recv, socket_with,
};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Context, Result};
use crate::sys::fdpass;

/// Where the directory is in the container.
const DESTINATION: &str = "/run/notify";
/// What the workload finds in its environment.
pub(super) const VARIABLE: &str = "NOTIFY_SOCKET=/run/notify/notify.sock";
/// The name of the socket.
const SOCKET: &str = "notify.sock";

/// How long a manager may take to have read what it was sent (sd_notify_barrier(3)). Others than systemd may never answer.
const BARRIER_SECONDS: i64 = 30;
/// Longer than any message that has its READY= where it can be seen.
const MESSAGE_LIMIT: usize = 4096;

/// The workload's socket, and the way to the manager's.
pub(super) struct NotifySocket {
    ours: OwnedFd,
    manager: OwnedFd,
    directory: OwnedFd,
    name: String,
    is_done: bool,
}

impl NotifySocket {
    /// Connects to the manager, and binds a socket in the container's directory under a name that nobody looks for.
    pub(super) fn bind(directory: OwnedFd, manager: &Path) -> Result<Self> {
        let manager = dial(manager).with_context(|| format!("connect to NOTIFY_SOCKET {}", manager.display()))?;
        let name = format!(".{}.sock", std::process::id());
        // The path of a state directory may be longer than an address can hold; the way over a descriptor never is.
        let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
        let make = || -> Result<OwnedFd, Errno> {
            let ours = datagram_socket()?;
            // Whoever the workload becomes may write.
            let umask = rustix::process::umask(Mode::empty());
            let answer = SocketAddrUnix::new(path).and_then(|address| bind(&ours, &address));
            rustix::process::umask(umask);
            answer.map(|()| ours)
        };
        let ours = make().context("make the container's notify socket")?;
        Ok(Self { ours, manager, directory, name, is_done: false })
    }

    /// Gives the socket the name that the workload looks for.
    pub(super) fn publish(&self) -> Result<()> {
        rustix::fs::renameat(&self.directory, &self.name, &self.directory, SOCKET)
            .context("publish the container's notify socket")
    }

    /// Waits for the workload to be ready, tells the manager that `pid` is what it looks after, and waits until it knows.
    /// A workload that ends sooner has nothing to say.
    pub(super) fn wait(&mut self, init: BorrowedFd<'_>, pid: i32) -> Result<Waited> {
        loop {
            let mut fds = [PollFd::new(&self.ours, PollFlags::IN), PollFd::from_borrowed_fd(init, PollFlags::IN)];
            rustix::io::retry_on_intr(|| poll(&mut fds, None)).context("wait for the container to be ready")?;
            let [has_word, has_ended] = fds.map(|fd| !fd.revents().is_empty());
            if has_word && self.relay(pid)? {
                return self.await_manager();
            }
            if has_ended && !has_word {
                return Ok(Waited::Done);
            }
        }
    }

    /// Gives a descriptor that is readable when there is something to relay, or `init` has ended.
    pub(super) fn watch(&self, init: BorrowedFd<'_>) -> Result<OwnedFd> {
        let make = || {
            let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            for fd in [self.ours.as_fd(), init] {
                epoll::add(&watch, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
            }
            Ok::<_, Errno>(watch)
        };
        make().context("watch the container's notify socket")
    }

    /// Passes on what has come, for a `run` that stays and is itself what the manager looks after. What comes later is
    /// read and dropped: a workload must not block on a socket that nobody reads.
    pub(super) fn serve(&mut self) -> Result<()> {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        self.relay(own).map(drop)
    }

    /// Reads all that has come; says whether the manager was told now.
    fn relay(&mut self, pid: i32) -> Result<bool> {
        let mut message = [0; MESSAGE_LIMIT];
        let mut has_told = false;
        loop {
            // Descriptors that come along are not taken.
            let length = match recv(&self.ours, &mut message[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                Err(Errno::AGAIN) => return Ok(has_told),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno).context("read the container's notify socket"),
            };
            if let Some(line) = ready_line(&message[..length]).filter(|_| !self.is_done) {
                self.is_done = true;
                has_told = true;
                let main_pid = format!("MAINPID={pid}\n");
                for parts in [&[line, b"\n"][..], &[main_pid.as_bytes()]] {
                    fdpass::send(&self.manager, parts, None).context("notify the service manager")?;
                }
            }
        }
    }

    /// The manager closes its end of the pipe when it has read what came before. Then it has looked up by our pid which
    /// service we are of, and we may go (sd_notify_barrier(3)).
    fn await_manager(&self) -> Result<Waited> {
        let act = || {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            fdpass::send(&self.manager, &[b"BARRIER=1"], Some(writer.as_fd()))?;
            drop(writer);
            let timeout = Timespec { tv_sec: BARRIER_SECONDS, tv_nsec: 0 };
            rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&timeout)))
        };
        let count = act().context("notify the service manager")?;
        Ok(if count == 0 { Waited::ManagerSilent } else { Waited::Done })
    }
}

/// How waiting came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// As it should, or with the container.
    Done,
    /// The manager does not know barriers.
    ManagerSilent,
}

impl Waited {
    /// What the caller should be told; the words are runc's.
    pub(super) fn warning(self) -> Option<String> {
        (self == Self::ManagerSilent).then(|| format!("Timeout after waiting {BARRIER_SECONDS}s for barrier. Ignored."))
    }
}

/// The line of a message that says whether the service is ready.
fn ready_line(message: &[u8]) -> Option<&[u8]> {
    message.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY="))
}

fn datagram_socket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
}

/// A path that begins with `@` is a name of the abstract namespace (sd_notify(3)).
fn dial(path: &Path) -> Result<OwnedFd, Errno> {
    let address = match path.as_os_str().as_encoded_bytes() {
        [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
        _ => SocketAddrUnix::new(path)?,
    };
    let socket = datagram_socket()?;
    connect(&socket, &address)?;
    Ok(socket)
}

/// The mount that brings the directory to the workload, as runc has it.
pub(super) fn mount_of(directory: &Path) -> Mount {
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
    let mut mount = Mount::default();
    mount.set_destination(DESTINATION.into()).set_source(Some(directory.into())).set_options(Some(options));
    mount.set_typ(None);
    mount
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn only_a_line_about_readiness_is_passed_on() {
        for (message, expected) in [
            (&b"READY=1"[..], Some(&b"READY=1"[..])),
            (b"STATUS=up\nREADY=1\nMAINPID=1", Some(b"READY=1")),
            (b"MAINPID=1\nXREADY=1\n", None),
            (b"", None),
        ] {
            assert_eq!(ready_line(message), expected);
        }
    }

    #[test]
    fn a_manager_hears_of_readiness_once_and_of_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let manager = UnixDatagram::bind(scratch.path().join("manager")).unwrap();
        manager.set_nonblocking(true).unwrap();
        let directory = OwnedFd::from(std::fs::File::open(scratch.path()).unwrap());
        let mut socket = NotifySocket::bind(directory, &scratch.path().join("manager")).unwrap();
        socket.publish().unwrap();
        let workload = UnixDatagram::unbound().unwrap();
        for message in ["FDSTORE=1", "MAINPID=1", "READY=1\nMAINPID=1", "READY=1"] {
            workload.send_to(message.as_bytes(), scratch.path().join(SOCKET)).unwrap();
        }
        assert!(socket.relay(77).unwrap());
        assert!(!socket.relay(77).unwrap());
        let mut heard = Vec::new();
        let mut buffer = [0; 64];
        while let Ok(length) = manager.recv(&mut buffer) {
            heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        assert_eq!(heard, ["READY=1\n", "MAINPID=77\n"]);
    }
}
