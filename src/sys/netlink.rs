//! Requests by netlink(7) with their answers: a socket, a request under construction, and what is read of attributes; one at
//! a time, or several as one transaction of nfnetlink. Knows no interface and holds no state of the network.
//!
//! Every length is a field of 16 or 32 bits that is checked where it is written: a longer attribute would be read by the
//! kernel as a short one and further ones of the sender's choice (runc's CVE-2021-43784).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto, socket_with};

/// `nlmsghdr` of linux/netlink.h.
const HEADER_LENGTH: usize = 16;
/// `rtattr` of linux/rtnetlink.h.
const ATTRIBUTE_HEADER_LENGTH: usize = 4;
/// As large as the kernel makes the answers of a dump (`NLMSG_GOODSIZE` is at most 8 KiB, dumps use up to 32).
const RECEIVE_BYTES: usize = 32 << 10;

/// Datagrams that are taken before somebody else has a turn.
const HEARD_AT_ONCE: usize = 64;

const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

const TYPE_ERROR: u16 = 2;
const TYPE_DONE: u16 = 3;

/// `NFNL_MSG_BATCH_BEGIN` and `_END`.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// A request: a header, a body of the type's own, attributes.
pub struct Request(Vec<u8>);

impl Request {
    /// A request that is answered with an acknowledgement.
    pub fn act(kind: u16, body: &[u8]) -> Self {
        Self::new(kind, REQUEST | ACKNOWLEDGE, body)
    }

    /// A request that is answered with all objects of a kind.
    pub fn dump(kind: u16, body: &[u8]) -> Self {
        Self::new(kind, REQUEST | DUMP, body)
    }

