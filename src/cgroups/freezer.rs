//! Stopping all processes of a container at once: freezing, thawing, killing.
//!
//! v1's freezer where there is one, as peers do, so that they agree about who is paused; else v2's own.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use super::file;
use super::handle::{Cgroup, Directory};
use crate::error::{Context, Error, Result};

/// How long freezing may take: processes in an uninterruptible wait (a dead NFS server) delay it without end.
const FREEZE_PATIENCE: Duration = Duration::from_secs(10);

/// How many rounds of killing a v1 cgroup without a freezer may outlast by forking.
const KILL_ROUNDS: usize = 100;

impl Cgroup {
    /// Freezes every process and waits until that is done; thaws again if it can't be.
    pub fn freeze(&self) -> Result<()> {
        let Some(freezer) = self.freezer() else {
            return Err(Error::unsupported("freeze the container: it has no cgroup with a freezer"));
        };
        let answer = match freezer {
            Freezer::Legacy(directory) => freeze_legacy(&directory.path.join("freezer.state")),
            Freezer::Unified(directory) => freeze_unified(&directory.path),
        };
        answer.map_err(|error| {
            // Half frozen is worse than not at all; the first failure is the one to report.
            let _ = freezer.thaw();
            error.context(format!("freeze cgroup {}", freezer.directory().path.display()))
        })
    }

    /// Lets the processes go on.
    pub fn thaw(&self) -> Result<()> {
        let Some(freezer) = self.freezer() else {
            return Err(Error::unsupported("thaw the container: it has no cgroup with a freezer"));
        };
        freezer.thaw().with_context(|| format!("thaw cgroup {}", freezer.directory().path.display()))
    }

    /// Says whether the container itself is frozen, not merely something above it. A cgroup that is gone is not.
    pub fn is_frozen(&self) -> Result<bool> {
        let (file, yes) = match self.freezer() {
            None => return Ok(false),
            Some(Freezer::Legacy(directory)) => (directory.path.join("freezer.self_freezing"), "1"),
            Some(Freezer::Unified(directory)) => (directory.path.join("cgroup.freeze"), "1"),
        };
        match file::read_value(&file) {
            Ok(value) => Ok(value == yes),
            Err(Errno::NOENT | Errno::NODEV) => Ok(false),
            Err(errno) => Err(errno).with_context(|| format!("read {}", file.display())),
        }
    }

    /// Kills every process, also those that fork meanwhile or are frozen. Does not wait for them to be gone.
    pub fn kill_all(&self) -> Result<()> {
        let mut hold = Hold::Frozen;
        // At once and for good since 5.14, for those who are in the v2 cgroup.
        if let Some(directory) = &self.unified {
            match file::try_write(&directory.path.join("cgroup.kill"), "1") {
                Ok(()) if self.legacy.is_empty() => return Ok(()),
                // On a hybrid host a privileged process may have left one hierarchy and not the other.
                Ok(()) => hold = Hold::Nobody,
                Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => {}
                Err(errno) => {
                    return Err(errno).with_context(|| format!("kill cgroup {}", directory.path.display()));
                }
            }
        }
        self.send(Signal::KILL, hold)?;
        // A frozen process of v1 dies when it thaws.
        if self.is_frozen()? {
            self.thaw()?;
        }
        Ok(())
    }

    /// Sends a signal to every process, once to each.
    pub fn signal_all(&self, signal: Signal) -> Result<()> {
        self.send(signal, Hold::Frozen)
    }

    fn send(&self, signal: Signal, hold: Hold) -> Result<()> {
        let was_frozen = self.is_frozen()?;
        let mut signalled: Vec<Pid> = Vec::new();
        // Frozen, nobody forks away. Where that fails, rounds until nobody is new do as well.
        let is_frozen = was_frozen || (hold == Hold::Frozen && self.is_worth_freezing()? && self.freeze().is_ok());
        let mut answer = Ok(());
        for _ in 0..KILL_ROUNDS {
            let mut pids = self.processes()?;
            pids.retain(|pid| !signalled.contains(pid) && *pid != rustix::process::getpid());
            if pids.is_empty() {
                break;
            }
            for pid in &pids {
                match rustix::process::kill_process(*pid, signal) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(errno) => answer = Err(errno).with_context(|| format!("send a signal to process {pid}")),
                }
            }
            signalled.extend(pids);
            if is_frozen {
                break;
            }
        }
        if is_frozen && !was_frozen {
            self.thaw()?;
        }
        answer
    }

    /// Says whether there is anybody to freeze, since freezing waits for an event.
    fn is_worth_freezing(&self) -> Result<bool> {
        Ok(self.freezer().is_some() && !self.is_empty()?)
    }

    fn freezer(&self) -> Option<Freezer<'_>> {
        match (self.with("freezer"), &self.unified) {
            (Some(directory), _) => Some(Freezer::Legacy(directory)),
            (None, Some(directory)) => Some(Freezer::Unified(directory)),
            (None, None) => None,
        }
    }
}

/// Whether processes are held while they are signalled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    Frozen,
    Nobody,
}

enum Freezer<'a> {
    Legacy(&'a Directory),
    Unified(&'a Directory),
}

impl Freezer<'_> {
    fn directory(&self) -> &Directory {
        match self {
            Self::Legacy(directory) | Self::Unified(directory) => directory,
        }
    }

    fn thaw(&self) -> Result<(), Errno> {
        match self {
            Self::Legacy(directory) => file::try_write(&directory.path.join("freezer.state"), "THAWED"),
            Self::Unified(directory) => file::try_write(&directory.path.join("cgroup.freeze"), "0"),
        }
    }
}

/// Freezes a v1 cgroup. The kernel tells nobody when it is done, and processes that join or fork meanwhile can keep it
/// from ever being so, which another write of the same word mends.
fn freeze_legacy(state: &Path) -> Result<()> {
    let deadline = Instant::now() + FREEZE_PATIENCE;
    let mut pause = Duration::from_micros(10);
    loop {
        file::try_write(state, "FROZEN")?;
        match &*file::read_value(state)? {
            "FROZEN" => return Ok(()),
            "FREEZING" if Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(5));
            }
            "FREEZING" => {
                return Err(Error::new(crate::error::Kind::State, "unable to freeze: some process does not stop"));
            }
            other => return Err(Error::new(crate::error::Kind::State, format!("unexpected state {other}"))),
        }
    }
}

/// Freezes a v2 cgroup (since 5.2) and waits for the event.
fn freeze_unified(path: &Path) -> Result<()> {
    let events: OwnedFd =
        rustix::fs::open(path.join("cgroup.events"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    file::try_write(&path.join("cgroup.freeze"), "1")?;
    let deadline = Instant::now() + FREEZE_PATIENCE;
    loop {
        rustix::fs::seek(&events, rustix::fs::SeekFrom::Start(0))?;
        let text = file::read_to_end(&events)?;
        if text.split(|byte| *byte == b'\n').any(|line| line == b"frozen 1") {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::new(crate::error::Kind::State, "unable to freeze: some process does not stop"));
        }
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        // The kernel raises POLLPRI when the file's content changes.
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::PRI)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
