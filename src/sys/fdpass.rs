//! Datagrams with descriptors over Unix sockets, `SCM_RIGHTS` of unix(7).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Makes a connected pair that keeps message borders and reports the other side's end.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends one message, with at most one descriptor. A closed other side is EPIPE, never a signal.
pub fn send(socket: impl AsFd, bytes: &[&[u8]], fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    send_with(socket, bytes, fd, SendFlags::NOSIGNAL)
}

fn send_with(socket: impl AsFd, bytes: &[&[u8]], fd: Option<BorrowedFd<'_>>, flags: SendFlags) -> Result<(), Errno> {
    let mut parts = [IoSlice::new(&[]); 4];
    for (part, bytes) in parts.iter_mut().zip(bytes) {
        *part = IoSlice::new(bytes);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds;
    if let Some(fd) = fd {
        fds = [fd];
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let parts = &parts[..bytes.len()];
    rustix::io::retry_on_intr(|| sendmsg(&socket, parts, &mut ancillary, flags)).map(drop)
}

/// Sends one message if the other side has room for it: EAGAIN where it has not.
pub fn try_send(socket: impl AsFd, bytes: &[&[u8]], fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    send_with(socket, bytes, fd, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

/// Receives one message into `buffer`; a length of 0 means that the other side has closed.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut received = None;
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = part {
            received = fds.into_iter().next();
        }
    }
    Ok((message.bytes, received))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_arrives_closed_on_exec() {
        let (here, there) = pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        send(&here, &[b"one", b"two"], Some(null.as_fd())).unwrap();
        let mut buffer = [0; 16];
        let (length, fd) = receive(&there, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"onetwo");
        assert!(rustix::io::fcntl_getfd(fd.unwrap()).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        drop(here);
        assert_eq!(receive(&there, &mut buffer).unwrap().0, 0);
        assert_eq!(send(&there, &[b"x"], None), Err(Errno::PIPE));
    }
}