    /// Adds flags to those of its making: `NLM_F_CREATE` and `NLM_F_EXCL`.
    #[must_use]
    pub fn with_flags(mut self, more: u16) -> Self {
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | more;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    /// A request that is answered only where it is refused: one of a transaction.
    pub fn in_batch(kind: u16, body: &[u8]) -> Self {
        Self::new(kind, REQUEST, body)
    }

    fn batch(kind: u16, subsystem: u8) -> Self {
        let [high, low] = u16::from(subsystem).to_be_bytes();
        // `nfgenmsg`: no family, version 0.
        Self::new(kind, REQUEST, &[0, 0, high, low])
    }

    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_LENGTH];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(body);
        pad(&mut bytes);
        Self(bytes)
    }

    /// Appends an attribute; EMSGSIZE where it is longer than its length can say.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Result<Self, Errno> {
        let length = u16::try_from(ATTRIBUTE_HEADER_LENGTH + value.len()).map_err(|_| Errno::MSGSIZE)?;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        pad(&mut self.0);
        Ok(self)
    }

    /// Appends what stands before the attributes of a nested object.
    #[must_use]
    pub fn bytes(mut self, body: &[u8]) -> Self {
        self.0.extend_from_slice(body);
        pad(&mut self.0);
        self
    }

    /// Appends an attribute that holds attributes; EMSGSIZE as for [`Self::attribute`].
    pub fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Result<Self, Errno>) -> Result<Self, Errno> {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        let mut filled = fill(self)?;
        let length = u16::try_from(filled.0.len() - start).map_err(|_| Errno::MSGSIZE)?;
        filled.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        Ok(filled)
    }

    fn finish(mut self) -> Result<Vec<u8>, Errno> {
        let length = u32::try_from(self.0.len()).map_err(|_| Errno::MSGSIZE)?;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        Ok(self.0)
    }

    /// Numbers the request: answers name it.
    fn numbered(mut self, number: u32) -> Self {
        self.0[8..12].copy_from_slice(&number.to_ne_bytes());
        self
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A socket in the network namespace in which it was opened, wherever its owner goes then.
pub struct Socket(OwnedFd);

impl Socket {
    /// Opens a socket in this process's network namespace.
    pub fn open() -> Result<Self, Errno> {
        // NETLINK_ROUTE is 0, the protocol that there is without a name.
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).map(Self)
    }

    /// Opens a socket to nf_tables and its kin of this process's network namespace.
    pub fn open_netfilter() -> Result<Self, Errno> {
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER)).map(Self)
    }

    /// Sends requests that the kernel takes all together or not at all (linux/netfilter/nfnetlink.h: a batch). On failure
    /// gives the place of the first that was refused; `None` where it is the whole that was.
    ///
    /// The requests ask for no acknowledgement: the kernel answers before the call that sends them returns, and only with
    /// what it refused.
    pub fn transact(&self, subsystem: u8, requests: Vec<Request>) -> Result<(), (Option<usize>, Errno)> {
        let of_all = |errno| (None, errno);
        let mut bytes = Vec::new();
        for (number, request) in (0..).zip(
            std::iter::once(Request::batch(BATCH_BEGIN, subsystem))
                .chain(requests)
                .chain(std::iter::once(Request::batch(BATCH_END, subsystem))),
        ) {
            bytes.extend(request.numbered(number).finish().map_err(of_all)?);
        }
        self.make_room(bytes.len()).map_err(of_all)?;
        let kernel = netlink::SocketAddrNetlink::new(0, 0);
        rustix::io::retry_on_intr(|| sendto(&self.0, &bytes, SendFlags::empty(), &kernel)).map_err(of_all)?;
        let mut buffer = vec![0; RECEIVE_BYTES];
        let mut first: Option<(Option<usize>, Errno)> = None;
        loop {
            let received = rustix::io::retry_on_intr(|| recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT));
            let length = match received {
                Ok((length, _)) => length,
                Err(Errno::AGAIN) => return first.map_or(Ok(()), Err),
                Err(errno) => return Err(first.unwrap_or((None, errno))),
            };
            let mut rest = &buffer[..length];
            while let Some((kind, body, next)) = split_message(rest) {
                let refused = (kind == TYPE_ERROR).then(|| refusal(body)).flatten();
                if let Some((number, errno)) = refused {
                    // The first number is that of the message which begins the batch.
                    first.get_or_insert((number.checked_sub(1).map(|place| place as usize), errno));
                }
                rest = next;
            }
        }
    }

    /// Throws away what the kernel has answered, and nobody has read: to who had a copy of this socket before.
    pub fn discard_answers(&self) {
        let mut buffer = [0; 256];
        while rustix::io::retry_on_intr(|| recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT)).is_ok() {}
    }

    /// Has the kernel take a request of this size, which it copies whole into the socket's buffer for sending.
    fn make_room(&self, size: usize) -> Result<(), Errno> {
        // The kernel doubles what it is asked for, and wants some for itself.
        let wanted = size.saturating_add(4 << 10);
        if rustix::net::sockopt::socket_send_buffer_size(&self.0)? >= wanted {
            return Ok(());
        }
        rustix::net::sockopt::set_socket_send_buffer_size_force(&self.0, wanted)
            .or_else(|_| rustix::net::sockopt::set_socket_send_buffer_size(&self.0, wanted))
    }

    /// Finds the number of an interface.
    pub fn index_of(&self, name: &str) -> Result<u32, Errno> {
        rustix::net::netdevice::name_to_index(&self.0, name)
    }

    /// Finds the name of an interface.
    pub fn name_of(&self, index: u32) -> Result<String, Errno> {
        rustix::net::netdevice::index_to_name(&self.0, index)
    }

    /// Hands on what the kernel has sent by itself, without waiting for more: the type and the body of each message. Who
    /// sends without an end does not keep the caller: a part is left for the next time.
    pub fn hear(&self, mut each: impl FnMut(u16, &[u8])) -> Result<(), Errno> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        for _ in 0..HEARD_AT_ONCE {
            let length = match rustix::io::retry_on_intr(|| recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT)) {
                Ok((length, _)) => length,
                Err(Errno::AGAIN) => return Ok(()),
                // There was more than there was room for (netlink(7)): what is lost is lost.
                Err(Errno::NOBUFS) => continue,
                Err(errno) => return Err(errno),
            };
            let mut rest = &buffer[..length];
            while let Some((kind, body, next)) = split_message(rest) {
                each(kind, body);
                rest = next;
            }
        }
        Ok(())
    }

    /// Sends a request and waits for its end; each object of a dump is handed on, without its header.
    pub fn call(&self, request: Request, mut each: impl FnMut(&[u8])) -> Result<(), Errno> {
        let kernel = netlink::SocketAddrNetlink::new(0, 0);
        let bytes = request.finish()?;
        rustix::io::retry_on_intr(|| sendto(&self.0, &bytes, SendFlags::empty(), &kernel))?;
        let mut buffer = vec![0; RECEIVE_BYTES];
        loop {
            let (length, _) = rustix::io::retry_on_intr(|| recv(&self.0, &mut buffer[..], RecvFlags::empty()))?;
            let mut rest = &buffer[..length];
            while let Some((kind, body, next)) = split_message(rest) {
                match kind {
                    TYPE_DONE => return Ok(()),
                    TYPE_ERROR => {
                        let code = body.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)).ok_or(Errno::BADMSG)?;
                        return if code == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(-code)) };
                    }
                    _ => each(body),
                }
                rest = next;
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One that somebody has opened, perhaps in another network namespace.
impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.0
    }
}

