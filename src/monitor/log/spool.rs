//! What of a container's output has left its FIFO and is not in its log: held in files, since whoever is between the two may be
//! killed. Formats nothing, and knows no lines.
//!
//! ```text
//! containers/<id>/unlogged.output, unlogged.errors   bytes, moved there by splice(2): in the FIFO or here, never between
//! containers/<id>/unlogged.mark                      how much of them is in the log, by the size that the log has
//! ```
//!
//! The mark is written before the log is: how much was in it before, how much will be, and which size the log has before and
//! after that. So the next monitor finds out by the log's size whether it came to that; half of a write it takes back. Not a
//! byte is lost or doubled, whenever it happens. (A write of the kernel is not interrupted within a page, so the mark is
//! there whole or not at all.)
//!
//! A file that cannot be written to, for the disk is full, is given up: the output then goes by way of memory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};

use super::{FILE, Stream};
use crate::support::atomic::PRIVATE;

const FILES: [&str; 2] = ["unlogged.output", "unlogged.errors"];
const MARK: &str = "unlogged.mark";

/// A file of this size begins anew once all of it is in the log.
const FULL: u64 = 64 << 10;

pub(super) struct Spool {
    files: [OwnedFd; 2],
    mark: OwnedFd,
    /// How many bytes the files have.
    sizes: [u64; 2],
    /// How many of them are in the log.
    logged: [u64; 2],
}

/// The log, as it is before a write and as that makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Growth {
    pub(super) inode: u64,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// What the mark says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    before: [u64; 2],
    after: [u64; 2],
    growth: Growth,
}

const MARK_SIZE: usize = 7 * size_of::<u64>();

impl Mark {
    fn encode(self) -> [u8; MARK_SIZE] {
        let Self { before, after, growth: Growth { inode, from, to } } = self;
        let mut bytes = [0; MARK_SIZE];
        let numbers = [before[0], before[1], after[0], after[1], inode, from, to];
        for (place, number) in bytes.chunks_exact_mut(size_of::<u64>()).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8; MARK_SIZE]) -> Self {
        let mut numbers = bytes.as_chunks().0.iter().map(|number| u64::from_le_bytes(*number));
        let mut next = || numbers.next().unwrap_or_default();
        Self {
            before: [next(), next()],
            after: [next(), next()],
            growth: Growth { inode: next(), from: next(), to: next() },
        }
    }
}

impl Spool {
    /// Begins with nothing.
    pub(super) fn make(folder: BorrowedFd<'_>) -> Result<Self, Errno> {
        // The mark last: without it, what is in the others is taken for not logged.
        let open = |name| open(folder, name, OFlags::CREATE | OFlags::TRUNC);
        Ok(Self { files: [open(FILES[0])?, open(FILES[1])?], mark: open(MARK)?, sizes: [0; 2], logged: [0; 2] })
    }

    /// Takes up what a monitor before has left; `None` where there is nothing. A log that it has written to by half is as it
    /// was before.
    pub(super) fn resume(folder: BorrowedFd<'_>) -> Result<Option<Self>, Errno> {
        let existing = |name| match open(folder, name, OFlags::empty()) {
            Err(Errno::NOENT) => Ok(None),
            answer => answer.map(Some),
        };
        let (Some(output), Some(errors)) = (existing(FILES[0])?, existing(FILES[1])?) else { return Ok(None) };
        let Some(file) = existing(MARK)? else { return Ok(None) };
        let mut bytes = [0; MARK_SIZE];
        let length = rustix::io::retry_on_intr(|| rustix::io::pread(&file, &mut bytes, 0))?;
        let mark = if length == MARK_SIZE { Mark::decode(&bytes) } else { Mark::default() };
        let logged = if was_written(folder, mark.growth)? { mark.after } else { mark.before };
        let sizes = [size(&output)?, size(&errors)?];
        // A file that has less than was logged of it was begun anew, which the mark did not come to say.
        let logged = [0, 1].map(|place| if logged[place] > sizes[place] { 0 } else { logged[place] });
        Ok(Some(Self { files: [output, errors], mark: file, sizes, logged }))
    }

