//! Describes what is in a tree as entries of a tar, and writes them with their contents.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::image::limits;
use crate::image::stream::BLOCK_BYTES;
use crate::image::tar::{Entry, EntryKind, Time, Xattr};
use crate::image::unpack::{OWNER_XATTR, OverlayXattr, Ownership, is_wanted};
use crate::support::root::Root;
use crate::support::xattr;

use super::pack::{Level, Packer};
use super::tar::TarWriter;
use super::walk::{Found, join, walk};
use super::{Changing, Settings, Written};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Writes a tree; as a layer, if it is the upper directory of an overlay.
pub(super) fn write<W: Write>(
    root: &Root,
    overlay: Option<OverlayXattr>,
    passed_over: &[Vec<u8>],
    settings: &Settings,
    out: W,
) -> Result<(W, Written)> {
    let packer = Packer::new(out, settings.compression, Level::default(), settings.algorithm)?;
    let mut writer = TreeWriter {
        tar: TarWriter::new(packer),
        overlay,
        settings,
        links: HashMap::new(),
        left_out: Vec::new(),
        buffer: vec![0; BLOCK_BYTES],
    };
    walk(root, |found| if passed_over.iter().any(|path| path == found.path) { Ok(()) } else { writer.add(found) })?;
    let TreeWriter { tar, left_out, .. } = writer;
    let entries = tar.entries();
    let (out, packed) = tar.finish()?.finish()?;
    Ok((out, Written { packed, entries, left_out }))
}

struct TreeWriter<'s, W: Write> {
    tar: TarWriter<Packer<W>>,
    overlay: Option<OverlayXattr>,
    settings: &'s Settings,
    /// The first names of files that have more: the entries that the others are links to.
    links: HashMap<(u64, u64), Entry>,
    left_out: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

