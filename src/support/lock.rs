//! Advisory locks by `flock(2)`: exclusive or shared, waited for or tried.
//!
//! A lock belongs to the open file description. It outlives the process when the descriptor was handed on (by fork or
//! `SCM_RIGHTS`), and the kernel drops it with the last copy, however that dies: which is why husk asks a lock, and never
//! a pid in a file, whether somebody is there. Whoever deletes a locked file must hold the lock; whoever got the lock
//! after waiting asks [`Lock::is_in_place`] whether the file is still the one under that name.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Kind, Result};

/// How many may hold the lock at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    Exclusive,
    Shared,
}

/// A held lock; dropping the last descriptor releases it.
pub struct Lock(OwnedFd);

impl Lock {
    /// Locks `file`, waiting for whoever holds it. `notice` is told whom, once, when it comes to that.
    pub fn wait(file: OwnedFd, sharing: Sharing, notice: impl FnOnce(&Holder)) -> Result<Self> {
        let file = match Self::attempt(file, sharing)? {
            Ok(lock) => return Ok(lock),
            Err(file) => file,
        };
        notice(&Holder::of(file.as_fd()));
        let operation = match sharing {
            Sharing::Exclusive => FlockOperation::LockExclusive,
            Sharing::Shared => FlockOperation::LockShared,
        };
        loop {
            match rustix::fs::flock(&file, operation) {
                Ok(()) => return Ok(Self(file)),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("lock file"),
            }
        }
    }

    /// Locks `file`, waiting so long at most: who holds it may be stopped.
    pub fn wait_at_most(mut file: OwnedFd, sharing: Sharing, most: Duration) -> Result<Self> {
        let mut pause = Duration::from_micros(250);
        let mut waited = Duration::ZERO;
        loop {
            file = match Self::attempt(file, sharing)? {
                Ok(lock) => return Ok(lock),
                Err(file) => file,
            };
            if waited >= most {
                let holder = Holder::of(file.as_fd());
                return Err(Error::new(
                    Kind::State,
                    format!("lock file: {holder} has held it for {} s", most.as_secs()),
                )
                .with_hint("it may have been stopped: kill -CONT, or kill, has it go on"));
            }
            std::thread::sleep(pause);
            waited += pause;
            pause = (pause * 2).min(Duration::from_millis(8));
        }
    }

    /// Locks `file` if nobody holds it against us.
    pub fn try_now(file: OwnedFd, sharing: Sharing) -> Result<Option<Self>> {
        Ok(Self::attempt(file, sharing)?.ok())
    }

    /// Locks `file` exclusively, outlasting those who hold it shared for the moment in which they ask whether it is held;
    /// `None` where somebody holds it exclusively.
    pub fn try_past_askers(mut file: OwnedFd) -> Result<Option<Self>> {
        loop {
            file = match Self::attempt(file, Sharing::Exclusive)? {
                Ok(lock) => return Ok(Some(lock)),
                Err(file) => file,
            };
            file = match Self::attempt(file, Sharing::Shared)? {
                Ok(asked) => asked.into_fd(),
                Err(_) => return Ok(None),
            };
            rustix::fs::flock(&file, FlockOperation::Unlock).context("unlock file")?;
            std::thread::yield_now();
        }
    }

    /// Opens `name` below `directory`, making it if needed, and locks it if nobody holds it against us.
    pub fn try_file(directory: BorrowedFd<'_>, name: &str, sharing: Sharing) -> Result<Option<Self>> {
        let file = open_lock_file(directory, name, OFlags::CREATE)?;
        Self::try_now(file, sharing)
    }

    fn attempt(file: OwnedFd, sharing: Sharing) -> Result<Result<Self, OwnedFd>> {
        let operation = match sharing {
            Sharing::Exclusive => FlockOperation::NonBlockingLockExclusive,
            Sharing::Shared => FlockOperation::NonBlockingLockShared,
        };
        match rustix::fs::flock(&file, operation) {
            Ok(()) => Ok(Ok(Self(file))),
            Err(Errno::WOULDBLOCK) => Ok(Err(file)),
            Err(errno) => Err(errno).context("lock file"),
        }
    }

    /// Says whether it is held exclusively: by us, or, of a descriptor that was handed on, from now on.
    pub fn holds(&self) -> Result<bool> {
        match rustix::fs::flock(&self.0, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(errno).context("lock file"),
        }
    }

    /// Lets go of it, also for all who have a copy of the descriptor.
    pub fn release(&self) {
        // Nothing is left to fail at: flock(2) refuses only what is no descriptor.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }

    /// Takes a descriptor that was handed on together with its lock.
    pub fn from_fd(file: OwnedFd) -> Self {
        Self(file)
    }

    /// Gives the descriptor, and with it the lock, to be handed on.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Says whether `name` below `directory` is still the file that is locked.
    pub fn is_in_place(&self, directory: BorrowedFd<'_>, name: &str) -> Result<bool> {
        let locked = rustix::fs::fstat(&self.0).context("inspect lock")?;
        match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok((found.st_dev, found.st_ino) == (locked.st_dev, locked.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno).with_context(|| format!("inspect lock {name}")),
        }
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Opens a file to be locked: the user's alone, never through a symlink.
pub fn open_lock_file(directory: BorrowedFd<'_>, name: &str, extra: OFlags) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | extra;
    rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(super::atomic::PRIVATE))
        .with_context(|| format!("open lock {name}"))
}

/// Whom a lock is waited for: a help for whoever reads the message, and nothing to act on.
#[derive(Debug, PartialEq, Eq)]
pub struct Holder {
    pid: Option<i32>,
    command: Option<String>,
}

impl Holder {
    fn of(file: BorrowedFd<'_>) -> Self {
        let pid = rustix::fs::fstat(file).ok().and_then(|stat| {
            let table = std::fs::read_to_string("/proc/locks").ok()?;
            find_holder(&table, rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev), stat.st_ino)
        });
        let command = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok());
        Self { pid, command: command.map(|name| name.trim_end().to_owned()) }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, &self.command) {
            (Some(pid), Some(command)) => write!(f, "process {pid} ({command})"),
            (Some(pid), None) => write!(f, "process {pid}"),
            (None, _) => f.write_str("another process"),
        }
    }
}

