//! Reads IP packets as a tun device hands them over, virtio's header in front. Every byte is the container's: lengths are
//! checked, nothing is believed, nothing panics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `struct virtio_net_hdr` (linux/virtio_net.h), in the machine's byte order.
pub(super) const OFFLOAD_HEADER: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`, `_DATA_VALID`.
const NEEDS_CHECKSUM: u8 = 1;
const IS_VALID: u8 = 2;

/// Protocol numbers (RFC 5237).
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP6: u8 = 58;
const FRAGMENT6: u8 = 44;

/// Flags of a TCP segment (RFC 9293, 3.1).
pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

/// Why a packet goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// A length or a checksum is wrong.
    Malformed,
    /// A part of a larger packet: none is put together here.
    Fragment,
    /// A protocol that no host socket speaks for an ordinary user.
    Protocol,
}

/// A packet with all of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) hops: u8,
    pub(super) content: Content<'a>,
    /// From the IP header on, as far as the packet goes: what an answer about it quotes.
    pub(super) whole: &'a [u8],
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    Tcp(Segment<'a>),
    Udp {
        from: u16,
        to: u16,
        payload: &'a [u8],
    },
    /// An echo request (RFC 792, RFC 4443): its identifier, and all of the message.
    Echo {
        identifier: u16,
        message: &'a [u8],
    },
    /// The answer to a packet that somebody could not deliver: the beginning of that.
    Unreachable {
        quoted: &'a [u8],
    },
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) sequence: u32,
    pub(super) acknowledged: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    /// Of a SYN: the longest segment that its sender takes, and by how much its windows are to be shifted.
    pub(super) longest: Option<u16>,
    pub(super) scale: Option<u8>,
    pub(super) payload: &'a [u8],
}

impl Segment<'_> {
    pub(super) fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}

/// Reads a packet with virtio's header before it.
pub(super) fn read(bytes: &[u8]) -> Result<Packet<'_>, Unfit> {
    let (offload, bytes) = bytes.split_first_chunk::<OFFLOAD_HEADER>().ok_or(Unfit::Malformed)?;
    // Not filled in, or already found right: by the kernel, which alone writes this header.
    let is_trusted = offload[0] & (NEEDS_CHECKSUM | IS_VALID) != 0;
    match bytes.first().map(|byte| byte >> 4) {
        Some(4) => read_v4(bytes, is_trusted),
        Some(6) => read_v6(bytes, is_trusted),
        _ => Err(Unfit::Malformed),
    }
}

fn read_v4(bytes: &[u8], is_trusted: bool) -> Result<Packet<'_>, Unfit> {
    let head = bytes.first_chunk::<20>().ok_or(Unfit::Malformed)?;
    let header_length = usize::from(head[0] & 0xf) * 4;
    let whole = bytes.get(..usize::from(word(head, 2))).ok_or(Unfit::Malformed)?;
    if header_length < 20 {
        return Err(Unfit::Malformed);
    }
    let (header, payload) = whole.split_at_checked(header_length).ok_or(Unfit::Malformed)?;
    if !is_trusted && checksum(0, &[header]) != 0 {
        return Err(Unfit::Malformed);
    }
    // More fragments, or an offset.
    if word(head, 6) & 0x3fff != 0 {
        return Err(Unfit::Fragment);
    }
    let address = |at: usize| IpAddr::V4(Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]));
    let (source, destination) = (address(12), address(16));
    let content = content(head[9], payload, (source, destination), is_trusted)?;
    Ok(Packet { source, destination, hops: head[8], content, whole })
}

fn read_v6(bytes: &[u8], is_trusted: bool) -> Result<Packet<'_>, Unfit> {
    let (head, rest) = bytes.split_first_chunk::<40>().ok_or(Unfit::Malformed)?;
    let payload = rest.get(..usize::from(word(head, 4))).ok_or(Unfit::Malformed)?;
    let address = |at: usize| {
        let octets: [u8; 16] = head[at..at + 16].try_into().unwrap_or_default();
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let (source, destination) = (address(8), address(24));
    if head[6] == FRAGMENT6 {
        return Err(Unfit::Fragment);
    }
    let content = content(head[6], payload, (source, destination), is_trusted)?;
    let whole = bytes.get(..40 + payload.len()).ok_or(Unfit::Malformed)?;
    Ok(Packet { source, destination, hops: head[7], content, whole })
}

fn content(protocol: u8, bytes: &[u8], ends: (IpAddr, IpAddr), is_trusted: bool) -> Result<Content<'_>, Unfit> {
    let is_sound = || {
        let start = if protocol == ICMP { 0 } else { pseudo_sum(ends, protocol, bytes.len()) };
        checksum(start, &[bytes]) == 0
    };
    match protocol {
        TCP => segment(bytes).filter(|_| is_trusted || is_sound()).map(Content::Tcp).ok_or(Unfit::Malformed),
        UDP => {
            let head = bytes.first_chunk::<8>().ok_or(Unfit::Malformed)?;
            let payload = bytes.get(8..usize::from(word(head, 4))).ok_or(Unfit::Malformed)?;
            // Of IPv4 a checksum of 0 is none (RFC 768).
            let has_none = word(head, 6) == 0 && ends.0.is_ipv4();
            if !is_trusted && !has_none && !is_sound() {
                return Err(Unfit::Malformed);
            }
            Ok(Content::Udp { from: word(head, 0), to: word(head, 2), payload })
        }
        ICMP | ICMP6 if (protocol == ICMP) == ends.0.is_ipv4() => {
            let (head, quoted) = bytes.split_first_chunk::<8>().ok_or(Unfit::Malformed)?;
            if !is_trusted && !is_sound() {
                return Err(Unfit::Malformed);
            }
            match (protocol, head[0], head[1]) {
                (ICMP, 8, 0) | (ICMP6, 128, 0) => Ok(Content::Echo { identifier: word(head, 4), message: bytes }),
                (ICMP, 3, _) | (ICMP6, 1, _) => Ok(Content::Unreachable { quoted }),
                _ => Err(Unfit::Protocol),
            }
        }
        _ => Err(Unfit::Protocol),
    }
}

fn segment(bytes: &[u8]) -> Option<Segment<'_>> {
    let head = bytes.first_chunk::<20>()?;
    let header_length = usize::from(head[12] >> 4) * 4;
    let options = bytes.get(20..header_length)?;
    let mut segment = Segment {
        from: word(head, 0),
        to: word(head, 2),
        sequence: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
        acknowledged: u32::from_be_bytes([head[8], head[9], head[10], head[11]]),
        flags: head[13],
        window: word(head, 14),
        longest: None,
        scale: None,
        payload: bytes.get(header_length..)?,
    };
    if segment.has(SYN) {
        read_options(&mut segment, options);
    }
    Some(segment)
}

fn read_options(segment: &mut Segment<'_>, mut options: &[u8]) {
    loop {
        options = match options {
            [] | [0, ..] => return,
            [1, rest @ ..] => rest,
            [2, 4, high, low, rest @ ..] => {
                segment.longest = Some(u16::from_be_bytes([*high, *low]));
                rest
            }
            [3, 3, scale, rest @ ..] => {
                // More than 14 is taken for 14 (RFC 7323, 2.3).
                segment.scale = Some((*scale).min(14));
                rest
            }
            [_, length, ..] if *length >= 2 => match options.get(usize::from(*length)..) {
                Some(rest) => rest,
                None => return,
            },
            _ => return,
        }
    }
}

/// Finds which TCP connection a quoted packet is of: who sent it, and to whom.
pub(super) fn quoted_tcp(bytes: &[u8]) -> Option<((IpAddr, u16), (IpAddr, u16))> {
    let (source, destination, rest) = match bytes.first()? >> 4 {
        4 => {
            let head = bytes.first_chunk::<20>()?;
            let address = |at: usize| IpAddr::V4(Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]));
            (head[9] == TCP).then(|| (address(12), address(16), bytes.get(usize::from(head[0] & 0xf) * 4..)))?
        }
        6 => {
            let head = bytes.first_chunk::<40>()?;
            let address = |at: usize| {
                let octets: [u8; 16] = head[at..at + 16].try_into().unwrap_or_default();
                IpAddr::V6(Ipv6Addr::from(octets))
            };
            (head[6] == TCP).then(|| (address(8), address(24), bytes.get(40..)))?
        }
        _ => return None,
    };
    let ports = rest?.first_chunk::<4>()?;
    Some(((source, word(ports, 0)), (destination, word(ports, 2))))
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Sums what TCP, UDP and ICMPv6 take of the IP header into their checksum (RFC 9293, 3.1; RFC 8200, 8.1).
pub(super) fn pseudo_sum(ends: (IpAddr, IpAddr), protocol: u8, length: usize) -> u32 {
    let of = |address: IpAddr| match address {
        IpAddr::V4(address) => add(0, &address.octets()),
        IpAddr::V6(address) => add(0, &address.octets()),
    };
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    of(ends.0) + of(ends.1) + u32::from(protocol) + (length >> 16) + (length & 0xffff)
}

/// The Internet checksum (RFC 1071) of parts of which each but the last has an even length. Over something that has its
/// checksum in it, 0.
pub(super) fn checksum(start: u32, parts: &[&[u8]]) -> u16 {
    !fold(parts.iter().fold(start, |sum, part| u32::from(fold(add(sum, part)))))
}

/// Brings a sum down to the 16 bits that a checksum begins with.
pub(super) fn fold(sum: u32) -> u16 {
    let once = (sum >> 16) + (sum & 0xffff);
    // A carry of a sum of two halves is at most 1, and then there is room for it.
    u16::try_from((once >> 16) + (once & 0xffff)).unwrap_or(u16::MAX)
}

/// Adds words in network order; for at most 128 KiB, whose sum fits.
fn add(start: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<2>();
    let sum = words.iter().fold(u64::from(start), |sum, word| sum + u64::from(u16::from_be_bytes(*word)));
    let sum = rest.first().map_or(sum, |last| sum + (u64::from(*last) << 8));
    let once = (sum >> 16) + (sum & 0xffff);
    u32::try_from((once >> 16) + (once & 0xffff)).unwrap_or(u32::MAX)
}
