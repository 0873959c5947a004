//! Who keeps husk's tables: one socket to nf_tables owns them, and whoever else flushes the ruleset passes them over
//! (`NFT_TABLE_F_OWNER`). Each process that stays, a container's monitor, has a copy of it, and they are owned for as long as
//! there is one. With the last they stay as they are (`NFT_TABLE_F_PERSIST`, Linux 6.9), and the next command owns them.
//!
//! Who wants to change something waits for its turn and takes a copy from one of those that have it (pidfd_getfd(2)). It has
//! to be alone: what the kernel answers is heard by who reads first.
//!
//! ```text
//! <run root>/networks/.firewall   locked by who changes the tables; a line for each process that has a copy:
//!                                 its pid, its descriptor, the socket's cookie, the inode of its network namespace,
//!                                 and that of its PID namespace, if that is not the machine's first
//! ```
//!
//! A line stays for as long as its process may have the socket: who cannot look into that (a process of another PID namespace, one of
//! somebody with more rights) says so, and takes nobody's place.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open, test_kill_process};
use rustix::thread::CapabilitySet;

use crate::error::{Context, Error, Result};
use crate::support::lock::{Lock, Sharing, open_lock_file};
use crate::sys::netlink::Socket;

const FILE: &str = ".firewall";
const PIDS: &str = "/proc/thread-self/ns/pid";
/// Some twenty thousand processes.
const LONGEST: usize = 1 << 20;
/// A turn takes some milliseconds, and at most a second.
const PATIENCE: Duration = Duration::from_secs(30);
/// Every so many lines those are looked for that were killed.
const LINES_BETWEEN_SEARCHES: usize = 64;

/// How long who answers questions waits for its turn: most take a millisecond or two.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);
const LOOKS: usize = 1000;

/// The inode of the PID namespace that the machine starts with (`PROC_PID_INIT_INO`, Linux 3.8).
const FIRST_PIDS: u64 = 0xEFFF_FFFC;

/// Of processes that nobody may look into, not even root.
const YAMA: &str = "/proc/sys/kernel/yama/ptrace_scope";
const NOBODY: &str = "3";

/// The turn of who changes the tables: nobody else does until it is dropped.
pub struct Turn {
    lock: Lock,
    namespace: u64,
    pids: u64,
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
    /// What its pid is a number of.
    pids: u64,
}

/// What became of who has a copy, or had one.
enum Found {
    Copy(Socket),
    /// It has ended, or is another process by now, or has another descriptor there.
    Gone,
    OutOfReach(Reason),
}

