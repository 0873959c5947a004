//! Layers merged into one plain directory, for hosts where overlayfs cannot be had.
//!
//! A file's contents are shared where that is safe: by reflink (`FICLONE`: btrfs, xfs, bcachefs), which a write to either
//! side takes apart. A hard link is the layer's own inode under a second name, and a container that writes to it would
//! change the layer for every other container; so links are made only for a root file system that is read-only for
//! the container. Elsewhere the bytes are copied, holes left out.
//!
//! Only layers from the store come in: verified, and free of the image's own overlay attributes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::image::unpack::{Form, Ownership};
use crate::namespaces::idmap::IdMaps;
use crate::support::remove::remove_tree;
use crate::support::root::Root;
use crate::support::xattr;

/// Whether the container may write to its root file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    Writable,
}

/// How contents came into the merged directory: the most expensive way that was needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    #[default]
    HardLink,
    Reflink,
    Copy,
}

const OPEN_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Merges layers, lowest first, into an empty directory. With `owners`, an id stands for what the maps say.
pub fn merge_layers(
    layers: &[PathBuf],
    target: OwnedFd,
    form: Form,
    access: Access,
    owners: Option<&IdMaps>,
) -> Result<Method> {
    let mut merge = Merge {
        target: Root::from_fd(target),
        form,
        owners,
        may_link: access == Access::ReadOnly && owners.is_none(),
        may_clone: true,
        method: Method::HardLink,
    };
    for layer in layers {
        merge.add_layer(layer).with_context(|| format!("copy layer {}", layer.display()))?;
    }
    Ok(merge.method)
}

struct Merge<'a> {
    target: Root,
    form: Form,
    owners: Option<&'a IdMaps>,
    /// Turned off by the first refusal: what one file cannot have, its neighbours cannot either.
    may_link: bool,
    may_clone: bool,
    method: Method,
}

