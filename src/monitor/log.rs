//! A container's log: what it wrote, line by line, in docker's or podman's format, in files that are rotated by size.
//!
//! ```text
//! containers/<id>/log      the newest; made with the first line
//! containers/<id>/log.1    the one before it, and so on up to the number of files
//! ```
//!
//! Lines are written once they are complete, those that come together with one write(2); one that grows past [`LINE_SIZE`]
//! goes in parts, as docker and containerd do it. A line that cannot be written is dropped and counted, and the next that can
//! be says how many: the container goes on, whatever the disk says. One process writes: the container's monitor. What that
//! has read and not written stays in the [`spool`], where the workload may outlive it.

mod format;
pub mod read;
mod spool;

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use spool::{Growth, Spool};

use super::link::Stream;
use crate::support::atomic::PRIVATE;

pub use format::Format;

/// The newest file.
pub const FILE: &str = "log";

/// Where a line is cut, as docker and containerd cut it.
pub const LINE_SIZE: usize = 16 << 10;

/// How a container's output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    pub format: Format,
    /// Where the newest file is closed and the next begun, in bytes; never without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// How many files there are at most, the newest included; at least one.
    pub max_files: u32,
}

impl Default for LogOptions {
    /// Docker's format, bounded: what nobody reads must not fill the disk.
    fn default() -> Self {
        Self { format: Format::Json, max_bytes: Some(10 << 20), max_files: 3 }
    }
}

/// The log of a container that runs.
pub(super) struct Log<'a> {
    directory: BorrowedFd<'a>,
    options: LogOptions,
    attributes: &'a str,
    file: Option<OwnedFd>,
    inode: u64,
    size: u64,
    output: Line,
    errors: Line,
    /// Lines that could not be written.
    lost: u64,
    batch: Batch,
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

/// Records that go with one write.
#[derive(Default)]
struct Batch {
    records: Vec<u8>,
    lines: u64,
    /// Of what was taken.
    bytes: u64,
}

/// A batch that has so much is written, whatever else there is.
const BATCH_SIZE: usize = 64 << 10;

/// What came of a line so far.
#[derive(Default)]
struct Line(Vec<u8>);

impl<'a> Log<'a> {
    pub(super) fn new(directory: BorrowedFd<'a>, options: LogOptions, attributes: &'a str) -> Self {
        let (output, errors) = (Line::default(), Line::default());
        let (batch, spooling) = (Batch::default(), Spooling::No);
        Self { directory, options, attributes, file: None, inode: 0, size: 0, output, errors, lost: 0, batch, spooling }
    }

    /// The same for a workload that may outlive this process.
    pub(super) fn new_spooled(directory: BorrowedFd<'a>, options: LogOptions, attributes: &'a str) -> Self {
        Self { spooling: Spooling::Soon, ..Self::new(directory, options, attributes) }
    }

