//! Removing a directory tree by descriptor.
//!
//! The tree may be what a container left: of any depth, with names that are no text and directories that forbid their
//! owner to enter. Nothing is followed, nothing outside is touched, and the number of open descriptors is bounded.
//! Deliberately does not enter other file systems: a mount point that is still in use stops the removal with EBUSY or EXDEV
//! rather than losing what is mounted there.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Context, Result};

/// How deep descriptors are held. What lies deeper is first moved up to the top, where names are made up.
const DEPTH: usize = 32;

/// Deletes `name` below `directory` with everything in it. What is not there is fine.
pub fn remove(directory: BorrowedFd<'_>, name: &str) -> Result<()> {
    let c_name = CString::new(name)?;
    match remove_entry(directory, &c_name) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("remove {name}")),
    }
}

fn remove_entry(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        answer => return answer,
    }
    // An empty directory needs no look inside, even one that forbids it.
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        answer => return answer,
    }
    let top = open_directory(parent, name)?;
    let mut moved = 0;
    // Each round empties the tree but for what was moved up, which is the start of the next.
    loop {
        let before = moved;
        empty(top.as_fd(), &top, 0, &mut moved)?;
        if moved == before {
            break;
        }
        rustix::fs::seek(&top, rustix::fs::SeekFrom::Start(0))?;
    }
    drop(top);
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Empties a directory that is `depth` below `top`.
fn empty(top: BorrowedFd<'_>, directory: &OwnedFd, depth: usize, moved: &mut u64) -> Result<(), Errno> {
    let (directories, others) = list(directory)?;
    for name in others {
        match rustix::fs::unlinkat(directory, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    for name in directories {
        match rustix::fs::unlinkat(directory, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        if depth == DEPTH {
            move_up(top, directory, &name, moved)?;
            continue;
        }
        let child = open_directory(directory.as_fd(), &name)?;
        empty(top, &child, depth + 1, moved)?;
        drop(child);
        rustix::fs::unlinkat(directory, &name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// Moves a directory to the top, under a name that nobody has.
fn move_up(top: BorrowedFd<'_>, directory: &OwnedFd, name: &CStr, moved: &mut u64) -> Result<(), Errno> {
    loop {
        let free = format!(".deep-{moved}");
        *moved += 1;
        match rustix::fs::renameat_with(directory, name, top, free, rustix::fs::RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            answer => return answer,
        }
    }
}

/// Opens a directory to list it, and to write in it; where its mode forbids that to its owner, the mode gives way.
fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let open = || rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve);
    match open() {
        Ok(fd) => {
            let mode = rustix::fs::fstat(&fd)?.st_mode;
            if mode & 0o300 != 0o300 {
                // Refused where the directory is another's; then the removal fails with the true reason.
                let _ = rustix::fs::fchmod(&fd, Mode::RWXU);
            }
            Ok(fd)
        }
        // Overlayfs makes its work directory with mode 000, and a container its own as it likes.
        Err(Errno::ACCESS) => {
            let path_flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat2(parent, name, path_flags, Mode::empty(), resolve)?;
            // fchmod refuses an O_PATH descriptor, and fchmodat2 needs kernel 6.6: by the name that the kernel gives it.
            let alias = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
            rustix::fs::chmod(alias, Mode::RWXU)?;
            open()
        }
        Err(errno) => Err(errno),
    }
}

/// Lists a directory whole before anything is deleted: entries may move when others go.
fn list(directory: &OwnedFd) -> Result<(Vec<CString>, Vec<CString>), Errno> {
    let (mut directories, mut others) = (Vec::new(), Vec::new());
    let mut buffer = [const { MaybeUninit::uninit() }; 8192];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            // Some file systems do not say.
            FileType::Unknown => {
                let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        if kind == FileType::Directory { &mut directories } else { &mut others }.push(name.to_owned());
    }
    Ok((directories, others))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "fixtures are not state")]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn trees_go_and_what_they_point_to_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let outside = scratch.path().join("outside");
        fs::create_dir_all(outside.join("kept")).unwrap();
        let tree = scratch.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::write(tree.join("a/file"), "x").unwrap();
        symlink(&outside, tree.join("a/link")).unwrap();
        symlink(&outside, scratch.path().join("link")).unwrap();
        let directory = OwnedFd::from(File::open(scratch.path()).unwrap());
        remove(directory.as_fd(), "tree").unwrap();
        remove(directory.as_fd(), "link").unwrap();
        remove(directory.as_fd(), "missing").unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").is_dir());
    }

    #[test]
    fn depth_costs_no_descriptors() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = OwnedFd::from(File::open(scratch.path()).unwrap());
        rustix::fs::mkdirat(&directory, "tree", Mode::RWXU).unwrap();
        let mut at = rustix::fs::openat(&directory, "tree", OFlags::DIRECTORY, Mode::empty()).unwrap();
        let name = "d".repeat(200);
        for _ in 0..300 {
            // Longer than PATH_MAX at the end, with a branch and a file on every level.
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&at, ".deep-0", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
            rustix::fs::openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        }
        drop(at);
        remove(directory.as_fd(), "tree").unwrap();
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn modes_give_way() {
        // As root the modes forbid nothing; the run as a user is where this test bites.
        let scratch = tempfile::tempdir().unwrap();
        let tree = scratch.path().join("tree");
        fs::create_dir_all(tree.join("locked/inner")).unwrap();
        fs::write(tree.join("locked/inner/file"), "x").unwrap();
        fs::create_dir_all(tree.join("work/work")).unwrap();
        for (path, mode) in [("locked/inner", 0o000), ("locked", 0o500), ("work/work", 0o000)] {
            fs::set_permissions(tree.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        let directory = OwnedFd::from(File::open(scratch.path()).unwrap());
        remove(directory.as_fd(), "tree").unwrap();
        assert!(!tree.exists());
    }
}
