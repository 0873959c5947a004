//! A tree copied by descriptor: a tmpfs that starts with what it covers (`tmpcopyup`), a volume with what the image has.
//!
//! What is there already gives way, and an overlay's whiteout takes away what is below it, so that several layers can be
//! copied over one another.
//!
//! Both sides are walked by descriptor and never through a symlink, and what was made gets its owner and its mode by the
//! descriptor that it was made with: a volume may be another container's too, which may put a link in the place of a name.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timestamps, Uid};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::support::mode::set_mode_of_node;

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
            set_metadata(below.as_fd(), &stat)
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target, to, name)?;
            set_metadata_at(to, name, &stat)
        }
        FileType::RegularFile => {
            let source =
                rustix::fs::openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut target = std::fs::File::from(rustix::fs::openat(to, name, flags, mode)?);
            std::io::copy(&mut std::fs::File::from(source), &mut target)?;
            set_metadata(target.as_fd(), &stat)
        }
        FileType::Socket | FileType::Unknown => Ok(()),
        FileType::CharacterDevice if stat.st_rdev == 0 => Ok(()),
        kind => {
            rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
            set_metadata_at(to, name, &stat)?;
            Ok(set_mode_of_node(to, name, mode)?)
        }
    }
}

fn set_metadata(made: BorrowedFd<'_>, stat: &Stat) -> Result<()> {
    let (uid, gid) = owner(stat);
    pass_unmapped(rustix::fs::fchown(made, Some(uid), Some(gid)))?;
    // After the owner, whose change takes set-id bits away; umask is passed by.
    rustix::fs::fchmod(made, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok(rustix::fs::futimens(made, &times(stat))?)
}

/// The same, but for the mode, of what is not opened.
fn set_metadata_at(to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<()> {
    let (uid, gid) = owner(stat);
    pass_unmapped(rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW))?;
    Ok(rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn owner(stat: &Stat) -> (Uid, Gid) {
    (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))
}

fn pass_unmapped(answer: Result<(), Errno>) -> Result<(), Errno> {
    match answer {
        // An owner that the user namespace has no id for stays ours.
        Err(Errno::INVAL) => Ok(()),
        answer => answer,
    }
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
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

    /// A volume that is filled may be another container's, which swaps what was made for a link while it is written.
    #[test]
    fn a_link_that_takes_the_place_of_a_file_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let (from, to, victim) = (place.path().join("from"), place.path().join("to"), place.path().join("victim"));
        for directory in [&from, &to] {
            std::fs::create_dir(directory).unwrap();
        }
        std::fs::write(&victim, "").unwrap();
        std::fs::set_permissions(&victim, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::create_dir(from.join("d")).unwrap();
        for number in 0..300 {
            std::fs::write(from.join("d").join(number.to_string()), vec![7; 300_000]).unwrap();
        }
        std::fs::set_permissions(from.join("d"), std::fs::Permissions::from_mode(0o777)).unwrap();
        std::thread::scope(|scope| {
            let copying = scope.spawn(|| {
                let open = |path| std::fs::File::open(path).unwrap();
                copy(open(&from).as_fd(), open(&to).as_fd())
            });
            // The directory is there as long as it is filled, and gets its mode only then.
            let (there, aside) = (to.join("d"), to.join("aside"));
            while !copying.is_finished() {
                if std::fs::rename(&there, &aside).is_ok() {
                    symlink(&victim, &there).unwrap();
                    break;
                }
            }
            let _ = copying.join().unwrap();
            assert!(aside.exists(), "the directory was seen before it was finished");
        });
        assert_eq!(victim.metadata().unwrap().mode() & 0o7777, 0o600);
    }
}