/// Why a copy cannot be taken of somebody's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    OtherPids,
    Refused(Errno),
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
        // Where nobody is known there is nobody whose pid would mean something.
        let pids =
            if lines.is_empty() { 0 } else { rustix::fs::stat(PIDS).context("look at the PID namespace")?.st_ino };
        Ok(Self { lock, namespace, pids, lines, has_stale })
    }

    /// Takes a copy of the socket that owns the tables of this network namespace, from whoever has one.
    pub fn find(&mut self) -> Option<Socket> {
        for place in (0..self.lines.len()).rev() {
            if self.lines[place].namespace != self.namespace {
                continue;
            }
            match self.lines[place].find(self.pids) {
                Found::Copy(socket) => {
                    // What one that was killed half-way has not heard.
                    socket.discard_answers();
                    return Some(socket);
                }
                Found::Gone => {
                    self.lines.remove(place);
                    self.has_stale = true;
                }
                Found::OutOfReach(_) => {}
            }
        }
        None
    }

    /// Says who has a copy that cannot be taken, and why, where [`Self::find`] found none: tables that are owned are out of
    /// reach then.
    pub fn out_of_reach(&self) -> Option<String> {
        let here = self.lines.iter().filter(|line| line.namespace == self.namespace);
        here.rev().find_map(|line| match line.find(self.pids) {
            Found::OutOfReach(Reason::OtherPids) => {
                Some(format!("process {} of another PID namespace has it", line.pid))
            }
            Found::OutOfReach(Reason::Refused(errno)) => {
                Some(format!("process {} has it, which may not be looked into: {}", line.pid, Error::from(errno)))
            }
            Found::Copy(_) | Found::Gone => None,
        })
    }

    /// Says that nobody has it whose tables these were: they could be taken over.
    pub fn forget_all(&mut self) {
        let before = self.lines.len();
        self.lines.retain(|line| line.namespace != self.namespace);
        self.has_stale |= self.lines.len() != before;
    }

    /// Says that this process has a copy from now on, which is taken by whoever needs it.
    pub fn enter(&mut self, socket: &Socket) -> Result<()> {
        let describe = "write who keeps the tables";
        let line = Line {
            pid: rustix::process::getpid().as_raw_pid(),
            descriptor: socket.as_fd().as_raw_fd(),
            cookie: rustix::net::sockopt::socket_cookie(socket).context(describe)?,
            namespace: self.namespace,
            pids: rustix::fs::stat(PIDS).context(describe)?.st_ino,
        };
        if self.lines.len() % LINES_BETWEEN_SEARCHES == LINES_BETWEEN_SEARCHES - 1 {
            let own = line.pids;
            // Who may not be signalled is there all the same.
            let has_ended = |pid: i32| Pid::from_raw(pid).is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH));
            self.lines.retain(|line| line.pids != own || !has_ended(line.pid));
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
            pids: words.next().map_or(Ok(FIRST_PIDS), str::parse).ok()?,
        };
        words.next().is_none().then_some(line)
    }

    fn write(&self) -> String {
        let Self { pid, descriptor, cookie, namespace, pids } = self;
        match *pids {
            // As it is read by a husk that knows of no other.
            FIRST_PIDS => format!("{pid} {descriptor} {cookie} {namespace}\n"),
            pids => format!("{pid} {descriptor} {cookie} {namespace} {pids}\n"),
        }
    }

    /// Takes a copy, in a PID namespace. A cookie is no other socket's until the next boot: neither a pid nor a descriptor that
    /// somebody else has by now misleads.
    fn find(&self, pids: u64) -> Found {
        if self.pids != pids {
            return Found::OutOfReach(Reason::OtherPids);
        }
        let Some(pid) = Pid::from_raw(self.pid) else { return Found::Gone };
        let copy = || pidfd_getfd(pidfd_open(pid, PidfdFlags::empty())?, self.descriptor, PidfdGetfdFlags::empty());
        match copy() {
            Ok(socket) => match rustix::net::sockopt::socket_cookie(&socket) {
                Ok(cookie) if cookie == self.cookie => Found::Copy(Socket::from(socket)),
                _ => Found::Gone,
            },
            // It has ended, or is about to; it has no such descriptor.
            Err(Errno::SRCH | Errno::BADF) => Found::Gone,
            Err(errno) => Found::OutOfReach(Reason::Refused(errno)),
        }
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
    fn who_cannot_be_looked_into_keeps_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let opened = File::open(folder.path()).unwrap();
        let path = folder.path().join(FILE);
        in_own_namespace(|| {
            let socket = Socket::open_netfilter().unwrap();
            let mut turn = Turn::wait(opened.as_fd()).unwrap();
            turn.enter(&socket).unwrap();
            let own = turn.lines[0];
            drop(turn);
            let look = |line: Line| {
                let file = File::options().write(true).truncate(true).open(&path).unwrap();
                file.write_all_at(line.write().as_bytes(), 0).unwrap();
                let mut turn = Turn::wait(opened.as_fd()).unwrap();
                assert_eq!(turn.lines, [line], "it is read as it was written");
                (turn.find().is_some(), turn.out_of_reach().is_some(), turn.lines.len())
            };
            assert_eq!(look(own), (true, false, 1));
            assert_eq!(look(Line { pid: i32::MAX, ..own }), (false, false, 0), "it has ended");
            assert_eq!(look(Line { descriptor: RawFd::MAX, ..own }), (false, false, 0), "it has closed it");
            assert_eq!(look(Line { cookie: own.cookie + 1, ..own }), (false, false, 0), "it has another one there");
            let elsewhere = if own.pids == FIRST_PIDS { FIRST_PIDS - 1 } else { FIRST_PIDS };
            assert_eq!(look(Line { pid: i32::MAX, pids: elsewhere, ..own }), (false, true, 1), "its pid is not ours");
            let mut turn = Turn::wait(opened.as_fd()).unwrap();
            turn.forget_all();
            assert_eq!(turn.out_of_reach(), None, "it has no tables");
        });
    }

    #[test]
    fn what_is_kept_is_passed_over_by_a_flush() {
        in_own_namespace(|| {
            let tables = Firewall { name: NAME, gate: None };
            let socket = Socket::open_netfilter().unwrap();
            let owns = tables.write(&socket, true, &[], &[], &Apart::default()).unwrap();
            assert!(owns || !crate::network::firewall::knows_owners(), "it is known which kernels have owners");
            if !owns {
                return;
            }
            let others = Socket::open_netfilter().unwrap();
            let refused = tables.write(&others, true, &[], &[], &Apart::default()).unwrap_err();
            assert_eq!(refused.errno(), Some(Errno::PERM));
            assert!(tables.is_there(&others).unwrap());
            drop(socket);
            assert!(tables.write(&others, true, &[], &[], &Apart::default()).unwrap(), "nobody's any more");
        });
    }
}
