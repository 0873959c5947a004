//! How the prepared tree becomes `/`.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount,
};

use super::plan::Switch;
use crate::error::{Context, Result};
use crate::support::mountinfo::{self, Mount};

/// Makes the tree that `root` stands on the root of this process.
pub fn switch(root: BorrowedFd<'_>, how: Switch) -> Result<()> {
    rustix::process::fchdir(root).context("change to the root file system")?;
    match how {
        Switch::Pivot => pivot(),
        Switch::Move => move_onto_root(root),
        Switch::Chroot => rustix::process::chroot(c".").context("chroot into the root file system"),
    }?;
    rustix::process::chdir(c"/").context("change to /")
}

/// Stacks the old root on the new one and takes it off again, so that no directory is needed to put it
/// (pivot_root(2), "`pivot_root(".", ".")`").
fn pivot() -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = rustix::fs::open(c"/", flags, Mode::empty()).context("open the old root")?;
    rustix::process::pivot_root(c".", c".").context("pivot into the root file system")?;
    rustix::process::fchdir(&old).context("change to the old root")?;
    // What we unmount must not be unmounted on the host.
    mount_change(c".", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("detach the old root from the host")?;
    unmount(c".", UnmountFlags::DETACH).context("unmount the old root")
}

/// For a host whose `/` is the kernel's own rootfs, which cannot be pivoted away.
///
/// The host's mounts stay below ours.
fn move_onto_root(root: BorrowedFd<'_>) -> Result<()> {
    hide_kernel_views(root).context("hide the host's /proc and /sys")?;
    move_mount(root.as_fd(), c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .context("move the root file system to /")?;
    rustix::process::chroot(c".").context("chroot into the root file system")
}

/// Takes off every whole procfs and sysfs of the host, wherever it is, or covers it: whoever gets out of the chroot would
/// find it bare, and the kernel lets a user namespace mount a new one by the example of a bare one alone
/// (mount_namespaces(7); runc does the same).
fn hide_kernel_views(root: BorrowedFd<'_>) -> Result<()> {
    let own = statx(root, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id;
    let table = std::fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let mounts = mountinfo::parse(&table)?;
    let parent = |mount: &Mount| mounts.iter().find(|other| other.id == mount.parent && other.id != mount.id);
    let is_own = |mount: &Mount| {
        std::iter::successors(Some(mount), |mount| parent(mount)).any(|mount| u64::from(mount.id) == own)
    };
    let is_bare = |mount: &&Mount| matches!(&mount.kind[..], "proc" | "sysfs") && mount.root == Path::new("/");
    // Backwards: what lies on top goes first.
    for mount in mounts.iter().rev().filter(is_bare).filter(|mount| !is_own(mount)) {
        if let Some(parent) = parent(mount) {
            // It is this mount's peers that would lose theirs.
            match mount_change(&parent.point, MountPropagationFlags::DOWNSTREAM) {
                Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
                Err(errno) => return Err(errno).with_context(|| format!("detach {}", parent.point.display())),
            }
        }
        match unmount(&mount.point, UnmountFlags::DETACH) {
            Ok(()) | Err(Errno::NOENT) => continue,
            // In a user namespace what was inherited is locked (mount_namespaces(7)).
            Err(Errno::INVAL | Errno::PERM) => {}
            Err(errno) => return Err(errno).with_context(|| format!("unmount {}", mount.point.display())),
        }
        match rustix::mount::mount("tmpfs", &mount.point, "tmpfs", MountFlags::empty(), None) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).with_context(|| format!("cover {}", mount.point.display())),
        }
    }
    Ok(())
}
