//! What the network process can still do once it has begun: talk by sockets and the device it holds, and keep its own file. What
//! containers send is read by it, so it is to be worth nothing to whoever would get hold of it.

use oci_spec::runtime::{LinuxSeccompAction, LinuxSeccompBuilder, LinuxSyscallBuilder};

use crate::error::{Context, Error, Result};
use crate::seccomp;
use crate::sys;

/// EPERM: what was forgotten here fails, and the process goes on.
const REFUSED: u32 = 1;

/// No other programs, no processes, no namespaces, no memory that is made executable.
const CALLS: [&str; 61] = [
    "accept4",
    "bind",
    "brk",
    "clock_gettime",
    "close",
    "connect",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "exit",
    "exit_group",
    "fchmod",
    "fcntl",
    "fdatasync",
    "flock",
    "fstat",
    "fsync",
    "ftruncate",
    "futex",
    "getpid",
    "getrandom",
    "getsockname",
    "getsockopt",
    "gettid",
    "ioctl",
    "linkat",
    "listen",
    "lseek",
    "madvise",
    "mmap",
    "mremap",
    "munmap",
    "newfstatat",
    "openat",
    "poll",
    "ppoll",
    "pread64",
    "read",
    "readlinkat",
    "recvfrom",
    "recvmsg",
    "renameat",
    "renameat2",
    "restart_syscall",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_yield",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
    "sigaltstack",
    "socket",
    "statx",
    "tgkill",
    "unlinkat",
    "write",
    "writev",
    "pwrite64",
];

/// Gives up what is not needed any more, for good.
pub(super) fn confine() -> Result<()> {
    let allowed = LinuxSyscallBuilder::default()
        .names(CALLS.map(str::to_owned).to_vec())
        .action(LinuxSeccompAction::ScmpActAllow)
        .build()
        .map_err(|error| Error::invalid(error.to_string()))?;
    let profile = LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(REFUSED)
        .syscalls(vec![allowed])
        .build()
        .map_err(|error| Error::invalid(error.to_string()))?;
    let program = seccomp::compile(&profile).context("compile the network process's filter")?;
    rustix::thread::set_no_new_privs(true).context("set no_new_privs")?;
    sys::seccomp::install(&program.filter, 0).map(drop).context("install the network process's filter")
}
