//! Writes a tar, entry by entry: POSIX ustar headers, and PAX headers before those that do not fit into one.
//!
//! What the [`Reader`](crate::image::tar::Reader) makes of it is what was put in; so do GNU tar, Go and libarchive. Owners
//! have no names. It reads no files.

use std::io::Write;

use crate::error::{Context, Error, Result};
use crate::image::limits;
use crate::image::tar::{BLOCK, Entry, EntryKind, Time};

/// The largest numbers that the fields of a header hold, in octal with a NUL behind.
const MOST_IN_8: u64 = 0o777_7777;
const MOST_IN_12: u64 = 0o777_7777_7777;

const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;

/// A tar that is being written.
pub struct TarWriter<W: Write> {
    out: W,
    /// Bytes of data that the last entry still lacks.
    missing: u64,
    /// Zeros that fill its last block.
    padding: usize,
    entries: u64,
}

impl<W: Write> TarWriter<W> {
    /// Begins a tar.
    pub fn new(out: W) -> Self {
        Self { out, missing: 0, padding: 0, entries: 0 }
    }

    /// Says how many entries were begun.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// Begins an entry, whose `size` bytes of data follow. The name of a directory ends with a slash.
    ///
    /// Fails for names and attributes that cannot be read again, and if the entry before lacks data.
    pub(crate) fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.end_data()?;
        check(entry)?;
        let mut records = Vec::new();
        let header = header(entry, &mut records);
        for xattr in &entry.xattrs {
            record(&mut records, &[b"SCHILY.xattr.", xattr.name.as_slice()].concat(), &xattr.value);
        }
        if !records.is_empty() {
            if records.len() as u64 > limits::TAR_HEADER_BYTES {
                return Err(Error::invalid("limit: its attributes do not fit into a header"));
            }
            self.put(&extended_header(entry, records.len() as u64))?;
            self.put(&records)?;
            self.put(&[0; BLOCK][..padding(records.len() as u64)])?;
        }
        self.put(&header)?;
        if entry.kind == EntryKind::Regular {
            self.missing = entry.size;
            self.padding = padding(entry.size);
        }
        self.entries += 1;
        Ok(())
    }

    /// Writes a part of the entry's data.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.missing = self
            .missing
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| Error::invalid("more data than the entry's size says"))?;
        self.put(bytes)
    }

    /// Writes a file of root's that is at hand; `mtime` is in seconds since 1970.
    pub fn file(&mut self, path: &str, mode: u32, mtime: i64, data: &[u8]) -> Result<()> {
        let (path, size) = (path.as_bytes().to_vec(), data.len() as u64);
        let mtime = Time { seconds: mtime, nanoseconds: 0 };
        self.entry(&Entry { path, mode, mtime, size, ..Entry::default() })?;
        self.data(data)
    }

    /// Ends the tar with its two blocks of zeros.
    pub fn finish(mut self) -> Result<W> {
        self.end_data()?;
        self.put(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn end_data(&mut self) -> Result<()> {
        if self.missing > 0 {
            return Err(Error::invalid(format!("an entry lacks {} bytes of its data", self.missing)));
        }
        let padding = std::mem::take(&mut self.padding);
        self.put(&[0; BLOCK][..padding])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).context("write the tar")
    }
}

fn padding(size: u64) -> usize {
    usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap_or_default()
}

/// Refuses what a reader of ours would refuse, or would read as something else.
fn check(entry: &Entry) -> Result<()> {
    for name in [&entry.path, &entry.link] {
        if name.len() > limits::PATH_BYTES {
            return Err(Error::invalid(format!("limit: the name is longer than {} bytes", limits::PATH_BYTES)));
        }
        if name.contains(&0) {
            return Err(Error::invalid("the name holds a NUL"));
        }
    }
    if entry.path.is_empty() {
        return Err(Error::invalid("the name is empty"));
    }
    for xattr in &entry.xattrs {
        if xattr.name.contains(&b'=') || xattr.name.contains(&0) {
            let name = String::from_utf8_lossy(&xattr.name).escape_debug().to_string();
            return Err(Error::invalid(format!("attribute {name}: a tar cannot hold one whose name has `=`")));
        }
        if xattr.value.len() > limits::XATTR_BYTES {
            return Err(Error::invalid(format!("limit: an attribute is longer than {} bytes", limits::XATTR_BYTES)));
        }
    }
    Ok(())
}

