//! What of the network process outlives its death, in a file beside its socket: who holds the namespaces, and which containers need
//! it. Who comes next finds the namespaces through a holder's descriptors; the user namespace besides as the parent of a
//! container's. What was published is its publishers' to publish again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::runtime::state::process_stat;
use crate::support::atomic;
use crate::sys::namespace;

const FILE: &str = "state.json";
const BYTES: usize = 8 << 20;

/// A process that has both namespaces open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    pub(super) pid: i32,
    pub(super) user: i32,
    pub(super) network: i32,
}

/// A container's first process, in a user namespace that is a child of the networks'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) pid: i32,
    pub(super) start_time: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    /// The inodes of the namespaces: a number of a descriptor may be of something else by now.
    pub(super) user: u64,
    pub(super) network: u64,
    pub(super) holders: Vec<Holder>,
    pub(super) kept: Vec<Kept>,
}

/// A user namespace, and a network namespace of it.
type Namespaces = (OwnedFd, OwnedFd);

/// The namespaces of a process that has died, and those who keep them.
pub(super) struct Inherited {
    pub(super) user: OwnedFd,
    /// Nobody may have held it, and then it has gone.
    pub(super) network: Option<OwnedFd>,
    pub(super) holders: Vec<(Holder, OwnedFd)>,
    pub(super) kept: Vec<(Kept, OwnedFd)>,
}

impl State {
    pub(super) fn read(folder: BorrowedFd<'_>) -> Self {
        // Unreadable or of another version, it leads nowhere, and new namespaces are made.
        let bytes = atomic::read(folder, FILE, BYTES).ok().flatten();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    pub(super) fn save(&self, folder: BorrowedFd<'_>) -> Result<()> {
        atomic::replace(folder, FILE, &serde_json::to_vec(self)?)
    }

    pub(super) fn remove(folder: BorrowedFd<'_>) {
        let _ = rustix::fs::unlinkat(folder, FILE, rustix::fs::AtFlags::empty());
    }

    /// Finds the namespaces through those who still hold them, or need them.
    pub(super) fn inherit(&self) -> Option<Inherited> {
        let kept: Vec<_> = self.kept.iter().filter_map(|kept| Some((*kept, kept.open()?))).collect();
        let parents = || kept.iter().find_map(|(kept, _)| kept.parent(self.user));
        let (holders, found) = self.find_holders();
        let (user, network) = match found {
            Some((user, network)) => (user, Some(network)),
            None => (parents()?, None),
        };
        Some(Inherited { user, network, holders, kept })
    }

    /// Gives those that live, and the namespaces by the first that has both.
    fn find_holders(&self) -> (Vec<(Holder, OwnedFd)>, Option<Namespaces>) {
        let mut found = None;
        let mut holders = Vec::new();
        for holder in &self.holders {
            // First: as long as this stands for a process, the number is its own.
            let Some(pidfd) = Pid::from_raw(holder.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            else {
                continue;
            };
            let open = |number: i32, inode: u64| {
                let path = format!("/proc/{}/fd/{number}", holder.pid);
                let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
                is_namespace(&fd, inode).then_some(fd)
            };
            let (Some(user), Some(network)) = (open(holder.user, self.user), open(holder.network, self.network)) else {
                continue;
            };
            found.get_or_insert((user, network));
            holders.push((*holder, pidfd));
        }
        (holders, found)
    }
}

impl Kept {
    /// Opens a process that starts, or runs.
    pub(super) fn of(pid: Pid) -> Result<(Self, OwnedFd)> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let pid = pid.as_raw_nonzero().get();
        // As long as the descriptor stands for a process, the number is its own.
        let start_time = process_stat(pid)?.map_or(0, |stat| stat.start_time);
        Ok((Self { pid, start_time }, pidfd))
    }

    /// Opens the process, if it lives.
    fn open(self) -> Option<OwnedFd> {
        let (found, pidfd) = Self::of(Pid::from_raw(self.pid)?).ok()?;
        (found == self).then_some(pidfd)
    }

    fn parent(self, inode: u64) -> Option<OwnedFd> {
        let path = format!("/proc/{}/ns/user", self.pid);
        let own = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        namespace::parent(own).ok().filter(|parent| is_namespace(parent, inode))
    }
}

/// Gives a namespace's inode.
pub(super) fn inode(fd: impl AsFd) -> u64 {
    rustix::fs::fstat(fd).map_or(0, |stat| stat.st_ino)
}

fn is_namespace(fd: &OwnedFd, wanted: u64) -> bool {
    /// `NSFS_MAGIC` of linux/magic.h.
    const NAMESPACES: rustix::fs::FsWord = 0x6e73_6673;
    rustix::fs::fstatfs(fd).is_ok_and(|stat| stat.f_type == NAMESPACES) && inode(fd) == wanted
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn namespaces_are_found_where_somebody_holds_them() {
        let open = |name: &str| OwnedFd::from(std::fs::File::open(format!("/proc/self/ns/{name}")).unwrap());
        let (user, network) = (open("user"), open("net"));
        let pid = i32::try_from(std::process::id()).unwrap();
        let holder = |pid, user: &OwnedFd| Holder { pid, user: user.as_raw_fd(), network: network.as_raw_fd() };
        let mut state = State { user: inode(&user), network: inode(&network), ..State::default() };
        state.holders = vec![holder(i32::MAX, &user), holder(pid, &network), holder(pid, &user)];
        let inherited = state.inherit().unwrap();
        let network = inherited.network.as_ref().map(inode);
        assert_eq!((network, inherited.holders.len()), (Some(state.network), 1));
        let (own, _) = Kept::of(rustix::process::getpid()).unwrap();
        state.kept = vec![Kept { start_time: own.start_time + 1, ..own }, own];
        assert_eq!(state.inherit().unwrap().kept.iter().map(|(kept, _)| *kept).collect::<Vec<_>>(), [own]);
        state.network += 1;
        assert!(state.inherit().is_none(), "the number is of something else, and our own namespace no child of it");

        let folder = tempfile::tempdir().unwrap();
        let folder = std::fs::File::open(folder.path()).unwrap();
        state.save(folder.as_fd()).unwrap();
        assert_eq!(State::read(folder.as_fd()), state);
        State::remove(folder.as_fd());
        assert_eq!(State::read(folder.as_fd()), State::default());
    }
}