/// Finds in the text of `/proc/locks` (proc_locks(5)) who took a flock on an inode.
fn find_holder(table: &str, major: u32, minor: u32, inode: u64) -> Option<i32> {
    // 1: FLOCK  ADVISORY  WRITE 123 fe:00:4711 0 EOF, with "->" before the kind for those who wait.
    table.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        if words.next() != Some("FLOCK") {
            return None;
        }
        let pid = words.nth(2)?.parse().ok()?;
        let mut place = words.next()?.split(':');
        let same = u32::from_str_radix(place.next()?, 16).ok()? == major
            && u32::from_str_radix(place.next()?, 16).ok()? == minor
            && place.next()?.parse::<u64>().ok()? == inode;
        // 0: the holder is outside this PID namespace.
        (same && pid > 0).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn scratch() -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        let fd = OwnedFd::from(File::open(directory.path()).unwrap());
        (directory, fd)
    }

    #[test]
    fn one_exclusive_or_many_shared() {
        let (_directory, fd) = scratch();
        let take = |sharing| Lock::try_file(fd.as_fd(), "lock", sharing).unwrap();
        let exclusive = take(Sharing::Exclusive);
        assert!(exclusive.is_some());
        assert!(take(Sharing::Exclusive).is_none());
        assert!(take(Sharing::Shared).is_none());
        drop(exclusive);
        let shared = [take(Sharing::Shared), take(Sharing::Shared)];
        assert!(shared.iter().all(Option::is_some));
        assert!(take(Sharing::Exclusive).is_none());
    }

    #[test]
    fn waiting_names_the_holder() {
        let (_directory, fd) = scratch();
        let held = Lock::try_file(fd.as_fd(), "lock", Sharing::Exclusive).unwrap().unwrap();
        let file = open_lock_file(fd.as_fd(), "lock", OFlags::empty()).unwrap();
        let mut told = String::new();
        // The notice comes between the failed try and the wait, so releasing there cannot be missed.
        Lock::wait(file, Sharing::Exclusive, |holder| {
            told = holder.to_string();
            drop(held);
        })
        .unwrap();
        assert!(told.starts_with(&format!("process {} (", std::process::id())), "{told}");
    }

    #[test]
    fn waiting_ends_and_names_the_holder() {
        let (_directory, fd) = scratch();
        let open = || open_lock_file(fd.as_fd(), "lock", OFlags::CREATE).unwrap();
        let held = Lock::try_now(open(), Sharing::Exclusive).unwrap().unwrap();
        let wait = |most| Lock::wait_at_most(open(), Sharing::Exclusive, Duration::from_millis(most));
        let error = wait(1).err().expect("it is held").report();
        assert!(error.contains(&format!("process {} (", std::process::id())), "{error}");
        std::thread::scope(|scope| {
            scope.spawn(|| wait(60_000).unwrap());
            drop(held);
        });
    }

    #[test]
    fn a_lock_goes_with_its_descriptor() {
        let (_directory, fd) = scratch();
        let lock = Lock::try_file(fd.as_fd(), "lock", Sharing::Exclusive).unwrap().unwrap();
        let copy = Lock::from_fd(lock.as_fd().try_clone_to_owned().unwrap());
        drop(lock);
        assert!(Lock::try_file(fd.as_fd(), "lock", Sharing::Shared).unwrap().is_none());
        drop(copy);
        assert!(Lock::try_file(fd.as_fd(), "lock", Sharing::Shared).unwrap().is_some());
    }

    #[test]
    fn who_only_asks_does_not_keep_a_supervisor_out() {
        let (_directory, fd) = scratch();
        let open = || open_lock_file(fd.as_fd(), "lock", OFlags::CREATE).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    drop(Lock::try_now(open(), Sharing::Shared).unwrap());
                }
            });
            for _ in 0..1000 {
                let held = Lock::try_past_askers(open()).unwrap().expect("nobody holds it for long");
                assert!(Lock::try_past_askers(open()).unwrap().is_none());
                drop(held);
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn a_deleted_lock_is_noticed() {
        let (directory, fd) = scratch();
        let lock = Lock::try_file(fd.as_fd(), "lock", Sharing::Exclusive).unwrap().unwrap();
        assert!(lock.is_in_place(fd.as_fd(), "lock").unwrap());
        std::fs::remove_file(directory.path().join("lock")).unwrap();
        assert!(!lock.is_in_place(fd.as_fd(), "lock").unwrap());
        let _other = Lock::try_file(fd.as_fd(), "lock", Sharing::Exclusive).unwrap().unwrap();
        assert!(!lock.is_in_place(fd.as_fd(), "lock").unwrap());
    }

    #[test]
    fn holders_are_found_in_the_kernels_table() {
        let table = "1: POSIX  ADVISORY  WRITE 7 fe:00:4711 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 fe:01:4711 0 EOF\n\
                     3: FLOCK  ADVISORY  READ  9 fe:00:4711 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 10 fe:00:4711 0 EOF\nrubbish\n";
        assert_eq!(find_holder(table, 0xfe, 0, 4711), Some(9));
        assert_eq!(find_holder(table, 0xfe, 2, 4711), None);
    }
}
