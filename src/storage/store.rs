//! The store of layers: finds them by diff id, and makes those that are missing.
//!
//! What is in place is complete: a layer comes there by one rename, after every one of its bytes is verified. Two
//! processes that want the same layer share the work, since the second waits for the first. What a killed process left
//! in `tmp/` is removed by the next one that has to unpack something. It never removes a layer.

use std::fs::File;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Access, AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::image::digest::Digest;
use crate::image::limits::LayerLimits;
use crate::image::resolve::{Image, LayerReader};
use crate::image::unpack::{Form, unpack_layer};
use crate::support::atomic;
use crate::support::remove::remove_tree;

use super::lock::Lock;

const PRIVATE: Mode = Mode::RWXU;
const OPEN_PATH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Inflating, hashing and writing one layer keeps a core busy; more threads than this only fight for the disk.
const MOST_THREADS: usize = 4;

/// A store for who only reads it, and the form in which layers are needed. Nothing here makes or changes a file.
pub struct StoreView {
    path: PathBuf,
    root: OwnedFd,
    form: Form,
}

/// The caller's own store, which can be read and written.
pub struct Store {
    view: StoreView,
    limits: LayerLimits,
}

impl Deref for Store {
    type Target = StoreView;

    fn deref(&self) -> &StoreView {
        &self.view
    }
}

/// The file beside a layer that says what is in it.
pub(super) const FACTS: &str = "layer.json";

/// What is known of a layer that is in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerFacts {
    /// Bytes of its regular files.
    pub size: u64,
    /// Entries of its tar.
    pub entries: u64,
}

/// What happens while layers are made, for a person who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Another process is unpacking this layer.
    Waiting { diff_id: Digest },
    /// This process begins to unpack the layer at this place of `total`.
    Unpacking { diff_id: Digest, index: usize, total: usize },
    /// It is done.
    Unpacked { diff_id: Digest, entries: u64 },
}

impl StoreView {
    pub(super) fn new(path: &Path, root: OwnedFd, form: Form) -> Self {
        Self { path: path.to_owned(), root, form }
    }

    /// Says where the store is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says in which form this caller's layers are.
    pub fn form(&self) -> Form {
        self.form
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Finds the layers of an image, lowest first, or nothing if one is missing. One system call a layer.
    pub fn find_layers(&self, image: &Image) -> Result<Option<Vec<PathBuf>>> {
        let diff_ids: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id).collect();
        self.layer_paths(&diff_ids)
    }

    /// Finds layers, lowest first, or nothing if one is missing.
    ///
    /// Layers below one that hides everything are left out, and so is all but the last of equal layers, since
    /// overlayfs refuses the same directory twice and the last one covers the others.
    pub fn layer_paths(&self, diff_ids: &[Digest]) -> Result<Option<Vec<PathBuf>>> {
        let mut layers = Vec::with_capacity(diff_ids.len());
        for (index, diff_id) in diff_ids.iter().enumerate() {
            let Some((path, is_opaque)) = self.find(diff_id)? else { return Ok(None) };
            if is_opaque {
                layers.clear();
            }
            if diff_ids[index + 1..].iter().all(|above| above != diff_id) {
                layers.push(self.path.join(path));
            }
        }
        Ok(Some(layers))
    }

    /// Says what is in a layer; none where it is not in the store.
    pub fn layer_facts(&self, diff_id: &Digest) -> Result<Option<LayerFacts>> {
        let Some((path, _)) = self.find(diff_id)? else { return Ok(None) };
        let Some((directory, _)) = path.rsplit_once('/') else { return Ok(None) };
        let fd = rustix::fs::openat(&self.root, directory, OPEN_PATH, Mode::empty())?;
        let facts = atomic::read(fd.as_fd(), FACTS, 4096)?.unwrap_or_default();
        Ok(Some(serde_json::from_slice(&facts).unwrap_or_default()))
    }

    /// Says where a layer is, relative to the store, and whether it hides everything below.
    pub(super) fn find(&self, diff_id: &Digest) -> Result<Option<(String, bool)>> {
        for (name, is_opaque) in [("diff", false), ("opaque", true)] {
            let path = format!("layers/{}/{}/{}/{name}", self.form.name(), diff_id.algorithm().name(), diff_id.hex());
            match rustix::fs::accessat(&self.root, path.as_str(), Access::EXISTS, AtFlags::empty()) {
                Ok(()) => return Ok(Some((path, is_opaque))),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error).with_context(|| format!("look at {}/{path}", self.path.display())),
            }
        }
        Ok(None)
    }
}

