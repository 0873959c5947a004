//! `mount_setattr(2)`, which rustix does not wrap.
#![expect(unsafe_code, reason = "mount_setattr has no wrapper in any of the libraries")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// `MOUNT_ATTR_*` of `linux/mount.h`, as `fsmount(2)` and `mount_setattr(2)` take them.
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-id and file capabilities have no effect.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes cannot be opened.
    pub const NODEV: u64 = 0x4;
    /// Nothing can be executed.
    pub const NOEXEC: u64 = 0x8;
    /// The access time bits that exclude each other.
    pub const ATIME_MASK: u64 = 0x70;
    /// Access times as `relatime`.
    pub const RELATIME: u64 = 0x0;
    /// Access times are never written.
    pub const NOATIME: u64 = 0x10;
    /// Access times are always written.
    pub const STRICTATIME: u64 = 0x20;
    /// Access times of directories are never written.
    pub const NODIRATIME: u64 = 0x80;
    /// Ids are mapped as in the user namespace of `userns_fd` (kernel 5.12).
    pub const IDMAP: u64 = 0x10_0000;
    /// Symlinks are not followed (kernel 5.14).
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// Whether a change is for one mount or for everything below it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// This mount.
    One,
    /// This mount and those below it.
    Tree,
}

/// What to change on a mount.
#[derive(Clone, Copy, Default)]
pub struct Change<'a> {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0.
    pub propagation: u64,
    /// The user namespace whose id maps the mount gets, with [`attr::IDMAP`] in `set`.
    pub userns: Option<BorrowedFd<'a>>,
}

/// Changes the attributes of the mount that `fd` stands on (kernel 5.12).
pub fn mount_setattr(fd: impl AsFd, reach: Reach, change: &Change<'_>) -> Result<(), Errno> {
    // SAFETY: an all-zero mount_attr is valid; every field is an integer.
    let mut arguments: libc::mount_attr = unsafe { std::mem::zeroed() };
    arguments.attr_set = change.set;
    arguments.attr_clr = change.clear;
    arguments.propagation = change.propagation;
    arguments.userns_fd = change.userns.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs()));
    let recursive = if reach == Reach::Tree { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a constant C string, `arguments` outlives the call and its size is passed; `fd` is borrowed.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw mut arguments,
            size_of::<libc::mount_attr>(),
        )
    };
    if answer == 0 { Ok(()) } else { Err(super::last_errno()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_mount_is_refused() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let change = Change { set: attr::RDONLY, ..Change::default() };
        assert!(matches!(mount_setattr(&null, Reach::One, &change), Err(Errno::INVAL | Errno::PERM)));
    }
}
