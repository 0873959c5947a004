//! Records for systemd's journal, in its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL). Reads none: that is
//! journalctl's work.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::sys::fdpass;

/// Where the journal takes records.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// Says whether there is a journal to be written to.
pub fn is_there() -> bool {
    Journal::connect().is_ok()
}

/// Appends a field to a record. A value of several lines has its length before it: what follows a line's end would else be
/// read as another field, whose name and value an image or a container could choose.
pub fn put_field(record: &mut Vec<u8>, name: &str, value: &[u8]) {
    record.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        record.push(b'\n');
        record.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        record.push(b'=');
    }
    record.extend_from_slice(value);
    record.push(b'\n');
}

/// Makes a name that a field may have of any text, as docker does: `com.example/a` is `COM_EXAMPLE_A`. Nothing where none is
/// left, or what the journal keeps to itself.
pub fn field_name(text: &str) -> Option<String> {
    /// The longest that the journal takes (`field_is_valid` of its journal-file.c).
    const LONGEST: usize = 64;
    let upper = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_uppercase().into() } else { '_' };
    let name: String = text.bytes().map(upper).collect();
    let name = name.trim_start_matches('_');
    let is_fit = name.len() <= LONGEST && name.starts_with(|first: char| first.is_ascii_uppercase());
    is_fit.then(|| name.to_owned())
}

/// A connection to the journal, which may go and come back.
pub struct Journal(OwnedFd);

impl Journal {
    pub fn connect() -> Result<Self, Errno> {
        Self::connect_to(Path::new(SOCKET))
    }

    fn connect_to(path: &Path) -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self(socket))
    }

    /// Sends a record, without waiting: EAGAIN where the journal has yet to read others.
    pub fn send(&self, record: &[u8]) -> Result<(), Errno> {
        match fdpass::try_send(&self.0, &[record], None) {
            // Larger than a datagram may be.
            Err(Errno::MSGSIZE | Errno::NOBUFS) => {
                let file = sealed(record)?;
                fdpass::try_send(&self.0, &[], Some(file.as_fd()))
            }
            answer => answer,
        }
    }
}

impl AsFd for Journal {
    /// Polls as writable once there is room again.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A file in memory that nobody can change any more: the journal reads no other.
fn sealed(content: &[u8]) -> Result<OwnedFd, Errno> {
    let file = memfd_create(c"husk:journal", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut done = 0;
    while done < content.len() {
        done += rustix::io::retry_on_intr(|| rustix::io::write(&file, &content[done..]))?;
    }
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_field() {
        let field = |value: &[u8]| {
            let mut record = Vec::new();
            put_field(&mut record, "MESSAGE", value);
            record
        };
        assert_eq!(field(b"a = b"), b"MESSAGE=a = b\n");
        assert_eq!(field(b"a\nX=1"), b"MESSAGE\n\x05\0\0\0\0\0\0\0a\nX=1\n");
    }

    #[test]
    fn names_are_made_fit() {
        for (text, name) in [
            ("tier", Some("TIER")),
            ("com.example/a-b", Some("COM_EXAMPLE_A_B")),
            ("__REALTIME", Some("REALTIME")),
            ("1st", None),
            ("ä", None),
            ("", None),
        ] {
            assert_eq!(field_name(text).as_deref(), name, "{text}");
        }
        assert_eq!(field_name(&"x".repeat(65)), None);
    }

    #[test]
    fn what_is_larger_than_a_datagram_goes_as_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let theirs = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let journal = Journal::connect_to(&path).unwrap();
        journal.send(b"small").unwrap();
        let large = vec![b'x'; 1 << 20];
        journal.send(&large).unwrap();
        let mut buffer = vec![0; 16];
        let (length, file) = fdpass::receive(&theirs, &mut buffer).unwrap();
        assert!(&buffer[..length] == b"small" && file.is_none());
        let (length, file) = fdpass::receive(&theirs, &mut buffer).unwrap();
        let (mut content, file) = (vec![0; large.len() + 1], file.unwrap());
        assert_eq!((length, rustix::io::pread(&file, &mut content, 0)), (0, Ok(large.len())));
        assert!(content.starts_with(&large));
        drop(theirs);
        assert_eq!(journal.send(b"x"), Err(Errno::CONNREFUSED));
    }

    #[test]
    fn what_is_sealed_stays_as_it_is() {
        let file = sealed(b"content").unwrap();
        assert_eq!(rustix::io::pwrite(&file, b"x", 0), Err(Errno::PERM));
        let mut bytes = [0; 8];
        assert_eq!(rustix::io::pread(&file, &mut bytes, 0), Ok(7));
    }
}
