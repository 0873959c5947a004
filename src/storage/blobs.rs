//! Blobs: verified content by its digest, and the parts of those that are still on their way.
//!
//! A blob comes into place by one rename once all of its bytes are verified, and never changes. Until then it is a file in
//! `tmp/`, which belongs to who holds its lock; a part that a killed process left is taken up by the next one, which hashes
//! it again from its first byte. Documents and packed layers lie here alike: an image can then be pushed byte for byte as
//! it was pulled, and a layer that is damaged on disk can be made again.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Kind, Result};
use crate::image::digest::{self, Digest, Expected};
use crate::support::atomic;

use super::lock::Lock;
use super::store::{Store, StoreView, open_private};

/// What the files of unfinished blobs are called, before their digest.
pub(super) const PARTIAL_PREFIX: &str = "blob.";

/// The directories that blobs are written in.
pub struct Blobs {
    staging: OwnedFd,
    blobs: OwnedFd,
}

/// A blob that is about to be fetched, or is there.
pub enum Begun<'a> {
    /// Another process has brought it.
    Present,
    /// It is ours to fetch.
    Ours(Partial<'a>),
}

/// A blob that is being fetched, under its lock.
pub struct Partial<'a> {
    blobs: &'a Blobs,
    digest: Digest,
    name: String,
    size: u64,
    file: Arc<File>,
    /// Bytes in the file that a reader may replay.
    length: Arc<AtomicU64>,
    /// Last, so that the file is in place or gone before the next holder looks.
    _lock: Lock<'a>,
}

impl Store {
    /// Opens the directories that blobs are written in.
    pub fn blobs(&self) -> Result<Blobs> {
        let open = || -> Result<Blobs> {
            let staging = open_private(self.root(), "tmp")?;
            let blobs = open_private(self.root(), "blobs")?;
            Ok(Blobs { staging, blobs })
        };
        open().with_context(|| format!("prepare the store {}", self.path().display()))
    }

    /// Waits until everything that was written to the store's file system is on its disk.
    pub fn sync(&self) -> Result<()> {
        // The store's own descriptor is a path only, which syncfs(2) refuses.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let sync = || rustix::fs::syncfs(rustix::fs::openat(self.root(), ".", flags, Mode::empty())?);
        sync().with_context(|| format!("sync the store {}", self.path().display()))
    }
}

impl StoreView {
    /// Opens a blob and says how long it is; none where it is not in the store.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<(File, u64)>> {
        let path = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(self.root(), path.as_str(), flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("open {}/{path}", self.path().display())),
        };
        let size = file.metadata()?.len();
        Ok(Some((file, size)))
    }

    /// Opens a blob that has to be there, and as long as it is stated.
    pub fn open_whole_blob(&self, digest: &Digest, size: u64) -> Result<(File, u64)> {
        let found = self.open_blob(digest)?;
        let (file, found) =
            found.ok_or_else(|| Error::new(Kind::NotFound, format!("blob {digest} is not in the store")))?;
        if found == size {
            return Ok((file, size));
        }
        Err(Error::invalid(format!("blob {digest}: {found} bytes where {size} were stated"))
            .with_hint("`husk system check --repair` mends the store"))
    }

    /// Says whether a blob is there, and as long as it should be. (After a power cut a file may be shorter.)
    pub fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool> {
        let path = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        match rustix::fs::statat(self.root(), path.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(u64::try_from(stat.st_size).is_ok_and(|found| found == size)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("look at {}/{path}", self.path().display())),
        }
    }

    /// Reads a blob that is a document, of at most `limit` bytes, and verifies it.
    pub fn read_document(&self, digest: &Digest, limit: usize) -> Result<Vec<u8>> {
        let read = || {
            let Some((file, size)) = self.open_blob(digest)? else {
                return Err(Error::new(Kind::NotFound, "it is not in the store"));
            };
            if size > limit as u64 {
                return Err(Error::invalid(format!("larger than {limit} bytes")));
            }
            let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(limit));
            file.take(size).read_to_end(&mut bytes)?;
            digest::verify(&bytes, Expected { digest: Some(*digest), size: None })?;
            Ok(bytes)
        };
        read().map_err(|error: Error| {
            error.context(format!("blob {digest}")).with_hint("`husk system check --repair` mends the store")
        })
    }
}

impl Blobs {
    /// Puts a document in place, if it is what its digest says.
    pub fn put_document(&self, expected: &Digest, bytes: &[u8]) -> Result<()> {
        digest::verify(bytes, Expected { digest: Some(*expected), size: Some(bytes.len() as u64) })?;
        let directory = open_private(self.blobs.as_fd(), expected.algorithm().name())?;
        match atomic::create(directory.as_fd(), &expected.hex(), bytes) {
            Err(error) if error.kind() == Kind::Exists => {
                let stat = rustix::fs::statat(&directory, expected.hex(), AtFlags::SYMLINK_NOFOLLOW)?;
                if u64::try_from(stat.st_size).is_ok_and(|size| size == bytes.len() as u64) {
                    return Ok(());
                }
                atomic::replace(directory.as_fd(), &expected.hex(), bytes)
            }
            answer => answer.with_context(|| format!("store blob {expected}")),
        }
    }

