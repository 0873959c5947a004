//! Bind sources that the parent opens, because init could not: a directory on the way is closed to the root of its user
//! namespace, or mapping the ids of a mount wants CAP_SYS_ADMIN where the file system belongs.
//!
//! What is opened here is a detached tree; init inherits the descriptor over the clone and only attaches it. Whatever
//! init can open it opens itself, in its own mount namespace: there, the kernel has locked the flags of the host's mounts
//! and what they cover, and a workload with CAP_SYS_ADMIN in its user namespace cannot take either off.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;

use super::mount::{clone_tree, map_ids};
use super::plan::{MountPlan, MountSource, RootSource, RootfsPlan};
use super::setup;
use crate::error::{Context, Error, Result};
use crate::namespaces::idmap::{self, IdMaps};
use crate::sys::mount::{Change, Reach, mount_setattr};

/// The container's own user namespace.
#[derive(Clone, Copy)]
pub struct UserNamespace<'a> {
    /// Its maps, if it is new.
    pub maps: Option<&'a IdMaps>,
    /// It itself, if it is joined.
    pub joined: Option<&'a OwnedFd>,
}

/// Opens and maps what init could not.
pub fn open_sources(plan: &mut RootfsPlan, container: UserNamespace<'_>) -> Result<()> {
    let detachment = plan.detachment;
    // Without rights the parent can open no more than init.
    if let (Some(maps), true) = (container.maps, rustix::process::geteuid().is_root()) {
        if let RootSource::Directory(path, tree) = &mut plan.root
            && is_closed_to(maps, path)
        {
            *tree = Some(detach(setup::open_root_tree(path)?, MountPropagationFlags::DOWNSTREAM)?);
        }
        for mount in &mut plan.mounts {
            if matches!(&mount.source, MountSource::Bind { path, .. } if is_closed_to(maps, path)) {
                open_source(mount, detachment)?;
            }
        }
    }
    for mount in &mut plan.mounts {
        if mount.id_maps.is_some() || mount.options.idmap.is_some() {
            let mapped = open_mapped(mount, container).and_then(|opened| detach(opened, detachment));
            let mapped = mapped.with_context(|| mount.describe())?;
            if let MountSource::Bind { tree, .. } = &mut mount.source {
                *tree = Some(mapped);
            }
        }
    }
    Ok(())
}

/// Opens the source of one mount for init.
pub fn open_source(mount: &mut MountPlan, detachment: MountPropagationFlags) -> Result<()> {
    let describe = mount.describe();
    if let MountSource::Bind { path, tree } = &mut mount.source {
        let opened = clone_tree(path, &mount.options).and_then(|opened| detach(opened, detachment));
        *tree = Some(opened.with_context(|| describe)?);
    }
    Ok(())
}

/// Says whether the root of a user namespace is kept from a path by the directories above it.
fn is_closed_to(maps: &IdMaps, path: &Path) -> bool {
    let (Some(uid), Some(gid)) = (maps.uid_outside(0), maps.gid_outside(0)) else { return true };
    // The ids that count for files, and with the user's the rights over them that root has (capabilities(7), "Effect of
    // user ID changes on capabilities"). Both are ours again by the end.
    let (own_uid, own_gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    setfsgid(Gid::from_raw(gid));
    setfsuid(Uid::from_raw(uid));
    let answer = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    setfsuid(Uid::from_raw(own_uid));
    setfsgid(Gid::from_raw(own_gid));
    matches!(answer, Err(Errno::ACCESS))
}

fn open_mapped(mount: &MountPlan, container: UserNamespace<'_>) -> Result<OwnedFd> {
    let MountSource::Bind { path, .. } = &mount.source else {
        return Err(Error::invalid("id-mapped mounts are only supported for bind-mounts"));
    };
    let is_recursive = mount.options.idmap.as_ref().is_some_and(|idmap| idmap.is_recursive);
    let act = || {
        let opened = clone_tree(path, &mount.options)?;
        match (mount.id_maps.as_ref().or(container.maps), container.joined) {
            (Some(maps), _) => map_ids(&opened, &idmap::open_user_namespace(maps)?, is_recursive)?,
            (None, Some(joined)) => map_ids(&opened, joined, is_recursive)?,
            (None, None) => {
                return Err(Error::invalid("id-mapped mounts must have both uid and gid mappings specified")
                    .with_hint("`idmap` alone stands for the container's user namespace, and it has none"));
            }
        }
        Ok(opened)
    };
    act().map_err(|error| match error.errno() {
        Some(Errno::PERM) if !rustix::process::geteuid().is_root() => error
            .context("id-mapped mounts are not supported for rootless containers")
            .with_hint("the kernel maps ids for whoever has CAP_SYS_ADMIN where the file system was mounted"),
        _ => error,
    })
}

/// Does to a tree that was copied in the host's namespace what init does to the rest: a copy of a shared mount is its
/// peer, and what is mounted in it would show up on the host.
fn detach(tree: OwnedFd, how: MountPropagationFlags) -> Result<OwnedFd> {
    if !how.contains(MountPropagationFlags::SHARED) {
        let mode = u64::from((how & !MountPropagationFlags::REC).bits());
        mount_setattr(&tree, Reach::Tree, &Change { propagation: mode, ..Change::default() })
            .context("detach the source from the host's mounts")?;
    }
    Ok(tree)
}

/// Copies a descriptor for one use; init needs the original no more once it is attached.
pub fn take(tree: &OwnedFd) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(tree.as_fd(), 3).context("copy a descriptor")
}