/// What an error says: the number of the request, and the cause. `None` for an acknowledgement.
fn refusal(body: &[u8]) -> Option<(u32, Errno)> {
    let code = i32::from_ne_bytes(*body.first_chunk()?);
    // The header of the request follows.
    let number = body.get(12..16)?.try_into().map(u32::from_ne_bytes).ok()?;
    (code < 0).then(|| (number, Errno::from_raw_os_error(code.saturating_neg())))
}

/// Takes the first message off: its type, its body, and what follows. `None` at the end, and for what is malformed.
fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER_LENGTH..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// Finds an attribute behind the body of an object.
pub fn find_attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// The attributes behind the body of an object, as far as they are well formed.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (head, _) = bytes.split_first_chunk::<ATTRIBUTE_HEADER_LENGTH>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = bytes.get(ATTRIBUTE_HEADER_LENGTH..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The two upper bits are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
        Some((u16::from_ne_bytes([head[2], head[3]]) & 0x3fff, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CVE-2021-43784: a length of 65536 + n was written as n.
    #[test]
    fn an_attribute_longer_than_its_length_can_say_is_refused() {
        let request = || Request::act(16, &[0; 16]);
        assert!(request().attribute(1, &vec![0; 65_531]).is_ok());
        for length in [65_532, 65_536, 70_000] {
            assert_eq!(request().attribute(1, &vec![0; length]).err(), Some(Errno::MSGSIZE), "{length}");
        }
    }

    #[test]
    fn a_request_is_laid_out_as_the_kernel_reads_it() {
        let bytes = Request::act(16, &[9; 5]).with_flags(0x600).attribute(3, b"eth0\0").unwrap().finish().unwrap();
        assert_eq!(bytes.len(), 16 + 8 + 12);
        assert_eq!(bytes[..8], [36, 0, 0, 0, 16, 0, 5, 6]);
        assert_eq!(bytes[24..], [9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0]);
        assert_eq!(find_attribute(&bytes[24..], 3), Some(&b"eth0\0"[..]));
        assert_eq!(find_attribute(&bytes[24..], 4), None);
        assert_eq!(find_attribute(&[200, 0, 3, 0, 1], 3), None, "longer than what there is");
        assert_eq!(find_attribute(&[0, 0, 3, 0, 1], 1), None, "a length of nothing does not go round for ever");
    }

    #[test]
    fn the_loopback_is_found_and_nonsense_is_refused() {
        let socket = Socket::open().unwrap();
        let index = socket.index_of("lo").unwrap();
        let mut found = false;
        let family = [0; 16];
        socket.call(Request::dump(18, &family), |body| found |= body[4..8] == index.to_ne_bytes()).unwrap();
        assert!(found);
        assert!(socket.call(Request::act(0x3ff0, &family), |_| ()).is_err());
    }
}
