//! The walk over an archive: joins each entry with the extensions before it, and hands its data out in place.

use std::io::{self, BufRead};

use crate::error::{Context, Error, Result};
use crate::image::{limits, stream};

use super::BLOCK;
use super::header::{self, Header};
use super::pax::{self, Overrides};
use super::sparse::{self, Form, Segment};

/// What an entry is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EntryKind {
    #[default]
    Regular,
    HardLink,
    Symlink,
    Character,
    Block,
    Directory,
    Fifo,
}

/// A time of modification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u64,
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Xattr {
    pub(crate) name: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// One entry, as its writer meant it. Names are as written: not normalised, not trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: EntryKind,
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    /// With holes.
    pub(crate) size: u64,
    pub(crate) sparse: Option<Vec<Segment>>,
    pub(crate) xattrs: Vec<Xattr>,
}

impl Entry {
    /// Gives the path in a form that is safe to print.
    pub(crate) fn name(&self) -> String {
        String::from_utf8_lossy(&self.path).escape_debug().to_string()
    }
}

/// Jumps forward; by reading, unless the input can do better.
pub(crate) trait Skip: BufRead {
    fn skip(&mut self, mut length: u64) -> io::Result<()> {
        while length > 0 {
            let ready = self.fill_buf()?.len();
            if ready == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let step = ready.min(usize::try_from(length).unwrap_or(usize::MAX));
            self.consume(step);
            length -= step as u64;
        }
        Ok(())
    }
}

impl Skip for &[u8] {}

impl<R: io::Read> Skip for io::BufReader<R> {}

/// Reads the entries of an archive in order.
pub(crate) struct Reader<R> {
    input: R,
    position: u64,
    /// Bytes of the current entry's data not read yet, and the blanks behind them.
    left: u64,
    padding: u64,
    ended: bool,
}

