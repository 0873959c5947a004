//! Init's work on the file system tree, in the order that the kernel and the spec fix.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, OpenTreeFlags, mount_change, open_tree};

use super::cgroup_mount::{self, CgroupView};
use super::mount::Aid;
use super::plan::{MountPlan, MountSource, RootSource, RootfsPlan, Switch};
use super::{bind, device, mask, mount, overlay, pivot, secrets};
use crate::error::{Context, Error, Result};
use crate::support::root::Root;
use crate::sys::mount::{Change, Reach, attr, mount_setattr};

/// The tree, mounted and not yet `/`.
pub struct Prepared {
    root: Root,
    /// Mounts that are to be read-only once nothing more is made in them.
    unsealed: Vec<OwnedFd>,
}

/// Mounts everything below the root. `before_cgroups` returns once init is in its cgroups and their namespace.
///
/// 1. Detach the host's tree, so that nothing mounted here shows up there.
/// 2. Attach the root: pivot_root(2) wants a mount point.
/// 3. The spec's mounts in the spec's order ("The runtime MUST mount entries in the listed order").
/// 4. Devices and links of `/dev`, which the mounts have brought.
/// 5. Secrets, whose places the mounts may have brought.
/// 6. Read-only and masked paths, over all that was mounted.
///
/// A procfs shows the PID namespace `processes`, or else this process's own. `map_ids` has a tree mapped that is for the
/// mount of this number in the plan ([`bind::map_for_init`]).
pub fn prepare(
    plan: &RootfsPlan,
    processes: Option<BorrowedFd<'_>>,
    map_ids: impl Fn(usize, &OwnedFd) -> Result<()>,
    before_cgroups: impl FnOnce() -> Result<CgroupView>,
) -> Result<Prepared> {
    if plan.switch == Switch::Chroot {
        // The cgroups are entered all the same.
        before_cgroups()?;
        return Ok(Prepared { root: open_root_directory(plan)?, unsealed: Vec::new() });
    }
    mount_change(c"/", plan.detachment).context("detach the host's mounts")?;
    if plan.detachment.contains(MountPropagationFlags::SHARED) {
        seclude(&plan.root).context("keep the container's mounts from the host")?;
    }
    let root = Root::from_fd(attach_root(&plan.root).context("set up the root file system")?);
    let mut unsealed = Vec::new();
    let mut before_cgroups = Some(before_cgroups);
    let mut view = None;
    for (index, entry) in plan.mounts.iter().enumerate() {
        if matches!(entry.source, MountSource::Cgroup) {
            if let Some(before_cgroups) = before_cgroups.take() {
                view = Some(before_cgroups()?);
            }
            let view = view.as_ref().ok_or_else(|| Error::unsupported("no cgroup view"))?;
            cgroup_mount::mount(&root, entry, view).with_context(|| entry.describe())?;
        } else {
            let aid = Aid { processes, map_ids: &|tree| map_ids(index, tree) };
            unsealed.extend(mount::mount(&root, entry, &aid)?);
        }
    }
    if let Some(before_cgroups) = before_cgroups {
        before_cgroups()?;
    }
    if plan.makes_default_dev {
        let umask = rustix::process::umask(Mode::empty());
        device::make_nodes(&root, &plan.devices, plan.binds_devices)?;
        device::make_links(&root)?;
        rustix::process::umask(umask);
    }
    secrets::deliver(&root, &plan.secrets)?;
    mask::protect(&root, &plan.readonly_paths)?;
    mask::mask(&root, &plan.masked_paths, plan.label.as_ref())?;
    Ok(Prepared { root, unsealed })
}

impl Prepared {
    /// Makes the tree this process's `/`.
    pub fn enter(&self, plan: &RootfsPlan) -> Result<()> {
        pivot::switch(self.root.as_fd(), plan.switch)?;
        match plan.propagation {
            Some(flags) if plan.switch != Switch::Chroot => {
                mount_change(c"/", flags).context("set linux.rootfsPropagation")
            }
            _ => Ok(()),
        }
    }

