//! Hears of the OOM killer in a container's memory cgroup. Reads no other figure, and does not wait by itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::file;
use super::handle::Cgroup;
use crate::error::{Context, Error, Result};

/// An ear at the memory cgroup: its descriptor polls readable when there is something to ask [`OomWatch::news`].
pub struct OomWatch {
    fd: OwnedFd,
    kind: Kind,
}

enum Kind {
    /// v1: an eventfd that counts (Documentation/admin-guide/cgroup-v1/memory.rst, section 9), and the file that is
    /// gone once the cgroup is: its removal counts too.
    Counter { control: PathBuf },
    /// v2: an inotify(7) on `memory.events`, and how many kills that file told of last.
    File { events: PathBuf, told: u64 },
}

impl Cgroup {
    /// Begins to listen. Without a memory cgroup there is nothing to hear.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        match (self.with("memory"), &self.unified) {
            (Some(directory), _) => count(&directory.path)
                .with_context(|| format!("watch memory.oom_control of cgroup {}", directory.path.display())),
            (None, Some(directory)) => {
                let events = directory.path.join("memory.events");
                watch(&events)
                    .with_context(|| format!("watch {}", events.display()))
                    .map(|fd| OomWatch { fd, kind: Kind::File { events, told: 0 } })
                    .and_then(|mut watch| watch.news().map(|_| watch))
            }
            // runc's words.
            (None, None) => Err(Error::unsupported("memory controller missing")),
        }
    }
}

fn count(cgroup: &std::path::Path) -> Result<OomWatch, Errno> {
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let source = rustix::fs::open(cgroup.join("memory.oom_control"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let control = cgroup.join("cgroup.event_control");
    let numbers = format!("{} {}", rustix_raw(&fd), rustix_raw(&source));
    file::try_write(&control, &numbers)?;
    Ok(OomWatch { fd, kind: Kind::Counter { control } })
}

fn rustix_raw(fd: &OwnedFd) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(fd)
}

fn watch(events: &std::path::Path) -> Result<OwnedFd, Errno> {
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&fd, events, inotify::WatchFlags::MODIFY)?;
    Ok(fd)
}

impl OomWatch {
    /// Says how often the OOM killer has struck since it was last asked.
    pub fn news(&mut self) -> Result<u64> {
        let mut bytes = [0_u8; 4096];
        let mut count = 0;
        loop {
            match rustix::io::read(&self.fd, &mut bytes) {
                Ok(8) => count += u64::from_ne_bytes(bytes[..8].try_into().unwrap_or_default()),
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("read the events of the memory cgroup"),
            }
        }
        match &mut self.kind {
            Kind::Counter { control } => Ok(if control.exists() { count } else { 0 }),
            Kind::File { events, told } => {
                let kills = match file::read_value(events) {
                    Ok(text) => oom_kills(&text),
                    Err(Errno::NOENT | Errno::NODEV) => *told,
                    Err(errno) => return Err(errno).with_context(|| format!("read {}", events.display())),
                };
                let news = kills.saturating_sub(*told);
                *told = kills;
                Ok(news)
            }
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn oom_kills(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_change_of_the_file_is_told_once() {
        let tree = tempfile::tempdir().unwrap();
        let events = tree.path().join("memory.events");
        let write = |text: &str| {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC;
            let fd = rustix::fs::open(&events, flags, Mode::from_raw_mode(0o600)).unwrap();
            file::write(fd, text.as_bytes()).unwrap();
        };
        write("oom 1\noom_kill 2\n");
        let record =
            serde_json::from_value(json!({"directories": [{"controllers": "", "path": tree.path(), "shown": "/box"}]}))
                .unwrap();
        let mut watch = Cgroup::open(record).unwrap().watch_oom().unwrap();
        assert_eq!(watch.news().unwrap(), 0);
        write("oom 1\noom_kill 5\n");
        assert_eq!(watch.news().unwrap(), 3);
        assert_eq!(watch.news().unwrap(), 0);
        std::fs::remove_file(&events).unwrap();
        assert_eq!(watch.news().unwrap(), 0);
    }

    #[test]
    fn without_a_memory_cgroup_there_is_nothing_to_hear() {
        let cgroup = Cgroup::open(super::super::Record::default()).unwrap();
        assert_eq!(cgroup.watch_oom().err().unwrap().report(), "memory controller missing");
    }
}
