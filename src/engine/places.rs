//! Places below the run root where files of images and containers are mounted for people to look at, by `image mount` and
//! `mount`. What is mounted there is the caller's affair.
//!
//! Mounting is root's. An ordinary user is root inside of `husk unshare`, where a mount lasts as long as that does.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::engine::Engine;
use crate::error::{Context, Error, Kind, Result};
use crate::rootfs::mount::attach;
use crate::support::mountinfo;
use crate::support::root::Root;

/// A folder of places.
pub(super) struct Places {
    folder: PathBuf,
}

impl Places {
    pub(super) fn of(engine: &Engine, name: &str) -> Self {
        Self { folder: engine.settings.run_root.join(name) }
    }

    /// Where something of this name is mounted.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Attaches a tree, in a place that is made for it.
    pub(super) fn attach(&self, name: &str, tree: impl AsFd) -> Result<PathBuf> {
        let place = self.path(name);
        match rustix::fs::mkdirat(self.open()?, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).with_context(|| format!("make {}", place.display())),
        }
        attach(tree, Root::open(&place)?).with_context(|| format!("mount on {}", place.display()))?;
        Ok(place)
    }

    /// Takes a mount away, and its place; that there is none is no error.
    pub(super) fn take_away(&self, name: &str) -> Result<()> {
        match rustix::mount::unmount(self.path(name), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Nothing is mounted there, or there is nothing. An ordinary user has what a namespace has left: with the place, a
            // mount on it goes in all others (kernel 3.18).
            Ok(()) | Err(Errno::INVAL | Errno::NOENT | Errno::PERM) => {}
            Err(errno) => return Err(errno.into()),
        }
        let Some(folder) = self.open_existing()? else { return Ok(()) };
        match rustix::fs::unlinkat(&folder, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).with_context(|| format!("remove {name}")),
        }
    }

    /// Says whether there is a place of this name; what was mounted there may have ended with its namespace.
    pub(super) fn is_taken(&self, name: &str) -> bool {
        rustix::fs::stat(self.path(name)).is_ok()
    }

    /// Gives what is mounted in the folder, of this machine's mounts or this namespace's.
    pub(super) fn mounted(&self) -> Result<HashSet<PathBuf>> {
        let table = std::fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
        let points = mountinfo::parse(&table)?.into_iter().map(|mount| mount.point);
        // The table has no links in its paths.
        let real = std::fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let inside = points.filter_map(|point| Some(self.folder.join(point.strip_prefix(&real).ok()?)));
        Ok(inside.filter(|point| *point != self.folder).collect())
    }

    /// Opens the folder, and makes it where it is missing.
    pub(super) fn open(&self) -> Result<OwnedFd> {
        match rustix::fs::mkdirat(CWD, &self.folder, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).with_context(|| format!("make {}", self.folder.display())),
        }
        open_path(&self.folder).with_context(|| format!("open {}", self.folder.display()))
    }

    pub(super) fn open_existing(&self) -> Result<Option<OwnedFd>> {
        match open_path(&self.folder) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("open {}", self.folder.display())),
        }
    }
}

/// Refuses who cannot mount.
pub(super) fn check_rights() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::new(Kind::State, "an ordinary user cannot mount anything here")
        .with_hint("`husk unshare` opens a shell in which you can"))
}

fn open_path(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}
