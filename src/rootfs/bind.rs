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
use rustix::process::{WaitId, WaitIdOptions};

use super::mount::{clone_tree, map_ids};
use super::plan::{MountPlan, MountSource, Origin, RootSource, RootfsPlan};
use super::setup;
use crate::error::{Context, Error, Kind, Result};
use crate::namespaces::idmap::{self, IdMaps};
use crate::spec::mount_options::MountOptions;
use crate::sys::clone::{CloneFlags, Cloned, clone3};
use crate::sys::mount::{Change, Reach, mount_setattr};
use crate::sys::{fdpass, process};

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
    let caller = container.maps.map(|maps| (maps, rustix::process::geteuid()));
    // Without rights the parent can open no more than init, unless its own files are closed to that.
    if let Some((maps, caller)) = caller
        && !caller.is_root()
        && !maps.has_outside(caller.as_raw())
    {
        open_as_caller(plan)?;
    }
    if let Some((maps, caller)) = caller
        && caller.is_root()
    {
        if let RootSource::Directory(path, tree) = &mut plan.root
            && is_closed_to(maps, path)
        {
            *tree = Some(detach(setup::open_root_tree(path)?, MountPropagationFlags::DOWNSTREAM)?);
        }
        for mount in &mut plan.mounts {
            if matches!(&mount.source, MountSource::Bind { path, origin: Origin::Host } if is_closed_to(maps, path)) {
                open_source(mount, detachment)?;
            }
        }
    }
    for mount in &mut plan.mounts {
        if mount.id_maps.is_some() || mount.options.idmap.is_some() {
            let prepared = prepare_mapped(mount, container, detachment).map_err(explain_mapping);
            prepared.with_context(|| mount.describe())?;
        }
    }
    Ok(())
}

/// Opens the source of one mount for init, unless it is init that is to find it.
pub fn open_source(mount: &mut MountPlan, detachment: MountPropagationFlags) -> Result<()> {
    let describe = mount.describe();
    if let MountSource::Bind { path, origin: origin @ Origin::Host } = &mut mount.source {
        let opened = clone_tree(path, &mount.options).and_then(|opened| detach(opened, detachment));
        *origin = Origin::Parent(opened.with_context(|| describe)?);
    }
    Ok(())
}

/// Opens every source in a user namespace where the caller has an id, for a container where it has none: its root could
/// not even pass through the caller's home.
///
/// A child makes the copies, in a mount namespace that belongs to its user namespace, and sends them with their places.
fn open_as_caller(plan: &mut RootfsPlan) -> Result<()> {
    let (here, there) = fdpass::pair().context("make a socket")?;
    let flags = CloneFlags::NEWUSER | CloneFlags::NEWNS;
    let (pid, pidfd) = match clone3(flags, None).context("make a user namespace")? {
        Cloned::Child => {
            drop(here);
            // Until there are maps, nobody is the owner of anything.
            let _ = fdpass::receive(&there, &mut [0]);
            if let Err(error) = send_sources(plan, &there) {
                let _ = fdpass::send(&there, &[&ERROR.to_ne_bytes(), error.report().as_bytes()], None);
            }
            process::exit_now(0)
        }
        Cloned::Parent(pid, pidfd) => (pid, pidfd),
    };
    drop(there);
    let mapped = idmap::write(pid, &IdMaps::single(0, 0)).and_then(|()| Ok(fdpass::send(&here, &[b"x"], None)?));
    let received = mapped.and_then(|()| receive_sources(plan, &here));
    drop(here);
    rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
        .context("wait for who opens sources")?;
    received
}

/// In the place of a number of a mount: the root, and a message instead of a tree.
const ROOT: u32 = u32::MAX;
const ERROR: u32 = u32::MAX - 1;

