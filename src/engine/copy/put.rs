//! Writes entries below a directory, by descriptor. The directory may be a container's, which changes it meanwhile: each
//! entry's parent is found from the top without symlinks, and the entry is made new, never opened where something stands.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::{Feed, Sink};
use crate::error::{Context, Error, Kind, Result};
use crate::image::limits;
use crate::image::tar::{Entry, EntryKind};
use crate::support::remove::remove_tree;
use crate::support::root::Root;

/// Whose the copies are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// As before.
    Kept,
    /// The container's root, which has these ids here.
    Roots { uid: u32, gid: u32 },
    /// Who calls: set-user-id bits go, since they would make another's program the caller's.
    Callers,
}

/// Writes below a directory.
pub(super) struct Writer {
    directory: Root,
    /// What the top is called there.
    name: Option<OsString>,
    ownership: Ownership,
    overwrite: bool,
    /// Directories that were made, with what they are to be in the end.
    made: Vec<(PathBuf, Entry)>,
}

impl Writer {
    pub(super) fn new(directory: Root, name: Option<OsString>, ownership: Ownership, overwrite: bool) -> Self {
        Self { directory, name, ownership, overwrite, made: Vec::new() }
    }

    /// Gives directories their modes and times: what was written into them has changed the times, and a mode may forbid it.
    pub(super) fn finish(self) -> Result<()> {
        for (path, entry) in self.made.iter().rev() {
            let finish = || {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                match self.directory.open_without_symlinks(path, flags, Mode::empty()) {
                    // The container has taken it away.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
                    answer => self.apply(answer?.as_fd(), entry),
                }
            };
            finish().with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    /// Says where an entry goes, from the directory.
    fn place(&self, path: &[u8]) -> Result<PathBuf> {
        let mut place = PathBuf::from(self.name.as_deref().unwrap_or_default());
        if path.len() > limits::PATH_BYTES {
            return Err(Error::invalid(format!("limit: the name is longer than {} bytes", limits::PATH_BYTES)));
        }
        for component in path.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(Error::invalid("the name climbs with `..`")),
                component => place.push(OsStr::from_bytes(component)),
            }
        }
        Ok(place)
    }

