//! Owners, modes, times and extended attributes of what was just made.
//!
//! Everything goes through a descriptor, or (symlinks and nodes, which have none that will do) through the name just
//! made in a directory that is nobody else's. The order matters: `chown(2)` clears set-id bits and file capabilities.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::image::tar::{Entry, EntryKind, Time};
use crate::support::mode::set_mode_of_node;

use super::{OWNER_XATTR, Ownership};

/// Gives an open file or directory what its entry says. `node` is the device that an empty file stands for.
pub(super) fn apply(fd: BorrowedFd<'_>, entry: &Entry, ownership: Ownership, node: bool) -> Result<()> {
    let set_id = entry.mode & 0o6000;
    let mode = match ownership {
        Ownership::Keep if !node => entry.mode,
        // A set-id file of a single-id namespace would be set-id on the host, for the user who runs us.
        _ => entry.mode & !0o6000,
    };
    match ownership {
        Ownership::Keep => {
            rustix::fs::fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
                .map_err(|errno| chown_error(errno, entry))?;
        }
        Ownership::Record => {}
    }
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)).context("chmod")?;
    let differs = ownership == Ownership::Record && (entry.uid != 0 || entry.gid != 0 || set_id != 0);
    if node || differs {
        record(fd, entry, node)?;
    }
    for xattr in &entry.xattrs {
        if !is_wanted(&xattr.name, entry.kind) {
            continue;
        }
        match rustix::fs::fsetxattr(fd, xattr.name.as_slice(), &xattr.value, XattrFlags::empty()) {
            // A file system without such attributes loses them, as with every other engine.
            Err(Errno::OPNOTSUPP) => {}
            // A single id has no right to file capabilities and cannot name other ids in an ACL.
            Err(Errno::PERM | Errno::INVAL) if ownership == Ownership::Record && !xattr.name.starts_with(b"user.") => {}
            answer => answer
                .with_context(|| format!("set attribute {}", String::from_utf8_lossy(&xattr.name).escape_debug()))?,
        }
    }
    rustix::fs::futimens(fd, &times(entry.mtime)).context("set times")
}

/// Gives what was just made as `name`, and is no file or directory, what its entry says.
pub(super) fn apply_at(directory: BorrowedFd<'_>, name: &[u8], entry: &Entry, ownership: Ownership) -> Result<()> {
    let no_follow = AtFlags::SYMLINK_NOFOLLOW;
    if ownership == Ownership::Keep {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        rustix::fs::chownat(directory, name, Some(uid), Some(gid), no_follow)
            .map_err(|errno| chown_error(errno, entry))?;
    }
    // A symlink has no mode. A file of a volume may be a link meanwhile.
    if entry.kind != EntryKind::Symlink {
        let mode = Mode::from_raw_mode(entry.mode & !0o6000);
        set_mode_of_node(directory, name, mode).context("chmod")?;
    }
    rustix::fs::utimensat(directory, name, &times(entry.mtime), no_follow).context("set times")
}

/// Sets the time of modification alone, of a directory whose contents changed.
pub(super) fn set_mtime(fd: BorrowedFd<'_>, mtime: Timespec) -> Result<()> {
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    rustix::fs::futimens(fd, &Timestamps { last_access: omit, last_modification: mtime }).context("set times")
}

pub(super) fn timespec(time: Time) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.try_into().unwrap_or(0) }
}

fn times(mtime: Time) -> Timestamps {
    // The time of access is whatever it was on the builder; the time of modification is at least the same every time.
    Timestamps { last_access: timespec(mtime), last_modification: timespec(mtime) }
}

/// Writes down the owner that the host's file cannot have.
fn record(fd: BorrowedFd<'_>, entry: &Entry, node: bool) -> Result<()> {
    let owner = format!("{}:{}:{:o}", entry.uid, entry.gid, entry.mode);
    let text = match (node, entry.kind) {
        (false, _) => owner,
        (true, EntryKind::Block) => format!("{owner}:b:{}:{}", entry.major, entry.minor),
        (true, _) => format!("{owner}:c:{}:{}", entry.major, entry.minor),
    };
    match rustix::fs::fsetxattr(fd, OWNER_XATTR, text.as_bytes(), XattrFlags::empty()) {
        // Losing the record costs an exact export; failing would cost the image.
        Err(Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
        answer => answer.context("record the owner"),
    }
}

/// Decides which attributes an image may set, and which are written into one.
///
/// `trusted.` belongs to the host's administrator and to overlayfs, `security.` to the host's policy (file capabilities
/// are the exception that images need), and husk's and overlayfs's own names under `user.` are not the image's to forge.
pub(in crate::image) fn is_wanted(name: &[u8], kind: EntryKind) -> bool {
    let file_or_directory = matches!(kind, EntryKind::Regular | EntryKind::Directory);
    match name {
        b"security.capability" => kind == EntryKind::Regular,
        b"system.posix_acl_access" => file_or_directory,
        b"system.posix_acl_default" => kind == EntryKind::Directory,
        name => {
            file_or_directory
                && name.starts_with(b"user.")
                && !name.starts_with(b"user.overlay.")
                && !name.starts_with(b"user.husk.")
        }
    }
}

fn chown_error(errno: Errno, entry: &Entry) -> Error {
    let error = Error::from(errno).context(format!("chown to {}:{}", entry.uid, entry.gid));
    match errno {
        Errno::INVAL => {
            error.with_hint("this id is not in the user namespace's map: give the user more subordinate ids")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_sets_what_is_its_own() {
        use EntryKind::{Directory, Fifo, Regular};
        for (name, kind, wanted) in [
            ("user.a", Regular, true),
            ("user.a", Directory, true),
            ("user.a", Fifo, false),
            ("security.capability", Regular, true),
            ("security.capability", Directory, false),
            ("security.selinux", Regular, false),
            ("security.ima", Regular, false),
            ("system.posix_acl_access", Regular, true),
            ("system.posix_acl_default", Directory, true),
            ("trusted.overlay.opaque", Directory, false),
            ("trusted.overlay.redirect", Directory, false),
            ("trusted.anything", Regular, false),
            ("user.overlay.opaque", Directory, false),
            ("user.overlay.overlay.whiteout", Regular, false),
            ("user.husk.owner", Regular, false),
            ("user", Regular, false),
            ("", Regular, false),
        ] {
            assert_eq!(is_wanted(name.as_bytes(), kind), wanted, "{name} {kind:?}");
        }
    }
}
