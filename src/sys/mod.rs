//! System calls that rustix does not have, or not in the shape needed here: thin, safe wrappers without policy.
//!
//! The only place with `unsafe`. Wrappers take borrowed descriptors and C strings and return owned descriptors; raw
//! integers stop here. EINTR is retried here and nowhere else.

pub mod bpf;
pub mod calls;
pub mod clone;
pub mod datagram;
pub mod errno;
pub mod fdpass;
pub mod landlock;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod net;
pub mod netlink;
pub mod pidfd;
pub mod process;
pub mod quota;
pub mod regex;
pub mod repair;
pub mod schedule;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod stub;
pub mod tty;
pub mod tun;

/// Gives the error of the system call that failed last in this thread.
fn last_errno() -> rustix::io::Errno {
    let code = std::io::Error::last_os_error().raw_os_error();
    rustix::io::Errno::from_raw_os_error(code.unwrap_or(libc::EIO))
}