    /// Takes the lock of a blob; `waiting` is called if another process has it.
    pub fn begin(&self, store: &Store, digest: &Digest, size: u64, waiting: impl FnOnce()) -> Result<Begun<'_>> {
        if store.has_blob(digest, size)? {
            return Ok(Begun::Present);
        }
        let name = format!("{PARTIAL_PREFIX}{}.{}", digest.algorithm().name(), digest.hex());
        let lock = Lock::take(self.staging.as_fd(), &format!("{name}.lock"), waiting)?;
        if store.has_blob(digest, size)? {
            return Ok(Begun::Present);
        }
        let open = || {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::openat(&self.staging, name.as_str(), flags, Mode::RUSR | Mode::WUSR)?);
            let length = file.metadata()?.len();
            // What is longer than the blob is not a part of it.
            let length = if length > size { 0 } else { length };
            if length == 0 {
                file.set_len(0)?;
            }
            Ok::<_, io::Error>((file, length))
        };
        let (file, length) = open().with_context(|| format!("open tmp/{name}"))?;
        let (file, length) = (Arc::new(file), Arc::new(AtomicU64::new(length)));
        Ok(Begun::Ours(Partial { blobs: self, digest: *digest, name, size, file, length, _lock: lock }))
    }

    /// Stores a blob whose digest is not known before its last byte: `write` gives it, and its size. It is verified by
    /// whoever computed the digest while writing.
    pub fn add(&self, write: impl FnOnce(&mut dyn Write) -> Result<(Digest, u64)>) -> Result<(Digest, u64)> {
        let mut file = self.scratch()?;
        let (digest, size) = write(&mut file)?;
        if file.metadata()?.len() != size {
            return Err(Error::new(Kind::Other, format!("blob {digest}: another size than was written")));
        }
        let directory = open_private(self.blobs.as_fd(), digest.algorithm().name())?;
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        match rustix::fs::linkat(rustix::fs::CWD, path, &directory, digest.hex(), AtFlags::SYMLINK_FOLLOW) {
            Ok(()) | Err(Errno::EXIST) => Ok((digest, size)),
            Err(error) => Err(error).with_context(|| format!("store blob {digest}")),
        }
    }

    fn scratch(&self) -> Result<File> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.staging, ".", flags, Mode::RUSR | Mode::WUSR);
        file.map(File::from).context("make a temporary file in the store")
    }
}

impl Partial<'_> {
    /// Says how many bytes are at hand.
    pub fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    /// Reads the part that is at hand, and then what `rest` gives from that position on, keeping it as it comes.
    pub fn reader<'r>(&self, rest: impl FnOnce(u64) -> Box<dyn Read + Send + 'r>) -> PartialReader<'r> {
        let replayed = self.length();
        let (file, length) = (Arc::clone(&self.file), Arc::clone(&self.length));
        PartialReader { file, length, position: 0, replayed, rest: rest(replayed) }
    }

    /// Says whether all bytes are at hand; whether they are right is another question.
    pub fn is_whole(&self) -> bool {
        self.length() >= self.size
    }

    /// Puts the blob in place. The caller has verified it.
    pub fn publish(self) -> Result<()> {
        let publish = || {
            let directory = open_private(self.blobs.blobs.as_fd(), self.digest.algorithm().name())?;
            rustix::fs::renameat(&self.blobs.staging, self.name.as_str(), &directory, self.digest.hex())?;
            Ok(())
        };
        publish().map_err(|error: Error| error.context(format!("store blob {}", self.digest)))
    }

    /// Deletes what was fetched: it is not what it should be.
    pub fn discard(self) {
        // What cannot be deleted is found to be wrong again by the next one.
        let _ = rustix::fs::unlinkat(&self.blobs.staging, self.name.as_str(), AtFlags::empty());
    }
}

/// Reads a blob from its first byte, wherever its bytes come from.
pub struct PartialReader<'r> {
    file: Arc<File>,
    length: Arc<AtomicU64>,
    position: u64,
    replayed: u64,
    rest: Box<dyn Read + Send + 'r>,
}

impl Read for PartialReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.replayed - self.position.min(self.replayed);
        if left > 0 {
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let length = self.file.read_at(&mut buffer[..wanted], self.position)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.position += length as u64;
            return Ok(length);
        }
        let length = self.rest.read(buffer)?;
        self.file.write_all_at(&buffer[..length], self.position)?;
        self.position += length as u64;
        self.length.store(self.position, Ordering::Release);
        Ok(length)
    }
}

#[cfg(test)]
#[path = "blobs/tests.rs"]
mod tests;
