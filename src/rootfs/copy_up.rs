//! A tree copied by descriptor: a tmpfs that starts with what it covers (`tmpcopyup`), a volume with what the image has.
//!
//! What is there already gives way, and an overlay's whiteout takes away what is below it, so that several layers can be
//! copied over one another.
//!
//! Both sides are directories of the container's own tree, walked by descriptor and never through a symlink.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timestamps};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// A tree that is deeper than this is refused, like a loop would be.
const DEPTH_LIMIT: usize = 512;

/// Copies everything below `from` to `to`, with owners, modes and times.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let from = reopen_directory(from, c".")?;
    copy_directory(&from, to, DEPTH_LIMIT)
}

fn copy_directory(from: &OwnedFd, to: BorrowedFd<'_>, depth: usize) -> Result<()> {
    if depth == 0 {
        return Err(Error::invalid(format!("deeper than {DEPTH_LIMIT} directories")));
    }
    let mut entries = Dir::read_from(from)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        copy_entry(from.as_fd(), to, name, depth).with_context(|| format!("copy {}", name.to_string_lossy()))?;
    }
    Ok(())
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::Directory {
        crate::support::remove::remove_tree(to, OsStr::from_bytes(name.to_bytes()))?;
    }
    match kind {
        FileType::Directory => {
            match rustix::fs::mkdirat(to, name, mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            let below = reopen_directory(to, name)?;
            copy_directory(&reopen_directory(from, name)?, below.as_fd(), depth - 1)?;
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target, to, name)?;
        }
        FileType::RegularFile => {
            let source =
                rustix::fs::openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = rustix::fs::openat(to, name, flags, mode)?;
            std::io::copy(&mut std::fs::File::from(source), &mut std::fs::File::from(target))?;
        }
        FileType::Socket | FileType::Unknown => return Ok(()),
        FileType::CharacterDevice if stat.st_rdev == 0 => return Ok(()),
        kind => rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?,
    }
    set_metadata(to, name, &stat)
}

fn set_metadata(to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    match rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
        // An owner that the user namespace has no id for stays ours.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        // After the owner, whose change takes set-id bits away; umask is passed by.
        rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    let time = |seconds, nanoseconds: u64| rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Ok(rustix::fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn reopen_directory(at: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "fixtures are not state")]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_tree_is_copied_with_its_modes_and_links() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(from.path().join("d")).unwrap();
        std::fs::write(from.path().join("d/f"), "text").unwrap();
        std::fs::set_permissions(from.path().join("d/f"), std::fs::Permissions::from_mode(0o4751)).unwrap();
        symlink("/nowhere", from.path().join("l")).unwrap();
        let open = |path| std::fs::File::open(path).unwrap();
        copy(open(from.path()).as_fd(), open(to.path()).as_fd()).unwrap();
        let (before, after) = (from.path().join("d/f").metadata().unwrap(), to.path().join("d/f").metadata().unwrap());
        assert_eq!(std::fs::read(to.path().join("d/f")).unwrap(), b"text");
        assert_eq!((before.mode(), before.mtime_nsec()), (after.mode(), after.mtime_nsec()));
        assert_eq!(std::fs::read_link(to.path().join("l")).unwrap().to_str(), Some("/nowhere"));
    }
}