impl Store {
    /// Opens a store, making its directory if it is missing. The path is the caller's own and may hold symlinks.
    pub fn open(path: &Path, form: Form) -> Result<Self> {
        let open = || rustix::fs::open(path, OPEN_PATH, Mode::empty());
        let root = match open() {
            Err(Errno::NOENT) => make_private(path).and_then(|()| Ok(open()?)),
            answer => answer.map_err(Into::into),
        }
        .with_context(|| format!("open the store {}", path.display()))?;
        Ok(Self { view: StoreView::new(path, root, form), limits: LayerLimits::default() })
    }

    /// Replaces the limits on layers.
    #[must_use]
    pub fn with_limits(mut self, limits: LayerLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Finds the layers of an image, lowest first, and makes those that are missing.
    pub fn ensure_layers(
        &self,
        image: &Image,
        reader: &dyn LayerReader,
        report: &(dyn Fn(Event) + Sync),
    ) -> Result<Vec<PathBuf>> {
        if let Some(layers) = self.find_layers(image)? {
            return Ok(layers);
        }
        let places = self.open_places().with_context(|| format!("prepare the store {}", self.path.display()))?;
        places.sweep()?;
        let mut missing = Vec::new();
        for (index, layer) in image.layers.iter().enumerate() {
            let is_repeated = image.layers[..index].iter().any(|below| below.diff_id == layer.diff_id);
            if !is_repeated && self.find(&layer.diff_id)?.is_none() {
                missing.push(index);
            }
        }
        // The longest first, so that no thread is left alone with it at the end.
        missing.sort_by_key(|index| std::cmp::Reverse(image.layers[*index].blob.size));
        self.make_layers(image, reader, &places, &missing, report)?;
        self.find_layers(image)?.ok_or_else(|| Error::new(crate::error::Kind::Other, "a layer vanished from the store"))
    }

    /// Makes an unnamed file for what has to lie on disk for a while.
    pub fn scratch_file(&self) -> Result<File> {
        let make = || {
            let directory = open_private(self.root.as_fd(), "tmp")?;
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            match rustix::fs::openat(&directory, ".", flags, Mode::RUSR | Mode::WUSR) {
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => scratch_by_name(&directory),
                answer => Ok(answer?),
            }
        };
        make().map(File::from).with_context(|| format!("make a temporary file in {}", self.path.display()))
    }

    fn open_places(&self) -> Result<Places> {
        let staging = open_private(self.root.as_fd(), "tmp")?;
        let layers = open_private(self.root.as_fd(), "layers")?;
        let layers = open_private(layers.as_fd(), self.form.name())?;
        Ok(Places { staging, layers })
    }

    fn make_layers(
        &self,
        image: &Image,
        reader: &dyn LayerReader,
        places: &Places,
        missing: &[usize],
        report: &(dyn Fn(Event) + Sync),
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        let failure: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        let work = || {
            while let Some(&index) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                let made = self.make_layer(image, index, reader, places, report);
                if let Err(error) = made {
                    // The others finish what they have begun: it is kept, and the next try begins there.
                    next.store(missing.len(), Ordering::Relaxed);
                    let mut first = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    if first.as_ref().is_none_or(|(earlier, _)| *earlier > index) {
                        *first = Some((index, error));
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..missing.len().min(reader.parallel()).min(MOST_THREADS) {
                // Where no thread can be had, this one does all the work.
                let _ = std::thread::Builder::new().name("unpack".to_owned()).spawn_scoped(scope, work);
            }
            work();
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some((index, error)) => {
                let (number, total, diff_id) = (index + 1, image.layers.len(), image.layers[index].diff_id);
                let error = error.context(format!("layer {number} of {total} ({diff_id})"));
                Err(match error.errno() {
                    Some(Errno::NOSPC | Errno::DQUOT) => error
                        .context(format!("write to the store {}", self.path.display()))
                        .with_hint("make room there: the next pull goes on with what has come"),
                    _ => error,
                })
            }
        }
    }

    /// Makes one layer, or waits until another process has made it.
    fn make_layer(
        &self,
        image: &Image,
        index: usize,
        reader: &dyn LayerReader,
        places: &Places,
        report: &(dyn Fn(Event) + Sync),
    ) -> Result<()> {
        let layer = &image.layers[index];
        let diff_id = layer.diff_id;
        let key = format!("{}.{}.{}", self.form.name(), diff_id.algorithm().name(), diff_id.hex());
        let staging = places.staging.as_fd();
        let waiting = || report(Event::Waiting { diff_id });
        let _lock = Lock::take(staging, &format!("{key}.lock"), waiting)?;
        if self.find(&diff_id)?.is_some() {
            return Ok(());
        }
        let target = open_private(places.layers.as_fd(), diff_id.algorithm().name())?;
        remove_tree(staging, &key)?;
        let stage = RemoveOnDrop { directory: staging, name: &key };
        let directory = open_private(staging, &key)?;
        rustix::fs::mkdirat(&directory, "diff", PRIVATE)?;
        rustix::fs::chmodat(&directory, "diff", PRIVATE, AtFlags::empty())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::openat(&directory, "diff", flags, Mode::empty())?;
        report(Event::Unpacking { diff_id, index, total: image.layers.len() });
        let unpacked =
            reader.open_layer(index).and_then(|packed| unpack_layer(packed, layer, root, self.form, self.limits));
        let closed = reader.close_layer(index, unpacked.is_ok());
        let unpacked = unpacked?;
        closed?;
        let facts = serde_json::to_vec(&LayerFacts { size: unpacked.bytes, entries: unpacked.entries })?;
        atomic::create(directory.as_fd(), FACTS, &facts)?;
        if unpacked.is_opaque {
            rustix::fs::renameat(&directory, "diff", &directory, "opaque")?;
        }
        rustix::fs::renameat(staging, key.as_str(), &target, diff_id.hex()).context("move the layer into place")?;
        std::mem::forget(stage);
        report(Event::Unpacked { diff_id, entries: unpacked.entries });
        Ok(())
    }
}

/// The directories of a store that are written to.
struct Places {
    staging: OwnedFd,
    layers: OwnedFd,
}

impl Places {
    /// Removes what processes that are gone have left.
    fn sweep(&self) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listing = rustix::fs::openat(&self.staging, ".", flags, Mode::empty())?;
        for entry in Dir::read_from(&listing).context("list tmp")? {
            let entry = entry.context("list tmp")?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if matches!(name, "." | "..") {
                continue;
            }
            let key = name.strip_suffix(".lock").unwrap_or(name);
            if key.starts_with(super::blobs::PARTIAL_PREFIX) {
                continue; // the next one to want it goes on with it
            }
            if let Some(_lock) = Lock::try_take(self.staging.as_fd(), &format!("{key}.lock"))? {
                remove_tree(&self.staging, key)?;
            }
        }
        Ok(())
    }
}

struct RemoveOnDrop<'a> {
    directory: BorrowedFd<'a>,
    name: &'a str,
}

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        // What cannot be removed now is rubbish that the next sweep meets.
        let _ = remove_tree(self.directory, self.name);
    }
}

