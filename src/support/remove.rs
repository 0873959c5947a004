//! Removal of a tree by descriptor.
//!
//! Never follows a symlink, never enters a mount, and holds a bounded number of descriptors however deep the tree is.
//! Directories that deny their owner are opened up first, since images bring such. It stops at the first failure and
//! names it; what it has removed by then stays removed.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::mode::set_mode_of_path;
use crate::error::{Context, Result};

/// How deep directories are held open. What lies deeper is first moved up to the top of the tree.
const OPEN_DEPTH: usize = 32;

const OWNER_ALL: Mode = Mode::RWXU;

/// Removes `name` in `parent` and all below it. It is no error if there is nothing of that name.
pub fn remove_tree(parent: impl AsFd, name: impl AsRef<Path>) -> Result<()> {
    let (parent, name) = (parent.as_fd(), name.as_ref());
    let remove = || {
        let name = std::ffi::CString::new(name.as_os_str().as_encoded_bytes())?;
        match rustix::fs::unlinkat(parent, &name, AtFlags::empty()) {
            // Linux says EISDIR for a directory; POSIX and some file systems say EPERM.
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(Errno::NOENT) => return Ok(()),
            answer => return Ok(answer?),
        }
        if remove_empty(parent, &name) {
            return Ok(());
        }
        let Some(top) = open(parent, &name)? else { return Ok(()) };
        let mut moved = 0;
        empty(&top, top.as_fd(), 0, &mut moved)?;
        remove_directory(parent, &name)
    };
    remove().with_context(|| format!("remove {}", name.display()))
}

/// Removes everything in a directory.
fn empty(directory: &OwnedFd, top: BorrowedFd<'_>, depth: usize, moved: &mut u64) -> Result<()> {
    loop {
        let mut found = false;
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            found = true;
            remove_entry(directory, top, depth, moved, name, entry.file_type())
                .with_context(|| name.to_string_lossy().escape_debug().to_string())?;
        }
        // A pass may miss what came while it read: only a pass that finds nothing is the last.
        if !found {
            return Ok(());
        }
    }
}

fn remove_entry(
    directory: &OwnedFd,
    top: BorrowedFd<'_>,
    depth: usize,
    moved: &mut u64,
    name: &CStr,
    kind: FileType,
) -> Result<()> {
    if kind != FileType::Directory {
        match permitting(directory, || rustix::fs::unlinkat(directory, name, AtFlags::empty())) {
            Err(Errno::ISDIR) => {} // the file system does not tell types in its listing
            Err(Errno::PERM) if kind == FileType::Unknown => {}
            Err(Errno::NOENT) => return Ok(()),
            answer => return Ok(answer?),
        }
    }
    if remove_empty(directory.as_fd(), name) {
        return Ok(());
    }
    if depth >= OPEN_DEPTH {
        return move_up(directory, top, moved, name);
    }
    match open(directory.as_fd(), name)? {
        Some(child) => empty(&child, top, depth + 1, moved)?,
        None => return Ok(()),
    }
    remove_directory(directory.as_fd(), name)
}

/// Moves a directory to the top, where a later pass of `empty` finds it.
fn move_up(directory: &OwnedFd, top: BorrowedFd<'_>, moved: &mut u64, name: &CStr) -> Result<()> {
    // Its `..` changes, for which it must be writable.
    open_up(directory.as_fd(), name)?;
    loop {
        *moved += 1;
        let place = format!(".deep-{moved}");
        let answer = permitting(directory, || {
            rustix::fs::renameat_with(directory, name, top, place.as_str(), RenameFlags::NOREPLACE)
        });
        match answer {
            Err(Errno::EXIST) => {}
            answer => return Ok(answer?),
        }
    }
}

/// Removes a directory that has nothing in it, as most have of what a container leaves: nobody need be able to look into it,
/// as overlayfs's own directory denies. Whatever else is the case, the long way finds out.
fn remove_empty(parent: BorrowedFd<'_>, name: &CStr) -> bool {
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).is_ok()
}

fn remove_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    match permitting(parent, || rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)) {
        Err(Errno::NOENT) => Ok(()),
        answer => Ok(answer?),
    }
}

