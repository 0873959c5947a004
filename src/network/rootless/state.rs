//! What of the network process outlives its death, in a file beside its socket: who holds the namespaces, and what was published. Who
//! comes next finds the namespaces through a holder's descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::control::Publication;
use crate::error::Result;
use crate::support::atomic;

const FILE: &str = "state.json";
const BYTES: usize = 8 << 20;

/// A process that has both namespaces open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    pub(super) pid: i32,
    pub(super) user: i32,
    pub(super) network: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The inodes of the namespaces: a number of a descriptor may be of something else by now.
    pub(super) user: u64,
    pub(super) network: u64,
    pub(super) holders: Vec<Holder>,
    pub(super) published: Vec<Publication>,
}

/// The namespaces of a process that has died, and those who keep them.
pub(super) struct Inherited {
    pub(super) user: OwnedFd,
    pub(super) network: OwnedFd,
    pub(super) holders: Vec<(Holder, OwnedFd)>,
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

    /// Finds the namespaces through those who still hold them.
    pub(super) fn inherit(&self) -> Option<Inherited> {
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
        let (user, network) = found?;
        Some(Inherited { user, network, holders })
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
        assert_eq!((inode(&inherited.network), inherited.holders.len()), (state.network, 1));
        state.network += 1;
        assert!(state.inherit().is_none(), "the number is of something else");

        let folder = tempfile::tempdir().unwrap();
        let folder = std::fs::File::open(folder.path()).unwrap();
        state.save(folder.as_fd()).unwrap();
        assert_eq!(State::read(folder.as_fd()), state);
        State::remove(folder.as_fd());
        assert_eq!(State::read(folder.as_fd()), State::default());
    }
}
