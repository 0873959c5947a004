//! Where a layout is written: into a tar, or as files of a directory. What is in it is the caller's affair.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Kind, Result};
use crate::image::tar::{Entry, EntryKind};

use super::tar::TarWriter;

/// Bytes that are copied at once.
const BLOCK_BYTES: usize = 256 << 10;

/// A place that files are written to, each once.
pub trait Place {
    /// Makes a directory; those above come first.
    fn directory(&mut self, path: &str) -> Result<()>;

    /// Writes a file of exactly so many bytes.
    fn file(&mut self, path: &str, size: u64, content: &mut dyn Read) -> Result<()>;
}

impl<W: Write> Place for TarWriter<W> {
    fn directory(&mut self, path: &str) -> Result<()> {
        let path = format!("{path}/").into_bytes();
        self.entry(&Entry { kind: EntryKind::Directory, path, mode: 0o755, ..Entry::default() })
    }

    fn file(&mut self, path: &str, size: u64, content: &mut dyn Read) -> Result<()> {
        self.entry(&Entry { path: path.as_bytes().to_vec(), mode: 0o644, size, ..Entry::default() })?;
        let mut buffer = vec![0; BLOCK_BYTES];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => self.data(&buffer[..length])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).with_context(|| path.to_owned()),
            }
        }
    }
}

/// A directory that had nothing in it.
pub struct Folder(OwnedFd);

impl Folder {
    /// Makes the directory, or takes an empty one.
    pub fn make(path: &Path) -> Result<Self> {
        let make = || {
            match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = rustix::fs::open(path, flags, Mode::empty())?;
            for entry in rustix::fs::Dir::read_from(&folder)? {
                if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                    return Err(Error::new(Kind::Exists, "it is not empty"));
                }
            }
            Ok(Self(folder))
        };
        make().map_err(|error: Error| error.context(format!("write into {}", path.display())))
    }
}

impl Place for Folder {
    fn directory(&mut self, path: &str) -> Result<()> {
        rustix::fs::mkdirat(&self.0, path, Mode::from_raw_mode(0o755)).with_context(|| format!("make {path}"))
    }

    fn file(&mut self, path: &str, size: u64, content: &mut dyn Read) -> Result<()> {
        let mut write = || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(rustix::fs::openat(&self.0, path, flags, Mode::from_raw_mode(0o644))?);
            let written = io::copy(content, &mut file)?;
            if written == size { Ok(()) } else { Err(Error::invalid(format!("{written} bytes instead of {size}"))) }
        };
        write().map_err(|error: Error| error.context(format!("write {path}")))
    }
}
