//! From a name to an image: which manifest is meant, and what it is made of.
//!
//! Works on any [`Blobs`]: a directory, an archive, later a registry's cache. Every document is verified against its
//! descriptor before a byte of it is parsed. Layers are only described here; `unpack` verifies them as they stream.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::error::{Context, Error, Kind, Result};

use super::config::{self, ImageConfig};
use super::digest::{self, Algorithm, Digest, Expected};
use super::limits;
use super::manifest::{self, Choice, Descriptor};
use super::media::{Compression, Document};
use super::platform::Platform;
use super::source::{Format, Local, Selector};
use super::{archive, docker_archive, layout};

/// An image whose documents are verified.
#[derive(Debug)]
pub struct Image {
    /// None for a docker-archive, which has no manifest that could be hashed.
    pub manifest_digest: Option<Digest>,
    /// What docker and podman call the image's id.
    pub config_digest: Digest,
    pub platform: Platform,
    pub config: ImageConfig,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// The documents as they were hashed.
    pub manifest_json: Option<Vec<u8>>,
    pub config_json: Vec<u8>,
}

/// A layer as its manifest describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// What the packed bytes are.
    pub blob: Expected,
    /// None where nothing but the bytes themselves says how they are packed (docker-archive).
    pub compression: Option<Compression>,
    /// What the unpacked tar is.
    pub diff_id: Digest,
}

/// Opens the packed bytes of an image's layers.
pub trait LayerReader: Send + Sync {
    /// Opens the layer at this place of [`Image::layers`]. The bytes are not verified yet.
    fn open_layer(&self, index: usize) -> Result<Box<dyn Read + Send + '_>>;

    /// Says how many layers are best read at once: by default, as many as there are cores, since memory is no wait.
    fn parallel(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// Is told, once its reader is gone, whether the layer's bytes were read to their end and proved.
    fn close_layer(&self, _index: usize, _is_proved: bool) -> Result<()> {
        Ok(())
    }
}

/// Opens an image in local files, choosing by platform where there are several.
///
/// `scratch` makes an unnamed file; it is asked for only where an archive is itself compressed or is a pipe.
pub fn open(
    local: &Local,
    platform: &Platform,
    scratch: &dyn Fn() -> Result<File>,
) -> Result<(Image, Box<dyn LayerReader>)> {
    let opened = match local.format {
        Format::OciLayout => {
            layout::Layout::open(&local.path).and_then(|layout| from_blobs(layout, &local.selector, platform))
        }
        Format::OciArchive => archive::OciArchive::open(&local.path, scratch)
            .and_then(|archive| from_blobs(archive, &local.selector, platform)),
        Format::DockerArchive => docker_archive::open(&local.path, &local.selector, scratch),
    };
    let (image, reader) = opened.with_context(|| format!("{}:{}", local.format.scheme(), local.path.display()))?;
    if image.platform.os != "linux" {
        return Err(Error::unsupported(format!(
            "{}:{}: an image for {} cannot run here",
            local.format.scheme(),
            local.path.display(),
            image.platform
        )));
    }
    Ok((image, reader))
}

/// Where the content of an OCI image lies.
pub(crate) trait Blobs: Send + Sync {
    /// Reads `index.json`.
    fn index(&self) -> Result<Vec<u8>>;

    /// Opens a blob and says how long it is.
    fn blob(&self, digest: &Digest) -> Result<(Box<dyn Read + Send + '_>, u64)>;

    /// Opens a blob whose length agrees with its descriptor.
    fn described(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>> {
        let (reader, size) = self.blob(&descriptor.digest)?;
        if size == descriptor.size {
            return Ok(reader);
        }
        Err(Error::invalid(format!("size mismatch: {size} bytes where {} were stated", descriptor.size)))
    }

    /// Reads a document and verifies it.
    fn document(&self, descriptor: &Descriptor, limit: usize) -> Result<Vec<u8>> {
        let read = || {
            if descriptor.size > limit as u64 {
                return Err(Error::invalid(format!("larger than {limit} bytes")));
            }
            let mut bytes = Vec::with_capacity(usize::try_from(descriptor.size).unwrap_or(limit));
            self.described(descriptor)?.take(descriptor.size).read_to_end(&mut bytes)?;
            digest::verify(&bytes, descriptor.expected())?;
            Ok(bytes)
        };
        read().map_err(|error: Error| error.context(format!("blob {}", descriptor.digest)))
    }
}

/// The layers of an image that lies in blobs.
pub(super) struct BlobLayers<B: ?Sized> {
    pub(super) layers: Vec<Descriptor>,
    pub(super) blobs: Arc<B>,
}

impl<B: Blobs + ?Sized> LayerReader for BlobLayers<B> {
    fn open_layer(&self, index: usize) -> Result<Box<dyn Read + Send + '_>> {
        let descriptor = &self.layers[index];
        self.blobs.described(descriptor).with_context(|| format!("blob {}", descriptor.digest))
    }
}

fn from_blobs<B: Blobs + 'static>(
    blobs: B,
    selector: &Selector,
    platform: &Platform,
) -> Result<(Image, Box<dyn LayerReader>)> {
    let choices = manifest::parse_index(&blobs.index()?).context("index.json")?;
    let mut choice = choose(choices, selector, platform).context("index.json")?;
    for _ in 0..limits::INDEX_DEPTH {
        let digest = choice.descriptor.digest;
        if choice.document == Document::Manifest {
            return from_manifest(blobs, &choice.descriptor);
        }
        let bytes = blobs.document(&choice.descriptor, limits::MANIFEST_BYTES)?;
        let nested = manifest::parse_index(&bytes).with_context(|| format!("index {digest}"))?;
        choice = choose(nested, &Selector::Only, platform).with_context(|| format!("index {digest}"))?;
    }
    Err(Error::invalid(format!("index.json: more than {} indexes inside each other", limits::INDEX_DEPTH)))
}

fn from_manifest<B: Blobs + 'static>(blobs: B, descriptor: &Descriptor) -> Result<(Image, Box<dyn LayerReader>)> {
    let manifest_json = blobs.document(descriptor, limits::MANIFEST_BYTES)?;
    let manifest =
        manifest::parse_manifest(&manifest_json).with_context(|| format!("manifest {}", descriptor.digest))?;
    let config_json = blobs.document(&manifest.config, limits::CONFIG_BYTES)?;
    let packed: Vec<_> =
        manifest.layers.iter().map(|(layer, compression)| (layer.expected(), Some(*compression))).collect();
    let image = describe(config_json, &packed, Some((descriptor.digest, manifest_json)))
        .with_context(|| format!("config {}", manifest.config.digest))?;
    let layers = manifest.layers.into_iter().map(|(layer, _)| layer).collect();
    Ok((image, Box::new(BlobLayers { blobs: Arc::new(blobs), layers })))
}

