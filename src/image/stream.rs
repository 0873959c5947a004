//! A layer's bytes on their way: counted and hashed packed, decompressed, counted and hashed again.
//!
//! [`LayerStream`] is a `BufRead`, so that file contents go from the inflater's buffer straight to `write(2)`. Reading,
//! hashing the packed bytes and inflating can run ahead in a thread of their own, a few buffers long, since they cost as
//! much as hashing the result and writing it. Memory is bounded by those buffers and zstd's window; bytes by the quota.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

use crate::error::{Context, Error, Result};

use super::digest::{self, Digest, Hasher, Verifier};
use super::media::Compression;
use super::resolve::Layer;
use super::tar::Skip;

/// Large enough that the calls to read and write vanish, small enough to stay in a core's second-level cache.
pub(crate) const BLOCK_BYTES: usize = 256 << 10;
const PACKED_BYTES: usize = 64 << 10;

/// How far the inflater may be ahead.
const BLOCKS_AHEAD: usize = 3;

/// The largest window that zstd's own tools accept unasked: 128 MiB, the most that a layer can make us allocate.
const ZSTD_WINDOW_LOG: u32 = 27;

enum Decoder<R: BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(ZstdDecoder<'static, R>),
}

/// Decompresses what it reads, up to a quota.
pub(crate) struct Unpacked<R: BufRead> {
    decoder: Decoder<R>,
    left: u64,
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
            Compression::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(input))),
            Compression::Zstd => {
                let mut decoder = ZstdDecoder::with_buffer(input).map_err(error)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(error)?;
                Decoder::Zstd(decoder)
            }
        };
        Ok(Self { decoder, left: limit })
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
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = match &mut self.decoder {
            Decoder::Plain(input) => input.read(buffer),
            Decoder::Gzip(input) => input.read(buffer),
            Decoder::Zstd(input) => input.read(buffer),
        }?;
        self.left = self.left.checked_sub(length as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "limit: the decompressed content is larger than the quota")
        })?;
        Ok(length)
    }
}

/// A buffer that goes round between the inflater and the unpacker.
struct Block {
    bytes: Box<[u8]>,
    length: usize,
}

impl Block {
    fn new() -> Self {
        Self { bytes: vec![0; BLOCK_BYTES].into_boxed_slice(), length: 0 }
    }
}

/// Gives the next piece of a layer's tar, in the buffer it is given back; an empty one at the end, when the packed
/// bytes are proved.
trait Blocks: Send {
    fn next(&mut self, spent: Block) -> Result<Block>;
}

/// Reads, hashes and inflates a layer's packed bytes.
pub(crate) struct Inflater<'a>(Option<Unpacked<Packed<'a>>>);

type Packed<'a> = BufReader<Verifier<Box<dyn Read + Send + 'a>>>;

impl<'a> Inflater<'a> {
    pub(crate) fn new(packed: Box<dyn Read + Send + 'a>, layer: &Layer, limit: u64) -> Result<Self> {
        let input = BufReader::with_capacity(PACKED_BYTES, Verifier::new(packed, layer.blob));
        Ok(Self(Some(Unpacked::new(input, layer.compression, limit)?)))
    }

    /// Proves the packed bytes. What the buffer between still holds has been hashed on its way in.
    fn verify(&mut self) -> Result<()> {
        match self.0.take() {
            Some(unpacked) => unpacked.into_inner().into_inner().finish().context("verify the blob"),
            None => Ok(()),
        }
    }
}

impl Blocks for Inflater<'_> {
    fn next(&mut self, mut block: Block) -> Result<Block> {
        let Some(unpacked) = &mut self.0 else { return Ok(Block { length: 0, ..block }) };
        let answer = loop {
            match unpacked.read(&mut block.bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                answer => break answer,
            }
        };
        match answer {
            Ok(0) => self.verify()?,
            Ok(_) => {}
            Err(failure) => {
                // Bytes that were damaged on their way fail to inflate before their digest does; that is the cause.
                let is_ours = failure.raw_os_error().is_some();
                let verified = self.verify();
                return Err(if is_ours { error(failure) } else { verified.err().unwrap_or_else(|| error(failure)) });
            }
        }
        block.length = answer.unwrap_or(0);
        Ok(block)
    }
}