impl<W: Write> TreeWriter<'_, W> {
    fn add(&mut self, found: &Found<'_>) -> Result<()> {
        if self.overlay.is_some() && found.name.starts_with(WHITEOUT) {
            return Err(Error::invalid("in a layer, a name that begins with .wh. hides another"));
        }
        match (found.kind(), found.opened) {
            (FileType::Directory, Some(opened)) => self.add_directory(found, opened),
            (FileType::RegularFile, _) => self.add_file(found),
            (FileType::CharacterDevice, _) if self.overlay.is_some() && found.stat.st_rdev == 0 => {
                self.add_marker(&whiteout_of(found))
            }
            (FileType::Socket, _) => {
                self.left_out.push(found.path.to_vec());
                Ok(())
            }
            _ => self.add_other(found),
        }
    }

    fn add_directory(&mut self, found: &Found<'_>, opened: BorrowedFd<'_>) -> Result<()> {
        let mut entry = self.describe(found, EntryKind::Directory);
        entry.path.push(b'/');
        self.describe_further(&mut entry, opened)?;
        self.tar.entry(&entry)?;
        if let Some(overlay) = self.overlay
            && is_opaque(opened, overlay)?
        {
            self.add_marker(&join(found.path, OPAQUE))?;
        }
        Ok(())
    }

    fn add_file(&mut self, found: &Found<'_>) -> Result<()> {
        let fd = open_file(found)?;
        if let Some(overlay) = self.overlay
            && is_whiteout(fd.as_fd(), found.stat.st_size, overlay)?
        {
            return self.add_marker(&whiteout_of(found));
        }
        let mut entry = self.describe(found, EntryKind::Regular);
        self.describe_further(&mut entry, fd.as_fd())?;
        if self.add_link(found, &entry)? {
            return Ok(());
        }
        if entry.kind != EntryKind::Regular {
            // The empty file that stands for a device has nothing to read.
            return self.tar.entry(&entry);
        }
        entry.size = u64::try_from(found.stat.st_size).unwrap_or_default();
        self.tar.entry(&entry)?;
        self.copy(&fd, entry.size)?;
        if self.settings.changing == Changing::Refuse {
            let now = rustix::fs::fstat(&fd)?;
            let is_same = (now.st_size, now.st_mtime, now.st_mtime_nsec)
                == (found.stat.st_size, found.stat.st_mtime, found.stat.st_mtime_nsec);
            if !is_same {
                return Err(changed());
            }
        }
        Ok(())
    }

    /// Copies as many bytes as the entry says.
    fn copy(&mut self, fd: &OwnedFd, size: u64) -> Result<()> {
        let mut left = size;
        while left > 0 {
            let most = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let length = match rustix::io::read(fd, &mut self.buffer[..most]) {
                Ok(0) if self.settings.changing == Changing::Refuse => return Err(changed()),
                Ok(0) => {
                    self.buffer[..most].fill(0);
                    most
                }
                Ok(length) => length,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error).context("read"),
            };
            self.tar.data(&self.buffer[..length])?;
            left -= length as u64;
        }
        Ok(())
    }

    /// Symlinks, FIFOs and devices.
    fn add_other(&mut self, found: &Found<'_>) -> Result<()> {
        let kind = match found.kind() {
            FileType::Symlink => EntryKind::Symlink,
            FileType::Fifo => EntryKind::Fifo,
            FileType::CharacterDevice => EntryKind::Character,
            FileType::BlockDevice => EntryKind::Block,
            _ => return Err(Error::invalid("a kind of file that a tar does not have")),
        };
        let mut entry = self.describe(found, kind);
        match kind {
            EntryKind::Symlink => {
                let target = rustix::fs::readlinkat(found.directory, found.name, Vec::new()).context("read link")?;
                entry.link = target.into_bytes();
            }
            EntryKind::Character | EntryKind::Block => {
                entry.major = rustix::fs::major(found.stat.st_rdev);
                entry.minor = rustix::fs::minor(found.stat.st_rdev);
            }
            _ => {}
        }
        if self.add_link(found, &entry)? {
            return Ok(());
        }
        self.tar.entry(&entry)
    }

    /// Writes a link to the first name of the same file, if there was one.
    fn add_link(&mut self, found: &Found<'_>, entry: &Entry) -> Result<bool> {
        if found.stat.st_nlink < 2 {
            return Ok(false);
        }
        let identity = (found.stat.st_dev, found.stat.st_ino);
        let Some(first) = self.links.get(&identity) else {
            self.links.insert(identity, Entry { xattrs: Vec::new(), ..entry.clone() });
            return Ok(false);
        };
        // Attributes and contents are the file's, and said where it was first met.
        let link = Entry {
            kind: EntryKind::HardLink,
            path: found.path.to_vec(),
            link: first.path.clone(),
            size: 0,
            ..first.clone()
        };
        self.tar.entry(&link)?;
        Ok(true)
    }

    /// Writes an empty file whose name says all. It has no time of its own: overlayfs links all whiteouts to one.
    fn add_marker(&mut self, path: &[u8]) -> Result<()> {
        self.tar.entry(&Entry { path: path.to_vec(), ..Entry::default() })
    }

    fn describe(&self, found: &Found<'_>, kind: EntryKind) -> Entry {
        let stat = &found.stat;
        let (uid, gid) = match self.settings.ownership {
            Ownership::Keep => (stat.st_uid, stat.st_gid),
            Ownership::Record => (0, 0),
        };
        Entry {
            kind,
            path: found.path.to_vec(),
            // A link's mode is not its own, and other systems say other things there.
            mode: if kind == EntryKind::Symlink { 0o777 } else { stat.st_mode & 0o7777 },
            uid,
            gid,
            mtime: self.time(stat.st_mtime, stat.st_mtime_nsec),
            ..Entry::default()
        }
    }

    /// Adds what only an open file tells: attributes, and the owner in one of them.
    fn describe_further(&self, entry: &mut Entry, fd: BorrowedFd<'_>) -> Result<()> {
        let names = xattr_names(fd)?;
        if let Some(overlay) = self.overlay {
            for (name, hint) in [
                (overlay.redirect(), "the overlay was mounted with redirect_dir=on"),
                (overlay.metacopy(), "the overlay was mounted with metacopy=on"),
            ] {
                if names.iter().any(|known| known.as_slice() == name.as_bytes()) {
                    return Err(Error::unsupported(format!("attribute {name}: a layer cannot say it")).with_hint(hint));
                }
            }
        }
        for name in names {
            if !is_wanted(&name, entry.kind) {
                continue;
            }
            // The names that are wanted are text.
            let Ok(text) = std::str::from_utf8(&name) else { continue };
            if let Some(value) = xattr::read(fd, text)? {
                entry.xattrs.push(Xattr { name, value });
            }
        }
        if self.settings.ownership == Ownership::Record
            && let Some(record) = xattr::read(fd, OWNER_XATTR)?
        {
            let owner =
                Owner::parse(&record).ok_or_else(|| Error::invalid(format!("attribute {OWNER_XATTR}: malformed")))?;
            owner.apply(entry);
        }
        Ok(())
    }

    fn time(&self, seconds: i64, nanoseconds: impl TryInto<u64>) -> Time {
        let nanoseconds = if self.settings.with_fractions { nanoseconds.try_into().unwrap_or(0) } else { 0 };
        match self.settings.latest {
            Some(latest) if seconds >= latest => Time { seconds: latest, nanoseconds: 0 },
            _ => Time { seconds, nanoseconds },
        }
    }
}

