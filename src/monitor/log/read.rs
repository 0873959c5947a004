//! Reads the lines of a log, of either format, oldest first. Writes nothing, and waits for nothing.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::Deserialize;

use super::{FILE, Stream};
use crate::error::{Context, Error, Result};

/// A line, or the part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub time: jiff::Timestamp,
    pub stream: Stream,
    /// With its end of line; a part has none.
    pub bytes: Vec<u8>,
    /// What it says of the container, by name.
    pub attributes: BTreeMap<String, String>,
}

/// No record is longer: a line's 16 KiB, six bytes each at worst (`\u0000`), 64 KiB of attributes, and what is around them.
const RECORD_SIZE: u64 = 192 << 10;

/// How many files are looked for.
const MAX_FILES: u32 = 1000;

/// One file of a log, read from its beginning.
pub struct File {
    reader: BufReader<std::fs::File>,
    inode: u64,
}

/// Opens all files of a log, the oldest first.
pub fn open_all(directory: BorrowedFd<'_>) -> Result<Vec<File>> {
    let mut files = Vec::new();
    let mut is_gap = false;
    // From the newest on: what is rotated meanwhile is met again, and known by its inode.
    for number in 0..MAX_FILES {
        let name = if number == 0 { FILE.to_owned() } else { format!("{FILE}.{number}") };
        match File::open(directory, &name)? {
            Some(file) => {
                is_gap = false;
                if files.last().is_none_or(|last: &File| last.inode != file.inode) {
                    files.push(file);
                }
            }
            // Between two renames there is one name without a file, and after a kill there may be for long.
            None if !is_gap => is_gap = true,
            None => break,
        }
    }
    files.reverse();
    Ok(files)
}

impl File {
    /// Opens a file of a log; `None` where there is none.
    pub fn open(directory: BorrowedFd<'_>, name: &str) -> Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno).with_context(|| format!("open {name}")),
        };
        let inode = rustix::fs::fstat(&file).with_context(|| format!("inspect {name}"))?.st_ino;
        Ok(Some(Self { reader: BufReader::new(file.into()), inode }))
    }

    /// Tells files apart, whatever they are called by now.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Reads the next entry; `None` where there is none, or none that is complete yet. What makes no sense is passed over: a
    /// power cut, or the kill of a monitor, leaves half a record.
    pub fn read_entry(&mut self) -> Result<Option<Entry>> {
        loop {
            let mut record = Vec::new();
            let length = std::io::Read::take(&mut self.reader, RECORD_SIZE).read_until(b'\n', &mut record)?;
            if length == 0 {
                return Ok(None);
            }
            if record.ends_with(b"\n") {
                match parse(&record) {
                    Ok(entry) => return Ok(Some(entry)),
                    Err(_) => continue,
                }
            }
            if length as u64 == RECORD_SIZE {
                // Longer than any that husk writes.
                continue;
            }
            // It is being written: read again from its beginning.
            self.reader.seek(SeekFrom::Current(-i64::try_from(length).unwrap_or(0)))?;
            return Ok(None);
        }
    }
}

/// Reads a record.
pub fn parse(record: &[u8]) -> Result<Entry> {
    if record.first() == Some(&b'{') { parse_json(record) } else { parse_k8s(record) }
}

fn parse_json(record: &[u8]) -> Result<Entry> {
    #[derive(Deserialize)]
    struct Line {
        log: String,
        stream: String,
        time: String,
        #[serde(default)]
        attrs: BTreeMap<String, String>,
    }
    let line: Line = serde_json::from_slice(record).context("log")?;
    let time = line.time.parse().map_err(|_| Error::invalid("log: not a record of husk's"))?;
    Ok(Entry { time, stream: stream(line.stream.as_bytes())?, bytes: line.log.into_bytes(), attributes: line.attrs })
}

fn parse_k8s(record: &[u8]) -> Result<Entry> {
    let wrong = || Error::invalid("log: not a record of husk's");
    let mut words = record.splitn(4, |byte| *byte == b' ');
    let mut word = || words.next().ok_or_else(wrong);
    let (time, name, kind, text) = (word()?, word()?, word()?, word()?);
    let time = str::from_utf8(time).ok().and_then(|time| time.parse().ok()).ok_or_else(wrong)?;
    let bytes = match kind {
        b"F" => text.to_vec(),
        b"P" => text.strip_suffix(b"\n").unwrap_or(text).to_vec(),
        _ => return Err(wrong()),
    };
    Ok(Entry { time, stream: stream(name)?, bytes, attributes: BTreeMap::new() })
}

fn stream(name: &[u8]) -> Result<Stream> {
    match name {
        b"stdout" => Ok(Stream::Output),
        b"stderr" => Ok(Stream::Errors),
        _ => Err(Error::invalid("log: unknown stream")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_torn_is_passed_over() {
        use std::os::fd::AsFd;
        let directory = tempfile::tempdir().unwrap();
        let line =
            |text: &str| format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-21T13:45:00Z\"}}\n");
        let long = "x".repeat(usize::try_from(RECORD_SIZE).unwrap() + 1);
        let text = [line("one"), line("torn")[..20].to_owned() + &line("lost"), long + "\n", line("two")].concat();
        let folder = std::fs::File::open(directory.path()).unwrap();
        let text = text + &line("three")[..20];
        crate::support::atomic::create(folder.as_fd(), FILE, text.as_bytes()).unwrap();
        let mut file = File::open(folder.as_fd(), FILE).unwrap().unwrap();
        let mut next = || file.read_entry().unwrap().map(|entry| entry.bytes);
        assert_eq!((next(), next(), next()), (Some(b"one\n".to_vec()), Some(b"two\n".to_vec()), None));
    }

    #[test]
    fn dockers_and_podmans_lines() {
        let docker = br#"{"log":"a\u003cb\n","stream":"stderr","time":"2026-11-21T13:45:00.5Z"}"#;
        let entry = parse(docker).unwrap();
        assert_eq!((entry.stream, entry.bytes.as_slice()), (Stream::Errors, b"a<b\n".as_slice()));
        let podman = b"2026-11-21T14:45:00.500000000+01:00 stderr F a<b\n";
        assert_eq!(parse(podman).unwrap(), entry);
        for wrong in [&b"{}\n"[..], b"x\n", b"2026-11-21T14:45:00Z stdin F x\n", b"2026-11-21T14:45:00Z stdout X x\n"] {
            assert!(parse(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
