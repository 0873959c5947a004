//! What a translator asks of host sockets beside bytes: room for sending, a look at an offset, what the network refused.
#![expect(unsafe_code, reason = "SO_MEMINFO, SO_PEEK_OFF and the error queue have no safe wrapper in the libraries")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// Of the words of SO_MEMINFO (linux/sock_diag.h): the limit of what is to be sent, and how much of it is used.
const MEMINFO_SEND_BUFFER: usize = 3;
const MEMINFO_SEND_QUEUED: usize = 5;
const MEMINFO_WORDS: usize = 9;

/// The room that a TCP socket has for what is to be sent, overhead counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub free: u32,
    /// So little that the kernel reports it as full: it will report when there is more.
    pub is_low: bool,
}

/// Says how many bytes a socket takes before it is full (SO_MEMINFO, Linux 4.12).
pub fn room(socket: impl AsFd) -> Result<Room, Errno> {
    let mut words = [0_u32; MEMINFO_WORDS];
    let mut length = length_of(&words);
    // SAFETY: the kernel writes at most `length` bytes to `words`, which is that long and outlives the call.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if answer != 0 {
        return Err(super::last_errno());
    }
    let queued = words[MEMINFO_SEND_QUEUED];
    let free = words[MEMINFO_SEND_BUFFER].saturating_sub(queued);
    // As `sk_stream_is_writeable` has it.
    Ok(Room { free, is_low: free < queued / 2 })
}

/// Says where the next look (MSG_PEEK) begins, and that each goes on where the last one ended. EOPNOTSUPP for TCP before
/// Linux 6.9.
pub fn set_peek_offset(socket: impl AsFd, offset: u32) -> Result<(), Errno> {
    let offset = i32::try_from(offset).map_err(|_| Errno::INVAL)?;
    set_option(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, offset)
}

/// Has a datagram socket keep what the network answers to its packets, for [`refused`].
pub fn want_refusals(socket: impl AsFd, is_ipv6: bool) -> Result<(), Errno> {
    if is_ipv6 {
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)
    } else {
        set_option(&socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
    }
}

/// The length of what is small, as socket calls want it.
fn length_of<T>(value: &T) -> libc::socklen_t {
    libc::socklen_t::try_from(size_of_val(value)).unwrap_or(0)
}

fn set_option(socket: impl AsFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> Result<(), Errno> {
    // SAFETY: the kernel reads an int from `value`, which outlives the call.
    let answer = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw const value).cast(), length_of(&value))
    };
    if answer == 0 { Ok(()) } else { Err(super::last_errno()) }
}

/// Throws away the next `count` bytes of a TCP socket without copying them (MSG_TRUNC, tcp(7)).
pub fn discard(socket: impl AsFd, count: usize) -> Result<usize, Errno> {
    // SAFETY: with MSG_TRUNC, TCP copies nothing, so there is no buffer that would have to be that long.
    let answer = unsafe {
        libc::recv(socket.as_fd().as_raw_fd(), std::ptr::null_mut(), count, libc::MSG_TRUNC | libc::MSG_DONTWAIT)
    };
    usize::try_from(answer).map_err(|_| super::last_errno())
}

/// The longest stretch that [`peek_past`] passes over.
pub const MAX_SKIPPED: usize = SCRAP_BYTES * (SCRAPS - 1);
const SCRAP_BYTES: usize = 32 << 10;
const SCRAPS: usize = 9;

/// Looks at what a TCP socket has behind its first `skipped` bytes, for kernels that keep no offset. Copies those as well.
pub fn peek_past(socket: impl AsFd, skipped: usize, buffer: &mut [u8]) -> Result<usize, Errno> {
    if skipped > MAX_SKIPPED {
        return Err(Errno::AGAIN);
    }
    let mut scrap = vec![0_u8; SCRAP_BYTES.min(skipped)];
    let mut parts = [libc::iovec { iov_base: scrap.as_mut_ptr().cast(), iov_len: SCRAP_BYTES }; SCRAPS];
    let whole = skipped / SCRAP_BYTES;
    parts[whole] = libc::iovec { iov_base: scrap.as_mut_ptr().cast(), iov_len: skipped % SCRAP_BYTES };
    let mut list = parts[..=whole].to_vec();
    list.push(libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() });
    // SAFETY: an all-zero msghdr is valid: null pointers and lengths of nothing.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = list.as_mut_ptr();
    message.msg_iovlen = list.len();
    // SAFETY: every part is within `scrap` or `buffer`, which outlive the call; that the first ones are the same memory
    // matters to nobody, since it is never read.
    let answer =
        unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, libc::MSG_PEEK | libc::MSG_DONTWAIT) };
    let length = usize::try_from(answer).map_err(|_| super::last_errno())?;
    match length.checked_sub(skipped) {
        Some(0) if length > 0 => Err(Errno::AGAIN),
        Some(rest) => Ok(rest),
        None => Err(Errno::AGAIN),
    }
}