/// Makes an entry's own header. What does not fit becomes a record, and the field is as full as it can be or zero.
fn header(entry: &Entry, records: &mut Vec<u8>) -> [u8; BLOCK] {
    let mut header = blank(match entry.kind {
        EntryKind::Regular => b'0',
        EntryKind::HardLink => b'1',
        EntryKind::Symlink => b'2',
        EntryKind::Character => b'3',
        EntryKind::Block => b'4',
        EntryKind::Directory => b'5',
        EntryKind::Fifo => b'6',
    });
    if !set_name(&mut header, &entry.path) {
        record(records, b"path", &entry.path);
    }
    if !set_text(&mut header, 157, NAME_BYTES, &entry.link) {
        record(records, b"linkpath", &entry.link);
    }
    set_octal(&mut header, 100, 8, u64::from(entry.mode & 0o7777));
    for (at, key, id) in [(108, &b"uid"[..], entry.uid), (116, b"gid", entry.gid)] {
        if u64::from(id) <= MOST_IN_8 {
            set_octal(&mut header, at, 8, u64::from(id));
        } else {
            record(records, key, id.to_string().as_bytes());
        }
    }
    let size = if entry.kind == EntryKind::Regular { entry.size } else { 0 };
    if size <= MOST_IN_12 {
        set_octal(&mut header, 124, 12, size);
    } else {
        record(records, b"size", size.to_string().as_bytes());
    }
    match u64::try_from(entry.mtime.seconds) {
        Ok(seconds) if seconds <= MOST_IN_12 => {
            set_octal(&mut header, 136, 12, seconds);
            if entry.mtime.nanoseconds > 0 {
                record(records, b"mtime", decimal_time(entry.mtime).as_bytes());
            }
        }
        _ => record(records, b"mtime", decimal_time(entry.mtime).as_bytes()),
    }
    if matches!(entry.kind, EntryKind::Character | EntryKind::Block) {
        // The kernel's numbers have 12 and 20 bits.
        set_octal(&mut header, 329, 8, u64::from(entry.major));
        set_octal(&mut header, 337, 8, u64::from(entry.minor));
    }
    seal(&mut header);
    header
}

/// Makes the header of an entry's records. Its name is for readers that know no PAX.
fn extended_header(entry: &Entry, size: u64) -> [u8; BLOCK] {
    let mut header = blank(b'x');
    let path = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
    let base = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let name = [b"PaxHeaders/", base].concat();
    header[..NAME_BYTES.min(name.len())].copy_from_slice(&name[..NAME_BYTES.min(name.len())]);
    set_octal(&mut header, 100, 8, 0o644);
    set_octal(&mut header, 124, 12, size);
    seal(&mut header);
    header
}

/// Begins a header: all numbers 0.
fn blank(kind: u8) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    for (at, length) in [(100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (329, 8), (337, 8)] {
        set_octal(&mut header, at, length, 0);
    }
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    header
}

/// Sets the checksum: of all bytes, its own field taken for spaces.
fn seal(header: &mut [u8; BLOCK]) {
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    set_octal(header, 148, 7, sum);
}

/// Sets the name, cut at a slash into prefix and name if it must be. False if it does not fit.
fn set_name(header: &mut [u8; BLOCK], path: &[u8]) -> bool {
    if set_text(header, 0, NAME_BYTES, path) {
        return true;
    }
    // The name behind the cut is not empty: a directory's last slash is its own.
    let earliest = path.len().saturating_sub(NAME_BYTES + 1);
    let latest = PREFIX_BYTES.min(path.len().saturating_sub(2));
    let cut = (earliest..=latest).find(|at| path[*at] == b'/' && *at > 0);
    let Some(cut) = cut else { return false };
    set_text(header, 0, NAME_BYTES, &path[cut + 1..]) && set_text(header, 345, PREFIX_BYTES, &path[..cut])
}

