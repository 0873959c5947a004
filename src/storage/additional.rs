//! Additional stores: those of other data roots, whose images are used where they lie.
//!
//! Nothing is ever made or changed in one, not even a lock, so it may be on a read-only mount. An image is complete in the
//! store that records it, which is why no image is put together from the layers of several stores. What lies in a store
//! decides what runs: one that belongs to somebody else, or that others may write in, is refused.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::image::digest::Digest;
use crate::image::unpack::Form;
use crate::support::lock::{Lock, Sharing};

use super::images::{Held, ImageRecord};
use super::store::{LayerFacts, Store, StoreView};

/// `S_IWGRP | S_IWOTH`.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The caller's own store, and those that are read besides.
pub struct Stores {
    pub own: Store,
    /// In the order in which they are asked.
    pub others: Vec<StoreView>,
}

impl Stores {
    /// Gives all stores, in the order in which they are asked.
    pub fn views(&self) -> impl Iterator<Item = &StoreView> {
        std::iter::once(&*self.own).chain(&self.others)
    }

    /// Keeps what is in the stores in place, as far as it is in our hands: in a store without a lock that we may open,
    /// nobody is expected to remove anything.
    pub fn hold(&self) -> Result<Vec<Held>> {
        let mut held = vec![self.own.hold()?];
        for other in &self.others {
            held.extend(other.hold_existing()?);
        }
        Ok(held)
    }

    /// Finds the first store that has an image.
    pub fn with_image(&self, id: &Digest) -> Result<Option<&StoreView>> {
        for view in self.views() {
            if view.image(id)?.is_some() {
                return Ok(Some(view));
            }
        }
        Ok(None)
    }

    /// Says what is in a layer, by the first store that has it.
    pub fn layer_facts(&self, diff_id: &Digest) -> Result<Option<LayerFacts>> {
        self.first(|view| view.layer_facts(diff_id))
    }

    /// Opens a blob of the first store that has it, and says how long it is.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<(File, u64)>> {
        self.first(|view| view.open_blob(digest))
    }

    /// Finds layers, lowest first, in the first store that has them all.
    pub fn layer_paths(&self, diff_ids: &[Digest]) -> Result<Option<Vec<PathBuf>>> {
        self.first(|view| view.layer_paths(diff_ids))
    }

    fn first<T>(&self, ask: impl Fn(&StoreView) -> Result<Option<T>>) -> Result<Option<T>> {
        self.views().map(ask).find_map(Result::transpose).transpose()
    }
}

impl StoreView {
    /// Opens the store of another data root, for the user `uid`.
    pub fn open_additional(data_root: &Path, form: Form, uid: u32) -> Result<Self> {
        let open = || {
            let folder = open_trusted(rustix::fs::CWD, data_root, uid)?;
            open_trusted(folder.as_fd(), Path::new("store"), uid).context("store")
        };
        let root = open().with_context(|| format!("additional store {}", data_root.display()))?;
        Ok(Self::new(&data_root.join("store"), root, form))
    }

    /// Says whether the layers of an image are here in the caller's form.
    pub fn has_layers(&self, image: &ImageRecord) -> Result<bool> {
        let diff_ids: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id).collect();
        Ok(self.layer_paths(&diff_ids)?.is_some())
    }

    /// Keeps others from sweeping the store, if it has a lock and we may open it.
    fn hold_existing(&self) -> Result<Option<Held>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(self.root(), "lock", flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::ACCESS) => return Ok(None),
            file => file.map_err(Error::from),
        };
        let lock = file.and_then(|file| Lock::wait(file, Sharing::Shared, |_| ()));
        lock.map(|lock| Some(Held::new(lock))).with_context(|| format!("lock the store {}", self.path().display()))
    }
}

fn open_trusted(parent: impl AsFd, path: &Path, uid: u32) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(parent, path, flags, Mode::empty()) {
        // O_DIRECTORY with O_NOFOLLOW says ENOTDIR of a symlink.
        Err(Errno::NOTDIR) => {
            return Err(Error::invalid("is a symlink or no directory").with_hint("configure the path that it leads to"));
        }
        answer => answer.context("open")?,
    };
    let stat = rustix::fs::fstat(&fd).context("inspect")?;
    if stat.st_uid != uid && stat.st_uid != 0 {
        return Err(Error::invalid(format!("belongs to user {}, neither to root nor to {uid}", stat.st_uid)));
    }
    if stat.st_mode & WRITABLE_BY_OTHERS != 0 {
        let mode = stat.st_mode & 0o7777;
        return Err(Error::invalid(format!("others may write in it (mode {mode:04o})")));
    }
    Ok(fd)
}
