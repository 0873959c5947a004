//! TCP sockets that go on with a connection which somebody else has begun (`TCP_REPAIR`, Linux 3.5; windows since 4.8), and that
//! stand for an address which is not this host's (`IP_TRANSPARENT`, ip(7)). Both take CAP_NET_ADMIN in the user namespace that the
//! socket's network namespace belongs to.
#![expect(unsafe_code, reason = "these options have no safe wrapper in the libraries")]

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// Of linux/tcp.h.
const RECEIVE_QUEUE: u32 = 1;
const SEND_QUEUE: u32 = 2;
/// Numbers of TCP's options (RFC 9293, 3.1; RFC 7323).
const LONGEST_SEGMENT: u32 = 2;
const WINDOW_SCALE: u32 = 3;

/// Where a connection stands in which nothing is on its way. Windows are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The end that the socket becomes, and the other one.
    pub own: SocketAddr,
    pub peer: SocketAddr,
    /// The next byte to the peer, and the next of the peer's.
    pub next: u32,
    pub expected: u32,
    pub peer_window: u32,
    pub own_window: u32,
    /// By how much the windows are shifted that each side tells of.
    pub own_scale: u8,
    pub peer_scale: u8,
    /// The longest segment that the peer takes.
    pub longest: u16,
}

/// `struct tcp_repair_opt`.
#[repr(C)]
struct RepairOption {
    code: u32,
    value: u32,
}

/// `struct tcp_repair_window`.
#[repr(C)]
struct RepairWindow {
    last_update: u32,
    sending: u32,
    most: u32,
    receiving: u32,
    received_to: u32,
}

/// Whether an address is one of the socket's network namespace; if it is, the socket is bound to it.
pub fn is_local(socket: BorrowedFd<'_>, address: IpAddr) -> Result<bool, Errno> {
    match rustix::net::bind(socket, &SocketAddr::new(address, 0)) {
        Ok(()) => Ok(true),
        Err(Errno::ADDRNOTAVAIL) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Makes a TCP socket that is neither bound nor connected an end of a connection that is open, and has it ask the peer for its
/// window. After an error it is neither bound nor connected for sure: to be closed, and nobody hears of it.
pub fn take_over(socket: BorrowedFd<'_>, standing: &Standing) -> Result<(), Errno> {
    let (level, transparent) = if standing.own.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_TRANSPARENT)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT)
    };
    set(socket, level, transparent, &1_i32)?;
    set_tcp(socket, libc::TCP_REPAIR, &1_i32)?;
    for (queue, sequence) in [(RECEIVE_QUEUE, standing.expected), (SEND_QUEUE, standing.next)] {
        set_tcp(socket, libc::TCP_REPAIR_QUEUE, &queue)?;
        set_tcp(socket, libc::TCP_QUEUE_SEQ, &sequence)?;
    }
    rustix::net::bind(socket, &standing.own)?;
    rustix::net::connect(socket, &standing.peer)?;
    let longest = RepairOption { code: LONGEST_SEGMENT, value: standing.longest.into() };
    let shifts = u32::from(standing.own_scale) << 16 | u32::from(standing.peer_scale);
    let scales = RepairOption { code: WINDOW_SCALE, value: shifts };
    set_tcp(socket, libc::TCP_REPAIR_OPTIONS, &[longest, scales])?;
    let window = RepairWindow {
        last_update: standing.expected,
        sending: standing.peer_window,
        most: standing.peer_window,
        receiving: standing.own_window,
        received_to: standing.expected,
    };
    set_tcp(socket, libc::TCP_REPAIR_WINDOW, &window)?;
    // With a probe of the peer's window, whose answer is the first that the socket hears.
    set_tcp(socket, libc::TCP_REPAIR, &0_i32)
}

fn set_tcp<T>(socket: BorrowedFd<'_>, name: libc::c_int, value: &T) -> Result<(), Errno> {
    set(socket, libc::IPPROTO_TCP, name, value)
}

fn set<T>(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: &T) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the kernel reads `length` bytes from `value`, a number or an array or structure of such without padding, which is
    // that long and outlives the call.
    let answer = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length) };
    if answer == 0 { Ok(()) } else { Err(super::last_errno()) }
}
