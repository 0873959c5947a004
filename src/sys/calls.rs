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
/// prlimit(2).
pub const PRLIMIT64: u64 = number(libc::SYS_prlimit64);
/// capset(2).
pub const CAPSET: u64 = number(libc::SYS_capset);
/// rt_sigaction(2).
pub const RT_SIGACTION: u64 = number(libc::SYS_rt_sigaction);
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
