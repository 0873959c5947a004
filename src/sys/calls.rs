//! Numbers of the system calls and constants that a tape of calls is written with, as the kernel's headers have them.

const fn number(call: libc::c_long) -> u64 {
    call.cast_unsigned()
}

/// prctl(2).
pub const PRCTL: u64 = number(libc::SYS_prctl);
/// read(2).
pub const READ: u64 = number(libc::SYS_read);
/// close_range(2).
pub const CLOSE_RANGE: u64 = number(libc::SYS_close_range);
/// seccomp(2).
pub const SECCOMP: u64 = number(libc::SYS_seccomp);
/// execve(2).
pub const EXECVE: u64 = number(libc::SYS_execve);
/// prlimit(2).
pub const PRLIMIT64: u64 = number(libc::SYS_prlimit64);
/// prctl's operation that names the process.
pub const PR_SET_NAME: u64 = libc::PR_SET_NAME as u64;
/// prctl's operation that says who may look into the process.
pub const PR_SET_DUMPABLE: u64 = libc::PR_SET_DUMPABLE as u64;
/// close_range's flag that closes at the exec.
pub const CLOSE_RANGE_CLOEXEC: u64 = libc::CLOSE_RANGE_CLOEXEC as u64;
/// seccomp's operation that loads a filter.
pub const SECCOMP_SET_MODE_FILTER: u64 = libc::SECCOMP_SET_MODE_FILTER as u64;