/// Opens a directory of the store, making it if it is missing.
pub(super) fn open_private(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let open = || rustix::fs::openat(parent, name, OPEN_PATH | OFlags::NOFOLLOW, Mode::empty());
    match open() {
        Err(Errno::NOENT) => {}
        answer => return answer.with_context(|| format!("open directory {name}")),
    }
    make_private_at(parent, Path::new(name)).with_context(|| format!("make directory {name}"))?;
    open().with_context(|| format!("open directory {name}"))
}

/// Makes a directory that only its owner may enter, whatever the umask is.
fn make_private_at(parent: BorrowedFd<'_>, name: &Path) -> Result<(), Errno> {
    match rustix::fs::mkdirat(parent, name, PRIVATE) {
        Err(Errno::EXIST) => Ok(()),
        answer => answer.and_then(|()| rustix::fs::chmodat(parent, name, PRIVATE, AtFlags::empty())),
    }
}

/// Makes a directory and those above it.
fn make_private(path: &Path) -> Result<()> {
    match make_private_at(rustix::fs::CWD, path) {
        Err(Errno::NOENT) => {}
        answer => return Ok(answer?),
    }
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => make_private(parent)?,
        None => return Err(Errno::NOENT.into()),
    }
    Ok(make_private_at(rustix::fs::CWD, path)?)
}

/// Where a file cannot be made without a name: NFS, and overlayfs before Linux 6.3.
fn scratch_by_name(directory: &OwnedFd) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for number in 0..1000 {
        let name = format!("scratch.{}.{number}", rustix::process::getpid().as_raw_nonzero());
        match rustix::fs::openat(directory, name.as_str(), flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::EXIST) => {}
            answer => {
                let file = answer?;
                rustix::fs::unlinkat(directory, name.as_str(), AtFlags::empty())?;
                return Ok(file);
            }
        }
    }
    Err(Errno::EXIST.into())
}

#[cfg(test)]
#[expect(clippy::print_stdout, reason = "a test that cannot run says why")]
mod tests;
