//! Files that are there whole or not at all, below a directory descriptor.
//!
//! [`create`] makes a file that must not exist; [`replace`] puts a new content in the place of an old one. A reader, and
//! whoever comes after a SIGKILL, sees the old state or the new one. Nothing is synced to disk: after a power cut the
//! newest state may be missing, and the readers of husk's files take an empty file for one that was never written. What must
//! find room on a full disk has it set aside before ([`reserve`], [`put_reserved`]).
//! Names are single components; the directory is trusted to be husk's own. The mode is narrowed by the umask, which the
//! executable sets at its start.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Kind, Result};

/// What husk's own files are: the user's alone.
pub const PRIVATE: u32 = 0o600;

/// What the names of unfinished files begin with. One that is found belongs to a process that was killed, or to one that
/// is at work on it now: whoever holds the folder's lock may delete it.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// Makes `name` in `directory` with a content, all at once; fails with [`Kind::Exists`] where it is there already.
pub fn create(directory: BorrowedFd<'_>, name: &str, content: &[u8]) -> Result<()> {
    debug_assert!(!name.contains('/'), "a name, not a path");
    match create_unnamed(directory, name, content) {
        // KERNEL(6.6): overlayfs and tmpfs take O_TMPFILE long since, NFS and FUSE do not; nor does a chroot without /proc
        // let the file be named.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {
            create_named(directory, name, content, RenameFlags::NOREPLACE)
        }
        answer => answer,
    }
    .map_err(|errno| {
        let error = Error::from(errno);
        if errno == Errno::EXIST { error.with_kind(Kind::Exists) } else { error }
    })
    .with_context(|| format!("create {name}"))
}

/// Puts `content` in the place of what `name` holds, or makes it.
pub fn replace(directory: BorrowedFd<'_>, name: &str, content: &[u8]) -> Result<()> {
    debug_assert!(!name.contains('/'), "a name, not a path");
    create_named(directory, name, content, RenameFlags::empty()).with_context(|| format!("write {name}"))
}

/// Makes `name` in `directory`, where it is not there, so that the file system has set room aside for a content of `size`
/// bytes that [`put_reserved`] is to write: blank, since a file with a hole has none.
pub fn reserve(directory: BorrowedFd<'_>, name: &str, size: usize) -> Result<()> {
    debug_assert!(!name.contains('/'), "a name, not a path");
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(PRIVATE)) {
        Ok(fd) => write_all(&mut File::from(fd), &vec![b' '; size]).map_err(Error::from),
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
    .with_context(|| format!("reserve {name}"))
}

/// Puts a JSON document in the place of what `name` holds, by way of the file `reserved`, which that becomes: a disk that
/// is full has room for it. `false` where nothing was reserved.
///
/// What it does not fill of `size` stays blank, so that the room is there for the next one.
pub fn put_reserved(
    directory: BorrowedFd<'_>,
    reserved: &str,
    name: &str,
    document: &[u8],
    size: usize,
) -> Result<bool> {
    let put = || {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = match rustix::fs::openat(directory, reserved, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(errno),
        };
        let mut content = document.to_vec();
        content.resize(document.len().max(size), b' ');
        write_all(&mut file, &content)?;
        rustix::fs::ftruncate(&file, content.len() as u64)?;
        rustix::fs::renameat(directory, reserved, directory, name)?;
        Ok(true)
    };
    put().map_err(Error::from).with_context(|| format!("write {name}"))
}

/// Writes a file that has no name yet, and then names it: a kill leaves nothing.
fn create_unnamed(directory: BorrowedFd<'_>, name: &str, content: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(directory, c".", flags, Mode::from_raw_mode(PRIVATE))?);
    write_all(&mut file, content)?;
    // AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH before kernel 6.10; open(2) names this way.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(rustix::fs::CWD, path, directory, name, AtFlags::SYMLINK_FOLLOW)
}

/// Writes a file under a temporary name, and renames it.
fn create_named(directory: BorrowedFd<'_>, name: &str, content: &[u8], how: RenameFlags) -> Result<(), Errno> {
    let (temporary, mut file) = open_temporary(directory)?;
    let answer = write_all(&mut file, content).and_then(|()| {
        if how.is_empty() {
            rustix::fs::renameat(directory, &temporary, directory, name)
        } else {
            rustix::fs::renameat_with(directory, &temporary, directory, name, how)
        }
    });
    if answer.is_err() {
        // The first failure is the one to report.
        let _ = rustix::fs::unlinkat(directory, &temporary, AtFlags::empty());
    }
    answer
}

