//! Paths below a directory descriptor.
//!
//! A [`Root`] is the only way in which husk reaches into a root file system or a layer: every path is resolved by
//! `openat2(2)` with `RESOLVE_IN_ROOT`, so symlinks and `..` stay inside whatever the tree's owner does meanwhile.
//! It never hands out a joined path. (CVE-2021-30465, CVE-2024-45310 and their kin are joins that were swapped.)

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// The kernel answers EAGAIN when a rename anywhere raced with `..`; 0.4 % of tries under a constant attack.
const RESOLVE_TRIES: usize = 256;

/// As many symlinks as the kernel follows in one path (path_resolution(7)).
const LINK_LIMIT: usize = 40;

/// A directory below which paths are resolved.
pub struct Root(OwnedFd);

impl Root {
    /// Opens a directory of the host as a root. The last component may not be a symlink.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .with_context(|| format!("open directory {}", path.display()))?;
        Ok(Self(fd))
    }

    /// Takes a directory descriptor as a root.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Gives the descriptor back.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Opens `path` inside the root; symlinks are followed as if the root were `/`, magic links are refused.
    pub fn open_at(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        self.resolve(path, flags, mode, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// Opens `path` inside the root, refusing every symlink on the way.
    pub fn open_without_symlinks(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        self.resolve(path, flags, mode, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS)
    }

    /// Opens the directory that holds `path` and gives the last component, which is not looked at.
    ///
    /// Fails with EINVAL where there is no last component (`/`, `a/..`).
    pub fn open_parent(&self, path: &Path) -> Result<(OwnedFd, OsString), Errno> {
        let (parent, name) = split(path).ok_or(Errno::INVAL)?;
        let fd = self.open_at(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok((fd, name.to_owned()))
    }

    /// Makes `path` and what is missing above it, one component at a time by descriptor, and opens it.
    ///
    /// Symlinks are followed inside the root. A dangling one fails with ENOENT rather than being guessed at.
    pub fn make_directories(&self, path: &Path, mode: Mode) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // The usual case: it is all there.
        match self.open_at(path, flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            answer => return answer,
        }
        let mut done = PathBuf::from(".");
        let mut directory = self.open_at(&done, flags, Mode::empty())?;
        for component in path.components() {
            let name = match component {
                Component::Normal(name) => name,
                Component::ParentDir => OsStr::new(".."),
                _ => continue,
            };
            done.push(name);
            directory = match self.open_at(&done, flags, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&directory, name, mode) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error),
                    }
                    self.open_at(&done, flags, Mode::empty())?
                }
                Err(error) => return Err(error),
            };
        }
        Ok(directory)
    }

    /// Gives the path without symlinks that `path` stands for, as if what is missing were there.
    ///
    /// For making what a dangling symlink names (images have `/etc/resolv.conf` so). Only a suggestion by the time that it
    /// is used: opening it is still bound to the root.
    pub fn follow_missing(&self, path: &Path) -> Result<PathBuf, Errno> {
        let mut done = PathBuf::from("/");
        let mut left: Vec<PathBuf> = vec![path.to_owned()];
        let mut links = 0;
        while let Some(next) = left.pop() {
            let mut components = next.components();
            let Some(component) = components.next() else { continue };
            left.push(components.as_path().to_owned());
            let name = match component {
                Component::Normal(name) => name,
                Component::ParentDir => {
                    done.pop();
                    continue;
                }
                Component::RootDir | Component::Prefix(_) => {
                    done = PathBuf::from("/");
                    continue;
                }
                Component::CurDir => continue,
            };
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            match self.open_without_symlinks(&done.join(name), flags, Mode::empty()) {
                Ok(fd) if is_symlink(&fd)? => {
                    links += 1;
                    if links > LINK_LIMIT {
                        return Err(Errno::LOOP);
                    }
                    let target = rustix::fs::readlinkat(&fd, c"", Vec::new())?;
                    left.push(PathBuf::from(OsStr::from_bytes(target.to_bytes())));
                }
                Ok(_) | Err(Errno::NOENT) => done.push(name),
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    /// Reads a regular file of at most `limit` bytes; FIFOs and devices are refused, so that nothing blocks.
    pub fn read(&self, path: &Path, limit: usize) -> Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = self.open_at(path, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(Error::invalid("not a regular file"));
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::from(fd);
        std::io::Read::read_to_end(&mut std::io::Read::take(file, limit as u64 + 1), &mut bytes)?;
        if bytes.len() > limit {
            return Err(Error::invalid(format!("larger than {limit} bytes")));
        }
        Ok(bytes)
    }

    fn resolve(&self, path: &Path, flags: OFlags, mode: Mode, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
        // openat2 refuses an empty path and takes an absolute one from the root.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = flags | OFlags::CLOEXEC;
        let mut answer = Err(Errno::AGAIN);
        for _ in 0..RESOLVE_TRIES {
            answer = rustix::fs::openat2(&self.0, path, flags, mode, resolve);
            if !matches!(answer, Err(Errno::AGAIN | Errno::INTR)) {
                break;
            }
        }
        answer
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn is_symlink(fd: &OwnedFd) -> Result<bool, Errno> {
    let mode = rustix::fs::fstat(fd)?.st_mode;
    Ok(rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::Symlink)
}

/// Splits a path into the directory and the last component, without touching the file system.
fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    let name = path.file_name()?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some((parent, name))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "fixtures are not state")]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn paths_stay_inside() {
        let outside = tempfile::tempdir().unwrap();
        let tree = outside.path().join("root");
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(outside.path().join("secret"), "no").unwrap();
        symlink(outside.path(), tree.join("absolute")).unwrap();
        symlink("../..", tree.join("climbing")).unwrap();
        symlink("/proc/self/root", tree.join("magic")).unwrap();
        let root = Root::open(&tree).unwrap();
        for path in ["absolute/secret", "../secret", "climbing/secret", "a/../../secret", "/../secret", "magic/etc"] {
            assert!(root.open_at(Path::new(path), OFlags::RDONLY, Mode::empty()).is_err(), "{path} escaped");
        }
        assert!(root.open_without_symlinks(Path::new("climbing"), OFlags::PATH, Mode::empty()).is_err());
    }

    #[test]
    fn directories_are_made_inside() {
        let outside = tempfile::tempdir().unwrap();
        let tree = outside.path().join("root");
        std::fs::create_dir_all(tree.join("real")).unwrap();
        symlink("/real", tree.join("link")).unwrap();
        symlink("/missing", tree.join("dangling")).unwrap();
        let root = Root::open(&tree).unwrap();
        root.make_directories(Path::new("/link/a/b"), Mode::from_raw_mode(0o755)).unwrap();
        assert!(tree.join("real/a/b").is_dir());
        root.make_directories(Path::new("../../c/d"), Mode::from_raw_mode(0o755)).unwrap();
        assert!(tree.join("c/d").is_dir());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
        assert!(root.make_directories(Path::new("dangling/x"), Mode::from_raw_mode(0o755)).is_err());
    }

    #[test]
    fn a_dangling_symlink_names_a_place_inside() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir(tree.path().join("etc")).unwrap();
        symlink("../../../run/x/y", tree.path().join("etc/climbing")).unwrap();
        symlink("/etc/climbing", tree.path().join("absolute")).unwrap();
        symlink("loop", tree.path().join("loop")).unwrap();
        let root = Root::open(tree.path()).unwrap();
        for (path, expected) in [
            ("/etc/climbing", Ok("/run/x/y")),
            ("absolute/z", Ok("/run/x/y/z")),
            ("/missing/../../etc/new", Ok("/etc/new")),
            ("loop/a", Err(Errno::LOOP)),
        ] {
            assert_eq!(root.follow_missing(Path::new(path)), expected.map(PathBuf::from), "{path}");
        }
    }

    #[test]
    fn reading_refuses_what_blocks_or_floods() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::write(tree.path().join("big"), [0; 11]).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, tree.path().join("fifo"), Mode::from_raw_mode(0o600)).unwrap();
        let root = Root::open(tree.path()).unwrap();
        assert!(root.read(Path::new("big"), 10).is_err());
        assert_eq!(root.read(Path::new("big"), 11).unwrap().len(), 11);
        assert!(root.read(Path::new("fifo"), 10).is_err());
    }
}