    /// Makes read-only what is to be; the last thing, since devices and the console are made in it.
    pub fn seal(&self, plan: &RootfsPlan) -> Result<()> {
        let change = Change { set: attr::RDONLY, ..Change::default() };
        for mount in &self.unsealed {
            mount_setattr(mount, Reach::One, &change).context("make a mount read-only")?;
        }
        if plan.is_readonly && plan.switch != Switch::Chroot {
            mount_setattr(&self.root, Reach::One, &change).context("make the root file system read-only")?;
        }
        Ok(())
    }

    /// Gives the tree.
    pub fn root(&self) -> &Root {
        &self.root
    }
}

fn open_root_directory(plan: &RootfsPlan) -> Result<Root> {
    match &plan.root {
        RootSource::Directory(path, _) => Root::open(path),
        RootSource::Mount(..) => Err(Error::invalid("mounts: `/` needs a mount namespace")),
    }
}

/// Makes the mount that the root lies on private, in our copy of the host's tree: it is the host's peer where the rest of
/// the tree is to be one, and the root would be attached to it on the host, too.
fn seclude(source: &RootSource) -> Result<()> {
    let place = match source {
        // The way there is not for init, and it is attached to `/`.
        RootSource::Directory(_, Some(_)) => Path::new("/"),
        RootSource::Directory(place, None) | RootSource::Mount(_, place) => place,
    };
    let mut place = Root::open(place)?.into_fd();
    let private = Change { propagation: u64::from(MountPropagationFlags::PRIVATE.bits()), ..Change::default() };
    loop {
        match mount_setattr(&place, Reach::One, &private) {
            // Not where a mount begins.
            Err(Errno::INVAL) => {}
            answer => return Ok(answer?),
        }
        let before = rustix::fs::fstat(&place)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        place = rustix::fs::openat(&place, c"..", flags, Mode::empty())?;
        let after = rustix::fs::fstat(&place)?;
        if (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino) {
            return Err(Error::unsupported("`/` is no mount"));
        }
    }
}

fn attach_root(source: &RootSource) -> Result<OwnedFd> {
    match source {
        RootSource::Directory(path, Some(tree)) => {
            // The way to the directory is not for init; any place will do, and `/` is there.
            let tree = bind::take(tree)?;
            mount::attach(&tree, Root::open(Path::new("/"))?).with_context(|| format!("bind {}", path.display()))?;
            Ok(tree)
        }
        RootSource::Directory(path, None) => {
            let tree = open_root_tree(path)?;
            let place = Root::open(path)?;
            mount::attach(&tree, &place).with_context(|| format!("bind {}", path.display()))?;
            Ok(tree)
        }
        RootSource::Mount(entry, place) => {
            let attach = || match &entry.source {
                MountSource::New { kind, data, .. } if kind.as_c_str() == c"overlay" => {
                    overlay::attach(place, data, || detached(entry))
                }
                _ => {
                    let tree = detached(entry)?;
                    mount::attach(&tree, Root::open(place)?)?;
                    Ok(tree)
                }
            };
            attach().with_context(|| entry.describe())
        }
    }
}

/// Copies the tree of the root file system, which may not be a symlink, detached.
pub fn open_root_tree(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    open_tree(CWD, path, flags).with_context(|| format!("open {}", path.display()))
}

fn detached(entry: &MountPlan) -> Result<OwnedFd> {
    match &entry.source {
        MountSource::New { kind, source, data } => {
            mount::new_file_system(kind, source, data, &entry.options, entry.options.attributes.set, None, None)
        }
        MountSource::Bind { path, .. } => open_bind(path).map_err(Error::from),
        MountSource::Cgroup | MountSource::Remount { .. } => Err(Error::invalid("cannot be the root")),
    }
}

fn open_bind(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags)
}