fn changed() -> Error {
    Error::invalid("the file changed while it was read")
}

fn whiteout_of(found: &Found<'_>) -> Vec<u8> {
    let directory = &found.path[..found.path.len() - found.name.len()];
    [directory, WHITEOUT, found.name].concat()
}

/// Opens a regular file, and nothing that took its name meanwhile.
fn open_file(found: &Found<'_>) -> Result<OwnedFd> {
    // A FIFO in its place would block without NONBLOCK, which means nothing to a file.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(found.directory, found.name, flags, Mode::empty()).context("open")?;
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_ino != found.stat.st_ino {
        return Err(changed());
    }
    Ok(fd)
}

/// Does a directory of an overlay hide what is below it?
pub(super) fn is_opaque(directory: BorrowedFd<'_>, overlay: OverlayXattr) -> Result<bool> {
    // `x` only says that there are files with the attribute of a whiteout inside.
    Ok(xattr::read(directory, overlay.opaque())?.as_deref() == Some(b"y"))
}

/// Is a regular file of an overlay a whiteout? (Linux 6.7)
pub(super) fn is_whiteout(file: BorrowedFd<'_>, size: i64, overlay: OverlayXattr) -> Result<bool> {
    Ok(size == 0 && xattr::read(file, overlay.whiteout())?.is_some())
}

