//! A lock by name: a file that is locked with `flock(2)` while it exists.
//!
//! The kernel drops the lock with its holder, however that dies, so a name that can be locked has no owner any more.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Result};

/// A lock that is held. Dropping it removes the file and lets the next holder in.
pub(crate) struct Lock<'a> {
    directory: BorrowedFd<'a>,
    name: String,
    file: OwnedFd,
}

impl<'a> Lock<'a> {
    /// Takes a lock, or gives none at once if another holds it.
    pub(crate) fn try_take(directory: BorrowedFd<'a>, name: &str) -> Result<Option<Self>> {
        Self::attempt(directory, name, FlockOperation::NonBlockingLockExclusive)
    }

    /// Takes a lock; calls `waiting` once if that takes waiting for another holder.
    pub(crate) fn take(directory: BorrowedFd<'a>, name: &str, waiting: impl FnOnce()) -> Result<Self> {
        if let Some(lock) = Self::try_take(directory, name)? {
            return Ok(lock);
        }
        waiting();
        loop {
            if let Some(lock) = Self::attempt(directory, name, FlockOperation::LockExclusive)? {
                return Ok(lock);
            }
        }
    }

    fn attempt(directory: BorrowedFd<'a>, name: &str, operation: FlockOperation) -> Result<Option<Self>> {
        let attempt = || {
            loop {
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?;
                loop {
                    match rustix::fs::flock(&file, operation) {
                        Err(Errno::INTR) => {}
                        Err(Errno::AGAIN) => return Ok(None),
                        answer => break answer?,
                    }
                }
                // The last holder may have removed the file while we waited: then it is the lock of nothing.
                let ours = rustix::fs::fstat(&file)?;
                match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(named) if (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino) => {
                        return Ok(Some(Self { directory, name: name.to_owned(), file }));
                    }
                    Ok(_) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(error),
                }
            }
        };
        attempt().with_context(|| format!("lock {name}"))
    }
}

impl AsFd for Lock<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // While it is still held, so that nobody locks a file that is about to go. A file that stays does no harm.
        let _ = rustix::fs::unlinkat(self.directory, self.name.as_str(), AtFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn one_holder_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let directory = rustix::fs::open(place.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let (inside, rounds) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _lock = Lock::take(directory.as_fd(), "x.lock", || {}).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        rounds.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(rounds.load(Ordering::SeqCst), 1600);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_held_lock_is_seen() {
        let place = tempfile::tempdir().unwrap();
        let directory = rustix::fs::open(place.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let held = Lock::try_take(directory.as_fd(), "x.lock").unwrap().unwrap();
        assert!(Lock::try_take(directory.as_fd(), "x.lock").unwrap().is_none());
        assert!(Lock::try_take(directory.as_fd(), "y.lock").unwrap().is_some());
        drop(held);
        assert!(Lock::try_take(directory.as_fd(), "x.lock").unwrap().is_some());
    }
}
