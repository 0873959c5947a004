//! Writes tar archives for tests, honest and hostile: every field can be set to anything. Shared with the unit tests.

const BLOCK: usize = 512;

/// An archive under construction.
#[derive(Clone, Default)]
pub(crate) struct Tar(Vec<u8>);

/// One header, with its data.
#[derive(Clone)]
pub(crate) struct Member {
    header: [u8; BLOCK],
    data: Vec<u8>,
}

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn file(self, name: &str, data: &[u8]) -> Self {
        self.member(Member::new(b'0', name).data(data))
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.member(Member::new(b'5', name).mode(0o755))
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.member(Member::new(b'2', name).link(target).mode(0o777))
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.member(Member::new(b'1', name).link(target))
    }

    pub(crate) fn member(mut self, member: Member) -> Self {
        self.0.extend_from_slice(&member.finish());
        self
    }

    /// Adds a PAX header for the next member.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let data: Vec<u8> = records.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
        self.member(Member::new(b'x', "PaxHeaders/x").data(&data))
    }

    /// Adds a GNU header (`L` for a name, `K` for a link) for the next member.
    pub(crate) fn gnu_long(self, kind: u8, text: &[u8]) -> Self {
        let mut data = text.to_vec();
        data.push(0);
        self.member(Member::new(kind, "././@LongLink").gnu().data(&data))
    }

    /// Adds bytes as they are.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Ends the archive with its two blocks of zeros.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 2 * BLOCK]);
        self.0
    }

    /// Gives what is there so far.
    pub(crate) fn unfinished(self) -> Vec<u8> {
        self.0
    }
}

impl Member {
    pub(crate) fn new(kind: u8, name: &str) -> Self {
        let mut member = Self { header: [0; BLOCK], data: Vec::new() };
        member.header[156] = kind;
        member.header[257..265].copy_from_slice(b"ustar\x0000");
        member.bytes(0, name.as_bytes()).mode(0o644).owner(0, 0).mtime(1_700_000_000).size(0)
    }

    /// Writes into the header, whatever is there.
    pub(crate) fn bytes(mut self, at: usize, bytes: &[u8]) -> Self {
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn gnu(self) -> Self {
        self.bytes(257, b"ustar  \0")
    }

    pub(crate) fn mode(self, mode: u32) -> Self {
        self.bytes(100, format!("{mode:07o}\0").as_bytes())
    }

    pub(crate) fn owner(self, uid: u32, gid: u32) -> Self {
        self.bytes(108, format!("{uid:07o}\0").as_bytes()).bytes(116, format!("{gid:07o}\0").as_bytes())
    }

    pub(crate) fn mtime(self, seconds: u64) -> Self {
        self.bytes(136, format!("{seconds:011o}\0").as_bytes())
    }

    pub(crate) fn link(self, target: &str) -> Self {
        self.bytes(157, target.as_bytes())
    }

    pub(crate) fn device(self, major: u32, minor: u32) -> Self {
        self.bytes(329, format!("{major:07o}\0").as_bytes()).bytes(337, format!("{minor:07o}\0").as_bytes())
    }

    /// Says a size, true or not.
    pub(crate) fn size(self, size: u64) -> Self {
        self.bytes(124, format!("{size:011o}\0").as_bytes())
    }

    pub(crate) fn data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        let size = data.len() as u64;
        self.size(size)
    }

    /// Gives the header with its checksum, and the data filled up to a block.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.header[148..156].fill(b' ');
        let sum: u32 = self.header.iter().map(|byte| u32::from(*byte)).sum();
        self.header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut bytes = self.header.to_vec();
        bytes.extend_from_slice(&self.data);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }
}

/// Writes one PAX record; its length counts its own digits.
pub(crate) fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}
