//! Paths that are made unreadable or read-only.
//!
//! The target is opened once, its type is what fstat(2) of the descriptor says, and only "there is no such path" is
//! passed over. What covers it is our own: an empty read-only tmpfs for directories, the verified null device for the
//! rest (CVE-2025-31133).

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::host;
use super::label::MountLabel;
use super::mount::{attach, clone_fd, make_readonly, new_file_system};
use crate::error::{Context, Result};
use crate::spec::mount_options::MountOptions;
use crate::support::root::Root;
use crate::sys::mount::{Reach, attr};

/// Covers each path that exists.
pub fn mask(root: &Root, paths: &[PathBuf], label: Option<&MountLabel>) -> Result<()> {
    let mut covers = Covers { null: None, empty: None, label };
    for path in paths {
        let Some(target) = open_existing(root, path)? else { continue };
        covers.cover(&target).with_context(|| format!("mask {}", path.display()))?;
    }
    Ok(())
}

/// Makes each path that exists read-only, with what is mounted below it.
pub fn protect(root: &Root, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        let Some(target) = open_existing(root, path)? else { continue };
        make_readonly(&target).with_context(|| format!("make {} read-only", path.display()))?;
    }
    Ok(())
}

fn open_existing(root: &Root, path: &Path) -> Result<Option<OwnedFd>> {
    match root.open_at(path, OFlags::PATH, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("open {} in the root file system", path.display())),
    }
}

/// What covers; made when first needed, then copied.
struct Covers<'a> {
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
    label: Option<&'a MountLabel>,
}

impl Covers<'_> {
    fn cover(&mut self, target: &OwnedFd) -> Result<()> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(target)?.st_mode);
        if kind == FileType::Directory {
            return if let Some(empty) = &self.empty {
                Ok(attach(clone_fd(empty, Reach::One)?, target)?)
            } else {
                let empty = empty_directory(self.label)?;
                attach(&empty, target)?;
                // Attached, it is in our mount namespace, and copies can be made of it (before kernel 6.15 not of a
                // detached one).
                self.empty = Some(empty);
                Ok(())
            };
        }
        if self.null.is_none() {
            self.null = Some(host::open_null()?);
        }
        let Some(null) = &self.null else { return Ok(()) };
        Ok(attach(clone_fd(null, Reach::One)?, target)?)
    }
}

fn empty_directory(label: Option<&MountLabel>) -> Result<OwnedFd> {
    let attributes = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let (kind, source): (CString, CString) = (c"tmpfs".to_owned(), c"tmpfs".to_owned());
    let make = |inodes: &CStr| {
        let mut data = Vec::with_capacity(3);
        data.push((c"nr_blocks".to_owned(), Some(c"1".to_owned())));
        data.push((c"nr_inodes".to_owned(), Some(inodes.to_owned())));
        if let Some(label) = label {
            label.add_to(c"tmpfs", &mut data);
        }
        new_file_system(&kind, &source, &data, &MountOptions::default(), attributes, Some(0o755), None)
    };
    // Ubuntu's 5.4 wants room for one inode more.
    make(c"1").or_else(|_| make(c"2")).context("mount an empty tmpfs")
}
