//! A container's log: what it wrote, line by line, in docker's or podman's format, in files that are rotated by size.
//!
//! ```text
//! containers/<id>/log      the newest; made with the first line
//! containers/<id>/log.1    the one before it, and so on up to the number of files
//! ```
//!
//! A line is written with one write(2) once it is complete; one that grows past [`LINE_SIZE`] goes in parts, as docker and
//! containerd do it. A line that cannot be written is dropped and counted, and the next that can be says how many: the
//! container goes on, whatever the disk says. One process writes: the container's monitor.

mod format;
pub mod read;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

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
    file: Option<OwnedFd>,
    size: u64,
    output: Line,
    errors: Line,
    /// Lines that could not be written.
    lost: u64,
    record: Vec<u8>,
}

/// What came of a line so far.
#[derive(Default)]
struct Line(Vec<u8>);

impl<'a> Log<'a> {
    pub(super) fn new(directory: BorrowedFd<'a>, options: LogOptions) -> Self {
        let (output, errors) = (Line::default(), Line::default());
        Self { directory, options, file: None, size: 0, output, errors, lost: 0, record: Vec::new() }
    }

    /// Takes what the workload wrote.
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let mut line = std::mem::take(self.line(stream));
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut piece = piece;
            while line.0.len() + piece.len() > LINE_SIZE {
                let (head, rest) = piece.split_at(LINE_SIZE - line.0.len());
                line.0.extend_from_slice(head);
                self.put(stream, &line.0);
                line.0.clear();
                piece = rest;
            }
            // What comes in one piece is not copied first.
            if line.0.is_empty() && piece.ends_with(b"\n") {
                self.put(stream, piece);
                continue;
            }
            line.0.extend_from_slice(piece);
            if line.0.ends_with(b"\n") {
                self.put(stream, &line.0);
                line.0.clear();
            }
        }
        if line.0.is_empty() {
            // Nothing is kept of a burst: what stays in memory is small.
            line.0 = Vec::new();
        }
        *self.line(stream) = line;
    }

    /// Writes what has no end of line yet: there will be none.
    pub(super) fn finish(&mut self) {
        for stream in [Stream::Output, Stream::Errors] {
            let line = std::mem::take(self.line(stream));
            if !line.0.is_empty() {
                self.put(stream, &line.0);
            }
        }
    }

    fn line(&mut self, stream: Stream) -> &mut Line {
        match stream {
            Stream::Output => &mut self.output,
            Stream::Errors => &mut self.errors,
        }
    }

    fn put(&mut self, stream: Stream, line: &[u8]) {
        let now = jiff::Timestamp::now();
        let mut record = std::mem::take(&mut self.record);
        record.clear();
        if self.lost > 0 {
            let notice = format!("husk: {} lines were lost: the log could not be written\n", self.lost);
            self.options.format.write(&mut record, now, Stream::Errors, notice.as_bytes());
        }
        self.options.format.write(&mut record, now, stream, line);
        match self.append(&record) {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost += 1,
        }
        if record.capacity() > LINE_SIZE {
            record = Vec::new();
        }
        self.record = record;
    }

    fn append(&mut self, record: &[u8]) -> Result<(), Errno> {
        let length = record.len() as u64;
        if self.options.max_bytes.is_some_and(|most| self.size > 0 && self.size + length > most) {
            self.rotate()?;
        }
        if self.file.is_none() {
            let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(self.directory, FILE, flags, Mode::from_raw_mode(PRIVATE))?;
            self.size = u64::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
            self.file = Some(file);
            if self.options.max_bytes.is_some_and(|most| self.size > 0 && self.size + length > most) {
                return self.append(record);
            }
        }
        let Some(file) = &self.file else { return Ok(()) };
        match rustix::io::retry_on_intr(|| rustix::io::write(file, record)) {
            Ok(count) if count == record.len() => {
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

    /// Begins a new file. `log` becomes `log.1`, that `log.2`, and the last one goes.
    fn rotate(&mut self) -> Result<(), Errno> {
        self.file = None;
        self.size = 0;
        let name = |number: u32| if number == 0 { FILE.to_owned() } else { format!("{FILE}.{number}") };
        let last = self.options.max_files.saturating_sub(1);
        if last == 0 {
            return rustix::fs::unlinkat(self.directory, FILE, AtFlags::empty());
        }
        for number in (0..last).rev() {
            match rustix::fs::renameat(self.directory, name(number), self.directory, name(number + 1)) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

impl AsFd for Log<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory
    }
}

#[cfg(test)]
mod tests {
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
            let mut log = Log::new(folder.as_fd(), LogOptions { format, ..LogOptions::default() });
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
        let mut log = Log::new(folder.as_fd(), LogOptions::default());
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
        let mut log = Log::new(folder.as_fd(), options);
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
    fn what_could_not_be_written_is_counted() {
        let (directory, folder) = scratch();
        let mut log = Log::new(folder.as_fd(), LogOptions::default());
        // A directory in its place: the file cannot be opened.
        std::fs::create_dir(directory.path().join(FILE)).unwrap();
        log.write(Stream::Output, b"one\ntwo\n");
        std::fs::remove_dir(directory.path().join(FILE)).unwrap();
        log.write(Stream::Output, b"three\n");
        let lines = lines(&directory, FILE);
        assert_eq!(lines[0].1, b"husk: 2 lines were lost: the log could not be written\n");
        assert_eq!(lines[1].1, b"three\n");
    }
}
