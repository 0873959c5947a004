//! An OCI image layout: a directory with `oci-layout`, `index.json` and `blobs/`.
//!
//! Reached by one descriptor; no symlink in it is followed, since the directory may come from anyone
//! (a `blobs/sha256/…` that points at `/etc/shadow` would otherwise become a layer). Reads only.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde::Deserialize;

use crate::error::{Context, Error, Kind, Result};
use crate::spec::load::parse_json;
use crate::support::root::Root;

use super::digest::Digest;
use super::limits;
use super::resolve::Blobs;

/// An open layout.
pub(crate) struct Layout {
    root: Root,
}

#[derive(Deserialize)]
struct Marker {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

impl Layout {
    /// Opens a layout. The path itself was typed by the user and may be a symlink.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let layout = Self { root: Root::from_fd(rustix::fs::open(path, flags, Mode::empty())?) };
        let marker = layout.read("oci-layout", 4096).map_err(|error| match error.errno() {
            Some(rustix::io::Errno::NOENT) => {
                Error::new(Kind::Invalid, "not an OCI image layout: there is no file oci-layout in it")
            }
            _ => error,
        })?;
        check_marker(&marker).context("oci-layout")?;
        Ok(layout)
    }

    fn read(&self, name: &str, limit: usize) -> Result<Vec<u8>> {
        let read = || {
            let (file, size) = self.open_file(name)?;
            if size > limit as u64 {
                return Err(Error::invalid(format!("larger than {limit} bytes")));
            }
            let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(limit));
            file.take(size).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|error| error.context(name.to_owned()))
    }

    /// Opens a regular file; a FIFO would block and a device would never end.
    fn open_file(&self, name: &str) -> Result<(File, u64)> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(self.root.open_without_symlinks(Path::new(name), flags, Mode::empty())?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(Error::invalid("not a regular file"));
        }
        Ok((file, metadata.len()))
    }
}

/// Checks the contents of `oci-layout`.
pub(crate) fn check_marker(bytes: &[u8]) -> Result<()> {
    let marker: Marker = parse_json(bytes)?;
    if marker.version.starts_with("1.") {
        return Ok(());
    }
    Err(Error::unsupported(format!("imageLayoutVersion: {:?} is not 1.0.0", marker.version)))
}

/// Says where a blob lies. Safe to build because a digest is nothing but hexadecimal.
pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

impl Blobs for Layout {
    fn index(&self) -> Result<Vec<u8>> {
        self.read("index.json", limits::MANIFEST_BYTES)
    }

    fn blob(&self, digest: &Digest) -> Result<(Box<dyn Read + Send + '_>, u64)> {
        let (file, size) = self.open_file(&blob_path(digest))?;
        Ok((Box::new(file), size))
    }
}
