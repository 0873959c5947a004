//! Quotas of volumes: a project of the file system for each volume that has one (XFS, ext4 with `prjquota`).
//!
//! A project is a number of the file system's, which other programs give away as well. So one is drawn by lot from the upper
//! half of the numbers, and taken if nothing on the file system belongs to it.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::options::Bounds;
use crate::error::{Error, Kind, Result};
use crate::sys::quota;

const BLOCK_BYTES: u64 = 1024;

/// How many numbers are drawn before somebody is told that all are taken.
const TRIES: usize = 64;

/// Bounds what may be in an empty directory. Gives the number of its project.
pub(super) fn limit(directory: BorrowedFd<'_>, bounds: &Bounds) -> Result<u32> {
    let blocks = bounds.bytes.map_or(0, |bytes| bytes.div_ceil(BLOCK_BYTES).max(1));
    let set = || {
        let project = draw(directory)?;
        quota::limit_project(directory, project, blocks, bounds.inodes.unwrap_or(0))?;
        quota::set_project(directory, project)?;
        Ok(project)
    };
    set().map_err(explain)
}

/// Lets a project go whose files are deleted.
pub(super) fn lift(file: BorrowedFd<'_>, project: u32) {
    // What stays otherwise is a limit on files that there are none of.
    let _ = quota::limit_project(file, project, 0, 0);
}

fn draw(directory: BorrowedFd<'_>) -> Result<u32, Errno> {
    for _ in 0..TRIES {
        let mut bytes = [0; 4];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        let project = u32::from_ne_bytes(bytes) | 1 << 31;
        // The highest number stands for none in the kernel.
        if project == u32::MAX {
            continue;
        }
        match quota::project_quota(directory, project) {
            Ok(found) if found.used_inodes == 0 && found.hard_blocks == 0 && found.hard_inodes == 0 => {
                return Ok(project);
            }
            // Nobody has ever used it.
            Err(Errno::NOENT) => return Ok(project),
            Ok(_) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::AGAIN)
}

fn explain(errno: Errno) -> Error {
    let error = Error::from(errno).context("limit its size by a project quota");
    match errno {
        Errno::PERM | Errno::ACCESS => error.with_hint("quotas are root's to set"),
        // The file system has none, or they are off; the kernel has none (before 5.14).
        Errno::NOSYS | Errno::SRCH | Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOTBLK | Errno::INVAL => error
            .with_kind(Kind::Unsupported)
            .with_hint("the data root has to be on XFS or ext4, mounted with the option prjquota; Linux 5.14"),
        _ => error,
    }
}