    /// Opens the directory above a place, and gives the name in it.
    fn parent<'p>(&self, place: &'p Path) -> Result<(OwnedFd, &'p OsStr)> {
        let name = place.file_name().ok_or(Errno::INVAL)?;
        let parent = place.parent().unwrap_or(Path::new(""));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let opened = match self.directory.open_without_symlinks(parent, flags, Mode::empty()) {
            // Archives may leave directories out.
            Err(Errno::NOENT) => self.make_parents(parent)?,
            answer => answer.context("open the directory above")?,
        };
        Ok((opened, name))
    }

    fn make_parents(&self, path: &Path) -> Result<OwnedFd> {
        let mut done = PathBuf::new();
        for component in path {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let above = self.directory.open_without_symlinks(&done, flags, Mode::empty())?;
            done.push(component);
            match rustix::fs::mkdirat(&above, component, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno).context("make the directory above"),
            }
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        self.directory.open_without_symlinks(path, flags, Mode::empty()).context("open the directory above")
    }

    /// Makes room for an entry: what stands there goes, unless the one is a directory and the other is not.
    fn clear(&self, parent: &OwnedFd, name: &OsStr, is_directory: bool) -> Result<bool> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(true),
            answer => answer?,
        };
        let was_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        match (was_directory, is_directory) {
            (true, true) => return Ok(false),
            (true, false) if !self.overwrite => {
                return Err(Error::new(Kind::Exists, "cannot overwrite a directory with what is none"));
            }
            (false, true) if !self.overwrite => {
                return Err(Error::new(Kind::Exists, "cannot overwrite what is no directory with a directory"));
            }
            _ => {}
        }
        let is_device =
            matches!(FileType::from_raw_mode(stat.st_mode), FileType::CharacterDevice | FileType::BlockDevice);
        // No device is ever copied, so nothing would take its place that is as good.
        if is_device && !self.overwrite {
            return Err(Error::new(Kind::Exists, "cannot overwrite a device"));
        }
        remove_tree(parent, name)?;
        Ok(true)
    }

    fn make_file(&self, parent: &OwnedFd, name: &OsStr, entry: &Entry, feed: Feed<'_>) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR).context("make")?;
        feed(&mut |at, bytes| write_all(&file, at, bytes))?;
        rustix::fs::ftruncate(&file, entry.size).context("write")?;
        self.apply(file.as_fd(), entry)
    }

    /// Owner before mode, since a new owner takes set-id bits away; times last.
    fn apply(&self, file: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
        if let Some((uid, gid)) = self.owner(entry) {
            rustix::fs::fchown(file, Some(uid), Some(gid)).context("chown")?;
        }
        rustix::fs::fchmod(file, self.mode(entry)).context("chmod")?;
        rustix::fs::futimens(file, &times(entry)).context("set times")
    }

    /// The same of what is not opened.
    fn apply_at(&self, parent: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<()> {
        if let Some((uid, gid)) = self.owner(entry) {
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).context("chown")?;
        }
        rustix::fs::utimensat(parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW).context("set times")
    }

    fn owner(&self, entry: &Entry) -> Option<(Uid, Gid)> {
        match self.ownership {
            Ownership::Kept => Some((Uid::from_raw(entry.uid), Gid::from_raw(entry.gid))),
            Ownership::Roots { uid, gid } => Some((Uid::from_raw(uid), Gid::from_raw(gid))),
            Ownership::Callers => None,
        }
    }

    fn mode(&self, entry: &Entry) -> Mode {
        let kept = if self.ownership == Ownership::Callers { 0o1777 } else { 0o7777 };
        Mode::from_raw_mode(entry.mode & kept)
    }
}

impl Sink for Writer {
    fn put(&mut self, entry: &Entry, feed: Feed<'_>) -> Result<()> {
        let place = self.place(&entry.path)?;
        if place.as_os_str().is_empty() {
            // The directory itself, which is there.
            return Ok(());
        }
        let mut put = || {
            let (parent, name) = self.parent(&place)?;
            let is_new = self.clear(&parent, name, entry.kind == EntryKind::Directory)?;
            match entry.kind {
                EntryKind::Directory => {
                    if is_new {
                        rustix::fs::mkdirat(&parent, name, Mode::RWXU).context("make")?;
                        self.made.push((place.clone(), entry.clone()));
                    }
                    Ok(())
                }
                EntryKind::Regular => self.make_file(&parent, name, entry, feed),
                EntryKind::Symlink => {
                    rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), &parent, name).context("make")?;
                    self.apply_at(&parent, name, entry)
                }
                EntryKind::HardLink => {
                    // Both names are looked up without symlinks, and neither is followed.
                    let target = self.place(&entry.link)?;
                    let (directory, target) = self.parent(&target)?;
                    rustix::fs::linkat(&directory, target, &parent, name, AtFlags::empty()).context("link")
                }
                EntryKind::Fifo => {
                    rustix::fs::mknodat(
                        &parent,
                        name,
                        FileType::Fifo,
                        self.mode(entry) & Mode::from_raw_mode(0o777),
                        0,
                    )
                    .context("make")?;
                    self.apply_at(&parent, name, entry)
                }
                EntryKind::Character | EntryKind::Block => Err(Error::unsupported("a device is not copied")),
            }
        };
        put().map_err(|error: Error| error.context(place.display().to_string()))
    }
}

fn write_all(file: &OwnedFd, mut at: u64, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, at) {
            Ok(0) => return Err(Errno::IO).context("write"),
            Ok(length) => {
                at += length as u64;
                bytes = &bytes[length..];
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("write"),
        }
    }
    Ok(())
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.seconds, tv_nsec: i64::try_from(entry.mtime.nanoseconds).unwrap_or(0) };
    Timestamps { last_access: time, last_modification: time }
}
