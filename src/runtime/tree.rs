//! The files of a container that runs, for who copies them from outside: a detached copy of its mounts.
//!
//! The copy is the caller's alone: what the container mounts, moves or unmounts from now on changes nothing in it. What it
//! shows are the container's files, live; but no device in it can be opened, so that a node which the container puts in the
//! place of a file never has its driver called with the caller's rights, and nothing in it can be executed. Runs no program
//! of the container's and loads nothing from it (CVE-2019-14271), and never finds anything by a path of the container's.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, OpenTreeFlags, open_tree};
use rustix::process::DumpableBehavior;

use super::container::Runtime;
use super::exec::configuration;
use super::foreground;
use super::init::become_root_of_joined;
use super::protocol::{Channel, Message, Tag};
use crate::error::{Context, Error, Kind, Result};
use crate::namespaces::enter::Inhabitant;
use crate::namespaces::plan::Privileged;
use crate::rootfs::host::HostProc;
use crate::rootfs::mount::clone_fd;
use crate::support::root::Root;
use crate::sys::clone::{CloneFlags, Cloned, clone3};
use crate::sys::mount::{Change, Reach, attr, mount_setattr};
use crate::sys::process::exit_now;

/// What goes with an IPC namespace.
pub(super) const SHARED_MEMORY: &str = "/dev/shm";

/// What a copied tree is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// Takes from a detached tree what nobody needs who only copies files.
pub fn tame(tree: &OwnedFd, reach: Reach, access: Access) -> Result<()> {
    let mut set = attr::NODEV | attr::NOSUID | attr::NOEXEC;
    if access == Access::Read {
        set |= attr::RDONLY;
    }
    let propagation = u64::from(MountPropagationFlags::PRIVATE.bits());
    mount_setattr(tree, reach, &Change { set, propagation, ..Change::default() })
        .context("set the attributes of the copied mounts")
}

impl Runtime {
    /// Copies the mount on `/` of a container, and those below it or not; `None` where nothing of it runs.
    pub fn tree(&self, id: &str, reach: Reach, access: Access) -> Result<Option<OwnedFd>> {
        self.copy_of(id, &|| copy_all(reach, access))
    }

    /// Copies what a container has at a path, to be mounted in another one.
    pub(super) fn tree_at(&self, id: &str, path: &str) -> Result<OwnedFd> {
        let path = Path::new(path);
        let tree = self.copy_of(id, &|| copy_part(path)).with_context(|| format!("container {id}"))?;
        tree.ok_or_else(|| Error::new(Kind::State, format!("container {id} is not running")))
    }

    fn copy_of(&self, id: &str, take: &dyn Fn() -> Result<OwnedFd>) -> Result<Option<OwnedFd>> {
        let directory = match self.root.open(id) {
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            answer => answer?,
        };
        let Some(state) = directory.load()? else { return Ok(None) };
        let Some(first) = state.open_init()? else { return Ok(None) };
        let proc = HostProc::open()?;
        // Before it is inside, its mount namespace is a copy of the host's.
        let spec = configuration(&directory, &state, &proc)?
            .ok_or_else(|| Error::new(Kind::State, "the container is still being made"))?;
        let privileged = if rustix::process::geteuid().is_root() { Privileged::Yes } else { Privileged::No };
        let inhabitant = Inhabitant { pid: state.pid, pidfd: first.as_fd(), proc: proc.as_fd(), privileged };
        let kinds = inhabitant.kinds(&spec)? & (CloneFlags::NEWUSER | CloneFlags::NEWNS);
        if !kinds.contains(CloneFlags::NEWNS) {
            return Err(Error::unsupported("the container has no mount namespace of its own"));
        }
        let (channel, their_channel) = Channel::pair()?;
        match clone3(CloneFlags::empty(), None).context("clone into the container's mounts")? {
            Cloned::Child => {
                drop(channel);
                let copied = copy(&inhabitant, kinds, take);
                match copied.and_then(|tree| their_channel.send_fd(Tag::Copy, tree.as_fd())) {
                    Ok(()) => exit_now(0),
                    Err(error) => {
                        their_channel.send_failure(&error);
                        exit_now(1)
                    }
                }
            }
            Cloned::Parent(_, pidfd) => {
                drop(their_channel);
                let answer = channel.receive();
                foreground::wait(pidfd.as_fd())?;
                match answer?.ok_or_else(|| Error::new(Kind::Other, "the process in the container ended early"))? {
                    Message::Copy { tree } => Ok(Some(tree)),
                    Message::Failed(error) => Err(error),
                    message => Err(Error::new(Kind::Other, format!("got {:?} instead of a tree", message.tag()))),
                }
            }
        }
    }
}

/// | | |
/// |---|---|
/// | namespaces | the container's user and mount namespace, else the caller's: nobody inside sees this process |
/// | user | the caller; root of the container's user namespace, where it has one |
/// | root | that of the container's mount namespace, wherever its processes have theirs by chroot(2) |
///
/// 1. Not dumpable before the first join, and again after the ids have changed (proc_sys_fs(5), `suid_dumpable`).
/// 2. The namespaces, by the pidfd.
/// 3. The copy, which nobody can change any more, and then its attributes.
fn copy(inhabitant: &Inhabitant<'_>, kinds: CloneFlags, take: &dyn Fn() -> Result<OwnedFd>) -> Result<OwnedFd> {
    let become_undumpable =
        || rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).context("become undumpable");
    become_undumpable()?;
    inhabitant.enter(kinds)?;
    if kinds.contains(CloneFlags::NEWUSER) {
        become_root_of_joined()?;
        become_undumpable()?;
    }
    take()
}

fn copy_all(reach: Reach, access: Access) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if reach == Reach::Tree {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(CWD, c"/", flags).context("copy the container's mounts")?;
    tame(&tree, reach, access)?;
    Ok(tree)
}

/// The options of the mount that it becomes are the other container's to choose; a link that the container has put in its
/// place leads nowhere.
fn copy_part(path: &Path) -> Result<OwnedFd> {
    let describe = || format!("copy its {}", path.display());
    let root = Root::open(Path::new("/"))?;
    let place =
        root.open_without_symlinks(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).with_context(describe)?;
    let tree = clone_fd(&place, Reach::One).with_context(describe)?;
    let propagation = u64::from(MountPropagationFlags::PRIVATE.bits());
    mount_setattr(&tree, Reach::One, &Change { propagation, ..Change::default() }).with_context(describe)?;
    Ok(tree)
}