    /// Moves what there is of a stream here, as much as `buffer` holds, and gives it.
    pub(super) fn take(&mut self, stream: Stream, from: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
        let place = place(stream);
        let mut end = self.sizes[place];
        let count = splice(from, None, &self.files[place], Some(&mut end), buffer.len(), SpliceFlags::NONBLOCK)?;
        let start = std::mem::replace(&mut self.sizes[place], end);
        self.read(place, start, &mut buffer[..count])?;
        Ok(count)
    }

    /// Gives what was taken and is not in the log.
    pub(super) fn rest(&self, stream: Stream) -> Result<Vec<u8>, Errno> {
        let place = place(stream);
        let (start, end) = (self.logged[place], self.sizes[place]);
        let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(0)];
        self.read(place, start, &mut bytes)?;
        Ok(bytes)
    }

    fn read(&self, place: usize, start: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < buffer.len() {
            let count = rustix::io::retry_on_intr(|| {
                rustix::io::pread(&self.files[place], &mut buffer[done..], start + done as u64)
            })?;
            if count == 0 {
                return Err(Errno::IO);
            }
            done += count;
        }
        Ok(())
    }

    /// Notes that the log is about to be written to, after which it has so many bytes more of a stream.
    pub(super) fn note(&self, stream: Stream, count: u64, growth: Growth) -> Result<(), Errno> {
        let mut after = self.logged;
        after[place(stream)] += count;
        self.write_mark(Mark { before: self.logged, after, growth })
    }

    /// So many bytes more of a stream are in the log, or were dropped and counted there.
    pub(super) fn advance(&mut self, stream: Stream, count: u64) {
        self.logged[place(stream)] += count;
    }

    fn write_mark(&self, mark: Mark) -> Result<(), Errno> {
        rustix::io::retry_on_intr(|| rustix::io::pwrite(&self.mark, &mark.encode(), 0)).map(drop)
    }

    /// Begins a file anew that is in the log, where it has become large.
    pub(super) fn tidy(&mut self, stream: Stream) -> Result<(), Errno> {
        let place = place(stream);
        if self.sizes[place] < FULL || self.logged[place] != self.sizes[place] {
            return Ok(());
        }
        rustix::fs::ftruncate(&self.files[place], 0)?;
        (self.sizes[place], self.logged[place]) = (0, 0);
        self.write_mark(Mark { before: self.logged, after: self.logged, growth: Growth::default() })
    }
}

/// Deletes the files; the mark last, without which the others would be taken for not logged.
pub(super) fn remove(folder: BorrowedFd<'_>) {
    for name in FILES.into_iter().chain([MARK]) {
        let _ = rustix::fs::unlinkat(folder, name, AtFlags::empty());
    }
}

/// Finds out whether a write came about, and takes half of one back.
fn was_written(folder: BorrowedFd<'_>, growth: Growth) -> Result<bool, Errno> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let log = match rustix::fs::openat(folder, FILE, flags, Mode::empty()) {
        Ok(log) => log,
        // Rotated since: that comes after a write, and before the next one is noted.
        Err(Errno::NOENT) => return Ok(growth.inode != 0),
        Err(errno) => return Err(errno),
    };
    let stat = rustix::fs::fstat(&log)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if stat.st_ino != growth.inode || size >= growth.to {
        return Ok(growth.inode != 0);
    }
    if size > growth.from {
        rustix::fs::ftruncate(&log, growth.from)?;
    }
    Ok(false)
}

fn open(folder: BorrowedFd<'_>, name: &str, extra: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | extra;
    rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(PRIVATE))
}

fn size(file: impl AsFd) -> Result<u64, Errno> {
    Ok(u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0))
}

fn place(stream: Stream) -> usize {
    usize::from(stream == Stream::Errors)
}
