//! What was refused to a container, in two files of the network's folder that are filled in turns: the one that is full
//! waits, the other is begun anew. So there is always one file's worth, and never more than two.
//!
//! A line is one entry and is written at once; what a crash has cut off is passed over. Of what a container says, nothing is
//! part of a file's name.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};

/// A file that is this long is full: some thousand entries.
const FULL: u64 = 128 << 10;
/// What is read of one: the last entry may go beyond.
const LONGEST: u64 = FULL + (4 << 10);

/// Something that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Nanoseconds since 1970.
    pub time: i64,
    /// `tcp`, `udp`, `icmp`…; `name` where it is the name that was refused.
    pub protocol: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The name that it has asked for, or had the address from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Entry {
    pub fn timestamp(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_nanosecond(self.time.into()).unwrap_or_default()
    }
}

/// As people read it: `tcp 192.0.2.1:443 example.org`.
impl std::fmt::Display for Entry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = self.protocol.clone();
        match (self.address, self.port) {
            (Some(IpAddr::V6(address)), Some(port)) => write!(text, " [{address}]:{port}")?,
            (Some(address), Some(port)) => write!(text, " {address}:{port}")?,
            (Some(address), None) => write!(text, " {address}")?,
            (None, _) => {}
        }
        if let Some(name) = &self.name {
            write!(text, " {name}")?;
        }
        formatter.write_str(&text)
    }
}

/// The two files of a container; `None` for what is no id.
fn names(id: &str) -> Option<[String; 2]> {
    let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_id.then(|| [0, 1].map(|number| format!("egress-{id}.{number}")))
}

/// Adds an entry.
pub(super) fn write(folder: BorrowedFd<'_>, id: &str, entry: &Entry) -> Result<()> {
    let Some(names) = names(id) else { return Ok(()) };
    let [mut now, mut other] = [&names[0], &names[1]].map(|name| (name, look(folder, name)));
    // Whichever was written to last. Begun in the same tick of the clock, the shorter one is the newer.
    let age = |stat: Option<(i64, i64, u64)>| stat.map(|(seconds, part, length)| (seconds, part, u64::MAX - length));
    if age(other.1) > age(now.1) {
        std::mem::swap(&mut now, &mut other);
    }
    let is_full = now.1.is_some_and(|(_, _, length)| length >= FULL);
    let (name, truncate) = if is_full { (other.0, OFlags::TRUNC) } else { (now.0, OFlags::empty()) };
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | truncate;
    let file = rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o600)).context("open the log of egress")?;
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    Ok(File::from(file).write_all(&line)?)
}

/// When a file was written to last, and how long it is.
fn look(folder: BorrowedFd<'_>, name: &str) -> Option<(i64, i64, u64)> {
    let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some((stat.st_mtime, stat.st_mtime_nsec.try_into().ok()?, u64::try_from(stat.st_size).ok()?))
}

/// Reads what was refused to a container in a network, in the order of time.
pub fn read(folder: BorrowedFd<'_>, id: &str) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    for name in names(id).iter().flatten() {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno).with_context(|| format!("open {name}")),
        };
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes).with_context(|| format!("read {name}"))?;
        entries.extend(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()));
    }
    entries.sort_by_key(|entry: &Entry| entry.time);
    Ok(entries)
}

/// Removes a container's files from a network's folder.
pub fn forget(folder: BorrowedFd<'_>, id: &str) -> Result<()> {
    for name in names(id).iter().flatten() {
        match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).with_context(|| format!("remove {name}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn entry(second: i64, name: &str) -> Entry {
        Entry {
            time: second * 1_000_000_000,
            protocol: "tcp".to_owned(),
            address: Some("192.0.2.1".parse().unwrap()),
            port: Some(443),
            name: Some(name.to_owned()),
        }
    }

    #[test]
    fn it_keeps_the_newest_and_never_grows() {
        let place = tempfile::tempdir().unwrap();
        let folder = File::open(place.path()).unwrap();
        let long = "x".repeat(2000);
        for second in 0..400 {
            write(folder.as_fd(), "abc", &entry(second, &long)).unwrap();
        }
        let entries = read(folder.as_fd(), "abc").unwrap();
        let seconds: Vec<i64> = entries.iter().map(|entry| entry.timestamp().as_second()).collect();
        assert_eq!(seconds.last(), Some(&399));
        assert!(seconds.len() > 60 && seconds.is_sorted(), "{seconds:?}");
        let sizes = std::fs::read_dir(place.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len());
        assert!(sizes.sum::<u64>() <= 2 * LONGEST);
        // A crash in the middle of a line.
        let newest = names("abc").unwrap().into_iter().max_by_key(|name| look(folder.as_fd(), name)).unwrap();
        let mut file = std::fs::OpenOptions::new().append(true).open(place.path().join(newest)).unwrap();
        file.write_all(b"{\"time\":").unwrap();
        assert_eq!(read(folder.as_fd(), "abc").unwrap(), entries);
        forget(folder.as_fd(), "abc").unwrap();
        assert_eq!(read(folder.as_fd(), "abc").unwrap(), []);
    }

    #[test]
    fn what_is_no_id_has_no_file() {
        let place = tempfile::tempdir().unwrap();
        let folder = File::open(place.path()).unwrap();
        for id in ["", "../x", "a/b", "a.b"] {
            write(folder.as_fd(), id, &entry(1, "x")).unwrap();
        }
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn entries_are_read_by_people() {
        assert_eq!(entry(1, "example.org").to_string(), "tcp 192.0.2.1:443 example.org");
        let six = Entry { address: Some("fd00::1".parse().unwrap()), name: None, ..entry(1, "") };
        assert_eq!(six.to_string(), "tcp [fd00::1]:443");
        let name = Entry { protocol: "name".to_owned(), address: None, port: None, ..entry(1, "evil.test") };
        assert_eq!(name.to_string(), "name evil.test");
    }
}
