//! A tun device (linux/if_tun.h, networking/tuntap.rst of the kernel): packets of a network namespace, read and written by a
//! process. Makes and configures one; what is in the packets is its reader's business.
#![expect(unsafe_code, reason = "the ioctls of tun have no safe wrapper")]

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const IFF_TUN: libc::c_short = 0x1;
/// No header with the protocol before each packet: its first four bits say it.
const IFF_NO_PI: libc::c_short = 0x1000;
/// `struct virtio_net_hdr` before each packet.
const IFF_VNET_HDR: libc::c_short = 0x4000;
/// `TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6`: the reader takes packets whose checksum is not filled in, and TCP segments that
/// are not cut to size.
const OFFLOADS: libc::c_ulong = 0x1 | 0x2 | 0x4;

/// Makes a tun device of this name in this process's network namespace; it lives as long as the descriptor, wherever that
/// goes. Reads and writes do not wait.
pub fn create(name: &str) -> Result<OwnedFd, Errno> {
    let fd = rustix::fs::open(c"/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    // SAFETY: an all-zero ifreq is valid: integers, bytes and a union of such.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(Errno::NAMETOOLONG);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
    // SAFETY: TUNSETIFF reads and writes an ifreq, which `request` is, and it outlives the call.
    if unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETIFF, &raw mut request) } != 0 {
        return Err(super::last_errno());
    }
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    if unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETOFFLOAD, OFFLOADS) } != 0 {
        return Err(super::last_errno());
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_the_kernel_would_cut_is_refused() {
        assert!(matches!(create("a-name-of-sixteen"), Err(Errno::NAMETOOLONG | Errno::NOENT | Errno::ACCESS)));
    }
}
