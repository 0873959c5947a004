//! Installs seccomp filters and asks the kernel what it knows of them. Compiles nothing and never sets no_new_privs.
#![expect(
    unsafe_code,
    reason = "seccomp(2) has no safe wrapper that keeps no_new_privs as it is and returns the listener"
)]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;

use rustix::io::Errno;

/// One instruction of classic BPF, laid out as the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation (linux/bpf_common.h).
    pub code: u16,
    /// How many instructions to skip if a test holds.
    pub jt: u8,
    /// How many instructions to skip if a test fails.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Gives a filter as the bytes that the kernel reads.
pub fn to_bytes(filter: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_of_val(filter));
    for Instruction { code, jt, jf, k } in filter {
        bytes.extend_from_slice(&code.to_ne_bytes());
        bytes.extend_from_slice(&[*jt, *jf]);
        bytes.extend_from_slice(&k.to_ne_bytes());
    }
    bytes
}

/// `SECCOMP_FILTER_FLAG_TSYNC` (Linux 3.17): install on all threads. For [`knows_flag`]; [`install`] is for one thread.
pub const FLAG_TSYNC: u32 = 1;
/// `SECCOMP_FILTER_FLAG_LOG` (Linux 4.14): log every action but ALLOW.
pub const FLAG_LOG: u32 = 1 << 1;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW` (Linux 4.17): leave the speculative store bypass mitigation as it is.
pub const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` (Linux 5.0): return a descriptor for notifications.
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV` (Linux 5.19): once received, a notification is interrupted by fatal signals only.
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// The longest program that the kernel takes (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Installs a filter on the calling thread, for good; gives the listener if `flags` asks for one.
///
/// Needs no_new_privs or CAP_SYS_ADMIN in the caller's user namespace (EACCES otherwise). Allocates nothing, so it can be
/// the last thing before `execve`. The listener is close-on-exec from birth.
pub fn install(filter: &[Instruction], flags: u32) -> Result<Option<OwnedFd>, Errno> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| Errno::INVAL)?,
        // The kernel only reads: the C type has no const.
        filter: filter.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `program` and the slice behind it outlive the call; `Instruction` is laid out as `sock_filter`, and `len` is
    // the slice's length.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, ptr::from_ref(&program)) };
    if answer < 0 {
        return Err(last_errno());
    }
    if flags & FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    let fd = i32::try_from(answer).map_err(|_| Errno::BADF)?;
    // SAFETY: with FLAG_NEW_LISTENER the answer is a descriptor that was made for this call and that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// A call that waits for its listener's answer: `struct seccomp_notif` of linux/seccomp.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Notification {
    /// What the answer is for.
    pub id: u64,
    /// The thread that makes it; 0 where this process does not see it.
    pub pid: u32,
    flags: u32,
    pub number: i32,
    /// As audit records have it (linux/audit.h).
    pub architecture: u32,
    pub instruction: u64,
    pub arguments: [u64; 6],
}

/// Takes the next call from a listener, and waits for one; ENOENT where its thread has been killed meanwhile.
pub fn receive(listener: impl AsFd) -> Result<Notification, Errno> {
    /// `SECCOMP_IOCTL_NOTIF_RECV`
    const RECEIVE: libc::Ioctl = 0xc050_2100;
    // The kernel wants it zeroed.
    let mut notification = Notification::default();
    // SAFETY: the request fills one `struct seccomp_notif`, which is what the pointer leads to.
    match unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), RECEIVE, &raw mut notification) } {
        0 => Ok(notification),
        _ => Err(last_errno()),
    }
}

/// Has a call fail; ENOENT where nobody waits for it any more.
pub fn refuse(listener: impl AsFd, id: u64, errno: i32) -> Result<(), Errno> {
    /// `SECCOMP_IOCTL_NOTIF_SEND`
    const SEND: libc::Ioctl = 0xc018_2101;
    /// `struct seccomp_notif_resp`
    #[repr(C)]
    struct Response {
        id: u64,
        value: i64,
        error: i32,
        flags: u32,
    }
    let response = Response { id, value: 0, error: -errno, flags: 0 };
    // SAFETY: the request reads one `struct seccomp_notif_resp`, which is what the pointer leads to.
    match unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), SEND, &raw const response) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// Has a program that is to be started installed a filter on, just before its exec. Nobody gets a listener.
pub fn install_in_child(command: &mut Command, filter: Vec<Instruction>, flags: u32) {
    let flags = flags & !(FLAG_NEW_LISTENER | FLAG_WAIT_KILLABLE_RECV);
    // SAFETY: between fork and exec the closure makes one system call, and neither allocates nor locks.
    unsafe { command.pre_exec(move || install(&filter, flags).map(drop).map_err(Into::into)) };
}

/// Says whether the kernel knows a flag of [`install`].
pub fn knows_flag(flag: u32) -> bool {
    // A null program is EFAULT where the flags are known, EINVAL where they are not (kernel/seccomp.c looks at the flags
    // first); libseccomp probes the same way. WAIT_KILLABLE_RECV is only valid together with NEW_LISTENER.
    let flags = if flag == FLAG_WAIT_KILLABLE_RECV { flag | FLAG_NEW_LISTENER } else { flag };
    let program: *const libc::sock_fprog = ptr::null();
    // SAFETY: the kernel checks the null pointer and fails with EFAULT; nothing is installed.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, program) };
    answer < 0 && last_errno() == Errno::FAULT
}

/// Says whether the kernel knows an action, given as the value that a filter returns (Linux 4.14).
pub fn knows_action(action: u32) -> bool {
    // SAFETY: the kernel reads four bytes from `action`, which outlives the call.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, ptr::from_ref(&action)) };
    answer == 0
}

fn last_errno() -> Errno {
    // `last_os_error` reads errno and allocates nothing.
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

#[cfg(test)]
pub(crate) mod testing {
    //! A child process to install filters in, and system calls of a foreign ABI.

    use super::Instruction;

    /// Runs `body` in a forked child with no_new_privs set, and gives its wait status.
    ///
    /// The test harness has threads, so `body` may only make system calls: no allocation, no lock, no panic.
    pub(crate) fn in_child(body: impl FnOnce() -> i32) -> std::process::ExitStatus {
        // SAFETY: the child makes system calls only (the callers' promise) and leaves by _exit.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            // SAFETY: plain integers.
            unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
            // A killed child leaves no core file behind.
            // SAFETY: plain integers.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
            let status = body();
            // SAFETY: ends the child without running destructors or exit handlers of the parent's state.
            unsafe { libc::syscall(libc::SYS_exit_group, status) };
        }
        let mut status = 0;
        // SAFETY: `status` outlives the call; `pid` is our own child, reaped here alone.
        let reaped = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        assert_eq!(reaped, pid);
        std::os::unix::process::ExitStatusExt::from_raw(status)
    }

    /// Makes a system call by number and gives the kernel's answer: a negated errno on failure.
    pub(crate) fn call(number: i64, args: [u64; 3]) -> i64 {
        // SAFETY: callers pass numbers and arguments that touch no memory of ours.
        let answer = unsafe { libc::syscall(number, args[0], args[1], args[2]) };
        if answer == -1 { -i64::from(super::last_errno().raw_os_error()) } else { answer }
    }

    /// Makes a system call of the i386 ABI from a 64-bit process.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn call_i386(number: u32, args: [u32; 2]) -> i32 {
        let answer: i32;
        // SAFETY: `int 0x80` keeps every register but rax and r8-r11; rbx, which LLVM keeps for itself, is put back.
        unsafe {
            std::arch::asm!(
                "xchg {first:r}, rbx",
                "int 0x80",
                "xchg {first:r}, rbx",
                first = inout(reg) u64::from(args[0]) => _,
                inlateout("eax") number => answer,
                in("ecx") args[1],
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        answer
    }

    /// Says whether the kernel runs `int 0x80` (CONFIG_IA32_EMULATION, ia32_emulation=).
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn has_i386() -> bool {
        // 20 is getpid.
        in_child(|| i32::from(call_i386(20, [0; 2]) <= 0)).success()
    }

    /// A filter that returns one value for everything.
    pub(crate) fn constant(value: u32) -> [Instruction; 1] {
        [Instruction { code: 0x06, jt: 0, jf: 0, k: value }]
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{call, constant, in_child};
    use super::*;

    const ERRNO: u32 = 0x0005_0000;
    const ALLOW: u32 = 0x7fff_0000;

    #[test]
    fn an_installed_filter_decides() {
        let filter = [
            Instruction { code: 0x20, jt: 0, jf: 0, k: 0 },
            Instruction { code: 0x15, jt: 0, jf: 1, k: u32::try_from(libc::SYS_getppid).unwrap() },
            Instruction { code: 0x06, jt: 0, jf: 0, k: ERRNO + 42 },
            Instruction { code: 0x06, jt: 0, jf: 0, k: ALLOW },
        ];
        let status = in_child(|| {
            let installed = install(&filter, FLAG_SPEC_ALLOW).is_ok();
            i32::from(!(installed && call(libc::SYS_getppid, [0; 3]) == -42 && call(libc::SYS_getpid, [0; 3]) > 0))
        });
        assert!(status.success(), "{status}");
    }

    #[test]
    fn a_listener_is_close_on_exec() {
        let filter = constant(ALLOW);
        let status = in_child(|| match install(&filter, FLAG_NEW_LISTENER) {
            Ok(Some(fd)) => match rustix::io::fcntl_getfd(&fd) {
                Ok(flags) if flags.contains(rustix::io::FdFlags::CLOEXEC) => 0,
                _ => 1,
            },
            _ => 2,
        });
        assert!(status.success(), "{status}");
    }

    #[test]
    fn bad_programs_are_refused() {
        assert_eq!(install(&[], 0).unwrap_err(), Errno::INVAL);
        assert_eq!(install(&constant(ALLOW), 1 << 31).unwrap_err(), Errno::INVAL);
        assert_eq!(install(&vec![constant(ALLOW)[0]; MAX_INSTRUCTIONS + 1], 0).unwrap_err(), Errno::INVAL);
    }

    #[test]
    fn probes_tell_the_known_from_the_unknown() {
        assert!(knows_flag(FLAG_LOG) && knows_flag(FLAG_SPEC_ALLOW) && !knows_flag(1 << 31));
        assert!(knows_action(ALLOW) && knows_action(ERRNO) && !knows_action(0x1234_0000));
    }
}
