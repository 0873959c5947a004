//! Files of configuration that people write: bounded, regular, and absent without complaint.
//!
//! Links are followed: what a person puts in their configuration is theirs to say. A pipe or a device is refused before a
//! byte of it is read. Reads text and tells where in it a mistake is; what a file means is its reader's.

use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;

use crate::error::{Context, Error, Result};

/// A configuration file has a few dozen lines; a bundle of certificates, a few thousand.
const FILE_BYTES: u64 = 1 << 20;

/// Reads a file as text; `None` where there is none, which costs one system call.
pub fn read(path: &Path) -> Result<Option<String>> {
    let Some(bytes) = read_bytes(path)? else { return Ok(None) };
    // The error of `String::from_utf8` holds the bytes, which may be secret.
    let text = String::from_utf8(bytes).map_err(|_| Error::invalid("not UTF-8"));
    text.with_context(|| format!("read {}", path.display())).map(Some)
}

/// Reads a file; `None` where there is none.
pub fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let read = || -> Result<Option<Vec<u8>>> {
        let fd = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => fd,
            // ENOTDIR: a file where a directory of the path should be.
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(Error::invalid("not a regular file"));
        }
        let mut bytes = Vec::new();
        std::fs::File::from(fd).take(FILE_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES {
            return Err(Error::invalid(format!("larger than {FILE_BYTES} bytes")));
        }
        Ok(Some(bytes))
    };
    read().with_context(|| format!("read {}", path.display()))
}

/// Lists the files of a folder whose names end so, in the order of their names; none where there is no such folder.
pub fn list(folder: &Path, suffix: &str) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error).with_context(|| format!("list {}", folder.display())),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", folder.display()))?;
        if entry.file_name().as_encoded_bytes().ends_with(suffix.as_bytes()) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Parses TOML; `path` is for the messages, which say `path:line: what`.
pub fn parse_toml<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        Error::invalid(format!("{}:{line}: {}", path.display(), error.message()))
    })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "fixtures are not state")]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_size_are_read() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        assert_eq!(read(&path).unwrap(), None);
        std::fs::write(&path, "text").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("text"));
        assert_eq!(read(&path.join("below")).unwrap(), None);
        std::fs::write(&path, b"secret\xff").unwrap();
        let report = read(&path).unwrap_err().report();
        assert!(report.ends_with("not UTF-8") && !report.contains("secret"), "{report}");
        std::fs::write(&path, vec![b' '; (1 << 20) + 1]).unwrap();
        assert!(read(&path).unwrap_err().report().contains("larger than"));
        assert!(read(scratch.path()).unwrap_err().report().contains("not a regular file"));
    }

    #[test]
    fn folders_are_listed_by_name() {
        let scratch = tempfile::tempdir().unwrap();
        for name in ["b.conf", "a.conf", "c.txt"] {
            std::fs::write(scratch.path().join(name), "").unwrap();
        }
        let expected: Vec<_> = ["a.conf", "b.conf"].map(|name| scratch.path().join(name)).into();
        assert_eq!(list(scratch.path(), ".conf").unwrap(), expected);
        assert_eq!(list(&scratch.path().join("none"), "").unwrap(), Vec::<PathBuf>::new());
    }
}
