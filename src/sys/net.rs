//! The one thing a runtime does to a new network namespace: it brings the loopback up.
#![expect(unsafe_code, reason = "interface ioctls have no safe wrapper in the libraries")]

use std::os::fd::AsRawFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// IFF_UP and IFF_RUNNING.
const LOOPBACK_FLAGS: libc::c_short = 0x1 | 0x40;

/// Sets IFF_UP on `lo` of this network namespace (netdevice(7)); the kernel gives it its addresses.
pub fn bring_up_loopback() -> Result<(), Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: an all-zero ifreq is valid: integers, bytes and a union of such.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = LOOPBACK_FLAGS;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which `request` is, and it outlives the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if answer == 0 { Ok(()) } else { Err(super::last_errno()) }
}
