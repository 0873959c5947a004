//! The file that tells a caller the pid, and by being there that the container is: whole or not there, and never with
//! something unfinished beside it, whenever we are killed.
//!
//! The caller names the path, so links on the way to it are followed; one in its place is not.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// Writes a pid file in the place of what may be there from an earlier container.
pub(super) fn write(path: &Path, pid: i32) -> Result<()> {
    let name =
        path.file_name().ok_or_else(|| Error::invalid(format!("--pid-file {}: not a file name", path.display())))?;
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let text = pid.to_string();
    let answer = match write_unnamed(directory, path, text.as_bytes()) {
        // NFS and FUSE know no files without a name, and without /proc one can't be named.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => write_named(directory, name.as_ref(), text.as_bytes()),
        answer => answer,
    };
    answer.with_context(|| format!("write {}", path.display()))
}

/// Writes a file that has no name yet, then names it: a kill leaves nothing.
fn write_unnamed(directory: &Path, path: &Path, text: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(directory, flags, Mode::from_raw_mode(0o666))?;
    rustix::io::write(&file, text)?;
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    let name = || rustix::fs::linkat(CWD, &unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW);
    match name() {
        // A link never replaces. What is there is of a container that is no more: nobody misses it for a moment.
        Err(Errno::EXIST) => rustix::fs::unlink(path).and_then(|()| name()),
        answer => answer,
    }
}

/// Writes under another name, then renames.
fn write_named(directory: &Path, name: &Path, text: &[u8]) -> Result<(), Errno> {
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    let temporary = directory.join(temporary);
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::open(&temporary, flags, Mode::from_raw_mode(0o666))?);
    file.write_all(text).map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))?;
    rustix::fs::rename(&temporary, directory.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_replace_the_file_and_leave_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("pid");
        let names = || -> Vec<_> {
            std::fs::read_dir(scratch.path()).unwrap().flatten().map(|entry| entry.file_name()).collect()
        };
        for pid in [1, 4_194_304] {
            write_unnamed(scratch.path(), &path, pid.to_string().as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), pid.to_string());
            write_named(scratch.path(), Path::new("pid"), b"77").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "77");
            write(&path, pid).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), pid.to_string());
            assert_eq!(names(), ["pid"]);
        }
    }

    #[test]
    fn a_link_in_its_place_is_replaced_and_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("pid");
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        write(&path, 7).unwrap();
        assert!(path.symlink_metadata().unwrap().is_file());
        assert!(!scratch.path().join("elsewhere").exists());
    }

    #[test]
    fn a_failure_names_the_file() {
        let error = write(Path::new("/nonexistent/pid"), 7).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/pid"), "{error}");
        assert!(write(Path::new("/"), 7).is_err());
    }
}
