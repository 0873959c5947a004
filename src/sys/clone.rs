//! `clone3(2)` in the way of `fork(2)`: the child goes on from the same place, on a copy of the parent's memory.
#![expect(unsafe_code, reason = "clone3 has no wrapper in any of the libraries")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Pid;

bitflags::bitflags! {
    /// Flags of `clone3(2)` that husk uses. The namespace bits are those of `unshare(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct CloneFlags: u64 {
        /// A new time namespace (kernel 5.6).
        const NEWTIME = 0x80;
        /// The child's parent is the caller's parent.
        const PARENT = 0x8000;
        /// A new mount namespace.
        const NEWNS = 0x2_0000;
        /// A new cgroup namespace (kernel 4.6).
        const NEWCGROUP = 0x200_0000;
        /// A new UTS namespace.
        const NEWUTS = 0x400_0000;
        /// A new IPC namespace.
        const NEWIPC = 0x800_0000;
        /// A new user namespace.
        const NEWUSER = 0x1000_0000;
        /// A new PID namespace.
        const NEWPID = 0x2000_0000;
        /// A new network namespace.
        const NEWNET = 0x4000_0000;
    }
}

/// Which side of a clone this is.
pub enum Cloned {
    /// The new process.
    Child,
    /// The process that called, with the new one's pid as seen from here and a descriptor that stands for it.
    Parent(Pid, OwnedFd),
}

/// Whether this process came out of [`clone3`].
static IS_STAGE: AtomicBool = AtomicBool::new(false);

/// How long a thread that was joined may be there yet. Whose scope it is goes on once its work is done (`std::thread::scope`), and who
/// joins it once it has given up its memory (`CLONE_CHILD_CLEARTID` of clone(2), `exit_mm` in the kernel's `do_exit`); it is counted until
/// the kernel has released it, at the end of `exit_notify`. Where others want the processor it waits between the two for as long as they
/// have it.
const JOINED_THREAD_PATIENCE: Duration = Duration::from_secs(5);
/// So often it is looked for at once: as a rule it is gone after a few.
const LOOKS_AT_ONCE: u32 = 1000;
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Makes a new process with `flags`, on cgroup v2 directly in `cgroup` (kernel 5.7).
///
/// The caller has one thread: a second one could hold a lock that the child would then wait for without end. EBUSY says
/// that there are more.
pub fn clone3(flags: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    // What came out of a clone is a stage: it starts no threads, and the `/proc` around it may not know it.
    if !IS_STAGE.load(Ordering::Relaxed) {
        be_alone(JOINED_THREAD_PATIENCE, threads)?;
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: an all-zero clone_args is valid; every field is an integer.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags.bits() | CLONE_PIDFD;
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    // With CLONE_PARENT the signal is the caller's own, and naming one is EINVAL.
    args.exit_signal = if flags.contains(CloneFlags::PARENT) { 0 } else { libc::SIGCHLD as u64 };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: without CLONE_VM and with no stack the child runs on a copy of this memory, as after fork(2); `args` and
    // `pidfd` outlive the call; the process has one thread, as checked above, so no lock is held by another.
    let answer = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match answer {
        0 => {
            IS_STAGE.store(true, Ordering::Relaxed);
            Ok(Cloned::Child)
        }
        pid if pid > 0 => {
            // SAFETY: the kernel stored a new descriptor of ours in `pidfd`, because CLONE_PIDFD was set.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::RANGE)?;
            Ok(Cloned::Parent(pid, pidfd))
        }
        _ => Err(super::last_errno()),
    }
}

/// Makes a sibling of this process, which was itself made by [`clone3`] and so has one thread, by the older call: seccomp
/// filters that are on by then look at its flags, where of clone3's they see an address only.
pub fn clone_sibling() -> Result<Cloned, Errno> {
    let mut pidfd: RawFd = -1;
    let flags = CloneFlags::PARENT.bits() | CLONE_PIDFD;
    // SAFETY: without CLONE_VM and with no stack the child runs on a copy of this memory, as after fork(2); with
    // CLONE_PIDFD the third argument is where the descriptor is stored, and `pidfd` outlives the call.
    let answer = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
    match answer {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => {
            // SAFETY: the kernel stored a new descriptor of ours in `pidfd`, because CLONE_PIDFD was set.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::RANGE)?;
            Ok(Cloned::Parent(pid, pidfd))
        }
        _ => Err(super::last_errno()),
    }
}

/// Moves this process into new namespaces (unshare(2)); a PID or time namespace is for its children only.
pub fn unshare(flags: CloneFlags) -> Result<(), Errno> {
    let bits = u32::try_from(flags.bits()).map_err(|_| Errno::INVAL)?;
    // SAFETY: of unshare's flags only CLONE_FILES, which CloneFlags does not have, can take descriptors from under their
    // owners.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::from_bits_retain(bits)) }
}

/// Waits until there is one thread; EBUSY where there are more for so long.
fn be_alone(patience: Duration, count: impl Fn() -> Result<u64, Errno>) -> Result<(), Errno> {
    for _ in 0..LOOKS_AT_ONCE {
        if count()? == 1 {
            return Ok(());
        }
        rustix::thread::sched_yield();
    }
    let end = Instant::now() + patience;
    while count()? != 1 {
        if Instant::now() >= end {
            return Err(Errno::BUSY);
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
    Ok(())
}

/// Counts this process's threads by the links of its task directory.
fn threads() -> Result<u64, Errno> {
    let stat = rustix::fs::stat(c"/proc/self/task")?;
    Ok(stat.st_nlink.saturating_sub(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_refused() {
        // The test harness runs this in a thread of its own.
        assert_eq!(be_alone(Duration::ZERO, threads), Err(Errno::BUSY));
    }

    #[test]
    fn a_thread_that_was_joined_may_be_slow_to_leave() {
        // As one that a busy processor keeps: for longer than it takes to look a thousand times.
        let gone = Instant::now() + Duration::from_millis(200);
        let count = || Ok(if Instant::now() < gone { 2 } else { 1 });
        assert_eq!(be_alone(JOINED_THREAD_PATIENCE, count), Ok(()));
    }
}
