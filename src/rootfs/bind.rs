//! Bind sources that the parent opens, because init could not: its user namespace has no rights over the host's files,
//! and mapping the ids of a mount wants CAP_SYS_ADMIN where the file system belongs.
//!
//! What is opened here is a detached tree; init inherits the descriptor over the clone and only attaches it.

use std::os::fd::{AsFd, OwnedFd};

use super::mount::{clone_tree, map_ids};
use super::plan::{MountSource, RootSource, RootfsPlan};
use super::setup;
use crate::error::{Context, Error, Result};
use crate::namespaces::idmap::{self, IdMaps};

/// Opens and maps what init could not. `container` are the id maps of the container's own user namespace.
pub fn open_sources(plan: &mut RootfsPlan, container: Option<&IdMaps>) -> Result<()> {
    let may_open = container.is_some() && rustix::process::geteuid().is_root();
    if let (true, RootSource::Directory(path, tree)) = (may_open, &mut plan.root) {
        *tree = Some(setup::open_root_tree(path)?);
    }
    for mount in &mut plan.mounts {
        let wants_map = mount.id_maps.is_some() || mount.options.idmap.is_some();
        if !may_open && !wants_map {
            continue;
        }
        let describe = mount.describe();
        let MountSource::Bind { path, tree } = &mut mount.source else { continue };
        let opened = clone_tree(path, &mount.options).with_context(|| describe.clone())?;
        if wants_map {
            let maps = mount.id_maps.as_ref().or(container).ok_or_else(|| {
                Error::invalid(format!("{describe}: idmap without id maps, and the container has no user namespace"))
            })?;
            let is_recursive = mount.options.idmap.as_ref().is_some_and(|idmap| idmap.is_recursive);
            let namespace = idmap::open_user_namespace(maps).with_context(|| describe.clone())?;
            map_ids(&opened, &namespace, is_recursive).with_context(|| describe.clone())?;
        }
        *tree = Some(opened);
    }
    Ok(())
}

/// Copies a descriptor for one use; init needs the original no more once it is attached.
pub fn take(tree: &OwnedFd) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(tree.as_fd(), 3).context("copy a descriptor")
}
