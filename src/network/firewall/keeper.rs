//! Who keeps husk's tables: one socket to nf_tables owns them, and whoever else flushes the ruleset passes them over
//! (`NFT_TABLE_F_OWNER`). Each process that stays, a container's monitor, has a copy of it, and they are owned for as long as
//! there is one. With the last they stay as they are (`NFT_TABLE_F_PERSIST`, Linux 6.9), and the next command owns them.
//!
//! Who wants to change something waits for its turn and takes a copy from one of those that have it (pidfd_getfd(2)). It has
//! to be alone: what the kernel answers is heard by who reads first.
//!
//! ```text
//! <run root>/networks/.firewall   locked by who changes the tables; a line for each process that has a copy:
//!                                 its pid, its descriptor, the socket's cookie, the inode of its network namespace
//! ```

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open, test_kill_process};
use rustix::thread::CapabilitySet;

use crate::error::{Context, Result};
use crate::support::lock::{Lock, Sharing, open_lock_file};
use crate::sys::netlink::Socket;

const FILE: &str = ".firewall";
/// Some twenty thousand processes.
const LONGEST: usize = 1 << 20;
/// A turn takes some milliseconds, and at most a second.
const PATIENCE: Duration = Duration::from_secs(30);
/// Every so many lines those are looked for that were killed.
const LINES_BETWEEN_SEARCHES: usize = 64;

/// How long who answers questions waits for its turn: most take a millisecond or two.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);
const LOOKS: usize = 1000;

/// Of processes that nobody may look into, not even root.
const YAMA: &str = "/proc/sys/kernel/yama/ptrace_scope";
const NOBODY: &str = "3";

/// The turn of who changes the tables: nobody else does until it is dropped.
pub struct Turn {
    lock: Lock,
    namespace: u64,
    lines: Vec<Line>,
    /// Some of what is in the file is nobody's any more.
    has_stale: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    pid: i32,
    descriptor: RawFd,
    cookie: u64,
    namespace: u64,
}

impl Turn {
    /// Waits for the turn at the tables of the networks whose folder below the run root this is.
    pub fn wait(folder: BorrowedFd<'_>) -> Result<Self> {
        let file = open_lock_file(folder, FILE, OFlags::CREATE)?;
        let lock = Lock::wait_at_most(file, Sharing::Exclusive, PATIENCE).context("wait for the firewall")?;
        let namespace = rustix::fs::stat("/proc/thread-self/ns/net").context("look at the network namespace")?.st_ino;
        let text = read(lock.as_fd()).context("read who keeps the tables")?;
        let (whole, rest) = text.rsplit_once('\n').unwrap_or(("", &text));
        let lines: Vec<Line> = whole.lines().filter_map(Line::parse).collect();
        let has_stale = !rest.is_empty() || lines.len() != whole.lines().count();
        Ok(Self { lock, namespace, lines, has_stale })
    }

    /// Takes a copy of the socket that owns the tables of this network namespace, from whoever has one.
    pub fn find(&mut self) -> Option<Socket> {
        while let Some(place) = self.lines.iter().rposition(|line| line.namespace == self.namespace) {
            if let Some(socket) = self.lines[place].copy() {
                // What one that was killed half-way has not heard.
                socket.discard_answers();
                return Some(socket);
            }
            self.lines.remove(place);
            self.has_stale = true;
        }
        None
    }

    /// Says that this process has a copy from now on, which is taken by whoever needs it.
    pub fn enter(&mut self, socket: &Socket) -> Result<()> {
        let describe = "write who keeps the tables";
        let line = Line {
            pid: rustix::process::getpid().as_raw_pid(),
            descriptor: socket.as_fd().as_raw_fd(),
            cookie: rustix::net::sockopt::socket_cookie(socket).context(describe)?,
            namespace: self.namespace,
        };
        if self.lines.len() % LINES_BETWEEN_SEARCHES == LINES_BETWEEN_SEARCHES - 1 {
            let lives = |line: &Line| Pid::from_raw(line.pid).is_some_and(|pid| test_kill_process(pid).is_ok());
            self.lines.retain(lives);
            self.has_stale = true;
        }
        let before: String = self.lines.iter().map(Line::write).collect();
        let from = if self.has_stale { 0 } else { before.len() };
        let text = before + &line.write();
        self.lines.push(line);
        // Half a line means nothing, and one that is left behind the end is of a process that has no such socket.
        let file = File::from(self.lock.as_fd().try_clone_to_owned().context(describe)?);
        file.write_all_at(&text.as_bytes()[from..], from as u64).context(describe)?;
        if self.has_stale {
            file.set_len(text.len() as u64).context(describe)?;
            self.has_stale = false;
        }
        Ok(())
    }
}

/// A place among those who change the tables, of a process that has no right to look for it later.
pub struct Seat {
    file: OwnedFd,
    /// The one that owns the tables; none where nobody does.
    socket: Option<Socket>,
}

