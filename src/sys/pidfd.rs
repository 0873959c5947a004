//! What a pidfd tells of a process that is nobody's child here: how it ended.
#![expect(unsafe_code, reason = "no library has the ioctls of pidfds")]

use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct pidfd_info` of linux/pidfd.h in its first form (`PIDFD_INFO_SIZE_VER0`).
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ruid: u32,
    rgid: u32,
    euid: u32,
    egid: u32,
    suid: u32,
    sgid: u32,
    fsuid: u32,
    fsgid: u32,
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`: the exit code, of a process that was reaped.
const EXIT: u64 = 1 << 3;

/// `PIDFD_GET_INFO`: `_IOWR(0xff, 11, struct pidfd_info)`.
const GET_INFO: u64 = (3 << 30) | ((size_of::<Info>() as u64) << 16) | (0xff << 8) | 0xb;

/// Gives the wait status of a process that was reaped by somebody else, while this descriptor was open (Linux 6.15);
/// `None` of one that was not reaped, and where the kernel does not tell.
pub fn wait_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = Info { mask: EXIT, ..Info::default() };
    let answer = rustix::io::retry_on_intr(|| {
        // SAFETY: the descriptor is borrowed, `info` outlives the call and is as large as the request's number says.
        match unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO as libc::Ioctl, &raw mut info) } {
            0 => Ok(()),
            _ => Err(super::last_errno()),
        }
    });
    (answer.is_ok() && info.mask & EXIT != 0).then_some(info.exit_code)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::Command;

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    #[test]
    fn the_end_of_a_process_that_was_reaped() {
        let mut child = Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        child.wait().unwrap();
        // KERNEL(6.15): always told.
        if let Some(status) = wait_status(pidfd.as_fd()) {
            assert_eq!(status, 7 << 8);
        }
        let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).unwrap();
        assert_eq!(wait_status(own.as_fd()), None, "it lives");
    }
}
