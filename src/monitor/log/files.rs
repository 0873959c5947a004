//! The files of a log: appended to, rotated by size, bounded in number. Knows records, and no lines.
//!
//! ```text
//! containers/<id>/log      the newest; made with the first record
//! containers/<id>/log.1    the one before it, and so on up to the number of files
//! ```
//!
//! One process writes: the container's monitor, or its writer.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::spool::{self, Growth, Spool};
use super::{LogOptions, Stream};
use crate::support::atomic::PRIVATE;

/// The newest file.
pub const FILE: &str = "log";

pub(super) struct Files<'a> {
    pub(super) directory: BorrowedFd<'a>,
    options: LogOptions,
    file: Option<OwnedFd>,
    inode: u64,
    size: u64,
    /// Lines that could not be written.
    lost: u64,
    spooling: Spooling,
}

/// Whether what is not in the log is held in files.
enum Spooling {
    /// The workload does not outlive this process, or the files cannot be written.
    No,
    /// From the first byte on.
    Soon,
    Yes(Spool),
}

/// What records are of.
#[derive(Clone, Copy)]
pub(super) struct Chunk {
    pub(super) lines: u64,
    /// So many bytes that were taken of a stream.
    pub(super) taken: Option<(Stream, u64)>,
}

impl<'a> Files<'a> {
    pub(super) fn new(directory: BorrowedFd<'a>, options: LogOptions) -> Self {
        Self { directory, options, file: None, inode: 0, size: 0, lost: 0, spooling: Spooling::No }
    }

    /// The same for a workload that may outlive this process.
    pub(super) fn new_spooled(directory: BorrowedFd<'a>, options: LogOptions) -> Self {
        Self { spooling: Spooling::Soon, ..Self::new(directory, options) }
    }

    /// Goes on where the monitor before was killed, and gives what that had taken and not written.
    pub(super) fn resume(directory: BorrowedFd<'a>, options: LogOptions) -> (Self, Vec<(Stream, Vec<u8>)>) {
        let mut files = Self::new_spooled(directory, options);
        // What cannot be read is lost.
        let Ok(Some(spool)) = Spool::resume(directory) else { return (files, Vec::new()) };
        let rest = [Stream::Output, Stream::Errors].map(|stream| (stream, spool.rest(stream).unwrap_or_default()));
        files.spooling = Spooling::Yes(spool);
        (files, rest.into())
    }

    /// Takes what there is of a stream, as read(2) does, so that it is not lost with this process.
    pub(super) fn take(&mut self, stream: Stream, from: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
        if let Spooling::Soon = self.spooling {
            self.spooling = Spool::make(self.directory).map_or(Spooling::No, Spooling::Yes);
        }
        if let Spooling::Yes(spool) = &mut self.spooling {
            match spool.take(stream, from, buffer) {
                Ok(count) => return Ok(count),
                Err(errno @ (Errno::AGAIN | Errno::INTR)) => return Err(errno),
                Err(_) => self.give_up_spool(),
            }
        }
        // With its end of the FIFO a workload may outlive us, and what is read from here on will not.
        rustix::io::read(from, buffer)
    }

    fn give_up_spool(&mut self) {
        self.spooling = Spooling::No;
        spool::remove(self.directory);
    }

    /// Keeps what holds the rest of a stream small.
    pub(super) fn tidy(&mut self, stream: Stream) {
        if let Spooling::Yes(spool) = &mut self.spooling
            && spool.tidy(stream).is_err()
        {
            self.give_up_spool();
        }
    }

    /// All that was taken is written.
    pub(super) fn finish(&mut self) {
        if let Spooling::Yes(_) = self.spooling {
            self.spooling = Spooling::Soon;
            spool::remove(self.directory);
        }
    }

    /// Says whether so many bytes more are too many for the newest file.
    pub(super) fn is_outgrown_by(&mut self, length: u64) -> bool {
        if self.file.is_none() {
            // For its size. A failure is met again by the write.
            let _ = self.open();
        }
        self.options.max_bytes.is_some_and(|most| self.size + length > most)
    }

    /// Writes records, with one write; where that fails they are counted, and the next that are written tell of it.
    pub(super) fn append(&mut self, records: &[u8], chunk: Chunk) {
        let appended = if self.lost == 0 {
            self.try_append(records, chunk)
        } else {
            let mut all = Vec::new();
            let notice = format!("husk: {} lines were lost: the log could not be written\n", self.lost);
            self.options.format.write(&mut all, jiff::Timestamp::now(), Stream::Errors, notice.as_bytes(), b"");
            all.extend_from_slice(records);
            self.try_append(&all, chunk)
        };
        match appended {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost += chunk.lines,
        }
        if let (Spooling::Yes(spool), Some((stream, bytes))) = (&mut self.spooling, chunk.taken) {
            spool.advance(stream, bytes);
        }
    }

    fn try_append(&mut self, records: &[u8], chunk: Chunk) -> Result<(), Errno> {
        let length = records.len() as u64;
        if self.file.is_none() {
            self.open()?;
        }
        if self.size > 0 && self.is_outgrown_by(length) {
            self.rotate()?;
            self.open()?;
        }
        if let (Spooling::Yes(spool), Some((stream, bytes))) = (&self.spooling, chunk.taken) {
            let growth = Growth { inode: self.inode, from: self.size, to: self.size + length };
            if spool.note(stream, bytes, growth).is_err() {
                self.give_up_spool();
            }
        }
        let Some(file) = &self.file else { return Ok(()) };
        match rustix::io::retry_on_intr(|| rustix::io::write(file, records)) {
            Ok(count) if count == records.len() => {
                self.size += length;
                Ok(())
            }
            // Half a record would make a reader stumble over the next one.
            answer => {
                let _ = rustix::fs::ftruncate(file, self.size);
                Err(answer.err().unwrap_or(Errno::NOSPC))
            }
        }
    }

    fn open(&mut self) -> Result<(), Errno> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.directory, FILE, flags, Mode::from_raw_mode(PRIVATE))?;
        let stat = rustix::fs::fstat(&file)?;
        (self.inode, self.size) = (stat.st_ino, u64::try_from(stat.st_size).unwrap_or(0));
        // Half a record, of whoever wrote before and was killed: what follows is to be one of its own.
        let mut last = [b'\n'];
        if self.size > 0 && rustix::io::pread(&file, &mut last, self.size - 1)? == 1 && last != *b"\n" {
            rustix::io::retry_on_intr(|| rustix::io::write(&file, b"\n"))?;
            self.size += 1;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Begins a new file. `log` becomes `log.1`, that `log.2`, and the last one goes.
    ///
    /// From the back, up to the first name that is free: where a monitor was killed at this, there is one in between.
    fn rotate(&mut self) -> Result<(), Errno> {
        self.file = None;
        self.size = 0;
        let name = |number: u32| if number == 0 { FILE.to_owned() } else { format!("{FILE}.{number}") };
        let last = self.options.max_files.saturating_sub(1);
        if last == 0 {
            return rustix::fs::unlinkat(self.directory, FILE, AtFlags::empty());
        }
        let is_free = |number: &u32| {
            let found = rustix::fs::statat(self.directory, name(*number), AtFlags::SYMLINK_NOFOLLOW);
            matches!(found, Err(Errno::NOENT))
        };
        let free = (1..last).find(is_free).unwrap_or(last);
        for number in (0..free).rev() {
            match rustix::fs::renameat(self.directory, name(number), self.directory, name(number + 1)) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}
