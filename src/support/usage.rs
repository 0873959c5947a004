//! What a tree takes of the disk, counted as du(1) counts it: blocks and not lengths, a file with several names once.
//!
//! Never follows a symlink, never enters a mount, and holds few descriptors however deep the tree is.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// Bytes of `st_blocks`, whatever the file system's own blocks are (stat(3type)).
const BLOCK_BYTES: u64 = 512;

/// Counts trees; what was counted in one is not counted again in the next.
#[derive(Default)]
pub struct Usage {
    /// Files with several names: device and inode.
    seen: HashSet<(u64, u64)>,
    /// Directories are not counted themselves.
    files_only: bool,
}

impl Usage {
    /// Counts files alone: what somebody has written, whatever the directories take in which it lies.
    pub fn of_files() -> Self {
        Self { files_only: true, ..Self::default() }
    }

    /// Counts `name` in `parent` and all below it; nothing where it is missing, or vanishes meanwhile.
    pub fn of_tree(&mut self, parent: BorrowedFd<'_>, name: &str) -> Result<u64> {
        let mut count = || -> Result<u64> {
            let Some(stat) = look(parent, &CString::new(name)?)? else { return Ok(0) };
            let mut bytes = self.of_file(&stat);
            if is_directory(&stat)
                && let Some(directory) = open(parent, &CString::new(name)?)?
            {
                bytes += self.below(directory, stat.st_dev)?;
            }
            Ok(bytes)
        };
        count().map_err(|error: Error| error.context(format!("measure {name}")))
    }

    /// Goes down and up again with one descriptor for each directory that has directories left to visit, and no more.
    fn below(&mut self, top: OwnedFd, device: u64) -> Result<u64> {
        let mut bytes = 0;
        // A level holds the names of its directories that are still to be counted. Only the lowest is open.
        let mut levels = vec![self.level(&top, device, &mut bytes)?];
        let mut here = top;
        while let Some((identity, pending)) = levels.last_mut() {
            let Some(name) = pending.pop() else {
                levels.pop();
                if let Some((above, _)) = levels.last() {
                    here = up(&here, *above)?;
                }
                continue;
            };
            debug_assert_eq!(*identity, identify(&here)?, "levels and directories go together");
            if let Some(child) = open(here.as_fd(), &name)? {
                levels.push(self.level(&child, device, &mut bytes)?);
                here = child;
            }
        }
        Ok(bytes)
    }

    fn level(&mut self, directory: &OwnedFd, device: u64, bytes: &mut u64) -> Result<((u64, u64), Vec<CString>)> {
        let mut pending = Vec::new();
        for entry in Dir::read_from(directory).context("list a directory")? {
            let entry = entry.context("list a directory")?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Some(stat) = look(directory.as_fd(), name)? else { continue };
            if stat.st_dev != device {
                continue;
            }
            *bytes += self.of_file(&stat);
            if is_directory(&stat) {
                pending.push(name.to_owned());
            }
        }
        Ok((identify(directory)?, pending))
    }

    fn of_file(&mut self, stat: &Stat) -> u64 {
        if self.files_only && is_directory(stat) {
            return 0;
        }
        let is_counted = is_directory(stat) || stat.st_nlink < 2 || self.seen.insert((stat.st_dev, stat.st_ino));
        if is_counted { u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK_BYTES } else { 0 }
    }
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn look(parent: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<Option<Stat>> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error).with_context(|| name.to_string_lossy().escape_debug().to_string()),
    }
}

fn open(parent: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error).with_context(|| name.to_string_lossy().escape_debug().to_string()),
    }
}

/// Goes to the directory above, which must be the one that was come from.
fn up(directory: &OwnedFd, expected: (u64, u64)) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let above = rustix::fs::openat(directory, c"..", flags, Mode::empty()).context("open ..")?;
    if identify(&above)? == expected {
        return Ok(above);
    }
    Err(Error::new(crate::error::Kind::State, "a directory was moved while it was measured"))
}

fn identify(directory: &OwnedFd) -> Result<(u64, u64)> {
    let stat = rustix::fs::fstat(directory).context("look at a directory")?;
    Ok((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a crash")]
mod tests {
    use super::*;

    #[test]
    fn as_du_counts() {
        let place = tempfile::tempdir().unwrap();
        let tree = place.path().join("tree");
        let mut deep = tree.clone();
        for _ in 0..100 {
            deep.push("d");
        }
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("bottom"), vec![1; 50_000]).unwrap();
        std::fs::write(tree.join("file"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(tree.join("file"), tree.join("again")).unwrap();
        std::fs::File::create(tree.join("sparse")).unwrap().set_len(1 << 30).unwrap();
        std::os::unix::fs::symlink("/usr", tree.join("link")).unwrap();
        let parent: OwnedFd = std::fs::File::open(place.path()).unwrap().into();
        let counted = Usage::default().of_tree(parent.as_fd(), "tree").unwrap();
        let du = std::process::Command::new("du").args(["-s", "--block-size=1"]).arg(&tree).output().unwrap();
        let du = String::from_utf8(du.stdout).unwrap();
        assert_eq!(counted.to_string(), du.split('\t').next().unwrap());
        assert_eq!(Usage::default().of_tree(parent.as_fd(), "missing").unwrap(), 0);
    }
}
