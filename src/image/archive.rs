//! Archives that hold an image, read in place.
//!
//! The tar's headers are walked once; what it holds is then read through the same descriptor by position, so nothing is
//! extracted. Links between members are followed inside the list of members only. An archive that is itself compressed,
//! or that is a pipe, is first written to an unnamed file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{Context, Error, Kind, Result};

use super::digest::Digest;
use super::layout;
use super::limits;
use super::media::Compression;
use super::resolve::{Blobs, Part};
use super::stream::{self, Unpacked};
use super::tar::{Entry, EntryKind, Reader, Skip};

/// How many links may be followed from a name to its content.
const LINK_HOPS: usize = 8;

/// A tar whose members can be read in any order.
pub(crate) struct Archive {
    file: File,
    members: HashMap<Vec<u8>, Member>,
}

enum Member {
    Content {
        position: u64,
        size: u64,
    },
    Link(Vec<u8>),
    /// It stands in the archive twice, and two readers would see two contents.
    Ambiguous,
}

impl Archive {
    /// Opens an archive and lists its members.
    pub(crate) fn open(path: &Path, scratch: &dyn Fn() -> Result<File>) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        // A device may never end.
        match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
            FileType::RegularFile | FileType::Fifo => {}
            _ => return Err(Error::invalid("neither a file nor a pipe")),
        }
        Self::from_file(file, scratch)
    }

    /// Lists the members of an archive that is open already.
    pub(crate) fn from_file(file: File, scratch: &dyn Fn() -> Result<File>) -> Result<Self> {
        let file = plain(file, scratch)?;
        let members = list(&file)?;
        Ok(Self { file, members })
    }

    /// Says whether there is a member of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name.as_bytes())
    }

    /// Opens a member and says how long it is.
    pub(crate) fn member(&self, name: &str) -> Result<(Part<'_>, u64)> {
        let missing = || Error::new(Kind::NotFound, format!("no file {name} in the archive"));
        let mut key = normalise(name.as_bytes(), b"").ok_or_else(missing)?;
        for _ in 0..LINK_HOPS {
            match self.members.get(&key).ok_or_else(missing)? {
                Member::Content { position, size } => {
                    let end = position + size;
                    return Ok((Part { file: &self.file, position: *position, end }, *size));
                }
                Member::Link(target) => key.clone_from(target),
                Member::Ambiguous => return Err(Error::invalid(format!("{name} is in the archive twice"))),
            }
        }
        Err(Error::invalid(format!("{name}: too many links in the archive")))
    }

    /// Reads a small member.
    pub(crate) fn read(&self, name: &str, limit: usize) -> Result<Vec<u8>> {
        let (part, size) = self.member(name)?;
        if size > limit as u64 {
            return Err(Error::invalid(format!("{name}: larger than {limit} bytes")));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(limit));
        part.take(size).read_to_end(&mut bytes).context(name.to_owned())?;
        if bytes.len() as u64 != size {
            return Err(Error::invalid(format!("{name}: the archive ends inside it")));
        }
        Ok(bytes)
    }
}

/// An archive that holds an OCI image layout.
pub(crate) struct OciArchive(Archive);

impl OciArchive {
    pub(crate) fn open(path: &Path, scratch: &dyn Fn() -> Result<File>) -> Result<Self> {
        Self::new(Archive::open(path, scratch)?)
    }

    /// Checks that an archive is one.
    pub(crate) fn new(archive: Archive) -> Result<Self> {
        let marker = archive.read("oci-layout", 4096).map_err(|error| match error.kind() {
            Kind::NotFound => Error::invalid("not an OCI archive: there is no file oci-layout in it")
                .with_hint("if `docker save` or `podman save` wrote it, try docker-archive:FILE"),
            _ => error,
        })?;
        layout::check_marker(&marker).context("oci-layout")?;
        Ok(Self(archive))
    }
}

impl Blobs for OciArchive {
    fn index(&self) -> Result<Vec<u8>> {
        self.0.read("index.json", limits::MANIFEST_BYTES)
    }

    fn blob(&self, digest: &Digest) -> Result<(Box<dyn Read + Send + '_>, u64)> {
        let (part, size) = self.0.member(&layout::blob_path(digest))?;
        Ok((Box::new(part), size))
    }
}