fn send_sources(plan: &RootfsPlan, socket: &OwnedFd) -> Result<()> {
    let send = |place: u32, tree: &OwnedFd| fdpass::send(socket, &[&place.to_ne_bytes()], Some(tree.as_fd()));
    if let RootSource::Directory(path, None) = &plan.root {
        send(ROOT, &detach(setup::open_root_tree(path)?, MountPropagationFlags::DOWNSTREAM)?)?;
    }
    for (mount, place) in plan.mounts.iter().zip(0u32..) {
        if let MountSource::Bind { path, origin: Origin::Host } = &mount.source {
            let tree = clone_tree(path, &mount.options).and_then(|tree| detach(tree, plan.detachment));
            send(place, &tree.with_context(|| mount.describe())?)?;
        }
    }
    Ok(())
}

fn receive_sources(plan: &mut RootfsPlan, socket: &OwnedFd) -> Result<()> {
    let mut buffer = vec![0; 8192];
    loop {
        let (length, tree) = fdpass::receive(socket, &mut buffer).context("receive sources")?;
        let Some((place, text)) = buffer[..length].split_first_chunk() else { return Ok(()) };
        match (u32::from_ne_bytes(*place), tree) {
            (ROOT, Some(tree)) => {
                if let RootSource::Directory(_, place) = &mut plan.root {
                    *place = Some(tree);
                }
            }
            (place, Some(tree)) => {
                let mount = usize::try_from(place).ok().and_then(|place| plan.mounts.get_mut(place));
                if let Some(MountSource::Bind { origin, .. }) = mount.map(|mount| &mut mount.source) {
                    *origin = Origin::Parent(tree);
                }
            }
            (_, None) => return Err(Error::new(Kind::Other, String::from_utf8_lossy(text).into_owned())),
        }
    }
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

/// Makes the tree with its ids mapped; or the namespace alone, where the tree is not there yet.
fn prepare_mapped(
    mount: &mut MountPlan,
    container: UserNamespace<'_>,
    detachment: MountPropagationFlags,
) -> Result<()> {
    let namespace = match (mount.id_maps.as_ref().or(container.maps), container.joined) {
        (Some(maps), _) => idmap::open_user_namespace(maps)?,
        (None, Some(joined)) => take(joined)?,
        (None, None) => {
            return Err(Error::invalid("id-mapped mounts must have both uid and gid mappings specified")
                .with_hint("`idmap` alone stands for the container's user namespace, and it has none"));
        }
    };
    match &mut mount.source {
        MountSource::Bind { origin: Origin::Root(_), .. } => mount.maps_later = Some(namespace),
        MountSource::Bind { path, origin } => {
            let opened = clone_tree(path, &mount.options)?;
            map(&opened, &namespace, &mount.options)?;
            *origin = Origin::Parent(detach(opened, detachment)?);
        }
        _ => return Err(Error::invalid("id-mapped mounts are only supported for bind-mounts")),
    }
    Ok(())
}

/// Maps the ids of a tree that init has made, for which it has not the rights in its user namespace.
pub fn map_for_init(plan: &RootfsPlan, index: usize, tree: &OwnedFd) -> Result<()> {
    let waiting = plan.mounts.get(index).and_then(|mount| Some((mount, mount.maps_later.as_ref()?)));
    let (mount, namespace) = waiting.ok_or_else(|| Error::invalid("init has sent a tree that is not to be mapped"))?;
    map(tree, namespace, &mount.options).map_err(explain_mapping).with_context(|| mount.describe())
}

fn map(tree: &OwnedFd, namespace: &OwnedFd, options: &MountOptions) -> Result<()> {
    let is_recursive = options.idmap.as_ref().is_some_and(|idmap| idmap.is_recursive);
    map_ids(tree, namespace, is_recursive)
}

fn explain_mapping(error: Error) -> Error {
    match error.errno() {
        Some(Errno::PERM) if !rustix::process::geteuid().is_root() => error
            .context("id-mapped mounts are not supported for rootless containers")
            .with_hint("the kernel maps ids for whoever has CAP_SYS_ADMIN where the file system was mounted"),
        _ => error,
    }
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
