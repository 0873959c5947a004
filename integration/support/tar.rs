//! Writes tar archives with any header, right or wrong: hostile names, links, sizes, checksums. Nothing is checked.

/// One header with its data. The fields are those of ustar; `[u8; …]` are filled as given.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: u8,
    pub(crate) mode: u64,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    pub(crate) link: Vec<u8>,
    pub(crate) device: (u64, u64),
    pub(crate) data: Vec<u8>,
    /// The size in the header, where it is to differ from the data's.
    pub(crate) claimed_size: Option<u64>,
    /// The checksum in the header, where it is to be wrong.
    pub(crate) checksum: Option<u32>,
    /// PAX records that go before the entry.
    pub(crate) pax: Vec<(String, Vec<u8>)>,
    /// Names past 100 bytes go into GNU `L` and `K` entries rather than PAX records.
    pub(crate) gnu: bool,
}

impl Entry {
    fn new(kind: u8, name: &str, mode: u64) -> Self {
        Self {
            name: name.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: 1_700_000_000,
            link: Vec::new(),
            device: (0, 0),
            data: Vec::new(),
            claimed_size: None,
            checksum: None,
            pax: Vec::new(),
            gnu: false,
        }
    }

    pub(crate) fn file(name: &str, data: impl Into<Vec<u8>>) -> Self {
        Self { data: data.into(), ..Self::new(b'0', name, 0o644) }
    }

    pub(crate) fn program(name: &str, data: impl Into<Vec<u8>>) -> Self {
        Self { data: data.into(), ..Self::new(b'0', name, 0o755) }
    }

    pub(crate) fn directory(name: &str) -> Self {
        Self::new(b'5', name, 0o755)
    }

    pub(crate) fn symlink(name: &str, target: &str) -> Self {
        Self { link: target.into(), ..Self::new(b'2', name, 0o777) }
    }

    pub(crate) fn hard_link(name: &str, target: &str) -> Self {
        Self { link: target.into(), ..Self::new(b'1', name, 0o644) }
    }

    pub(crate) fn device(name: &str, major: u64, minor: u64) -> Self {
        Self { device: (major, minor), ..Self::new(b'3', name, 0o600) }
    }

    pub(crate) fn fifo(name: &str) -> Self {
        Self::new(b'6', name, 0o600)
    }

    pub(crate) fn mode(self, mode: u64) -> Self {
        Self { mode, ..self }
    }

    pub(crate) fn owner(self, uid: u64, gid: u64) -> Self {
        Self { uid, gid, ..self }
    }

    /// Adds an extended attribute, as GNU tar and Go write it.
    pub(crate) fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.pax.push((format!("SCHILY.xattr.{name}"), value.to_vec()));
        self
    }

    pub(crate) fn pax(mut self, name: &str, value: &str) -> Self {
        self.pax.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn gnu(self) -> Self {
        Self { gnu: true, ..self }
    }

    /// Appends the entry to an archive.
    pub(crate) fn write(&self, archive: &mut Vec<u8>) {
        let mut pax = self.pax.clone();
        for (field, kind, keyword) in [(&self.name, b'L', "path"), (&self.link, b'K', "linkpath")] {
            if field.len() > 100 && self.gnu {
                let mut data = field.clone();
                data.push(0);
                block(archive, &Self { data, ..Self::new(kind, "././@LongLink", 0) });
            } else if field.len() > 100 {
                pax.push((keyword.to_owned(), field.clone()));
            }
        }
        if !pax.is_empty() {
            let data = pax.iter().flat_map(|(name, value)| pax_record(name, value)).collect();
            block(archive, &Self { data, ..Self::new(b'x', "PaxHeaders/entry", 0o644) });
        }
        block(archive, self);
    }
}

/// Writes entries and the two closing blocks.
pub(crate) fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut archive = Vec::new();
    for entry in entries {
        entry.write(&mut archive);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// One header and its data, padded.
fn block(archive: &mut Vec<u8>, entry: &Entry) {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, bytes: &[u8], room: usize| {
        let count = bytes.len().min(room);
        header[at..at + count].copy_from_slice(&bytes[..count]);
    };
    let size = entry.claimed_size.unwrap_or(entry.data.len() as u64);
    put(0, &entry.name, 100);
    put(100, &octal(entry.mode, 8), 8);
    put(108, &octal(entry.uid, 8), 8);
    put(116, &octal(entry.gid, 8), 8);
    put(124, &octal(size, 12), 12);
    put(136, &octal(entry.mtime, 12), 12);
    put(148, b"        ", 8);
    put(156, &[entry.kind], 1);
    put(157, &entry.link, 100);
    put(257, if entry.gnu { b"ustar  \0" } else { b"ustar\x0000" }, 8);
    put(329, &octal(entry.device.0, 8), 8);
    put(337, &octal(entry.device.1, 8), 8);
    let sum = entry.checksum.unwrap_or_else(|| header.iter().map(|byte| u32::from(*byte)).sum());
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend_from_slice(&header);
    archive.extend_from_slice(&entry.data);
    archive.resize(archive.len().next_multiple_of(512), 0);
}

/// Octal digits, or base-256 where they don't fit.
fn octal(value: u64, room: usize) -> Vec<u8> {
    let digits = format!("{value:0width$o}\0", width = room - 1);
    if digits.len() == room {
        return digits.into_bytes();
    }
    let mut bytes = vec![0; room];
    bytes[0] = 0x80;
    bytes[room - 8..].copy_from_slice(&value.to_be_bytes());
    bytes[0] |= 0x80;
    bytes
}

/// `LENGTH NAME=VALUE\n`, where the length counts its own digits.
fn pax_record(name: &str, value: &[u8]) -> Vec<u8> {
    let rest = name.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length += 1;
    }
    let mut record = format!("{length} {name}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}