/// The unpacker's end of an inflater in another thread.
struct Ahead {
    spent: SyncSender<Block>,
    filled: Receiver<Result<Block>>,
}

impl Blocks for Ahead {
    fn next(&mut self, spent: Block) -> Result<Block> {
        // The inflater hangs up behind its end or its error.
        let _ = self.spent.send(spent);
        self.filled.recv().unwrap_or_else(|_| Ok(Block { bytes: Box::default(), length: 0 }))
    }
}

/// The tar of a layer, verified on all sides once [`LayerStream::finish`] says so.
pub(crate) struct LayerStream<'a> {
    blocks: Box<dyn Blocks + 'a>,
    block: Block,
    start: usize,
    hasher: Hasher,
    diff_id: Digest,
    failure: Option<Error>,
}

impl<'a> LayerStream<'a> {
    /// Inflates in the caller's own thread, as it reads.
    pub(crate) fn inline(inflater: Inflater<'a>, diff_id: Digest) -> Self {
        Self::new(Box::new(inflater), diff_id)
    }

    /// Gives the stream, and what another thread has to run meanwhile, with what makes the inflater.
    pub(crate) fn ahead<'i>(
        diff_id: Digest,
    ) -> (Self, impl FnOnce(&dyn Fn() -> Result<Inflater<'i>>) + Send + use<'i>) {
        let (spent, take_spent) = sync_channel(BLOCKS_AHEAD);
        let (give_filled, filled) = sync_channel(BLOCKS_AHEAD);
        let run = move |make: &dyn Fn() -> Result<Inflater<'i>>| {
            let mut inflater = match make() {
                Ok(inflater) => inflater,
                Err(failure) => {
                    let _ = give_filled.send(Err(failure));
                    return;
                }
            };
            let blocks = (1..BLOCKS_AHEAD).map(|_| Block::new()).chain(take_spent);
            for block in blocks {
                let answer = inflater.next(block);
                let is_end = answer.as_ref().map_or(true, |block| block.length == 0);
                if give_filled.send(answer).is_err() || is_end {
                    return;
                }
            }
        };
        (Self::new(Box::new(Ahead { spent, filled }), diff_id), run)
    }

    fn new(blocks: Box<dyn Blocks + 'a>, diff_id: Digest) -> Self {
        Self { blocks, block: Block::new(), start: 0, hasher: Hasher::new(diff_id.algorithm()), diff_id, failure: None }
    }

    /// Reads what is left behind the tar's end and compares both digests and the size.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.drain()?;
        digest::compare("diff id", &self.diff_id, &self.hasher.finish()).context("verify the layer")
    }

    /// Finds the true cause of a failure to unpack: a damaged tar is first of all a blob with another digest.
    pub(crate) fn explain(mut self, failure: Error) -> Error {
        if failure.errno().is_some() {
            return failure;
        }
        self.drain().err().unwrap_or(failure)
    }

    fn drain(&mut self) -> Result<()> {
        loop {
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            match self.fill_buf().map(<[u8]>::len) {
                Ok(0) => return Ok(()),
                Ok(length) => self.consume(length),
                Err(_) => {}
            }
        }
    }
}

impl Read for LayerStream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let length = bytes.len().min(into.len());
        into[..length].copy_from_slice(&bytes[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for LayerStream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.block.length {
            self.start = 0;
            let spent = std::mem::replace(&mut self.block, Block { bytes: Box::default(), length: 0 });
            match self.blocks.next(spent) {
                Ok(block) => self.block = block,
                Err(failure) => {
                    let text = failure.report();
                    self.failure = Some(failure);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
            }
            self.hasher.update(&self.block.bytes[..self.block.length]);
        }
        Ok(&self.block.bytes[self.start..self.block.length])
    }

    fn consume(&mut self, length: usize) {
        self.start = (self.start + length).min(self.block.length);
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
