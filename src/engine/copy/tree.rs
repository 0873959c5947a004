//! Reads a file or a tree by descriptor, as entries. Follows no symlink below its top, opens nothing but directories and
//! regular files, and enters no file system that the kernel makes up.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, FsWord, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use super::{Sink, Source};
use crate::error::{Context, Error, Result};
use crate::image::stream::BLOCK_BYTES;
use crate::image::tar::{Entry, EntryKind, Time};
use crate::image::write::walk::{Step, walk_some};
use crate::support::root::Root;

/// File systems that show the kernel's state and not files: proc, sysfs, cgroup, cgroup2, devpts, mqueue, debugfs, tracefs,
/// securityfs, bpf (linux/magic.h). Their files have no size, or no end, or act when they are read.
const MADE_UP: [FsWord; 10] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x1980_0202,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
];

/// Reads what a source names. Gives lines for the user: what was left out.
pub(super) fn read(root: &Root, source: &Source, sink: &mut dyn Sink) -> Result<Vec<String>> {
    let mut reader = TreeReader { left_out: Vec::new(), buffer: vec![0; BLOCK_BYTES] };
    let flags = if source.follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
    let top = root.open_at(&source.path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&top)?;
    if is_made_up(top.as_fd())? {
        return Err(Error::unsupported("it is the kernel's, and no file that could be copied")
            .with_hint("`husk exec` reads it inside the container"));
    }
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        reader.read_file(&top, &stat, &[], sink)?;
        return Ok(reader.left_out);
    }
    sink.put(&describe(&stat, &[], EntryKind::Directory), &mut |_| Ok(()))?;
    walk_some(&Root::from_fd(top), |found| {
        if let Some(opened) = found.opened {
            sink.put(&describe(&found.stat, found.path, EntryKind::Directory), &mut |_| Ok(()))?;
            return Ok(if is_made_up(opened)? { Step::Over } else { Step::Into });
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(found.directory, found.name, flags, Mode::empty()) {
            // Gone meanwhile.
            Err(Errno::NOENT) => return Ok(Step::Over),
            answer => answer.context("open")?,
        };
        let stat = rustix::fs::fstat(&file)?;
        reader.read_file(&file, &stat, found.path, sink)?;
        Ok(Step::Over)
    })?;
    Ok(reader.left_out)
}

struct TreeReader {
    left_out: Vec<String>,
    buffer: Vec<u8>,
}

impl TreeReader {
    /// Reads what is no directory, opened as a path: its kind is that of the inode that is read, whatever its name means by
    /// now.
    fn read_file(&mut self, file: &OwnedFd, stat: &Stat, path: &[u8], sink: &mut dyn Sink) -> Result<()> {
        let what = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if is_made_up(file.as_fd())? => "a file of the kernel's",
            FileType::RegularFile => {
                let entry = Entry {
                    size: u64::try_from(stat.st_size).unwrap_or_default(),
                    ..describe(stat, path, EntryKind::Regular)
                };
                let opened = reopen(file)?;
                let buffer = &mut self.buffer;
                return sink.put(&entry, &mut |take| read_data(&opened, entry.size, buffer, take));
            }
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(file, c"", Vec::new()).context("read link")?.into_bytes();
                let entry = Entry { link, ..describe(stat, path, EntryKind::Symlink) };
                return sink.put(&entry, &mut |_| Ok(()));
            }
            FileType::Fifo => return sink.put(&describe(stat, path, EntryKind::Fifo), &mut |_| Ok(())),
            FileType::Socket => "a socket",
            FileType::Directory => return Err(Error::invalid("it became a directory while it was read")),
            _ => "a device",
        };
        self.left_out.push(format!("{}: {what} is not copied", String::from_utf8_lossy(path).escape_debug()));
        Ok(())
    }
}

/// Opens a regular file to be read, by a descriptor of its path: there is no name that could mean something else.
fn reopen(file: &OwnedFd) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).context("open")
}

/// Reads the file's pieces up to the size that it had at first; holes are left out.
fn read_data(
    file: &OwnedFd,
    size: u64,
    buffer: &mut [u8],
    take: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut position = 0;
    while position < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(position)) {
            // A hole up to the end, or the file is shorter now: then zeros take its place.
            Err(Errno::NXIO) => return Ok(()),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => position,
            answer => answer.context("read")?,
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap_or(size).min(size);
        position = start;
        while position < end {
            let most = usize::try_from(end - position).unwrap_or(usize::MAX).min(buffer.len());
            match rustix::io::pread(file, &mut buffer[..most], position) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    take(position, &buffer[..length])?;
                    position += length as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("read"),
            }
        }
        if start >= size {
            return Ok(());
        }
    }
    Ok(())
}

fn is_made_up(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(MADE_UP.contains(&rustix::fs::fstatfs(fd)?.f_type))
}

fn describe(stat: &Stat, path: &[u8], kind: EntryKind) -> Entry {
    Entry {
        kind,
        path: path.to_vec(),
        mode: if kind == EntryKind::Symlink { 0o777 } else { stat.st_mode & 0o7777 },
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec },
        ..Entry::default()
    }
}
