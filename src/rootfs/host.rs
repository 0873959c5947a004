//! What init keeps open of the host: its `/proc` and its `/dev/null`, verified, so that neither is looked up where the
//! container could have put something else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::spec::mount_options::MountOptions;

/// `PROC_SUPER_MAGIC` of linux/magic.h.
const PROC_SUPER_MAGIC: rustix::fs::FsWord = 0x9fa0;

/// The root directory of every procfs has this inode number (fs/proc: `PROC_ROOT_INO`).
const PROC_ROOT_INODE: u64 = 1;

/// A verified `/proc` of the host.
///
/// Its `self` is the caller in whatever PID namespace it is, and its `sys` shows the caller's network, IPC and UTS
/// namespaces; so init needs no procfs of the container. (CVE-2019-19921, CVE-2025-52881: writes redirected through one.)
pub struct HostProc(OwnedFd);

impl HostProc {
    /// Opens `/proc` and checks that it is procfs, and its root.
    pub fn open() -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(c"/proc", flags, Mode::empty()).context("open /proc")?;
        let kind = rustix::fs::fstatfs(&fd).context("inspect /proc")?.f_type;
        let inode = rustix::fs::fstat(&fd).context("inspect /proc")?.st_ino;
        if kind != PROC_SUPER_MAGIC || inode != PROC_ROOT_INODE {
            return Err(Error::unsupported("/proc is not a procfs").with_hint("mount proc on /proc"));
        }
        Ok(Self(fd))
    }

    /// Makes a procfs that shows the processes of a PID namespace and nothing of the kernel (6.17).
    pub fn of_processes(namespace: BorrowedFd<'_>) -> Result<Self> {
        let data = [(c"subset".to_owned(), Some(c"pid".to_owned()))];
        let (kind, none) = (c"proc".to_owned(), MountOptions::default());
        super::mount::new_file_system(&kind, &kind, &data, &none, 0, None, Some(namespace))
            .map(Self)
            .context("make a procfs")
    }

    /// Writes a file below `/proc`, which no mount may cover.
    pub fn write(&self, path: &str, text: &str) -> Result<(), Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let fd = rustix::fs::openat2(&self.0, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
        rustix::io::write(&fd, text.as_bytes()).map(drop)
    }

    /// Reads a file below `/proc`, which no mount may cover.
    pub fn read(&self, path: &str) -> Result<String, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let fd = rustix::fs::openat2(&self.0, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
        // Most files fit into the first read; the second one says that there is no more.
        let mut bytes = Vec::with_capacity(4096);
        while rustix::io::retry_on_intr(|| rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut bytes)))? > 0 {
            bytes.reserve(1024);
        }
        String::from_utf8(bytes).map_err(|_| Errno::ILSEQ)
    }
}

impl AsFd for HostProc {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Refuses to show anything on `/proc` that is no procfs (CVE-2019-16884).
pub fn require_proc(tree: &OwnedFd) -> Result<()> {
    if rustix::fs::fstatfs(tree).context("inspect the source")?.f_type == PROC_SUPER_MAGIC {
        return Ok(());
    }
    Err(Error::invalid("\"/proc\" cannot be mounted because it is not of type proc"))
}

/// Opens `/dev/null` and checks that it is the null device, 1:3 (CVE-2025-31133).
pub fn open_null() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(c"/dev/null", flags, Mode::empty()).context("open /dev/null")?;
    require_null(fd.as_fd())?;
    Ok(fd)
}

/// Refuses anything that is not the null device.
pub fn require_null(fd: BorrowedFd<'_>) -> Result<()> {
    let stat = rustix::fs::fstat(fd).context("inspect /dev/null")?;
    let is_null =
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(1, 3);
    if is_null { Ok(()) } else { Err(Error::invalid("/dev/null is not the null device (1:3)")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_null_device_is_null() {
        open_null().unwrap();
        let zero = std::fs::File::open("/dev/zero").unwrap();
        assert!(require_null(zero.as_fd()).is_err());
    }

    #[test]
    fn proc_is_written_below_its_root_only() {
        let proc = HostProc::open().unwrap();
        assert_eq!(proc.write("../etc/passwd", "x"), Err(Errno::XDEV));
        assert_eq!(proc.write("self/root/etc/passwd", "x"), Err(Errno::LOOP));
        let score = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        proc.write("self/oom_score_adj", score.trim()).unwrap();
    }
}