/// Lists the names of a file's extended attributes, sorted.
fn xattr_names(fd: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>> {
    let mut list = vec![0; 1024];
    let length = loop {
        match rustix::fs::flistxattr(fd, list.as_mut_slice()) {
            Ok(length) => break length,
            Err(Errno::OPNOTSUPP) => break 0,
            // XATTR_LIST_MAX is 64 KiB.
            Err(Errno::RANGE) if list.len() < limits::XATTR_BYTES => list.resize(limits::XATTR_BYTES, 0),
            Err(error) => return Err(error).context("list attributes"),
        }
    };
    let mut names: Vec<Vec<u8>> =
        list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
    names.sort_unstable();
    Ok(names)
}

/// What [`OWNER_XATTR`] says.
#[derive(Debug, PartialEq, Eq)]
struct Owner {
    uid: u32,
    gid: u32,
    mode: u32,
    device: Option<(EntryKind, u32, u32)>,
}

impl Owner {
    fn parse(record: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(record).ok()?.split(':');
        let (uid, gid) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let mode = u32::from_str_radix(words.next()?, 8).ok().filter(|mode| *mode <= 0o7777)?;
        let device = match words.next() {
            None => None,
            Some(letter) => {
                let kind = match letter {
                    "c" => EntryKind::Character,
                    "b" => EntryKind::Block,
                    _ => return None,
                };
                Some((kind, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
            }
        };
        words.next().is_none().then_some(Self { uid, gid, mode, device })
    }

    /// Makes the entry what the image said. A mode that was changed since is kept.
    fn apply(self, entry: &mut Entry) {
        (entry.uid, entry.gid) = (self.uid, self.gid);
        if self.mode & 0o1777 == entry.mode & 0o1777 {
            entry.mode = self.mode;
        }
        if let Some((kind, major, minor)) = self.device {
            (entry.kind, entry.major, entry.minor) = (kind, major, minor);
            entry.xattrs.clear();
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a crash")]
mod tests {
    use std::io::{Seek, SeekFrom};

    use super::*;
    use crate::image::digest::Algorithm;
    use crate::image::media::Compression;

    /// What stood there when it was looked at may be anything by the time it is opened.
    #[test]
    fn nothing_else_is_read_in_place_of_a_file() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        std::fs::write(path("secret"), "secret").unwrap();
        let directory = Root::open(place.path()).unwrap();
        let replace: [(&str, &dyn Fn()); 4] = [
            ("symlink", &|| std::os::unix::fs::symlink("secret", path("f")).unwrap()),
            ("fifo", &|| rustix::fs::mkfifoat(rustix::fs::CWD, path("f"), Mode::RWXU).unwrap()),
            ("directory", &|| std::fs::create_dir(path("f")).unwrap()),
            ("other file", &|| std::fs::hard_link(path("secret"), path("f")).unwrap()),
        ];
        for (name, replace) in replace {
            std::fs::write(path("f"), "").unwrap();
            let stat = rustix::fs::stat(path("f")).unwrap();
            let found = Found { directory: directory.as_fd(), name: b"f", path: b"f", stat, opened: None };
            assert!(open_file(&found).is_ok());
            std::fs::rename(path("f"), path("old")).unwrap();
            replace();
            assert!(open_file(&found).is_err(), "{name}");
            crate::support::remove::remove_tree(directory.as_fd(), std::ffi::OsStr::new("f")).unwrap();
        }
    }

    #[test]
    fn a_file_that_shrinks_is_an_error_or_filled_up() {
        for (changing, expected) in [(Changing::Refuse, None), (Changing::Fill, Some(&b"abc\0\0"[..]))] {
            let settings = Settings {
                compression: Compression::None,
                algorithm: Algorithm::Sha256,
                ownership: Ownership::Record,
                latest: None,
                with_fractions: false,
                changing,
            };
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"abc").unwrap();
            file.seek(SeekFrom::Start(0)).unwrap();
            let packer = Packer::new(Vec::new(), Compression::None, Level::default(), Algorithm::Sha256).unwrap();
            let mut writer = TreeWriter {
                tar: TarWriter::new(packer),
                overlay: None,
                settings: &settings,
                links: HashMap::new(),
                left_out: Vec::new(),
                buffer: vec![0; 4],
            };
            writer.tar.entry(&Entry { path: b"a".to_vec(), size: 5, ..Entry::default() }).unwrap();
            let answer = writer.copy(&file.into(), 5);
            assert_eq!(answer.is_ok(), expected.is_some());
            if let Some(expected) = expected {
                let (tar, _) = writer.tar.finish().unwrap().finish().unwrap();
                assert_eq!(&tar[512..517], expected);
            }
        }
    }

    #[test]
    fn owners_are_read_to_the_byte() {
        let owner = |uid, gid, mode, device| Some(Owner { uid, gid, mode, device });
        for (text, expected) in [
            ("0:0:644", owner(0, 0, 0o644, None)),
            ("1000:4294967294:4755", owner(1000, 4_294_967_294, 0o4755, None)),
            ("0:6:660:b:8:1", owner(0, 6, 0o660, Some((EntryKind::Block, 8, 1)))),
            ("0:0:0:c:0:0", owner(0, 0, 0, Some((EntryKind::Character, 0, 0)))),
            ("", None),
            ("0:0", None),
            ("0:0:888", None),
            ("0:0:17777", None),
            ("-1:0:644", None),
            ("0:0:644:", None),
            ("0:0:644:x:1:2", None),
            ("0:0:644:c:1", None),
            ("0:0:644:c:1:2:3", None),
            ("4294967296:0:644", None),
        ] {
            assert_eq!(Owner::parse(text.as_bytes()), expected, "{text}");
        }
    }
}
