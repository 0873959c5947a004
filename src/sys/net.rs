//! What sockets are asked for beside bytes: a new network namespace's loopback, and who is at the other end.
#![expect(unsafe_code, reason = "interface ioctls have no safe wrapper, and rustix's SO_PEERCRED knows no pid of 0")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

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

/// Has a socket hear and send by one interface alone (SO_BINDTODEVICE, socket(7)).
pub fn bind_to_device(socket: BorrowedFd<'_>, interface: &str) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(interface.len()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the kernel reads `length` bytes, which the text has, and it outlives the call.
    let answer = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BINDTODEVICE, interface.as_ptr().cast(), length)
    };
    if answer == 0 { Ok(()) } else { Err(super::last_errno()) }
}

/// Gives the pid of the process that a Unix socket was connected to (SO_PEERCRED, unix(7)); nothing if it is in a PID
/// namespace that this process does not see.
pub fn peer_pid(socket: impl AsFd) -> Result<Option<i32>, Errno> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the kernel writes at most `length` bytes to `credentials`, which is that long and outlives the call.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if answer != 0 {
        return Err(super::last_errno());
    }
    Ok((credentials.pid != 0).then_some(credentials.pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_refused() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(bind_to_device(socket.as_fd(), "nothing"), Err(Errno::NODEV));
        assert_eq!(bind_to_device(socket.as_fd(), "lo"), Ok(()));
    }

    #[test]
    fn the_other_end_of_a_pair_is_this_process() {
        let (here, _there) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(peer_pid(&here), Ok(i32::try_from(std::process::id()).ok()));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(peer_pid(&file), Err(Errno::NOTSOCK));
    }
}
