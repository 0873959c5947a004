//! Reading and writing cgroup files: one open, one write a value, nothing read back.
//!
//! Files are never made (no `O_CREAT`): one that is missing is a feature that the kernel lacks.

use std::fmt::Display;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Reads a file that the kernel makes as one piece (a value, a table of statistics, `/proc/PID/cgroup`), without the
/// last newline. Such a file is at its end when it leaves room in the buffer, so that one read(2) does.
///
/// Lists, `cgroup.procs` first of all, come in many pieces and are for [`read_to_end`].
pub(super) fn read_value(path: &Path) -> Result<String, Errno> {
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::with_capacity(1024);
    loop {
        match rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(1..) if bytes.len() == bytes.capacity() => bytes.reserve(bytes.len()),
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    let mut text = String::from_utf8(bytes).map_err(|_| Errno::ILSEQ)?;
    text.truncate(text.trim_end().len());
    Ok(text)
}

/// Reads a descriptor to its end. Most cgroup files fit into one read; the second says that there is no more.
pub(super) fn read_to_end(fd: impl AsFd) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if bytes.capacity() - bytes.len() < 512 {
            bytes.reserve(4096);
        }
        match rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => return Ok(bytes),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes values into a file of a cgroup, each by one write(2).
///
/// cgroup files take one setting a write, so `values` holds one a line.
pub(super) fn try_write(path: &Path, values: &str) -> Result<(), Errno> {
    let fd = open_for_writing(path)?;
    for value in values.split('\n') {
        write(&fd, value.as_bytes())?;
    }
    Ok(())
}

/// Opens a file of a cgroup for writing.
pub(super) fn open_for_writing(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}

/// Writes once; the kernel takes a value whole or not at all.
pub(super) fn write(fd: impl AsFd, value: &[u8]) -> Result<(), Errno> {
    loop {
        match rustix::io::write(&fd, value) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes a number without allocating.
pub(super) fn write_number(fd: impl AsFd, number: impl Display) -> Result<(), Errno> {
    let mut buffer = [0_u8; 24];
    let mut rest = &mut buffer[..];
    // 24 bytes hold every 64-bit number.
    let _ = write!(rest, "{number}");
    let left = rest.len();
    let used = buffer.len() - left;
    write(fd, &buffer[..used])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_never_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("memory.max");
        assert_eq!(try_write(&path, "1"), Err(Errno::NOENT));
        assert!(!path.exists());
    }

    #[test]
    fn long_files_are_read_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cgroup.procs");
        let text = "123456\n".repeat(10_000);
        rustix::fs::open(&path, OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600)).unwrap();
        try_write(&path, text.trim_end()).unwrap();
        assert_eq!(read_value(&path).unwrap().len(), text.replace('\n', "").len());
        assert_eq!(read_to_end(std::fs::File::open(&path).unwrap()).unwrap().len(), 60_000);
    }

    #[test]
    fn numbers_are_written_in_full() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pids");
        let fd = rustix::fs::open(&path, OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600)).unwrap();
        write_number(&fd, i64::MIN).unwrap();
        assert_eq!(read_value(&path).unwrap(), i64::MIN.to_string());
    }
}