impl<R: Skip> Reader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, position: 0, left: 0, padding: 0, ended: false }
    }

    pub(crate) fn into_inner(self) -> R {
        self.input
    }

    /// Says how many bytes of the archive are read: after [`Reader::next`], where the entry's data begins.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Reads the next entry, and says whether there was one.
    pub(crate) fn next(&mut self, entry: &mut Entry) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        self.skip(self.left + self.padding)?;
        (self.left, self.padding) = (0, 0);
        let mut extended: Option<Overrides> = None;
        let mut long_name: Option<Vec<u8>> = None;
        let mut long_link: Option<Vec<u8>> = None;
        loop {
            let Some(block) = self.next_header()? else {
                self.ended = true;
                if extended.is_some() || long_name.is_some() || long_link.is_some() {
                    return Err(Error::invalid("malformed tar: it ends after an extended header"));
                }
                return Ok(false);
            };
            let header = Header::new(&block)?;
            match header.typeflag() {
                b'x' => once(&mut extended, pax::parse(&self.extension(&header)?)?)?,
                b'g' => pax::check_global(&self.extension(&header)?)?,
                b'L' => once(&mut long_name, self.long(&header)?)?,
                b'K' => once(&mut long_link, self.long(&header)?)?,
                _ => {
                    self.entry(&header, extended.unwrap_or_default(), long_name, long_link, entry)?;
                    return Ok(true);
                }
            }
        }
    }

    /// Hands out the current entry's data as (offset in the file, bytes), holes left out.
    pub(crate) fn for_each_chunk(
        &mut self,
        segments: Option<&[Segment]>,
        mut take: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let whole = [Segment { offset: 0, length: self.left }];
        for segment in segments.unwrap_or(&whole) {
            let Segment { mut offset, length: mut left } = *segment;
            while left > 0 {
                let bytes = self.input.fill_buf().map_err(stream::error)?;
                if bytes.is_empty() {
                    return Err(Error::invalid("the archive ends inside it"));
                }
                let length = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                take(offset, &bytes[..length])?;
                self.input.consume(length);
                let length = length as u64;
                (offset, left) = (offset + length, left - length);
                self.position += length;
                self.left -= length;
            }
        }
        Ok(())
    }

    /// Reads a header block; none at the end of the archive.
    fn next_header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        // An archive that stops between entries, without its two blocks of zeros, is complete to every reader.
        let Some(block) = self.next_block()? else { return Ok(None) };
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        match self.next_block()? {
            Some(block) if block != [0; BLOCK] => Err(Error::invalid("malformed tar: a lone block of zeros")),
            _ => Ok(None),
        }
    }

    fn next_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let bytes = self.input.fill_buf().map_err(stream::error)?;
            if bytes.is_empty() {
                if filled == 0 {
                    return Ok(None);
                }
                return Err(Error::invalid("malformed tar: it ends inside a header"));
            }
            let length = bytes.len().min(BLOCK - filled);
            block[filled..filled + length].copy_from_slice(&bytes[..length]);
            self.input.consume(length);
            filled += length;
        }
        self.position += BLOCK as u64;
        Ok(Some(block))
    }

    /// Reads the data of an extension.
    fn extension(&mut self, header: &Header<'_>) -> Result<Vec<u8>> {
        let size = header.size()?;
        if size > limits::TAR_HEADER_BYTES {
            return Err(Error::invalid(format!(
                "limit: an extended header is longer than {} bytes",
                limits::TAR_HEADER_BYTES
            )));
        }
        self.left = size;
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        self.for_each_chunk(None, |_, chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })
        .context("extended header")?;
        self.skip(padding(size))?;
        Ok(bytes)
    }

    /// Reads a GNU long name: up to its first NUL.
    fn long(&mut self, header: &Header<'_>) -> Result<Vec<u8>> {
        let mut name = self.extension(header)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        if name.is_empty() {
            return Err(Error::invalid("malformed tar: an empty long name"));
        }
        if name.len() > limits::PATH_BYTES {
            return Err(Error::invalid(format!("limit: a name is longer than {} bytes", limits::PATH_BYTES)));
        }
        Ok(name)
    }

    fn entry(
        &mut self,
        header: &Header<'_>,
        extended: Overrides,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        entry: &mut Entry,
    ) -> Result<()> {
        let Overrides { path, link, size, uid, gid, mtime, xattrs, sparse } = extended;
        // The name first, so that whatever is wrong with the rest can be told apart.
        if (long_name.is_some() && (path.is_some() || sparse.name.is_some())) || (long_link.is_some() && link.is_some())
        {
            return Err(Error::invalid("malformed tar: one name in two kinds of extended header"));
        }
        header.name(&mut entry.path);
        header.link(&mut entry.link);
        if let Some(name) = sparse.name.clone().or(path).or(long_name) {
            entry.path = name;
        }
        if let Some(link) = link.or(long_link) {
            entry.link = link;
        }
        let read = |reader: &mut Self, entry: &mut Entry| {
            // PAX's size wins; a header that cannot hold the size holds anything.
            let stored = size.map_or_else(|| header.size(), Ok)?;
            let stored = i64::try_from(stored).map_err(|_| header::malformed("size"))?.unsigned_abs();
            entry.kind = kind(header.typeflag(), &entry.path, stored)?;
            if entry.kind != EntryKind::Regular && stored != 0 {
                return Err(Error::invalid("malformed tar: it has a size and is no regular file"));
            }
            let id = |id: Option<u64>, field: Result<u64>, name: &str| {
                let id = id.map_or(field, Ok)?;
                // The highest number means "leave it" to chown(2).
                u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| header::malformed(name))
            };
            entry.uid = id(uid, header.uid(), "uid")?;
            entry.gid = id(gid, header.gid(), "gid")?;
            entry.mode = header.mode()?;
            entry.mtime = match mtime {
                Some(time) => time,
                None => Time { seconds: header.mtime()?, nanoseconds: 0 },
            };
            (entry.major, entry.minor) = match entry.kind {
                EntryKind::Character | EntryKind::Block => device(header.device()?)?,
                _ => (0, 0),
            };
            entry.xattrs = xattrs;
            reader.left = stored;
            reader.padding = padding(stored);
            reader.contents(header, sparse.form()?, entry)
        };
        read(self, entry).map_err(|error: Error| error.context(format!("entry {}", entry.name())))
    }

    /// Works out where the data of a regular file goes.
    fn contents(&mut self, header: &Header<'_>, form: Form, entry: &mut Entry) -> Result<()> {
        let is_gnu_sparse = header.typeflag() == b'S';
        (entry.size, entry.sparse) = match form {
            Form::Whole if is_gnu_sparse => {
                if !header.is_gnu() {
                    return Err(header::malformed("sparse"));
                }
                let (fields, mut more, real_size) = header.sparse()?;
                let mut segments = Vec::new();
                sparse::gnu_segments(fields, &mut segments)?;
                while more {
                    // Continuations stand before the data and are not part of its size.
                    let block = self.next_block()?.ok_or_else(|| header::malformed("sparse"))?;
                    sparse::gnu_segments(&block[..504], &mut segments)?;
                    more = block[504] != 0;
                }
                (real_size, Some(segments))
            }
            Form::Whole => (self.left, None),
            _ if is_gnu_sparse || entry.kind != EntryKind::Regular => return Err(header::malformed("sparse")),
            Form::Records { real_size, segments } => (real_size, Some(segments)),
            Form::Data { real_size } => {
                // Whole blocks, so that the padding behind the data stays what it was.
                let segments = sparse::read_map(|| {
                    self.left = self
                        .left
                        .checked_sub(BLOCK as u64)
                        .ok_or_else(|| Error::invalid("malformed tar: a sparse file with a map beyond its end"))?;
                    self.next_block()?.ok_or_else(|| Error::invalid("the archive ends inside it"))
                })?;
                (real_size, Some(segments))
            }
        };
        match &entry.sparse {
            Some(segments) => sparse::check(segments, self.left, entry.size),
            None => Ok(()),
        }
    }

    fn skip(&mut self, length: u64) -> Result<()> {
        self.input.skip(length).map_err(stream::error).context("the archive ends inside an entry")?;
        self.position += length;
        Ok(())
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::invalid("malformed tar: two extended headers of one kind before an entry")),
    }
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn kind(typeflag: u8, path: &[u8], size: u64) -> Result<EntryKind> {
    Ok(match typeflag {
        // Before POSIX, a directory was an empty file whose name ends in a slash, and readers still take it as one.
        0 | b'0' | b'7' if path.ends_with(b"/") => {
            if size != 0 {
                return Err(Error::invalid("malformed tar: a file whose name ends in a slash"));
            }
            EntryKind::Directory
        }
        0 | b'0' | b'7' | b'S' => EntryKind::Regular,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::Character,
        b'4' => EntryKind::Block,
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        other => return Err(Error::invalid(format!("malformed tar: unknown type {:?}", char::from(other)))),
    })
}

/// Linux holds 12 bits of major number and 20 of minor.
fn device((major, minor): (u64, u64)) -> Result<(u32, u32)> {
    let part = |number: u64, bits: u32| u32::try_from(number).ok().filter(|number| number >> bits == 0);
    part(major, 12).zip(part(minor, 20)).ok_or_else(|| header::malformed("device number"))
}
