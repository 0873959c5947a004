//! `import`: a tar of a root file system becomes an image of one layer, byte for byte; and packed as it comes, if it is.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write};

use serde_json::{Map, Value, json};

use crate::engine::engine::Engine;
use crate::error::{Context, Error, Result};
use crate::image::digest::{Algorithm, Digest, Hasher};
use crate::image::limits::LayerLimits;
use crate::image::media::Compression;
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::image::stream::{BLOCK_BYTES, Unpacked};
use crate::image::write::{Level, Packer};
use crate::storage::images::ImageRecord;

use super::instruction;
use super::make::{self, Layer, Making};

const ALGORITHM: Algorithm = Algorithm::Sha256;

/// What is said of the new image.
pub struct Import<'a> {
    pub making: Making,
    pub platform: Platform,
    pub message: &'a str,
    pub changes: &'a [String],
}

/// Makes an image of an archive.
pub fn import(engine: &Engine, archive: File, import: &Import<'_>, name: Option<&Reference>) -> Result<ImageRecord> {
    let mut section = Map::new();
    for change in import.changes {
        instruction::apply(&mut section, change)?;
    }
    let store = engine.store()?;
    let _held = store.hold()?;
    let layer = keep(&store.blobs()?, archive, import.making.compression)?;
    let created = import.making.created();
    let mut config = Map::new();
    config.insert("created".to_owned(), json!(created));
    config.insert("architecture".to_owned(), json!(import.platform.architecture));
    config.insert("os".to_owned(), json!(import.platform.os));
    if let Some(variant) = &import.platform.variant {
        config.insert("variant".to_owned(), json!(variant));
    }
    config.insert("config".to_owned(), Value::Object(section));
    config.insert("history".to_owned(), json!([{ "created": created, "comment": import.message }]));
    make::make(engine, &store, config, &[layer], import.making.family, name)
}

/// Writes an archive as a blob, and finds out what it is called packed and unpacked.
fn keep(blobs: &crate::storage::blobs::Blobs, archive: File, wanted: Compression) -> Result<Layer> {
    let mut input = BufReader::with_capacity(BLOCK_BYTES, archive);
    let found = Compression::detect(input.fill_buf().context("read the archive")?);
    if input.buffer().is_empty() {
        return Err(Error::invalid("the archive is empty"));
    }
    let mut layer = None;
    blobs.add(|out| {
        let made = match found {
            Compression::None => pack(input, out, wanted)?,
            found => copy(input, out, found)?,
        };
        layer = Some(made);
        Ok((made.digest, made.size))
    })?;
    layer.ok_or_else(|| Error::invalid("the archive is empty"))
}

fn pack(mut input: impl Read, out: &mut dyn Write, compression: Compression) -> Result<Layer> {
    let mut packer = Packer::new(out, compression, Level::default(), ALGORITHM)?;
    io::copy(&mut input, &mut packer).context("read the archive")?;
    let (_, packed) = packer.finish()?;
    Ok(Layer::new(&packed, compression))
}

fn copy(input: impl Read, out: &mut dyn Write, compression: Compression) -> Result<Layer> {
    let mut tee = Tee { input, out, hasher: Hasher::new(ALGORITHM), size: 0 };
    let mut tar = Hashed(Hasher::new(ALGORITHM));
    let limit = LayerLimits::default().bytes;
    let mut unpacked = Unpacked::new(BufReader::with_capacity(BLOCK_BYTES, &mut tee), Some(compression), limit)?;
    io::copy(&mut unpacked, &mut tar).context("read the archive")?;
    drop(unpacked);
    // What stands behind the end of the packed stream is of the blob, too.
    io::copy(&mut tee, &mut io::sink()).context("read the archive")?;
    let digest: Digest = tee.hasher.finish();
    Ok(Layer { digest, size: tee.size, diff_id: tar.0.finish(), compression })
}

/// Writes down what is read through it.
struct Tee<'o, R> {
    input: R,
    out: &'o mut dyn Write,
    hasher: Hasher,
    size: u64,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.out.write_all(&buffer[..length])?;
        self.hasher.update(&buffer[..length]);
        self.size += length as u64;
        Ok(length)
    }
}

struct Hashed(Hasher);

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
