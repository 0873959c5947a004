//! Compresses a tar on its way out, and hashes it before and behind. Reads no files.

use std::io::{self, BufWriter, Write};

use flate2::GzBuilder;
use flate2::write::GzEncoder;
use zstd::stream::write::Encoder as ZstdEncoder;

use crate::error::{Context, Error, Result};
use crate::image::digest::{Algorithm, Digest, Hasher};
use crate::image::media::Compression;

/// What docker and podman use.
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;

/// How much work is put into making it small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level(Option<i32>);

impl Level {
    /// Checks a level for a way of packing; none is the usual one.
    pub fn new(compression: Compression, level: Option<i32>) -> Result<Self> {
        let (least, most) = match compression {
            Compression::None => return Ok(Self(None)),
            Compression::Gzip => (1, 9),
            // Above 19 a reader needs more memory than most give to a layer.
            Compression::Zstd => (1, 19),
        };
        match level {
            Some(level) if !(least..=most).contains(&level) => {
                let name = compression.name();
                Err(Error::invalid(format!("compression level {level}: {name} has those from {least} to {most}")))
            }
            level => Ok(Self(level)),
        }
    }

    fn of_gzip(self) -> u32 {
        self.0.and_then(|level| u32::try_from(level).ok()).unwrap_or(GZIP_LEVEL)
    }

    fn of_zstd(self) -> i32 {
        self.0.unwrap_or(ZSTD_LEVEL)
    }
}

/// So that small pieces of the compressor don't become a call of the kernel each.
const OUT_BYTES: usize = 64 << 10;

/// A layer's two names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Of the bytes that were put out.
    pub digest: Digest,
    /// Bytes that were put out.
    pub size: u64,
    /// Of the tar.
    pub diff_id: Digest,
    /// Bytes of the tar.
    pub unpacked_size: u64,
}

/// Takes a tar in by [`Write`] and puts it out packed. It is whole only once [`Packer::finish`] says so.
pub struct Packer<W: Write> {
    encoder: Encoder<W>,
    tar: Counted,
}

enum Encoder<W: Write> {
    Plain(Out<W>),
    Gzip(Box<GzEncoder<Out<W>>>),
    Zstd(ZstdEncoder<'static, Out<W>>),
}

impl<W: Write> Packer<W> {
    /// Begins to put out.
    pub fn new(out: W, compression: Compression, level: Level, algorithm: Algorithm) -> Result<Self> {
        let out = Out { inner: BufWriter::with_capacity(OUT_BYTES, out), counted: Counted::new(algorithm) };
        let encoder = match compression {
            Compression::None => Encoder::Plain(out),
            Compression::Gzip => {
                // No name, no time, and 255 for the system that wrote it: unknown (RFC 1952).
                let header = GzBuilder::new().mtime(0).operating_system(255);
                Encoder::Gzip(Box::new(header.write(out, flate2::Compression::new(level.of_gzip()))))
            }
            Compression::Zstd => Encoder::Zstd(ZstdEncoder::new(out, level.of_zstd()).context("start zstd")?),
        };
        Ok(Self { encoder, tar: Counted::new(algorithm) })
    }

    /// Writes what is left, and gives the output back with the names of what went there. It is not synced.
    pub fn finish(self) -> Result<(W, Packed)> {
        let out = match self.encoder {
            Encoder::Plain(out) => Ok(out),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        };
        let Out { inner, counted } = out.context("write the layer")?;
        let inner = inner.into_inner().map_err(io::IntoInnerError::into_error).context("write the layer")?;
        let (digest, size) = counted.finish();
        let (diff_id, unpacked_size) = self.tar.finish();
        Ok((inner, Packed { digest, size, diff_id, unpacked_size }))
    }
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = match &mut self.encoder {
            Encoder::Plain(encoder) => encoder.write(bytes),
            Encoder::Gzip(encoder) => encoder.write(bytes),
            Encoder::Zstd(encoder) => encoder.write(bytes),
        }?;
        self.tar.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.encoder {
            Encoder::Plain(encoder) => encoder.flush(),
            Encoder::Gzip(encoder) => encoder.flush(),
            Encoder::Zstd(encoder) => encoder.flush(),
        }
    }
}

struct Counted {
    hasher: Hasher,
    count: u64,
}

impl Counted {
    fn new(algorithm: Algorithm) -> Self {
        Self { hasher: Hasher::new(algorithm), count: 0 }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.count += bytes.len() as u64;
    }

    fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.count)
    }
}

/// Hashes what goes out.
struct Out<W: Write> {
    inner: BufWriter<W>,
    counted: Counted,
}

impl<W: Write> Write for Out<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.counted.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