fn open_temporary(directory: BorrowedFd<'_>) -> Result<(String, File), Errno> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let pid = rustix::process::getpid().as_raw_nonzero();
    loop {
        // A container's husk may have the pid of the host's: the name is a proposal, O_EXCL decides.
        let temporary = format!("{TEMPORARY_PREFIX}{pid}-{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(directory, &temporary, flags, Mode::from_raw_mode(PRIVATE)) {
            Ok(fd) => return Ok((temporary, File::from(fd))),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn write_all(file: &mut File, content: &[u8]) -> Result<(), Errno> {
    file.write_all(content).map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
}

/// Reads a file of husk's own, of at most `limit` bytes; `None` where there is none.
pub fn read(directory: BorrowedFd<'_>, name: &str, limit: usize) -> Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(directory.as_fd(), name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno).with_context(|| format!("open {name}")),
    };
    let mut bytes = Vec::with_capacity(limit.min(4096));
    loop {
        if bytes.len() > limit {
            return Err(Error::invalid(format!("{name} is larger than {limit} bytes")));
        }
        if bytes.len() == bytes.capacity() {
            bytes.reserve(bytes.len().max(1));
        }
        let room = bytes.capacity() - bytes.len();
        match rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut bytes)) {
            // Of a regular file that nobody appends to, a short read is the end: one call for the usual size.
            Ok(count) if count < room && bytes.len() <= limit => return Ok(Some(bytes)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).with_context(|| format!("read {name}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::PermissionsExt;

    fn scratch() -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        let fd = OwnedFd::from(File::open(directory.path()).unwrap());
        (directory, fd)
    }

    fn names(directory: &tempfile::TempDir) -> Vec<String> {
        let entries = std::fs::read_dir(directory.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn creating_does_not_replace() {
        for create in [create as fn(BorrowedFd<'_>, &str, &[u8]) -> Result<()>, |directory, name, content| {
            create_named(directory, name, content, RenameFlags::NOREPLACE)
                .map_err(|errno| Error::from(errno).with_kind(Kind::Exists))
        }] {
            let (directory, fd) = scratch();
            create(fd.as_fd(), "a", b"one").unwrap();
            assert_eq!(create(fd.as_fd(), "a", b"two").unwrap_err().kind(), Kind::Exists);
            assert_eq!(std::fs::read(directory.path().join("a")).unwrap(), b"one");
            assert_eq!(std::fs::metadata(directory.path().join("a")).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(names(&directory), ["a"], "nothing temporary may stay");
        }
    }

    #[test]
    fn what_is_reserved_is_filled() {
        let (directory, fd) = scratch();
        let content = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(!put_reserved(fd.as_fd(), "next", "a", b"{}", 4).unwrap());
        reserve(fd.as_fd(), "next", 4).unwrap();
        assert_eq!(content("next"), "    ");
        assert!(put_reserved(fd.as_fd(), "next", "a", b"{}", 4).unwrap());
        assert_eq!((content("a").as_str(), names(&directory)), ("{}  ", vec!["a".to_owned()]));
        // One that is longer, and a shorter one in its room.
        for (document, expected) in [("{1234567}", "{1234567}"), ("{1}", "{1} ")] {
            std::fs::rename(directory.path().join("a"), directory.path().join("next")).unwrap();
            reserve(fd.as_fd(), "next", 4).unwrap();
            assert!(put_reserved(fd.as_fd(), "next", "a", document.as_bytes(), 4).unwrap());
            assert_eq!(content("a"), expected);
        }
    }

    #[test]
    fn a_reader_sees_one_whole_state() {
        let (directory, fd) = scratch();
        replace(fd.as_fd(), "a", &[0; 8192]).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for round in 1..=200_u8 {
                    replace(fd.as_fd(), "a", &[round; 8192]).unwrap();
                }
            });
            while !writer.is_finished() {
                let content = read(fd.as_fd(), "a", 8192).unwrap().unwrap();
                assert!(content.len() == 8192 && content.iter().all(|byte| *byte == content[0]));
            }
        });
        assert_eq!(names(&directory), ["a"]);
    }

    #[test]
    fn a_temporary_name_in_use_is_passed_over() {
        let (directory, fd) = scratch();
        let pid = std::process::id();
        for number in 0..64 {
            std::os::unix::fs::symlink("/nowhere", directory.path().join(format!("{TEMPORARY_PREFIX}{pid}-{number}")))
                .unwrap();
        }
        replace(fd.as_fd(), "a", b"content").unwrap();
        assert_eq!(std::fs::read(directory.path().join("a")).unwrap(), b"content");
    }

    #[test]
    fn reading_is_bounded_and_does_not_follow_links() {
        let (directory, fd) = scratch();
        create(fd.as_fd(), "a", &[7; 5000]).unwrap();
        assert_eq!(read(fd.as_fd(), "a", 5000).unwrap().unwrap(), vec![7; 5000]);
        assert!(read(fd.as_fd(), "a", 4999).unwrap_err().report().contains("larger than 4999 bytes"));
        assert!(read(fd.as_fd(), "b", 10).unwrap().is_none());
        std::os::unix::fs::symlink("a", directory.path().join("link")).unwrap();
        assert_eq!(read(fd.as_fd(), "link", 5000).unwrap_err().errno(), Some(Errno::LOOP));
    }
}
