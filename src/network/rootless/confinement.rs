//! What the network process can still do once it has begun: talk by sockets and the device it holds, and keep its own file. What
//! containers send is read by it, so it is to be worth little to whoever would get hold of it: no programs, no memory that is
//! made executable, no sockets but those of the network, and, where the kernel has Landlock, no files but those of its folder.

use std::os::fd::{AsFd, BorrowedFd};

use oci_spec::runtime::{
    LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSeccompOperator,
    LinuxSyscall, LinuxSyscallBuilder,
};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::AddressFamily;

use crate::error::{Context, Error, Result};
use crate::seccomp;
use crate::sys;
use crate::sys::landlock::{self, Handled};

/// What the maker of sockets does: it is asked, answers, gives back memory, and ends.
const OF_MAKER: [&str; 11] = [
    "brk",
    "close",
    "exit",
    "exit_group",
    "madvise",
    "munmap",
    "ppoll",
    "recvmsg",
    "restart_syscall",
    "rt_sigreturn",
    "sendmsg",
];

/// EPERM: what was forgotten here fails, and the process goes on.
const REFUSED: u32 = 1;

/// No other programs, no processes, no namespaces. Of memory and of sockets, see [`filter`].
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
    "mremap",
    "munmap",
    "newfstatat",
    "openat",
    "poll",
    "ppoll",
    "pipe2",
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
    "splice",
    "statx",
    "tgkill",
    "unlinkat",
    "write",
    "writev",
    "pwrite64",
];

/// Gives up what is not needed any more, for good. `folder` is the process's own.
pub(super) fn confine(folder: BorrowedFd<'_>) -> Result<()> {
    rustix::thread::set_no_new_privs(true).context("set no_new_privs")?;
    restrict_files(folder).context("restrict the network process's files")?;
    install(&CALLS)
}

/// The same of the process that makes sockets, which has no files.
pub(super) fn confine_maker() -> Result<()> {
    rustix::thread::set_no_new_privs(true).context("set no_new_privs")?;
    install(&OF_MAKER)
}

fn install(calls: &[&str]) -> Result<()> {
    let program = filter(calls).context("compile the network process's filter")?;
    sys::seccomp::install(&program.filter, 0).map(drop).context("install the network process's filter")
}

fn filter(calls: &[&str]) -> Result<seccomp::Program> {
    /// `PROT_EXEC` of mmap(2).
    const EXECUTABLE: u64 = 4;
    let masked = LinuxSeccompOperator::ScmpCmpMaskedEq;
    let mut rules = vec![
        allow(calls.iter().map(|name| (*name).to_owned()).collect(), None)?,
        allow(vec!["mmap".to_owned()], Some(argument(2, masked, EXECUTABLE, Some(0))?))?,
    ];
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        let is_it = argument(0, LinuxSeccompOperator::ScmpCmpEq, family.as_raw().into(), None)?;
        rules.push(allow(vec!["socket".to_owned()], Some(is_it))?);
    }
    let profile = LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(REFUSED)
        .syscalls(rules)
        .build()
        .map_err(|error| Error::invalid(error.to_string()))?;
    seccomp::compile(&profile)
}

fn allow(names: Vec<String>, argument: Option<LinuxSeccompArg>) -> Result<LinuxSyscall> {
    let mut rule = LinuxSyscallBuilder::default().names(names).action(LinuxSeccompAction::ScmpActAllow);
    if let Some(argument) = argument {
        rule = rule.args(vec![argument]);
    }
    rule.build().map_err(|error| Error::invalid(error.to_string()))
}

fn argument(index: usize, op: LinuxSeccompOperator, value: u64, two: Option<u64>) -> Result<LinuxSeccompArg> {
    let mut argument = LinuxSeccompArgBuilder::default().index(index).op(op).value(value);
    if let Some(two) = two {
        argument = argument.value_two(two);
    }
    argument.build().map_err(|error| Error::invalid(error.to_string()))
}

/// A fence behind the filter, which cannot tell one file from another.
fn restrict_files(folder: BorrowedFd<'_>) -> Result<()> {
    /// Rights of linux/landlock.h: to execute, write, read, list, remove and make; to cut off, since ABI 3.
    const ALL: u64 = (1 << 13) - 1;
    const CUT: u64 = 1 << 14;
    const READ: u64 = 1 << 2;
    const LIST: u64 = 1 << 3;
    const KEEP: u64 = READ | LIST | 1 << 1 | 1 << 5 | 1 << 8;
    let Ok(abi) = landlock::abi() else { return Ok(()) };
    let cut = if abi >= 3 { CUT } else { 0 };
    let ruleset = landlock::create_ruleset(&Handled { fs: ALL | cut, net: 0, scoped: 0 })?;
    landlock::allow_path(ruleset.as_fd(), KEEP | cut, folder)?;
    // Of itself it reads what memory it has, and of the host what an error is to say. Others it may not trace, and so not read.
    if let Ok(proc) = rustix::fs::openat(CWD, "/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        landlock::allow_path(ruleset.as_fd(), READ | LIST, proc.as_fd())?;
    }
    landlock::restrict_self(ruleset.as_fd(), 0)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::io::Errno;
    use rustix::net::{SocketFlags, SocketType, socket_with};

    use super::*;

    /// A thread is confined as a process is, and this one ends with the test.
    #[test]
    fn only_the_folder_and_the_network_are_left() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = |path: &std::path::Path| OwnedFd::from(std::fs::File::open(path).unwrap());
        let (folder, elsewhere) = (open(folder.path()), open(elsewhere.path()));
        let confined = std::thread::spawn(move || {
            confine(folder.as_fd()).unwrap();
            let make = |at: &OwnedFd| {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
                rustix::fs::openat(at, "new", flags, Mode::from_raw_mode(0o600)).map(drop).err()
            };
            let socket = |family| socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None).map(drop).err();
            (
                [make(&folder), make(&elsewhere)],
                [AddressFamily::INET, AddressFamily::INET6, AddressFamily::UNIX, AddressFamily::NETLINK].map(socket),
            )
        });
        let (files, sockets) = confined.join().unwrap();
        let refused = landlock::abi().is_ok().then_some(Errno::ACCESS);
        assert_eq!(files, [None, refused]);
        assert_eq!(sockets, [None, None, Some(Errno::PERM), Some(Errno::PERM)]);
    }
}