/// Tries again with the directory opened up to its owner.
fn permitting<T>(directory: impl AsFd, act: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    match act() {
        Err(Errno::ACCESS) => {
            // The parent of the whole tree is open as a path only and is not ours to change.
            if rustix::fs::fchmod(&directory, OWNER_ALL).is_err() {
                return Err(Errno::ACCESS);
            }
            act()
        }
        answer => answer,
    }
}

/// Opens a directory, or nothing if it is gone. Refuses symlinks and mounts.
fn open(parent: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let open = || rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve);
    let answer = match open() {
        Err(Errno::ACCESS) => open_up(parent, name).and_then(|()| Ok(open()?)),
        answer => Ok(answer?),
    };
    match answer {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(None),
        Err(error) if error.errno() == Some(Errno::XDEV) => Err(error.context("something is mounted here")),
        Err(error) => Err(error),
    }
}

/// Gives the owner all rights to a directory that may not even be opened.
fn open_up(parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    Ok(set_mode_of_path(&fd, OWNER_ALL)?)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a crash")]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn directory(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("kept"), "x").unwrap();
        let tree = outside.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        symlink(outside.path(), tree.join("a/out")).unwrap();
        symlink("missing", tree.join("a/b/dangling")).unwrap();
        std::fs::hard_link(outside.path().join("kept"), tree.join("a/hard")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, tree.join("fifo"), OWNER_ALL).unwrap();
        std::fs::set_permissions(tree.join("a/b"), std::fs::Permissions::from_mode(0o000)).unwrap();
        std::fs::set_permissions(tree.join("a"), std::fs::Permissions::from_mode(0o555)).unwrap();
        let parent = directory(outside.path());
        remove_tree(&parent, "tree").unwrap();
        assert!(!tree.exists());
        assert_eq!(std::fs::read(outside.path().join("kept")).unwrap(), b"x");
        symlink("kept", outside.path().join("link")).unwrap();
        remove_tree(&parent, "link").unwrap();
        assert!(outside.path().join("kept").exists());
        remove_tree(&parent, "link").unwrap();
    }

    #[test]
    fn depth_costs_no_descriptors() {
        let outside = tempfile::tempdir().unwrap();
        let parent = directory(outside.path());
        let mut deep = directory(outside.path());
        for level in 0..3000 {
            rustix::fs::mkdirat(&deep, "deep", OWNER_ALL).unwrap();
            deep = rustix::fs::openat(&deep, "deep", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
            if level % 100 == 0 {
                rustix::fs::mkdirat(&deep, ".deep-1", OWNER_ALL).unwrap();
            }
        }
        remove_tree(&parent, "deep").unwrap();
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_tree_of_another_user_is_removed_by_it_alone() {
        // Read-only directories deny only those without CAP_DAC_OVERRIDE, so the guard is tried as an ordinary user.
        if !rustix::process::geteuid().is_root() {
            return links_are_removed_and_not_followed();
        }
        let outside = tempfile::tempdir().unwrap();
        let tree = outside.path().join("tree");
        std::fs::create_dir_all(tree.join("shut/inner")).unwrap();
        std::fs::write(tree.join("shut/file"), "").unwrap();
        for path in
            [tree.join("shut/inner"), tree.join("shut/file"), tree.join("shut"), tree.clone(), outside.path().into()]
        {
            std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
        }
        for path in ["shut/inner", "shut", ""] {
            std::fs::set_permissions(tree.join(path), std::fs::Permissions::from_mode(0o000)).unwrap();
        }
        // Credentials are per thread in the kernel; rustix changes those of this thread only.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let parent = directory(outside.path());
                rustix::thread::set_thread_res_gid(
                    rustix::process::Gid::from_raw(65534),
                    rustix::process::Gid::from_raw(65534),
                    rustix::process::Gid::from_raw(65534),
                )
                .unwrap();
                let nobody = rustix::process::Uid::from_raw(65534);
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
                remove_tree(&parent, "tree").unwrap();
            });
        });
        assert!(!tree.exists());
    }
}