/// Sets a text; cut off, if it does not fit, which it says.
fn set_text(header: &mut [u8; BLOCK], at: usize, length: usize, text: &[u8]) -> bool {
    let kept = length.min(text.len());
    header[at..at + length].fill(0);
    header[at..at + kept].copy_from_slice(&text[..kept]);
    kept == text.len()
}

/// Sets a number, with leading zeros and a NUL behind.
fn set_octal(header: &mut [u8; BLOCK], at: usize, length: usize, number: u64) {
    let digits = format!("{number:0width$o}\0", width = length - 1);
    header[at..at + length].copy_from_slice(&digits.as_bytes()[..length]);
}

/// Adds a record: `length key=value\n`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Writes a time as PAX does: sign, seconds, fraction without zeros at its end.
fn decimal_time(time: Time) -> String {
    let nanoseconds = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let (whole, fraction) = (nanoseconds.unsigned_abs() / 1_000_000_000, nanoseconds.unsigned_abs() % 1_000_000_000);
    let sign = if nanoseconds < 0 { "-" } else { "" };
    match fraction {
        0 => format!("{sign}{whole}"),
        fraction => format!("{sign}{whole}.{}", format!("{fraction:09}").trim_end_matches('0')),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::tar::{Reader, Xattr};

    fn write(entries: &[Entry]) -> Result<Vec<u8>> {
        let mut tar = TarWriter::new(Vec::new());
        for entry in entries {
            tar.entry(entry)?;
            tar.data(&vec![b'x'; usize::try_from(entry.size).unwrap()])?;
        }
        tar.finish()
    }

    fn read(tar: &[u8]) -> Vec<Entry> {
        let mut reader = Reader::new(tar);
        let mut entries = Vec::new();
        let mut entry = Entry::default();
        while reader.next(&mut entry).unwrap() {
            entries.push(entry.clone());
        }
        entries
    }

    fn file(path: &[u8]) -> Entry {
        Entry { path: path.to_vec(), mode: 0o644, ..Entry::default() }
    }

    #[test]
    fn what_is_written_is_read() {
        let deep = |length: usize| b"directory/".iter().copied().cycle().take(length).chain(*b"x").collect::<Vec<u8>>();
        let entries = [
            Entry { size: 5, ..file(b"a") },
            Entry { size: 512, uid: 1, gid: 2, ..file(b"full") },
            Entry { size: 0, mode: 0o6755, ..file(b"empty") },
            Entry { kind: EntryKind::Directory, mode: 0o1777, ..file(b"tmp/") },
            Entry { kind: EntryKind::Symlink, link: b"../target".to_vec(), ..file(b"link") },
            Entry { kind: EntryKind::Symlink, link: vec![b'l'; 300], ..file(b"long link") },
            Entry { kind: EntryKind::HardLink, link: b"a".to_vec(), ..file(b"b") },
            Entry { kind: EntryKind::Fifo, ..file(b"fifo") },
            Entry { kind: EntryKind::Character, major: 1, minor: 3, ..file(b"null") },
            Entry { kind: EntryKind::Block, major: 4095, minor: 1_048_575, ..file(b"block") },
            file(&[b'n'; 100]),
            file(&[b'n'; 101]),
            file(&deep(200)),
            file(&deep(255)),
            file(&deep(300)),
            Entry { kind: EntryKind::Directory, ..file(&[&deep(150)[..], b"/"].concat()) },
            file("ünïcode".as_bytes()),
            file(b"bytes \xff\xfe\n"),
            Entry { uid: 2_097_151, gid: 2_097_152, ..file(b"ids") },
            Entry { uid: u32::MAX - 1, gid: u32::MAX - 1, ..file(b"large ids") },
            Entry { mtime: Time { seconds: -1, nanoseconds: 0 }, ..file(b"before 1970") },
            Entry { mtime: Time { seconds: -2, nanoseconds: 500_000_000 }, ..file(b"fraction before 1970") },
            Entry { mtime: Time { seconds: 1, nanoseconds: 1 }, ..file(b"fraction") },
            Entry { mtime: Time { seconds: 1 << 33, nanoseconds: 0 }, ..file(b"2242") },
            Entry {
                xattrs: vec![
                    Xattr { name: b"security.capability".to_vec(), value: vec![1, 0, 0, 2, 0, b'\n', b'='] },
                    Xattr { name: b"user.empty".to_vec(), value: Vec::new() },
                ],
                ..file(b"attributes")
            },
        ];
        let tar = write(&entries).unwrap();
        assert!(tar.len().is_multiple_of(512));
        for (read, written) in read(&tar).iter().zip(&entries) {
            assert_eq!(read, written);
        }
        assert_eq!(read(&tar).len(), entries.len());
    }

    #[test]
    fn headers_are_extended_only_where_they_must_be() {
        let blocks = |entry: &Entry| write(std::slice::from_ref(entry)).unwrap().len() / 512 - 2;
        let name = [&[b'p'; 155][..], b"/", &[b'n'; 100]].concat();
        for (entry, expected) in [
            (file(b"a"), 1),
            (file(&name), 1),
            (file(&[&name[..], b"x"].concat()), 3),
            (Entry { uid: 2_097_151, ..file(b"a") }, 1),
            (Entry { uid: 2_097_152, ..file(b"a") }, 3),
            (Entry { mtime: Time { seconds: (1 << 33) - 1, nanoseconds: 0 }, ..file(b"a") }, 1),
            (Entry { mtime: Time { seconds: 0, nanoseconds: 1 }, ..file(b"a") }, 3),
        ] {
            assert_eq!(blocks(&entry), expected, "{entry:?}");
        }
    }

    #[test]
    fn sizes_beyond_8_gib_have_a_record() {
        for (size, extended) in [(MOST_IN_12, false), (MOST_IN_12 + 1, true)] {
            let mut tar = TarWriter::new(Vec::new());
            tar.entry(&Entry { size, ..file(b"large") }).unwrap();
            let mut entry = Entry::default();
            assert!(Reader::new(tar.out.as_slice()).next(&mut entry).unwrap());
            assert_eq!((entry.size, tar.out.len() > 512), (size, extended));
        }
    }

    #[test]
    fn what_cannot_be_read_again_is_refused() {
        let attribute = |name: &[u8], length: usize| Entry {
            xattrs: vec![Xattr { name: name.to_vec(), value: vec![0; length] }],
            ..file(b"a")
        };
        for entry in [
            file(b""),
            file(b"a\0b"),
            file(&[b'a'; 4097]),
            Entry { kind: EntryKind::Symlink, link: vec![b'a'; 4097], ..file(b"a") },
            attribute(b"user.a=b", 1),
            attribute(b"user.a", (64 << 10) + 1),
        ] {
            assert!(write(std::slice::from_ref(&entry)).is_err(), "{}", entry.name());
        }
        let mut tar = TarWriter::new(Vec::new());
        tar.entry(&Entry { size: 2, ..file(b"a") }).unwrap();
        assert!(tar.data(b"abc").is_err());
        tar.data(b"a").unwrap();
        assert!(tar.entry(&file(b"b")).is_err());
        assert!(tar.finish().is_err());
    }

    proptest! {
        #[test]
        fn any_entry_is_read_again(
            path in prop::collection::vec(1..=255_u8, 1..400),
            (mode, uid, gid) in (0..0o10000_u32, 0..u32::MAX, 0..u32::MAX),
            (seconds, nanoseconds) in (-(1_i64 << 40)..1 << 40, 0..1_000_000_000_u64),
            value in prop::collection::vec(any::<u8>(), 0..200),
            size in 0..2000_u64,
        ) {
            let path = path.into_iter().map(|byte| if byte == b'/' { b'_' } else { byte }).collect();
            let xattrs = vec![Xattr { name: b"user.a".to_vec(), value }];
            let entry = Entry { path, mode, uid, gid, mtime: Time { seconds, nanoseconds }, size, xattrs, ..Entry::default() };
            prop_assert_eq!(read(&write(std::slice::from_ref(&entry)).unwrap()), vec![entry]);
        }
    }
}
