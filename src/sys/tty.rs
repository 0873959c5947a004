//! Handing a descriptor to whoever listens at a Unix socket of the file system.

use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Connects to a stream socket, sends one message with one descriptor, and closes.
pub fn send_fd_to_socket(path: &Path, name: &[u8], fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    super::fdpass::send(&socket, &[name], Some(fd))
}
