//! Numbers of the system calls and constants that a tape of calls is written with, as the kernel's headers have them.

const fn number(call: libc::c_long) -> u64 {
    call.cast_unsigned()
}

/// prctl(2).
pub const PRCTL: u64 = number(libc::SYS_prctl);
/// read(2).
pub const READ: u64 = number(libc::SYS_read);
/// write(2).
pub const WRITE: u64 = number(libc::SYS_write);
/// openat2(2).
pub const OPENAT2: u64 = number(libc::SYS_openat2);
/// landlock_restrict_self(2).
pub const LANDLOCK_RESTRICT_SELF: u64 = number(libc::SYS_landlock_restrict_self);
/// close_range(2).
pub const CLOSE_RANGE: u64 = number(libc::SYS_close_range);
/// seccomp(2).
pub const SECCOMP: u64 = number(libc::SYS_seccomp);
/// execve(2).
pub const EXECVE: u64 = number(libc::SYS_execve);
/// clone(2), whose flags a seccomp filter can look at.
pub const CLONE: u64 = number(libc::SYS_clone);
/// sendmsg(2).
pub const SENDMSG: u64 = number(libc::SYS_sendmsg);
/// exit_group(2).
pub const EXIT_GROUP: u64 = number(libc::SYS_exit_group);
/// setsid(2).
pub const SETSID: u64 = number(libc::SYS_setsid);
/// ioctl(2).
pub const IOCTL: u64 = number(libc::SYS_ioctl);
/// prlimit(2).
pub const PRLIMIT64: u64 = number(libc::SYS_prlimit64);
/// capset(2).
pub const CAPSET: u64 = number(libc::SYS_capset);
/// rt_sigaction(2).
pub const RT_SIGACTION: u64 = number(libc::SYS_rt_sigaction);
/// rt_sigprocmask(2).
pub const RT_SIGPROCMASK: u64 = number(libc::SYS_rt_sigprocmask);
/// rt_sigtimedwait(2), for one signal of a mask.
pub const RT_SIGTIMEDWAIT: u64 = number(libc::SYS_rt_sigtimedwait);
/// setpgid(2).
pub const SETPGID: u64 = number(libc::SYS_setpgid);
/// getpid(2).
pub const GETPID: u64 = number(libc::SYS_getpid);
/// capset's version with 64 bits in two halves (`_LINUX_CAPABILITY_VERSION_3` of linux/capability.h).
pub const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// sigaction's flag for a restorer, without which the kernel of x86-64 calls no handler.
pub const SA_RESTORER: u64 = 0x0400_0000;
/// Length of the kernel's signal masks.
pub const SIGNAL_MASK_LENGTH: u64 = 8;
/// prctl's operation that names the process.
pub const PR_SET_NAME: u64 = libc::PR_SET_NAME as u64;
/// prctl's operation that says who may look into the process.
pub const PR_SET_DUMPABLE: u64 = libc::PR_SET_DUMPABLE as u64;
/// prctl's operation that says which signal comes with the parent's death.
pub const PR_SET_PDEATHSIG: u64 = libc::PR_SET_PDEATHSIG as u64;
/// prctl's operation that makes a process the parent of what its descendants leave behind.
pub const PR_SET_CHILD_SUBREAPER: u64 = libc::PR_SET_CHILD_SUBREAPER as u64;
/// The operation of rt_sigprocmask that replaces the mask.
pub const SIG_SETMASK: u64 = libc::SIG_SETMASK as u64;
/// clone's flags for a child like fork(2)'s: the signal at its end.
pub const CLONE_FORK: u64 = libc::SIGCHLD as u64;
/// The signal by which the stub tells its child to go on.
pub const SIGCONT: u64 = libc::SIGCONT as u64;
/// The signal that ends whatever gets it.
pub const SIGKILL: u64 = libc::SIGKILL as u64;
/// clone's flags for a sibling that the caller gets a descriptor of.
pub const CLONE_SIBLING: u64 = (libc::CLONE_PARENT | libc::CLONE_PIDFD) as u64;
/// ioctl's operation that makes a terminal the session's (asm-generic/ioctls.h; its type differs between C libraries).
pub const TIOCSCTTY: u64 = 0x540e;
/// ioctl's operation that says which process group is in the foreground of a terminal.
pub const TIOCSPGRP: u64 = 0x5410;
/// sendmsg's flag that makes a closed other side an error and no signal.
pub const MSG_NOSIGNAL: u64 = libc::MSG_NOSIGNAL as u64;
/// openat2's flags to write a file, close-on-exec.
pub const WRITE_ONLY_CLOEXEC: u64 = (libc::O_WRONLY | libc::O_CLOEXEC) as u64;
/// openat2's way of resolving a path: nothing above, no magic link, no other mount.
pub const RESOLVE_BELOW: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_NO_XDEV;
/// Length of `struct open_how`: flags, mode, resolve.
pub const OPEN_HOW_LENGTH: usize = 24;
/// close_range's flag that closes at the exec.
pub const CLOSE_RANGE_CLOEXEC: u64 = libc::CLOSE_RANGE_CLOEXEC as u64;
/// seccomp's operation that loads a filter.
pub const SECCOMP_SET_MODE_FILTER: u64 = libc::SECCOMP_SET_MODE_FILTER as u64;

/// Words of `struct msghdr`: name, its length, parts, their count, control data, its length, flags.
pub const MSGHDR_WORDS: usize = 7;
/// Length of a `struct cmsghdr` with one descriptor (unix(7)), and where the descriptor stands in it.
pub const CMSG_FD_LENGTH: usize = 20;
pub const CMSG_FD_OFFSET: usize = 16;
/// The level and type of control data that are descriptors.
pub const CMSG_FDS: [i32; 2] = [libc::SOL_SOCKET, libc::SCM_RIGHTS];

const _: () = assert!(size_of::<libc::msghdr>() == MSGHDR_WORDS * 8 && size_of::<libc::cmsghdr>() == CMSG_FD_OFFSET);