    /// Goes on where the monitor before was killed.
    pub(super) fn resume(directory: BorrowedFd<'a>, options: LogOptions, attributes: &'a str) -> Self {
        let mut log = Self::new_spooled(directory, options, attributes);
        // What cannot be read is lost.
        if let Ok(Some(spool)) = Spool::resume(directory) {
            let rest = [Stream::Output, Stream::Errors].map(|stream| (stream, spool.rest(stream).unwrap_or_default()));
            log.spooling = Spooling::Yes(spool);
            for (stream, bytes) in rest {
                log.write(stream, &bytes);
            }
        }
        log
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

    /// Takes what the workload wrote.
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let mut line = std::mem::take(self.line(stream));
        let now = jiff::Timestamp::now();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut piece = piece;
            while line.0.len() + piece.len() > LINE_SIZE {
                let (head, rest) = piece.split_at(LINE_SIZE - line.0.len());
                line.0.extend_from_slice(head);
                self.put(now, stream, &line.0);
                line.0.clear();
                piece = rest;
            }
            // What comes in one piece is not copied first.
            if line.0.is_empty() && piece.ends_with(b"\n") {
                self.put(now, stream, piece);
                continue;
            }
            line.0.extend_from_slice(piece);
            if line.0.ends_with(b"\n") {
                self.put(now, stream, &line.0);
                line.0.clear();
            }
        }
        self.flush(stream);
        if line.0.is_empty() {
            // Nothing is kept of a burst: what stays in memory is small.
            line.0 = Vec::new();
        }
        *self.line(stream) = line;
        if let Spooling::Yes(spool) = &mut self.spooling
            && spool.tidy(stream).is_err()
        {
            self.give_up_spool();
        }
    }

    /// Writes what has no end of line yet: there will be none.
    pub(super) fn finish(&mut self) {
        for stream in [Stream::Output, Stream::Errors] {
            let line = std::mem::take(self.line(stream));
            if !line.0.is_empty() {
                self.put(jiff::Timestamp::now(), stream, &line.0);
                self.flush(stream);
            }
        }
        if let Spooling::Yes(_) = self.spooling {
            self.spooling = Spooling::Soon;
            spool::remove(self.directory);
        }
    }

    fn line(&mut self, stream: Stream) -> &mut Line {
        match stream {
            Stream::Output => &mut self.output,
            Stream::Errors => &mut self.errors,
        }
    }

    /// Adds a line to what is written next.
    fn put(&mut self, now: jiff::Timestamp, stream: Stream, line: &[u8]) {
        if self.file.is_none() {
            // For its size. A failure is met again by the write.
            let _ = self.open();
        }
        if self.batch.records.is_empty() && self.lost > 0 {
            let notice = format!("husk: {} lines were lost: the log could not be written\n", self.lost);
            self.options.format.write(&mut self.batch.records, now, Stream::Errors, notice.as_bytes(), "");
        }
        let start = self.batch.records.len();
        self.options.format.write(&mut self.batch.records, now, stream, line, self.attributes);
        let end = self.batch.records.len() as u64;
        if start > 0 && self.options.max_bytes.is_some_and(|most| self.size + end > most) {
            let last = self.batch.records.split_off(start);
            self.flush(stream);
            self.batch.records = last;
        }
        self.batch.lines += 1;
        self.batch.bytes += line.len() as u64;
        if self.batch.records.len() >= BATCH_SIZE {
            self.flush(stream);
        }
    }

    /// Writes what was put.
    fn flush(&mut self, stream: Stream) {
        let Batch { mut records, lines, bytes } = std::mem::take(&mut self.batch);
        if records.is_empty() {
            return;
        }
        match self.append(stream, &records, bytes) {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost += lines,
        }
        if let Spooling::Yes(spool) = &mut self.spooling {
            spool.advance(stream, bytes);
        }
        if records.capacity() <= LINE_SIZE {
            records.clear();
            self.batch.records = records;
        }
    }

    fn is_full_by(&self, length: u64) -> bool {
        self.options.max_bytes.is_some_and(|most| self.size > 0 && self.size + length > most)
    }

    fn append(&mut self, stream: Stream, records: &[u8], bytes: u64) -> Result<(), Errno> {
        let length = records.len() as u64;
        if self.file.is_none() {
            self.open()?;
        }
        if self.is_full_by(length) {
            self.rotate()?;
            self.open()?;
        }
        if let Spooling::Yes(spool) = &self.spooling {
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
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.directory, FILE, flags, Mode::from_raw_mode(PRIVATE))?;
        let stat = rustix::fs::fstat(&file)?;
        (self.inode, self.size) = (stat.st_ino, u64::try_from(stat.st_size).unwrap_or(0));
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

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a crash")]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn scratch() -> (tempfile::TempDir, std::fs::File) {
        let directory = tempfile::tempdir().unwrap();
        let folder = std::fs::File::open(directory.path()).unwrap();
        (directory, folder)
    }

    fn lines(directory: &tempfile::TempDir, name: &str) -> Vec<(Stream, Vec<u8>)> {
        let bytes = std::fs::read(directory.path().join(name)).unwrap_or_default();
        let records = bytes.split_inclusive(|byte| *byte == b'\n');
        records.map(|record| read::parse(record).unwrap()).map(|entry| (entry.stream, entry.bytes)).collect()
    }

    #[test]
    fn lines_are_written_whole() {
        for format in [Format::Json, Format::K8s] {
            let (directory, folder) = scratch();
            let mut log = Log::new(folder.as_fd(), LogOptions { format, ..LogOptions::default() }, "");
            log.write(Stream::Output, b"one\ntw");
            log.write(Stream::Errors, b"oh\n");
            log.write(Stream::Output, b"o\n\"\\\xff\n");
            log.write(Stream::Output, b"the end");
            log.finish();
            let unsure = if format == Format::Json { "\"\\\u{fffd}\n".as_bytes() } else { b"\"\\\xff\n" };
            let expected: [(Stream, &[u8]); 5] = [
                (Stream::Output, b"one\n"),
                (Stream::Errors, b"oh\n"),
                (Stream::Output, b"two\n"),
                (Stream::Output, unsure),
                (Stream::Output, b"the end"),
            ];
            assert_eq!(lines(&directory, FILE), expected.map(|(stream, line)| (stream, line.to_vec())), "{format:?}");
        }
    }

    #[test]
    fn a_line_without_end_goes_in_parts() {
        let (directory, folder) = scratch();
        let mut log = Log::new(folder.as_fd(), LogOptions::default(), "");
        let long = vec![b'x'; LINE_SIZE * 2 + 5];
        log.write(Stream::Output, &long);
        log.write(Stream::Output, b"\n");
        let sizes: Vec<usize> = lines(&directory, FILE).iter().map(|(_, line)| line.len()).collect();
        assert_eq!(sizes, [LINE_SIZE, LINE_SIZE, 6]);
    }

    #[test]
    fn files_are_bounded_in_size_and_number() {
        let (directory, folder) = scratch();
        let options = LogOptions { max_bytes: Some(200), max_files: 3, ..LogOptions::default() };
        let mut log = Log::new(folder.as_fd(), options, "");
        for number in 0..20 {
            log.write(Stream::Output, format!("line {number}\n").as_bytes());
        }
        let mut all = Vec::new();
        for name in ["log.2", "log.1", "log"] {
            assert!(std::fs::metadata(directory.path().join(name)).unwrap().len() <= 200);
            all.extend(lines(&directory, name).into_iter().map(|(_, line)| String::from_utf8(line).unwrap()));
        }
        assert!(!directory.path().join("log.3").exists());
        let expected: Vec<String> = (20 - all.len()..20).map(|number| format!("line {number}\n")).collect();
        assert_eq!(all, expected, "the last ones, in order, none twice");
    }

    #[test]
    fn a_rotation_that_was_cut_off_is_made_good() {
        let (directory, folder) = scratch();
        let options = LogOptions { max_bytes: Some(200), max_files: 9, ..LogOptions::default() };
        let write = |range: std::ops::Range<u32>| {
            let mut log = Log::new(folder.as_fd(), options, "");
            range.for_each(|number| log.write(Stream::Output, format!("line {number}\n").as_bytes()));
        };
        write(0..9);
        // Killed between two renames: there is no log.3.
        for (from, to) in [("log.4", "log.5"), ("log.3", "log.4")] {
            assert!(!directory.path().join(to).exists(), "{to} would be lost");
            std::fs::rename(directory.path().join(from), directory.path().join(to)).unwrap();
        }
        let all = || {
            let mut lines = Vec::new();
            for file in &mut read::open_all(folder.as_fd()).unwrap() {
                while let Some(entry) = file.read_entry().unwrap() {
                    lines.push(String::from_utf8(entry.bytes).unwrap());
                }
            }
            lines
        };
        let expected = |count| (0..count).map(|number| format!("line {number}\n")).collect::<Vec<_>>();
        assert_eq!(all(), expected(9));
        write(9..13);
        assert_eq!(all(), expected(13));
        assert!(directory.path().join("log.3").exists());
    }

    #[test]
    fn what_could_not_be_written_is_counted() {
        let (directory, folder) = scratch();
        let mut log = Log::new(folder.as_fd(), LogOptions::default(), "");
        // A directory in its place: the file cannot be opened.
        std::fs::create_dir(directory.path().join(FILE)).unwrap();
        log.write(Stream::Output, b"one\ntwo\n");
        std::fs::remove_dir(directory.path().join(FILE)).unwrap();
        log.write(Stream::Output, b"three\n");
        let lines = lines(&directory, FILE);
        assert_eq!(lines[0].1, b"husk: 2 lines were lost: the log could not be written\n");
        assert_eq!(lines[1].1, b"three\n");
    }

    /// What a monitor that is killed leaves, after each of its steps.
    #[test]
    fn the_next_monitor_goes_on_where_one_was_killed() {
        let expected = "one\ntwo\nthree\n";
        for step in 0..5 {
            let (directory, folder) = scratch();
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            let mut log = Log::new_spooled(folder.as_fd(), LogOptions::default(), "");
            let mut buffer = [0; 100];
            let mut take = |log: &mut Log<'_>, text: &str| {
                rustix::io::write(&writer, text.as_bytes()).unwrap();
                let count = log.take(Stream::Output, reader.as_fd(), &mut buffer).unwrap();
                buffer[..count].to_vec()
            };
            let first = take(&mut log, "one\ntw");
            log.write(Stream::Output, &first);
            let path = directory.path().join(FILE);
            let before = std::fs::read(&path).unwrap();
            let second = take(&mut log, "o\nth");
            if step > 0 {
                log.write(Stream::Output, &second);
            }
            let after = std::fs::read(&path).unwrap();
            match step {
                // The mark was written, and the log not, or by half.
                2 => std::fs::write(&path, &before).unwrap(),
                3 => std::fs::write(&path, &after[..after.len() - 5]).unwrap(),
                // Rotated right after.
                4 => std::fs::rename(&path, directory.path().join("log.1")).unwrap(),
                _ => {}
            }
            drop(log);
            let mut log = Log::resume(folder.as_fd(), LogOptions::default(), "");
            let third = take(&mut log, "ree\n");
            log.write(Stream::Output, &third);
            log.finish();
            let mut text: Vec<u8> = Vec::new();
            for (_, line) in lines(&directory, "log.1").into_iter().chain(lines(&directory, FILE)) {
                text.extend(line);
            }
            assert_eq!(String::from_utf8(text).unwrap(), expected, "step {step}");
            let left = std::fs::read_dir(directory.path()).unwrap().flatten();
            assert!(left.into_iter().all(|entry| !entry.file_name().to_str().unwrap().starts_with("unlogged")));
        }
    }

    #[test]
    fn what_is_in_the_log_leaves_the_spool() {
        let (directory, folder) = scratch();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut log = Log::new_spooled(folder.as_fd(), LogOptions::default(), "");
        let mut buffer = vec![0; 32 << 10];
        let mut largest = 0;
        for _ in 0..100 {
            rustix::io::write(&writer, &[b"x".repeat(4095), b"\n".to_vec()].concat()).unwrap();
            let count = log.take(Stream::Output, reader.as_fd(), &mut buffer).unwrap();
            log.write(Stream::Output, &buffer[..count]);
            largest = std::fs::metadata(directory.path().join("unlogged.output")).unwrap().len().max(largest);
        }
        assert!(largest < 128 << 10, "{largest}");
        drop(log);
        drop(Log::resume(folder.as_fd(), LogOptions::default(), ""));
        assert_eq!(lines(&directory, FILE).len(), 100);
    }
}
