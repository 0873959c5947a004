//! Enters the namespaces of a process that lives, for `exec`: all at once by its pidfd where the kernel can (5.8).
//!
//! Makes none. Which of them are the container's own, its configuration says: the others stay the caller's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces};

use super::plan::{Privileged, flag, join_order, link_type};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::clone::CloneFlags;

/// Every kind, with its name below `/proc/<pid>/ns`.
pub const KINDS: [(LinuxNamespaceType, &str); 8] = [
    (LinuxNamespaceType::User, "user"),
    (LinuxNamespaceType::Mount, "mnt"),
    (LinuxNamespaceType::Uts, "uts"),
    (LinuxNamespaceType::Ipc, "ipc"),
    (LinuxNamespaceType::Pid, "pid"),
    (LinuxNamespaceType::Cgroup, "cgroup"),
    (LinuxNamespaceType::Network, "net"),
    (LinuxNamespaceType::Time, "time"),
];

/// A process whose namespaces are to be entered.
#[derive(Clone, Copy)]
pub struct Inhabitant<'a> {
    /// Its number in the PID namespace of `proc`.
    pub pid: i32,
    /// What stands for it: the number could be another's by now.
    pub pidfd: BorrowedFd<'a>,
    /// A verified `/proc`.
    pub proc: BorrowedFd<'a>,
    /// Whether rights over its namespaces are there before its user namespace is entered.
    pub privileged: Privileged,
}

impl Inhabitant<'_> {
    /// Gives the kinds that a container of this configuration has of its own or was given.
    ///
    /// A user namespace that is the caller's already is left out: the kernel lets nobody enter it twice (setns(2)).
    pub fn kinds(&self, spec: &Spec) -> Result<CloneFlags> {
        let linux = spec.linux().as_ref();
        let listed = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
        let mut kinds = listed.iter().fold(CloneFlags::empty(), |kinds, namespace| kinds | flag(namespace.typ()));
        if kinds.contains(CloneFlags::NEWUSER) {
            let inode = |who: &str| {
                let stat = rustix::fs::statat(self.proc, format!("{who}/ns/user"), rustix::fs::AtFlags::empty());
                stat.map(|stat| (stat.st_dev, stat.st_ino)).with_context(|| format!("inspect /proc/{who}/ns/user"))
            };
            if inode("self")? == inode(&self.pid.to_string())? {
                kinds.remove(CloneFlags::NEWUSER);
            }
        }
        Ok(kinds)
    }

    /// Moves this process, which has one thread, into namespaces of these kinds; a PID namespace is for its children.
    ///
    /// The root and the working directory become the root of the mount namespace.
    pub fn enter(&self, kinds: CloneFlags) -> Result<()> {
        if kinds.is_empty() {
            return Ok(());
        }
        let bits = u32::try_from(kinds.bits()).map_err(|_| Errno::INVAL)?;
        match move_into_thread_name_spaces(self.pidfd, ThreadNameSpaceType::from_bits_retain(bits)) {
            // KERNEL(5.8): a pidfd is no namespace.
            Err(Errno::INVAL) => self.enter_each(kinds),
            Err(Errno::SRCH) => Err(gone()),
            answer => answer.context("join the container's namespaces"),
        }
    }

    /// Opens its root directory, which is not that of its mount namespace where it was put there by chroot(2).
    pub fn root(&self) -> Result<OwnedFd> {
        let path = format!("{}/root", self.pid);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::openat(self.proc, &path, flags, Mode::empty()).with_context(|| format!("open /proc/{path}"))?;
        // As in `enter_each`.
        if has_ended(self.pidfd)? { Err(gone()) } else { Ok(root) }
    }

    fn enter_each(&self, kinds: CloneFlags) -> Result<()> {
        let mut wanted: Vec<_> = KINDS.into_iter().filter(|(kind, _)| kinds.contains(flag(*kind))).collect();
        wanted.sort_by_key(|(kind, _)| join_order(*kind, self.privileged));
        let open = |name| -> Result<OwnedFd> {
            let path = format!("{}/ns/{name}", self.pid);
            rustix::fs::openat(self.proc, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .with_context(|| format!("open /proc/{path}"))
        };
        let opened = wanted.iter().map(|(_, name)| open(name)).collect::<Result<Vec<_>>>();
        // As long as the process lives its number is its own, so what was opened before this is the container's.
        if has_ended(self.pidfd)? {
            return Err(gone());
        }
        for ((kind, _), fd) in wanted.into_iter().zip(opened?) {
            move_into_link_name_space(fd.as_fd(), Some(link_type(kind)))
                .with_context(|| format!("join the container's {kind} namespace"))?;
        }
        Ok(())
    }
}

fn has_ended(pidfd: BorrowedFd<'_>) -> Result<bool> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let count = rustix::io::retry_on_intr(|| poll(&mut [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)], Some(&now)));
    Ok(count.context("look at the container's first process")? > 0)
}

fn gone() -> Error {
    Error::new(Kind::State, "the container's first process has ended")
}
