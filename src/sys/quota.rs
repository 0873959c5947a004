//! Project quotas: `quotactl_fd(2)` (Linux 5.14) and the project id of a directory (ioctl_xfs_fsgetxattr(2), which ext4
//! knows as well). No library of ours has them.
#![expect(unsafe_code, reason = "neither the system call nor the two requests of ioctl(2) have a wrapper")]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    padding: [u8; 8],
}

/// `FS_IOC_FSGETXATTR`, `_IOR('X', 31, struct fsxattr)`.
const GET_ATTRIBUTES: libc::Ioctl = 0x801c_581f;
/// `FS_IOC_FSSETXATTR`, `_IOW('X', 32, struct fsxattr)`.
const SET_ATTRIBUTES: libc::Ioctl = 0x401c_5820;
/// `FS_XFLAG_PROJINHERIT`: what is made in the directory belongs to its project.
const INHERITED: u32 = 0x200;

/// Gives an empty directory to a project, and with it all that will be made in it.
pub fn set_project(directory: impl AsFd, project: u32) -> Result<(), Errno> {
    let fd = directory.as_fd().as_raw_fd();
    let mut attributes = Attributes::default();
    // SAFETY: the request writes one `struct fsxattr`, which is what the pointer leads to.
    if unsafe { libc::ioctl(fd, GET_ATTRIBUTES, &raw mut attributes) } != 0 {
        return Err(super::last_errno());
    }
    attributes.flags |= INHERITED;
    attributes.project = project;
    // SAFETY: the request reads one `struct fsxattr`, which is what the pointer leads to.
    if unsafe { libc::ioctl(fd, SET_ATTRIBUTES, &raw const attributes) } != 0 {
        return Err(super::last_errno());
    }
    Ok(())
}

/// What a project may have, and has: `struct if_dqblk` of linux/quota.h. Limits are in blocks of 1 KiB; 0 is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    pub hard_blocks: u64,
    pub soft_blocks: u64,
    pub used_bytes: u64,
    pub hard_inodes: u64,
    pub soft_inodes: u64,
    pub used_inodes: u64,
    pub block_time: u64,
    pub inode_time: u64,
    /// Which of the fields mean something (`QIF_*`).
    pub valid: u32,
}

/// `QIF_LIMITS`: both kinds of limits.
const LIMITS: u32 = 0b101;
/// `PRJQUOTA`.
const PROJECT: u32 = 2;
const GET_QUOTA: u32 = 0x80_0007;
const SET_QUOTA: u32 = 0x80_0008;

/// Reads what a project has, on the file system of `file`.
pub fn project_quota(file: impl AsFd, project: u32) -> Result<Quota, Errno> {
    let mut quota = Quota::default();
    quotactl(file, GET_QUOTA, project, &mut quota)?;
    Ok(quota)
}

/// Limits what a project may have, on the file system of `file`: blocks of 1 KiB and inodes, of which 0 is no limit.
pub fn limit_project(file: impl AsFd, project: u32, blocks: u64, inodes: u64) -> Result<(), Errno> {
    let mut quota = Quota { hard_blocks: blocks, hard_inodes: inodes, valid: LIMITS, ..Quota::default() };
    quotactl(file, SET_QUOTA, project, &mut quota)
}

fn quotactl(file: impl AsFd, command: u32, id: u32, quota: &mut Quota) -> Result<(), Errno> {
    /// `QCMD(command, type)`.
    const SHIFT: u32 = 8;
    // SAFETY: both commands take one `struct if_dqblk`, which the pointer leads to and outlives the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            file.as_fd().as_raw_fd(),
            command << SHIFT | PROJECT,
            id,
            std::ptr::from_mut(quota),
        )
    };
    if answer == 0 { Ok(()) } else { Err(super::last_errno()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_projects_says_so() {
        // procfs has neither quotas nor these attributes.
        let proc = std::fs::File::open("/proc").unwrap();
        assert!(matches!(set_project(&proc, 1), Err(Errno::NOTTY | Errno::OPNOTSUPP)));
        let answer = project_quota(&proc, 1).unwrap_err();
        assert!(
            [Errno::NOSYS, Errno::SRCH, Errno::PERM, Errno::NOTBLK, Errno::OPNOTSUPP].contains(&answer),
            "{answer}"
        );
        assert!(limit_project(&proc, 1, 1, 1).is_err());
    }
}