/// What the network answered to a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Where it was sent to.
    pub destination: SocketAddr,
    /// Why it did not get there, as a number of the system.
    pub cause: Errno,
}

/// Takes the next answer of the network from a datagram socket's error queue (ip(7), IP_RECVERR); `None` when there is none.
pub fn refused(socket: impl AsFd) -> Result<Option<Refused>, Errno> {
    // SAFETY: an all-zero sockaddr_storage is valid: integers and bytes.
    let mut name: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut control = [0_u64; 64];
    let mut scrap = [0_u8; 8];
    let mut part = libc::iovec { iov_base: scrap.as_mut_ptr().cast(), iov_len: scrap.len() };
    // SAFETY: an all-zero msghdr is valid: null pointers and lengths of nothing.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = length_of(&name);
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer of the message is to memory of the length beside it, which outlives the call.
    let answer =
        unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    if answer < 0 {
        return match super::last_errno() {
            Errno::AGAIN => Ok(None),
            errno => Err(errno),
        };
    }
    let length = message.msg_controllen.min(size_of_val(&control));
    let bytes: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).take(length).collect();
    let Some(destination) = address_of(&name) else { return Ok(None) };
    Ok(error_of(&bytes).map(|cause| Refused { destination, cause }))
}

/// Finds `ee_errno` of the first `sock_extended_err` among control messages.
fn error_of(mut bytes: &[u8]) -> Option<Errno> {
    /// `struct cmsghdr`: a length of its own size counted, level, type.
    const HEAD: usize = size_of::<libc::cmsghdr>();
    loop {
        let length = usize::from_ne_bytes(*bytes.first_chunk()?);
        let level = i32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
        let kind = i32::from_ne_bytes(bytes.get(12..16)?.try_into().ok()?);
        let body = bytes.get(HEAD..length)?;
        let is_error =
            matches!((level, kind), (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR));
        if is_error {
            let errno = u32::from_ne_bytes(*body.first_chunk()?);
            return Some(Errno::from_raw_os_error(i32::try_from(errno).ok()?));
        }
        bytes = bytes.get(length.next_multiple_of(8)..)?;
    }
}

fn address_of(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that a sockaddr_in is what is there, and the storage is larger and as aligned.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
            Some(SocketAddr::new(IpAddr::V4(address), u16::from_be(name.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that a sockaddr_in6 is what is there, and the storage is larger and as aligned.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let address = Ipv6Addr::from(name.sin6_addr.s6_addr);
            Some(SocketAddr::new(IpAddr::V6(address), u16::from_be(name.sin6_port)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    fn streams() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn bytes_are_seen_at_an_offset_and_thrown_away() {
        let (mut near, far) = streams();
        near.write_all(b"0123456789").unwrap();
        let mut buffer = [0; 4];
        far.peek(&mut buffer).unwrap();
        assert_eq!(peek_past(&far, 3, &mut buffer), Ok(4));
        assert_eq!(&buffer, b"3456");
        assert_eq!(peek_past(&far, 10, &mut buffer), Err(Errno::AGAIN));
        assert_eq!(peek_past(&far, MAX_SKIPPED + 1, &mut buffer), Err(Errno::AGAIN));
        assert_eq!(discard(&far, 4), Ok(4));
        assert_eq!(peek_past(&far, 0, &mut buffer), Ok(4));
        assert_eq!(&buffer, b"4567");
        if set_peek_offset(&far, 2).is_ok() {
            far.peek(&mut buffer).unwrap();
            assert_eq!(&buffer, b"6789");
        }
    }

    #[test]
    fn a_socket_that_nobody_reads_has_no_room_in_the_end() {
        let (near, _far) = streams();
        assert!(matches!(room(&near), Ok(Room { free: 1.., is_low: false })));
        near.set_nonblocking(true).unwrap();
        let much = vec![0; 65_536];
        while (&near).write(&much).is_ok() {}
        assert!(room(&near).unwrap().is_low);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(room(&file), Err(Errno::NOTSOCK));
    }

    #[test]
    fn a_port_that_nobody_listens_at_refuses() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        want_refusals(&socket, false).unwrap();
        assert_eq!(refused(&socket), Ok(None));
        socket.send_to(b"x", nobody).unwrap();
        assert_eq!(refused(&socket), Ok(Some(Refused { destination: nobody, cause: Errno::CONNREFUSED })));
    }
}
