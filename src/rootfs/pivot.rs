//! How the prepared tree becomes `/`.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount};

use super::plan::Switch;
use crate::error::{Context, Result};

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
/// The host's mounts stay below ours. Those that show the kernel's state are taken off first, since a bare `/proc` or
/// `/sys` of the host would be reached by whoever gets out of the chroot.
fn move_onto_root(root: BorrowedFd<'_>) -> Result<()> {
    for path in [c"/proc", c"/sys", c"/dev"] {
        match unmount(path, UnmountFlags::DETACH) {
            // In a user namespace what was inherited is locked (mount_namespaces(7)).
            Ok(()) | Err(Errno::INVAL | Errno::NOENT | Errno::PERM) => {}
            Err(errno) => return Err(errno).with_context(|| format!("unmount the host's {}", path.to_string_lossy())),
        }
    }
    move_mount(root.as_fd(), c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .context("move the root file system to /")?;
    rustix::process::chroot(c".").context("chroot into the root file system")
}