/// Puts an image together from its configuration and what is known of its packed layers.
pub(crate) fn describe(
    config_json: Vec<u8>,
    packed: &[(Expected, Option<Compression>)],
    manifest: Option<(Digest, Vec<u8>)>,
) -> Result<Image> {
    let document = config::parse(&config_json)?;
    if document.diff_ids.len() != packed.len() {
        return Err(Error::invalid(format!(
            "rootfs.diff_ids: {} of them for {} layers",
            document.diff_ids.len(),
            packed.len()
        )));
    }
    let layers = packed
        .iter()
        .zip(document.diff_ids)
        .map(|((blob, compression), diff_id)| Layer { blob: *blob, compression: *compression, diff_id })
        .collect();
    let (manifest_digest, manifest_json) = manifest.unzip();
    let config_digest = Digest::of(Algorithm::Sha256, &config_json);
    let (platform, config) = (document.platform, document.config);
    Ok(Image { manifest_digest, config_digest, platform, config, layers, manifest_json, config_json })
}

/// Picks one image of an index.
pub(crate) fn choose(mut choices: Vec<Choice>, selector: &Selector, platform: &Platform) -> Result<Choice> {
    let not_found = |message: String| Error::new(Kind::NotFound, message);
    if choices.is_empty() {
        return Err(not_found("it holds no image".to_owned()));
    }
    let mut names: Vec<String> = choices.iter().filter_map(|choice| choice.names.first().cloned()).collect();
    names.sort_unstable();
    names.dedup();
    let hint =
        || format!("images in it: {}", if names.is_empty() { "one without a name".into() } else { names.join(", ") });
    match selector {
        Selector::Only => {}
        Selector::Name(name) => {
            choices.retain(|choice| choice.names.contains(name));
            if choices.is_empty() {
                return Err(not_found(format!("no image is called {name:?}")).with_hint(hint()));
            }
        }
        Selector::Place(place) => {
            if *place >= choices.len() {
                return Err(not_found(format!("no image at place {place} of {}", choices.len())).with_hint(hint()));
            }
            choices = vec![choices.swap_remove(*place)];
        }
    }
    let rank = |choice: &Choice| choice.platform.as_ref().map_or(Some(0), |image| platform.rank(image));
    let Some(best) = choices.iter().filter_map(rank).max() else {
        let platforms: Vec<_> = choices.iter().flat_map(|choice| &choice.platform).map(ToString::to_string).collect();
        return Err(not_found(format!("no image for {platform}, only for {}", platforms.join(", "))));
    };
    choices.retain(|choice| rank(choice) == Some(best));
    // The same image under several names is one image.
    choices.dedup_by_key(|choice| choice.descriptor.digest);
    match <[Choice; 1]>::try_from(choices) {
        Ok([choice]) => Ok(choice),
        Err(several) => {
            Err(Error::invalid(format!("{} images fit, and none of them is named", several.len())).with_hint(hint()))
        }
    }
}

/// A part of a file, read by position, so that several parts of one file can be read at once.
pub(crate) struct Part<'a> {
    pub(crate) file: &'a File,
    pub(crate) position: u64,
    pub(crate) end: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        if length == 0 {
            return Ok(0);
        }
        let length = self.file.read_at(&mut buffer[..length], self.position)?;
        self.position += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