impl Seat {
    /// Takes it, at the tables of the networks whose folder below the run root this is: from now on this process keeps them, too.
    pub fn take(folder: BorrowedFd<'_>) -> Result<Self> {
        let mut turn = Turn::wait(folder)?;
        let socket = turn.find();
        if let Some(socket) = &socket {
            turn.enter(socket)?;
        }
        turn.lock.release();
        Ok(Self { file: turn.lock.into_fd(), socket })
    }

    /// Changes something once it is this process's turn; `None` where others take too long. Given is the socket that owns the
    /// tables.
    pub fn in_turn<T>(&self, change: impl FnOnce(Option<&Socket>) -> T) -> Option<T> {
        let is_ours = || rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_ok();
        let has_come = (0..LOOKS).any(|_| {
            is_ours() || {
                std::thread::sleep(BETWEEN_LOOKS);
                false
            }
        });
        if !has_come {
            return None;
        }
        if let Some(socket) = &self.socket {
            socket.discard_answers();
        }
        let changed = change(self.socket.as_ref());
        // It was held a moment ago: there is nothing that could fail.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
        Some(changed)
    }
}

/// Whether a copy could be taken by others: one that none can be taken of would shut them out.
pub fn can_be_shared(socket: &Socket) -> bool {
    let own = || {
        let pidfd = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).ok()?;
        pidfd_getfd(&pidfd, socket.as_fd().as_raw_fd(), PidfdGetfdFlags::empty()).ok()
    };
    let has_right =
        rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_PTRACE));
    has_right && own().is_some() && fs::read_to_string(YAMA).map_or(true, |scope| scope.trim() != NOBODY)
}

fn read(file: BorrowedFd<'_>) -> rustix::io::Result<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while bytes.len() < LONGEST {
        let length = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut buffer, bytes.len() as u64))?;
        bytes.extend_from_slice(&buffer[..length]);
        // Of a file that nobody else writes to now, a short read is the end.
        if length < buffer.len() {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let line = Self {
            pid: words.next()?.parse().ok()?,
            descriptor: words.next()?.parse().ok()?,
            cookie: words.next()?.parse().ok()?,
            namespace: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(line)
    }

    fn write(&self) -> String {
        format!("{} {} {} {}\n", self.pid, self.descriptor, self.cookie, self.namespace)
    }

    /// A cookie is no other socket's until the next boot: neither a pid nor a descriptor that somebody else has by now misleads.
    fn copy(&self) -> Option<Socket> {
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        let socket = pidfd_getfd(&pidfd, self.descriptor, PidfdGetfdFlags::empty()).ok()?;
        let is_it = rustix::net::sockopt::socket_cookie(&socket).is_ok_and(|cookie| cookie == self.cookie);
        is_it.then(|| Socket::from(socket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::firewall::{Firewall, NAME};
    use crate::network::forwarding::Apart;
    use crate::network::tests::in_own_namespace;

    #[test]
    fn a_copy_is_found_for_as_long_as_somebody_has_one() {
        let folder = tempfile::tempdir().unwrap();
        let opened = File::open(folder.path()).unwrap();
        let turn = || Turn::wait(opened.as_fd()).unwrap();
        in_own_namespace(|| {
            assert!(turn().find().is_none(), "nobody is there");
            let [one, other] = [(); 2].map(|()| Socket::open_netfilter().unwrap());
            turn().enter(&one).unwrap();
            turn().enter(&other).unwrap();
            let cookie = |socket: &Socket| rustix::net::sockopt::socket_cookie(socket).unwrap();
            assert_eq!(turn().find().map(|found| cookie(&found)), Some(cookie(&other)));
            drop(other);
            // Its descriptor may be somebody else's by now.
            let _third = Socket::open_netfilter().unwrap();
            let mut last = turn();
            assert_eq!(last.find().map(|found| cookie(&found)), Some(cookie(&one)));
            last.enter(&one).unwrap();
            drop(last);
            let path = folder.path().join(FILE);
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().count(), 2, "what is stale is gone: {text}");
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .write_all_at(format!("nonsense\n{text}17").as_bytes(), 0)
                .unwrap();
            let mut torn = turn();
            assert!(torn.find().is_some());
            torn.enter(&one).unwrap();
            drop(torn);
            assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
        });
    }

    #[test]
    fn what_is_kept_is_passed_over_by_a_flush() {
        in_own_namespace(|| {
            let tables = Firewall { name: NAME, gate: None };
            let socket = Socket::open_netfilter().unwrap();
            if !tables.write(&socket, true, &[], &[], &Apart::default()).unwrap() {
                return;
            }
            let others = Socket::open_netfilter().unwrap();
            let refused = tables.write(&others, true, &[], &[], &Apart::default()).unwrap_err();
            assert_eq!(refused.errno(), Some(rustix::io::Errno::PERM));
            assert!(tables.is_there(&others).unwrap());
            drop(socket);
            assert!(tables.write(&others, true, &[], &[], &Apart::default()).unwrap(), "nobody's any more");
        });
    }
}
