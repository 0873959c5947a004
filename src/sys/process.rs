//! What a process does to itself before it becomes another program.
#![expect(unsafe_code, reason = "execve, close_range and keyctl have no safe wrapper in the libraries")]

use std::convert::Infallible;
use std::ffi::{CStr, CString, c_char};
use std::os::fd::RawFd;

use rustix::io::Errno;

/// The strings of an argument list or an environment, with the array of pointers that `execve(2)` wants, made once.
pub struct CStringArray {
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl CStringArray {
    /// Takes the strings, in order.
    pub fn new(strings: Vec<CString>) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Self { strings, pointers }
    }

    /// Gives the strings back.
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// Becomes another program; returns only on failure.
pub fn execve(path: &CStr, argv: &CStringArray, envp: &CStringArray) -> Result<Infallible, Errno> {
    // SAFETY: `path` is a C string; both arrays end in a null pointer and point to strings that they own and that
    // CStringArray never changes, and all of them outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    Err(super::last_errno())
}

/// What `close_range(2)` does with the descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseHow {
    /// Closes them at the next successful exec (kernel 5.11).
    OnExec,
    /// Closes them now (kernel 5.9): before this process has opened any.
    Now,
}

/// Closes every descriptor from `first` on, now or at the next exec.
pub fn close_range(first: RawFd, how: CloseHow) -> Result<(), Errno> {
    let flags = match how {
        CloseHow::OnExec => libc::CLOSE_RANGE_CLOEXEC,
        CloseHow::Now => 0,
    };
    // SAFETY: marks descriptors as close-on-exec, or closes what the process came with, on the word of who calls: none is
    // closed under its owner's hands.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    if answer == 0 { Ok(()) } else { Err(super::last_errno()) }
}

/// Closes every descriptor from `first` on but those listed, under the hands of their owners: for a process that goes on
/// to an exec or `_exit`, and neither uses nor drops any of those any more.
pub fn close_all_but(first: RawFd, kept: &mut [RawFd]) -> Result<(), Errno> {
    kept.sort_unstable();
    let mut start = first;
    for &fd in kept.iter().filter(|fd| **fd >= first) {
        if start < fd {
            close_between(start, (fd - 1).cast_unsigned())?;
        }
        start = fd + 1;
    }
    close_between(start, u32::MAX)
}

fn close_between(first: RawFd, last: u32) -> Result<(), Errno> {
    // SAFETY: the owners of what is closed are neither used nor dropped again, as `close_all_but` asks of its caller.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if answer == 0 { Ok(()) } else { Err(super::last_errno()) }
}

/// Says whether the number stands for an open descriptor.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: only reads the descriptor's flags; a number that is none is answered with EBADF.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Takes the close-on-exec mark off `count` descriptors from `first` on, which must be open.
pub fn keep_over_exec(first: RawFd, count: u32) -> Result<(), Errno> {
    for fd in (first..).take(count as usize) {
        // SAFETY: only the mark is changed; a number that is no open descriptor is answered with EBADF.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } != 0 {
            return Err(super::last_errno());
        }
    }
    Ok(())
}

/// Gets a new session keyring, so that the caller's keys are not seen (keyctl(2)).
///
/// One without a name: by a name, the kernel would join a keyring that somebody else has made and let others search.
pub fn new_session_keyring() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    let name: *const c_char = std::ptr::null();
    // SAFETY: a null pointer is how the kernel is told that there is no name.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) };
    if answer >= 0 { Ok(()) } else { Err(super::last_errno()) }
}

/// Ends this process at once: no destructors, no buffers, no exit handlers. What a cloned child uses.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Sets a resource limit by its number, which may be one that rustix has no name for.
pub fn set_resource_limit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` outlives the call; the old limit is not asked for.
    let answer = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, std::ptr::null::<()>()) };
    if answer == 0 { Ok(()) } else { Err(super::last_errno()) }
}

/// Gives a resource limit (soft, hard) by its number.
pub fn resource_limit(resource: u32) -> Result<(u64, u64), Errno> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives the call and is as large as the kernel writes; no new limit is set.
    let answer = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, std::ptr::null::<()>(), &raw mut limit) };
    if answer == 0 { Ok((limit.rlim_cur, limit.rlim_max)) } else { Err(super::last_errno()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_of_nothing_fails_and_returns() {
        let empty = CStringArray::new(Vec::new());
        assert_eq!(execve(c"/nonexistent", &empty, &empty).err(), Some(Errno::NOENT));
    }

    #[test]
    fn limits_out_of_the_table_are_refused() {
        assert_eq!(set_resource_limit(9999, 0, 0), Err(Errno::INVAL));
        assert_eq!(resource_limit(9999).err(), Some(Errno::INVAL));
    }
}
