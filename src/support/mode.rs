//! Modes of what has no descriptor to it that fchmod(2) would take, where somebody else may change the directory.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// Gives a file that is not to be opened (a FIFO, a device) its mode; ELOOP where a symlink stands in its place.
pub fn set_mode_of_node(directory: BorrowedFd<'_>, name: impl Arg, mode: Mode) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&node)?.st_mode) == FileType::Symlink {
        return Err(Errno::LOOP);
    }
    set_mode_of_path(&node, mode)
}

/// Gives what a path descriptor stands for, which is no symlink, its mode.
pub fn set_mode_of_path(path: &impl AsRawFd, mode: Mode) -> Result<(), Errno> {
    // KERNEL(6.6): fchmodat2 with AT_EMPTY_PATH. Before it, only the magic link leads from a path descriptor to chmod.
    rustix::fs::chmod(format!("/proc/self/fd/{}", path.as_raw_fd()), mode)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let directory = std::fs::File::open(place.path()).unwrap();
        rustix::fs::mknodat(&directory, "fifo", FileType::Fifo, Mode::RUSR, 0).unwrap();
        symlink("fifo", place.path().join("link")).unwrap();
        let set = |name: &str| set_mode_of_node(directory.as_fd(), name, Mode::from_raw_mode(0o622));
        assert_eq!((set("link"), set("gone")), (Err(Errno::LOOP), Err(Errno::NOENT)));
        let mode = || place.path().join("fifo").metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o400);
        set("fifo").unwrap();
        assert_eq!(mode(), 0o622);
    }
}
