//! A layer's bytes on their way: counted and hashed packed, decompressed, counted and hashed again.
//!
//! [`Unpacked`] is a `BufRead`, so that file contents go from the inflater's buffer straight to `write(2)`. Memory is
//! bounded by its buffers and zstd's window; bytes by the quota given.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

use crate::error::{Context, Error, Result};

use super::digest::{self, Digest, Hasher, Verifier};
use super::media::Compression;
use super::resolve::Layer;
use super::tar::Skip;

/// Large enough that the calls to read and write vanish, small enough to stay in a core's second-level cache.
const UNPACKED_BYTES: usize = 256 << 10;
const PACKED_BYTES: usize = 64 << 10;

/// The largest window that zstd's own tools accept unasked: 128 MiB, the most that a layer can make us allocate.
const ZSTD_WINDOW_LOG: u32 = 27;

type Packed<'a> = BufReader<Verifier<Box<dyn Read + Send + 'a>>>;

enum Decoder<R: BufRead> {
    Plain(R),
    Gzip(MultiGzDecoder<R>),
    Zstd(ZstdDecoder<'static, R>),
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buffer),
            Self::Gzip(input) => input.read(buffer),
            Self::Zstd(input) => input.read(buffer),
        }
    }
}

/// Decompresses what it reads, and hashes the result if asked.
pub(crate) struct Unpacked<R: BufRead> {
    decoder: Decoder<R>,
    hasher: Option<Hasher>,
    left: u64,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<R: BufRead> Unpacked<R> {
    /// Starts to decompress. `stated` is what the media type says; without it the first bytes decide.
    pub(crate) fn new(mut input: R, stated: Option<Compression>, limit: u64) -> Result<Self> {
        let found = Compression::detect(input.fill_buf().map_err(error)?);
        if let Some(stated) = stated
            && stated != found
        {
            return Err(Error::invalid(format!(
                "mediaType: it says {}, the content is {}",
                stated.name(),
                found.name()
            )));
        }
        let decoder = match found {
            Compression::None => Decoder::Plain(input),
            Compression::Gzip => Decoder::Gzip(MultiGzDecoder::new(input)),
            Compression::Zstd => {
                let mut decoder = ZstdDecoder::with_buffer(input).map_err(error)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(error)?;
                Decoder::Zstd(decoder)
            }
        };
        let buffer = vec![0; UNPACKED_BYTES].into_boxed_slice();
        Ok(Self { decoder, hasher: None, left: limit, buffer, start: 0, end: 0 })
    }

    fn into_inner(self) -> R {
        match self.decoder {
            Decoder::Plain(input) => input,
            Decoder::Gzip(input) => input.into_inner(),
            Decoder::Zstd(input) => input.finish(),
        }
    }
}

impl<R: BufRead> Read for Unpacked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let length = bytes.len().min(into.len());
        into[..length].copy_from_slice(&bytes[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Unpacked<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            // Emptied first: after an error, what was read before must not come back.
            (self.start, self.end) = (0, 0);
            let length = loop {
                match self.decoder.read(&mut self.buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    answer => break answer?,
                }
            };
            self.left = self.left.checked_sub(length as u64).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "limit: the decompressed content is larger than the quota")
            })?;
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&self.buffer[..length]);
            }
            self.end = length;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, length: usize) {
        self.start = (self.start + length).min(self.end);
    }
}

impl<R: BufRead> Skip for Unpacked<R> {}

/// The tar of a layer, verified on all sides once [`LayerStream::finish`] says so.
pub(crate) struct LayerStream<'a> {
    unpacked: Unpacked<Packed<'a>>,
    diff_id: Digest,
}

impl<'a> LayerStream<'a> {
    /// Starts to read a layer's packed bytes.
    pub(crate) fn new(packed: Box<dyn Read + Send + 'a>, layer: &Layer, limit: u64) -> Result<Self> {
        let input = BufReader::with_capacity(PACKED_BYTES, Verifier::new(packed, layer.blob));
        let mut unpacked = Unpacked::new(input, layer.compression, limit)?;
        unpacked.hasher = Some(Hasher::new(layer.diff_id.algorithm()));
        Ok(Self { unpacked, diff_id: layer.diff_id })
    }

    /// Reads what is left behind the tar's end and compares both digests and the size.
    pub(crate) fn finish(mut self) -> Result<()> {
        loop {
            match self.unpacked.fill_buf().map(<[u8]>::len) {
                Ok(0) => break,
                Ok(length) => self.unpacked.consume(length),
                Err(failure) => return Err(self.explain(error(failure))),
            }
        }
        let hasher = self.unpacked.hasher.take();
        // The decoders stop at the end of their input, so nothing is left in the buffer between.
        self.unpacked.into_inner().into_inner().finish().context("verify the blob")?;
        match hasher {
            Some(hasher) => digest::compare("diff id", &self.diff_id, &hasher.finish()).context("verify the layer"),
            None => Ok(()),
        }
    }

    /// Finds the true cause of a failure: bytes that were damaged on their way fail in many ways before their digest does.
    pub(crate) fn explain(self, failure: Error) -> Error {
        match self.unpacked.into_inner().into_inner().finish() {
            Err(cause) if failure.errno().is_none() => cause.context("verify the blob"),
            _ => failure,
        }
    }
}

impl Read for LayerStream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.unpacked.read(into)
    }
}

impl BufRead for LayerStream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.unpacked.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        self.unpacked.consume(length);
    }
}

impl Skip for LayerStream<'_> {}

/// Tells wrong input from a failing machine.
pub(crate) fn error(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(_) => error.into(),
        None => Error::invalid(error.to_string()),
    }
}
