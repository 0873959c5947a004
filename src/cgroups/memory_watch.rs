//! Hears of a cgroup that runs out of memory, while it is there to tell: `memory.events` of v2, which polls as changed. Counts
//! nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::file;
use super::handle::Cgroup;
use super::usage::OutOfMemory;

/// The file of a container's cgroup that changes when the kernel kills for want of memory.
pub struct MemoryWatch {
    events: OwnedFd,
    /// The same of the cgroup above, which stays, with what it counted when this one began.
    above: Option<(OwnedFd, u64)>,
    shown: String,
    limit: Option<u64>,
}

impl Cgroup {
    /// Watches a cgroup of systemd's that has a limit of memory: it goes with its last process, and its counters with it. The
    /// others are husk's to remove, which looks before.
    pub fn watch_memory(&self) -> Option<MemoryWatch> {
        let directory = self.unified.as_ref().filter(|_| self.scope.is_some() && self.with("memory").is_none())?;
        let limit = file::read_value(&directory.path.join("memory.max")).ok()?;
        if limit == "max" {
            return None;
        }
        let mut watch = MemoryWatch::open(&directory.path.join("memory.events")).ok()?;
        watch.shown.clone_from(&directory.shown);
        watch.limit = limit.parse().ok();
        watch.above = directory.path.parent().and_then(|above| {
            let above = open(&above.join("memory.events")).ok()?;
            let before = kills(&above)?;
            Some((above, before))
        });
        Some(watch)
    }
}

impl MemoryWatch {
    fn open(path: &Path) -> Result<Self, Errno> {
        let watch = Self { events: open(path)?, above: None, shown: String::new(), limit: None };
        watch.look();
        Ok(watch)
    }

    /// Takes note of what has changed: from here on it polls as changed once it does so again (`kernfs_generic_poll`). `false`
    /// where the cgroup has gone, which polls as changed for ever.
    pub fn look(&self) -> bool {
        let mut bytes = [0; 512];
        rustix::io::pread(&self.events, &mut bytes, 0).is_ok()
    }

    /// What a cgroup that was gone before anybody could look must have died of: its workload got SIGKILL, and somewhere below
    /// the cgroup above the kernel has killed for want of memory meanwhile.
    pub fn infer(&self) -> Option<OutOfMemory> {
        let (above, before) = self.above.as_ref()?;
        let more = kills(above)?.checked_sub(*before).filter(|more| *more > 0)?;
        Some(OutOfMemory { cgroup: self.shown.clone(), kills: more, limit: self.limit, is_own: true, peak: None })
    }
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// How many processes of a cgroup, and of those below it, the kernel has killed for want of memory.
fn kills(events: &OwnedFd) -> Option<u64> {
    let mut bytes = [0; 512];
    let length = rustix::io::pread(events, &mut bytes, 0).ok()?;
    let text = std::str::from_utf8(bytes.get(..length)?).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.trim().parse().ok())
}

impl AsFd for MemoryWatch {
    /// Polls with `POLLPRI`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::cgroups::testing::not_run;

    /// With another file that tells of its changes, which the empty v2 hierarchy of a hybrid host has, too.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a cgroup's file is no state")]
    fn it_tells_of_a_change_once() {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let Some(top) = line.and_then(|line| line.split(' ').nth(4)) else { return not_run("needs a v2 hierarchy") };
        let path = Path::new(top).join(format!("husk-test-watch-{}", std::process::id()));
        if std::fs::create_dir(&path).is_err() {
            return not_run("needs the right to make cgroups");
        }
        let watch = MemoryWatch::open(&path.join("cgroup.events")).unwrap();
        let has_changed = || {
            let mut fds = [PollFd::new(&watch, PollFlags::PRI)];
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 })).unwrap() > 0
        };
        assert!(!has_changed());
        std::fs::write(path.join("cgroup.freeze"), "1").unwrap();
        assert!(has_changed() && has_changed());
        assert!(watch.look() && !has_changed());
        std::fs::remove_dir(&path).unwrap();
        assert!(has_changed() && !watch.look());
    }
}