/// Gives a file that can be read by position and is a plain tar.
fn plain(file: File, scratch: &dyn Fn() -> Result<File>) -> Result<File> {
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(Error::invalid("it is a directory, not an archive"));
    }
    let mut start = [0; 10];
    if metadata.is_file() {
        let length = file.read_at(&mut start, 0)?;
        refuse_foreign(&start[..length])?;
        if Compression::detect(&start[..length]) == Compression::None {
            return Ok(file);
        }
    }
    let mut input = BufReader::with_capacity(stream::BLOCK_BYTES, file);
    refuse_foreign(input.fill_buf().map_err(stream::error)?)?;
    let mut input = Unpacked::new(input, None, limits::LayerLimits::default().bytes)?;
    let mut output = scratch().context("make a temporary file")?;
    let mut buffer = vec![0; stream::BLOCK_BYTES];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(output),
            Ok(length) => output.write_all(&buffer[..length]).context("write a temporary file")?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(stream::error(error)),
        }
    }
}

/// Refuses what docker and podman also inflate, and husk does not: archives are seldom packed so, and layers never.
fn refuse_foreign(start: &[u8]) -> Result<()> {
    let program = match start {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "xz",
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => "bzip2",
        _ => return Ok(()),
    };
    Err(Error::unsupported(format!("it is packed with {program}, which husk does not read"))
        .with_hint(format!("unpack it on its way: `{program} -dc FILE | husk load`")))
}

fn list(file: &File) -> Result<HashMap<Vec<u8>, Member>> {
    let length = file.metadata()?.len();
    let mut reader = Reader::new(Headers { file, position: 0, length, buffer: vec![0; 4096], start: 0, end: 0 });
    let mut members = HashMap::new();
    let mut entry = Entry::default();
    while reader.next(&mut entry)? {
        let Some(name) = normalise(&entry.path, b"") else {
            return Err(Error::invalid(format!("{}: the name climbs out of the archive", entry.name())));
        };
        let member = match entry.kind {
            EntryKind::Regular if entry.sparse.is_none() => {
                let position = reader.position();
                if length - position < entry.size {
                    return Err(Error::invalid(format!("{}: the archive ends inside it", entry.name())));
                }
                Member::Content { position, size: entry.size }
            }
            // Relative to the member's own directory; a hard link names another member from the top.
            EntryKind::Symlink => match normalise(&entry.link, parent(&name)) {
                Some(target) if !entry.link.starts_with(b"/") => Member::Link(target),
                _ => continue,
            },
            EntryKind::HardLink => match normalise(&entry.link, b"") {
                Some(target) => Member::Link(target),
                None => continue,
            },
            _ => continue,
        };
        members.entry(name).and_modify(|known| *known = Member::Ambiguous).or_insert(member);
        if members.len() > limits::ARCHIVE_MEMBERS {
            return Err(Error::invalid(format!("limit: more than {} files in the archive", limits::ARCHIVE_MEMBERS)));
        }
    }
    Ok(members)
}

fn parent(name: &[u8]) -> &[u8] {
    name.iter().rposition(|byte| *byte == b'/').map_or(b"", |slash| &name[..slash])
}

/// Brings a name to the form `a/b`; none where it climbs out. Purely a key: no file system is asked.
fn normalise(name: &[u8], directory: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in directory.split(|byte| *byte == b'/').chain(name.split(|byte| *byte == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

/// Reads headers through a small window and jumps over contents.
struct Headers<'a> {
    file: &'a File,
    position: u64,
    length: u64,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Read for Headers<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let length = bytes.len().min(into.len());
        into[..length].copy_from_slice(&bytes[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Headers<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.start = 0;
            self.end = self.file.read_at(&mut self.buffer, self.position)?;
            self.position += self.end as u64;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, length: usize) {
        self.start += length;
    }
}

impl Skip for Headers<'_> {
    fn skip(&mut self, length: u64) -> io::Result<()> {
        let ready = (self.end - self.start) as u64;
        if length <= ready {
            self.start += usize::try_from(length).expect("no longer than the buffer");
            return Ok(());
        }
        self.start = self.end;
        let position = self.position.checked_add(length - ready).filter(|position| *position <= self.length);
        self.position = position.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(())
    }
}