impl Merge<'_> {
    fn add_layer(&mut self, layer: &Path) -> Result<()> {
        let source = Root::open(layer)?;
        // Names of inodes with several names, so that the copies share one as well.
        let mut links: HashMap<u64, PathBuf> = HashMap::new();
        let mut directories = vec![PathBuf::new()];
        let mut done = 0;
        // A list instead of recursion: however deep the tree is, two directories are open.
        while let Some(path) = directories.get(done).cloned() {
            done += 1;
            let from = source.open_without_symlinks(&path, OPEN_DIRECTORY, Mode::empty())?;
            let to = self.target.open_without_symlinks(&path, OPEN_DIRECTORY, Mode::empty())?;
            for entry in Dir::read_from(&from)? {
                let entry = entry?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." {
                    continue;
                }
                let place = path.join(name);
                if self.add_entry(&from, &to, name, &place, &mut links).with_context(|| place.display().to_string())? {
                    directories.push(place);
                }
            }
        }
        // Last, and children first: making an entry changes its directory's time, and a mode may forbid it.
        for path in directories.iter().rev() {
            let from = source.open_without_symlinks(path, OPEN_DIRECTORY, Mode::empty())?;
            let to = self.target.open_without_symlinks(path, OPEN_DIRECTORY, Mode::empty())?;
            let stat = rustix::fs::fstat(&from)?;
            self.copy_attributes(from.as_fd(), to.as_fd(), &stat).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    /// Brings one entry over, and says whether it is a directory to descend into.
    fn add_entry(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &OsStr,
        place: &Path,
        links: &mut HashMap<u64, PathBuf>,
    ) -> Result<bool> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            let fd = rustix::fs::openat(from, name, OPEN_DIRECTORY, Mode::empty())?;
            let is_opaque = xattr::read(fd.as_fd(), self.form.overlay.opaque())?.is_some_and(|value| value == b"y");
            let stands = rustix::fs::statat(to, name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
            if is_opaque || !stands {
                remove_tree(to, name)?;
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            }
            return Ok(true);
        }
        remove_tree(to, name)?;
        match kind {
            FileType::RegularFile => self.add_file(from, to, name, place, &stat, links)?,
            FileType::CharacterDevice if stat.st_rdev == 0 => {}
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&target, to, name)?;
                self.copy_attributes_at(to, name, &stat)?;
            }
            _ => {
                rustix::fs::mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode & 0o777), stat.st_rdev)?;
                self.copy_attributes_at(to, name, &stat)?;
            }
        }
        Ok(false)
    }

    fn add_file(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &OsStr,
        place: &Path,
        stat: &Stat,
        links: &mut HashMap<u64, PathBuf>,
    ) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
        if stat.st_size == 0 && xattr::read(source.as_fd(), self.form.overlay.whiteout())?.is_some() {
            return Ok(());
        }
        if self.may_link {
            match rustix::fs::linkat(from, name, to, name, AtFlags::empty()) {
                Ok(()) => return Ok(()),
                // Another file system, too many links, or not our file (fs.protected_hardlinks).
                Err(Errno::XDEV | Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP) => self.may_link = false,
                Err(error) => return Err(error).context("link"),
            }
        }
        if stat.st_nlink > 1 {
            if let Some(first) = links.get(&stat.st_ino) {
                let (parent, first) = self.target.open_parent(first)?;
                rustix::fs::linkat(&parent, first, to, name, AtFlags::empty()).context("link")?;
                return Ok(());
            }
            links.insert(stat.st_ino, place.to_owned());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
        self.copy_contents(&source, &copy, stat.st_size.unsigned_abs())?;
        self.copy_attributes(source.as_fd(), copy.as_fd(), stat)
    }

    fn copy_contents(&mut self, source: &OwnedFd, copy: &OwnedFd, size: u64) -> Result<()> {
        if size == 0 {
            return Ok(());
        }
        if self.may_clone {
            match rustix::fs::ioctl_ficlone(copy, source) {
                Ok(()) => {
                    self.method = self.method.max(Method::Reflink);
                    return Ok(());
                }
                Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::NOTTY | Errno::INVAL | Errno::PERM) => {
                    self.may_clone = false;
                }
                Err(error) => return Err(error).context("clone"),
            }
        }
        self.method = Method::Copy;
        rustix::fs::ftruncate(copy, size).context("write")?;
        let mut position = 0;
        while position < size {
            let start = match rustix::fs::seek(source, SeekFrom::Data(position)) {
                Err(Errno::NXIO) => break, // a hole up to the end
                answer => answer.context("read")?,
            };
            let end = rustix::fs::seek(source, SeekFrom::Hole(start)).context("read")?;
            copy_range(source, copy, start, end)?;
            position = end;
        }
        Ok(())
    }

    fn owner(&self, stat: &Stat) -> Result<(Uid, Gid)> {
        let (mut uid, mut gid) = (stat.st_uid, stat.st_gid);
        if let Some(owners) = self.owners {
            let missing = |what: &str, id: u32| {
                Error::invalid(format!("{what} {id} owns a file of the image, and is none of the container's ids"))
                    .with_hint("ask for more ids by size=NUMBER")
            };
            uid = owners.uid_outside(uid).ok_or_else(|| missing("user", uid))?;
            gid = owners.gid_outside(gid).ok_or_else(|| missing("group", gid))?;
        }
        Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    /// Gives a copy the owner, mode, attributes and times of what it is a copy of.
    fn copy_attributes(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> Result<()> {
        if self.form.ownership == Ownership::Keep {
            let (uid, gid) = self.owner(stat)?;
            rustix::fs::fchown(to, Some(uid), Some(gid)).context("chown")?;
        }
        rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777)).context("chmod")?;
        copy_xattrs(from, to)?;
        rustix::fs::futimens(to, &times(stat)).context("set times")
    }

    fn copy_attributes_at(&self, to: &OwnedFd, name: &OsStr, stat: &Stat) -> Result<()> {
        let no_follow = AtFlags::SYMLINK_NOFOLLOW;
        if self.form.ownership == Ownership::Keep {
            let (uid, gid) = self.owner(stat)?;
            rustix::fs::chownat(to, name, Some(uid), Some(gid), no_follow).context("chown")?;
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            rustix::fs::chmodat(to, name, mode, AtFlags::empty()).context("chmod")?;
        }
        rustix::fs::utimensat(to, name, &times(stat), no_follow).context("set times")
    }
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds.try_into().unwrap_or(0) };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn copy_range(source: &OwnedFd, copy: &OwnedFd, start: u64, end: u64) -> Result<()> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let left = usize::try_from(end - read_at).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(source, Some(&mut read_at), copy, Some(&mut write_at), left) {
            Ok(0) => return Err(Errno::IO).context("read"),
            Ok(_) | Err(Errno::INTR) => {}
            // Across file systems before Linux 5.3, and where a file system has no such call.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return copy_through_memory(source, copy, read_at, end);
            }
            Err(error) => return Err(error).context("copy"),
        }
    }
    Ok(())
}

fn copy_through_memory(source: &OwnedFd, copy: &OwnedFd, mut position: u64, end: u64) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    while position < end {
        let left = usize::try_from(end - position).unwrap_or(usize::MAX).min(buffer.len());
        let length = match rustix::io::pread(source, &mut buffer[..left], position) {
            Ok(0) => return Err(Errno::IO).context("read"),
            Ok(length) => length,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error).context("read"),
        };
        let mut written = 0;
        while written < length {
            match rustix::io::pwrite(copy, &buffer[written..length], position + written as u64) {
                Ok(0) => return Err(Errno::IO).context("write"),
                Ok(more) => written += more,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("write"),
            }
        }
        position += length as u64;
    }
    Ok(())
}

fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    // The common case, at one call a file: there are none.
    let mut names = match rustix::fs::flistxattr_query(from) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
        Ok(length) => vec![0; length],
        Err(error) => return Err(error).context("list attributes"),
    };
    let length = rustix::fs::flistxattr(from, names.as_mut_slice()).context("list attributes")?;
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // The host's labels are its own; overlayfs's marks mean nothing outside a layer.
        let is_ours = name == b"security.capability"
            || name.starts_with(b"system.posix_acl_")
            || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."));
        if !is_ours {
            continue;
        }
        let text = String::from_utf8_lossy(name).into_owned();
        if let Some(value) = xattr::read(from, &text)? {
            rustix::fs::fsetxattr(to, name, &value, XattrFlags::empty())
                .with_context(|| format!("set attribute {text}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
