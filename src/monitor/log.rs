//! A container's log: what it wrote, line by line, in docker's or podman's format in files of its folder, or in systemd's
//! journal.
//!
//! ```text
//!  Log: lines ─┬─ blocking ─────────────── Files: log, log.1, …      the monitor writes them itself
//!              ├─ non-blocking ── Queue ── Writer: a process, Files  who never waits for a disk
//!              └─ journald ────── Queue ── the journal's socket
//! ```
//!
//! Lines are written once they are complete; one that grows past [`LINE_SIZE`] goes in parts, as docker and containerd do
//! it. One that cannot be written is dropped and counted, and the next that can be says how many: the container goes on,
//! whatever the disk says. What the monitor has read and not written to files of its own stays in the [`spool`], where the
//! workload may outlive it.

mod files;
mod format;
mod queue;
pub mod read;
mod spool;
mod writer;

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use files::{Chunk, Files};
use queue::Queue;

use super::link::Stream;

pub use files::FILE;
pub use format::Format;

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
    /// `mode=non-blocking`: the workload does not wait for the log. So many bytes wait in memory, and what comes on top is
    /// lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffer_bytes: Option<u64>,
}

impl Default for LogOptions {
    /// Docker's format, bounded: what nobody reads must not fill the disk.
    fn default() -> Self {
        Self { format: Format::Json, max_bytes: Some(10 << 20), max_files: 3, buffer_bytes: None }
    }
}

/// The log of a container that runs.
pub(super) struct Log<'a> {
    options: LogOptions,
    attributes: &'a [u8],
    output: Line,
    errors: Line,
    batch: Batch,
    sink: Sink<'a>,
}

/// Where records go.
enum Sink<'a> {
    Files(Files<'a>),
    Queue(Queue<'a>),
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
    pub(super) fn new(directory: BorrowedFd<'a>, options: LogOptions, attributes: &'a [u8]) -> Self {
        Self::with(Files::new(directory, options), options, attributes)
    }

    /// The same for a workload that may outlive this process.
    pub(super) fn new_spooled(directory: BorrowedFd<'a>, options: LogOptions, attributes: &'a [u8]) -> Self {
        Self::with(Files::new_spooled(directory, options), options, attributes)
    }

    /// Goes on where the monitor before was killed.
    pub(super) fn resume(directory: BorrowedFd<'a>, options: LogOptions, attributes: &'a [u8]) -> Self {
        let (files, rest) = Files::resume(directory, options);
        let mut log = Self::with(files, options, attributes);
        for (stream, bytes) in rest {
            log.write(stream, &bytes);
        }
        log
    }

    fn with(files: Files<'a>, options: LogOptions, attributes: &'a [u8]) -> Self {
        let sink = match (options.format, options.buffer_bytes) {
            (Format::Journald, _) => Sink::Queue(Queue::to_journal(options, attributes)),
            (_, Some(_)) => Sink::Queue(Queue::to_writer(files.directory, options, attributes)),
            (_, None) => Sink::Files(files),
        };
        let (output, errors, batch) = (Line::default(), Line::default(), Batch::default());
        Self { options, attributes, output, errors, batch, sink }
    }

    /// Takes what there is of a stream, as read(2) does; what the workload may outlive us with is not lost with this process.
    pub(super) fn take(&mut self, stream: Stream, from: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
        match &mut self.sink {
            Sink::Files(files) => files.take(stream, from, buffer),
            Sink::Queue(_) => rustix::io::read(from, buffer),
        }
    }

    /// Says whether the workload has to wait for the log.
    pub(super) fn is_full(&self) -> bool {
        matches!(&self.sink, Sink::Queue(queue) if queue.is_full())
    }

    /// What becomes writable once more of what waits can be passed on.
    pub(super) fn outlet(&self) -> Option<BorrowedFd<'_>> {
        match &self.sink {
            Sink::Files(_) => None,
            Sink::Queue(queue) => queue.waits_for(),
        }
    }

    /// Passes on what waits, as far as there is room.
    pub(super) fn pass_on(&mut self) {
        if let Sink::Queue(queue) = &mut self.sink {
            queue.flush();
        }
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
        if let Sink::Files(files) = &mut self.sink {
            files.tidy(stream);
        }
    }

    /// Writes what has no end of line yet: there will be none. What is passed on is so by then, or, should that take long,
    /// lost.
    pub(super) fn finish(&mut self) {
        for stream in [Stream::Output, Stream::Errors] {
            let line = std::mem::take(self.line(stream));
            if !line.0.is_empty() {
                self.put(jiff::Timestamp::now(), stream, &line.0);
                self.flush(stream);
            }
        }
        match &mut self.sink {
            Sink::Files(files) => files.finish(),
            Sink::Queue(queue) => queue.finish(),
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
        let start = self.batch.records.len();
        self.options.format.write(&mut self.batch.records, now, stream, line, self.attributes);
        if let Sink::Files(files) = &mut self.sink
            && start > 0
            && files.is_outgrown_by(self.batch.records.len() as u64)
        {
            let last = self.batch.records.split_off(start);
            self.flush(stream);
            self.batch.records = last;
        }
        self.batch.lines += 1;
        self.batch.bytes += line.len() as u64;
        // What waits is counted, and lost, line by line.
        if self.batch.records.len() >= BATCH_SIZE || matches!(self.sink, Sink::Queue(_)) {
            self.flush(stream);
        }
    }

    /// Writes what was put.
    fn flush(&mut self, stream: Stream) {
        let Batch { mut records, lines, bytes } = std::mem::take(&mut self.batch);
        if records.is_empty() {
            return;
        }
        match &mut self.sink {
            Sink::Files(files) => files.append(&records, Chunk { lines, taken: Some((stream, bytes)) }),
            Sink::Queue(queue) => queue.push(&records),
        }
        if records.capacity() <= LINE_SIZE {
            records.clear();
            self.batch.records = records;
        }
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
            let mut log = Log::new(folder.as_fd(), LogOptions { format, ..LogOptions::default() }, b"");
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
    fn what_follows_a_torn_record_is_whole() {
        let (directory, folder) = scratch();
        let path = directory.path().join(FILE);
        std::fs::write(&path, "{\"log\":\"to").unwrap();
        Log::new(folder.as_fd(), LogOptions::default(), b"").write(Stream::Output, b"one\n");
        let text = std::fs::read_to_string(&path).unwrap();
        let (torn, rest) = text.split_once('\n').unwrap();
        assert_eq!(torn, "{\"log\":\"to");
        assert_eq!(read::parse(rest.as_bytes()).unwrap().bytes, b"one\n");
    }

    #[test]
    fn a_line_without_end_goes_in_parts() {
        let (directory, folder) = scratch();
        let mut log = Log::new(folder.as_fd(), LogOptions::default(), b"");
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
        let mut log = Log::new(folder.as_fd(), options, b"");
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
            let mut log = Log::new(folder.as_fd(), options, b"");
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
        let mut log = Log::new(folder.as_fd(), LogOptions::default(), b"");
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
            let mut log = Log::new_spooled(folder.as_fd(), LogOptions::default(), b"");
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
            let mut log = Log::resume(folder.as_fd(), LogOptions::default(), b"");
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
        let mut log = Log::new_spooled(folder.as_fd(), LogOptions::default(), b"");
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
        drop(Log::resume(folder.as_fd(), LogOptions::default(), b""));
        assert_eq!(lines(&directory, FILE).len(), 100);
    }
}
