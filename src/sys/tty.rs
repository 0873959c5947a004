//! Handing a descriptor to whoever listens at a Unix socket of the file system.

use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Connects to a stream socket, sends one message with one descriptor, and closes.
///
/// A path that begins with `@` is a name of the abstract namespace, as Go's library has it.
pub fn send_fd_to_socket(path: &Path, name: &[u8], fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let address = match path.as_os_str().as_encoded_bytes() {
        [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
        _ => SocketAddrUnix::new(path)?,
    };
    connect(&socket, &address)?;
    super::fdpass::send(&socket, &[name], Some(fd))
}
