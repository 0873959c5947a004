//! Builds IP packets for a tun device in one buffer: the payload is put at its place first, the headers are written before
//! it. TCP and UDP leave their checksum to whoever needs one, and TCP the cutting as well: the kernel does both last, or never.

use std::net::{IpAddr, SocketAddr};

use super::packet::{ICMP, ICMP6, OFFLOAD_HEADER, TCP, UDP, checksum, fold, pseudo_sum};

/// The largest packet of IPv4, and of IPv6 as far as a device of this MTU takes it.
pub(super) const MTU: u16 = 65_535;

/// Room for the headers: virtio's, IPv6's and TCP's, rounded up so that the payload begins at a word.
const HEAD: usize = 72;
const MAX_PAYLOAD: usize = MTU as usize;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`; `VIRTIO_NET_HDR_GSO_TCPV4` and `_TCPV6`.
const NEEDS_CHECKSUM: u8 = 1;
const CUT_V4: u8 = 1;
const CUT_V6: u8 = 4;

const HOPS: u8 = 64;

/// Every link takes this (RFC 8200, 5).
const LEAST_WHOLE: u16 = 1280;

/// Why a packet did not get where it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    Network,
    Host,
    Port,
    Forbidden,
}

/// What a TCP segment says beside its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) sequence: u32,
    pub(super) acknowledged: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    /// Says that the payload is to be cut into segments of this length.
    pub(super) cut: u16,
    /// Of a SYN: the longest segment, and the shift of windows.
    pub(super) longest: Option<u16>,
    pub(super) scale: Option<u8>,
}

/// A buffer for one packet.
pub(super) struct Frame {
    bytes: Vec<u8>,
    identifier: u16,
}

impl Default for Frame {
    fn default() -> Self {
        Self { bytes: vec![0; HEAD + MAX_PAYLOAD], identifier: 0 }
    }
}

impl Frame {
    /// Where the payload goes; of a TCP segment no more than [`tcp_room`].
    pub(super) fn payload(&mut self) -> &mut [u8] {
        &mut self.bytes[HEAD..]
    }

    /// Writes the headers of a TCP segment whose payload is in its place, and gives the packet.
    pub(super) fn tcp(&mut self, from: SocketAddr, to: SocketAddr, header: &Header, payload: usize) -> &[u8] {
        let mut options = [0_u8; 8];
        let mut length = 0;
        if let Some(longest) = header.longest {
            let [high, low] = longest.to_be_bytes();
            options[..4].copy_from_slice(&[2, 4, high, low]);
            length = 4;
            if let Some(scale) = header.scale {
                options[4..].copy_from_slice(&[3, 3, scale, 1]);
                length = 8;
            }
            // Only what has no payload has options: they lie in its place.
            self.bytes[HEAD..HEAD + length].copy_from_slice(&options[..length]);
        }
        let payload = if length > 0 { 0 } else { payload.min(tcp_room(from.is_ipv4())) };
        let head = 20 + length;
        let total = head + payload;
        let start = HEAD - 20;
        let ends = (from.ip(), to.ip());
        let partial = fold(pseudo_sum(ends, TCP, total));
        let tcp = &mut self.bytes[start..start + 20];
        tcp[..2].copy_from_slice(&from.port().to_be_bytes());
        tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
        tcp[4..8].copy_from_slice(&header.sequence.to_be_bytes());
        tcp[8..12].copy_from_slice(&header.acknowledged.to_be_bytes());
        // In words, in the upper half: five without options.
        tcp[12] = 0x50 + u8::try_from(length * 4).unwrap_or(0);
        tcp[13] = header.flags;
        tcp[14..16].copy_from_slice(&header.window.to_be_bytes());
        tcp[16..18].copy_from_slice(&partial.to_be_bytes());
        tcp[18..20].fill(0);
        let mut offload = Offload { checksum_at: 16, ..Offload::default() };
        if payload > usize::from(header.cut) && header.cut > 0 {
            offload.kind = if from.is_ipv4() { CUT_V4 } else { CUT_V6 };
            offload.size = header.cut;
            offload.head = 20;
        }
        self.finish(ends, TCP, start, total, offload)
    }

    /// Writes the headers of a UDP datagram whose payload is in its place; `None` for one that no packet holds.
    pub(super) fn udp(&mut self, from: SocketAddr, to: SocketAddr, payload: usize) -> Option<&[u8]> {
        let total = 8 + payload;
        let ends = (from.ip(), to.ip());
        let start = HEAD - 8;
        if total + ip_header(from.is_ipv4()) > usize::from(MTU) {
            return None;
        }
        let partial = fold(pseudo_sum(ends, UDP, total));
        let udp = &mut self.bytes[start..HEAD];
        udp[..2].copy_from_slice(&from.port().to_be_bytes());
        udp[2..4].copy_from_slice(&to.port().to_be_bytes());
        udp[4..6].copy_from_slice(&u16::try_from(total).ok()?.to_be_bytes());
        udp[6..8].copy_from_slice(&partial.to_be_bytes());
        Some(self.finish(ends, UDP, start, total, Offload { checksum_at: 6, ..Offload::default() }))
    }

    /// Makes the answer to an echo of a whole ICMP message that is in the payload's place.
    pub(super) fn echo_reply(&mut self, from: IpAddr, to: IpAddr, identifier: u16, length: usize) -> Option<&[u8]> {
        if length < 8 || length + ip_header(from.is_ipv4()) > usize::from(MTU) {
            return None;
        }
        self.bytes[HEAD] = if from.is_ipv4() { 0 } else { 129 };
        self.bytes[HEAD + 4..HEAD + 6].copy_from_slice(&identifier.to_be_bytes());
        Some(self.finish_icmp(from, to, length))
    }

    /// Tells the sender of a packet that it could not be delivered: `from` says so, quoting the packet's beginning.
    pub(super) fn unreachable(&mut self, from: IpAddr, to: IpAddr, obstacle: Obstacle, quoted: &[u8]) -> &[u8] {
        // RFC 1812, 4.3.2.3: no more than 576 bytes; of IPv6 1280, of which this is less.
        let quoted = &quoted[..quoted.len().min(512)];
        let (kind, code) = match (from.is_ipv4(), obstacle) {
            (true, Obstacle::Network) => (3, 0),
            (true, Obstacle::Host) => (3, 1),
            (true, Obstacle::Port) => (3, 3),
            (true, Obstacle::Forbidden) => (3, 13),
            (false, Obstacle::Network) => (1, 0),
            (false, Obstacle::Forbidden) => (1, 1),
            (false, Obstacle::Host) => (1, 3),
            (false, Obstacle::Port) => (1, 4),
        };
        self.bytes[HEAD..HEAD + 8].copy_from_slice(&[kind, code, 0, 0, 0, 0, 0, 0]);
        self.bytes[HEAD + 8..HEAD + 8 + quoted.len()].copy_from_slice(quoted);
        self.finish_icmp(from, to, 8 + quoted.len())
    }

    fn finish_icmp(&mut self, from: IpAddr, to: IpAddr, length: usize) -> &[u8] {
        let protocol = if from.is_ipv4() { ICMP } else { ICMP6 };
        let start = if from.is_ipv4() { 0 } else { pseudo_sum((from, to), ICMP6, length) };
        let message = &mut self.bytes[HEAD..HEAD + length];
        message[2..4].fill(0);
        let sum = checksum(start, &[message]);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        self.finish((from, to), protocol, HEAD, length, Offload::default())
    }

    /// Writes the IP header and virtio's before what begins at `start`.
    fn finish(&mut self, ends: (IpAddr, IpAddr), protocol: u8, start: usize, length: usize, offload: Offload) -> &[u8] {
        let end = start + length;
        // Never more than the buffer holds behind the headers.
        let length = u16::try_from(length).unwrap_or(u16::MAX - 20);
        let begin = match ends {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let header = &mut self.bytes[start - 20..start];
                header.copy_from_slice(&[0; 20]);
                header[0] = 0x45;
                header[2..4].copy_from_slice(&(length + 20).to_be_bytes());
                if length + 20 > LEAST_WHOLE && protocol != TCP {
                    // The container's own link may be narrower: its namespace cuts this then, and has to tell the parts.
                    self.identifier = self.identifier.wrapping_add(1);
                    header[4..6].copy_from_slice(&self.identifier.to_be_bytes());
                } else {
                    // What is never cut needs no identifier (RFC 6864).
                    header[6] = 0x40;
                }
                header[8] = HOPS;
                header[9] = protocol;
                header[12..16].copy_from_slice(&from.octets());
                header[16..20].copy_from_slice(&to.octets());
                let sum = checksum(0, &[header]);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                start - 20
            }
            (from, to) => {
                let octets = |address: IpAddr| match address {
                    IpAddr::V6(address) => address.octets(),
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                };
                let header = &mut self.bytes[start - 40..start];
                header[..4].copy_from_slice(&[0x60, 0, 0, 0]);
                header[4..6].copy_from_slice(&length.to_be_bytes());
                header[6] = protocol;
                header[7] = HOPS;
                header[8..24].copy_from_slice(&octets(from));
                header[24..40].copy_from_slice(&octets(to));
                start - 40
            }
        };
        let ip: u16 = if ends.0.is_ipv4() { 20 } else { 40 };
        let header = &mut self.bytes[begin - OFFLOAD_HEADER..begin];
        header.fill(0);
        if offload.checksum_at > 0 {
            header[0] = NEEDS_CHECKSUM;
            header[1] = offload.kind;
            if offload.kind > 0 {
                header[2..4].copy_from_slice(&(ip + offload.head).to_ne_bytes());
                header[4..6].copy_from_slice(&offload.size.to_ne_bytes());
            }
            header[6..8].copy_from_slice(&ip.to_ne_bytes());
            header[8..10].copy_from_slice(&offload.checksum_at.to_ne_bytes());
        }
        &self.bytes[begin - OFFLOAD_HEADER..end]
    }
}

/// What virtio's header says: where in the protocol's header the checksum is, and how the payload is to be cut.
#[derive(Clone, Copy, Default)]
struct Offload {
    checksum_at: u16,
    kind: u8,
    size: u16,
    head: u16,
}

fn ip_header(is_ipv4: bool) -> usize {
    if is_ipv4 { 20 } else { 40 }
}

/// The most that fits into one TCP segment, to be cut or not.
pub(super) fn tcp_room(is_ipv4: bool) -> usize {
    usize::from(MTU) - ip_header(is_ipv4) - 20
}

#[cfg(test)]
mod tests {
    use super::super::packet::{ACK, Content, PSH, SYN, Unfit, read};
    use super::*;

    const PAIRS: [(&str, &str); 2] = [("192.0.2.7:80", "10.89.0.2:4711"), ("[2001:db8::7]:80", "[fd00:89::2]:4711")];

    fn ends(pair: (&str, &str)) -> (SocketAddr, SocketAddr) {
        (pair.0.parse().unwrap(), pair.1.parse().unwrap())
    }

    #[test]
    fn what_is_written_is_read() {
        let mut frame = Frame::default();
        for pair in PAIRS {
            let (from, to) = ends(pair);
            frame.payload()[..5].copy_from_slice(b"hello");
            let header =
                Header { sequence: 7, acknowledged: u32::MAX, flags: ACK | PSH, window: 99, ..Header::default() };
            let packet = read(frame.tcp(from, to, &header, 5)).unwrap();
            assert_eq!((packet.source, packet.destination), (from.ip(), to.ip()));
            let Content::Tcp(segment) = packet.content else { panic!("{packet:?}") };
            assert_eq!((segment.from, segment.to, segment.payload), (80, 4711, &b"hello"[..]));
            assert_eq!((segment.sequence, segment.acknowledged, segment.window), (7, u32::MAX, 99));

            let header = Header { flags: SYN, longest: Some(1460), scale: Some(8), ..Header::default() };
            let packet = read(frame.tcp(from, to, &header, 0)).unwrap();
            let Content::Tcp(segment) = packet.content else { panic!("{packet:?}") };
            assert_eq!((segment.longest, segment.scale, segment.payload), (Some(1460), Some(8), &b""[..]));

            frame.payload()[..4].copy_from_slice(b"ping");
            let packet = read(frame.udp(from, to, 4).unwrap()).unwrap();
            assert_eq!(packet.content, Content::Udp { from: 80, to: 4711, payload: b"ping" });
            assert_eq!(frame.udp(from, to, 65_508), None);

            let quoted = frame.unreachable(from.ip(), to.ip(), Obstacle::Host, &[1; 40]).to_vec();
            assert_eq!(read(&quoted).unwrap().content, Content::Unreachable { quoted: &[1; 40] });
        }
    }

    #[test]
    fn what_the_kernel_does_not_vouch_for_is_summed_up() {
        let mut frame = Frame::default();
        for pair in PAIRS {
            let (from, to) = ends(pair);
            frame.payload()[..3].copy_from_slice(b"odd");
            let mut bytes = frame.udp(from, to, 3).unwrap().to_vec();
            let ip = if from.is_ipv4() { 20 } else { 40 };
            let start = OFFLOAD_HEADER + ip;
            bytes[0] = 0;
            assert_eq!(read(&bytes), Err(Unfit::Malformed), "a checksum of the pseudo header alone");
            bytes[start + 6..start + 8].fill(0);
            let sum = checksum(pseudo_sum((from.ip(), to.ip()), UDP, 11), &[&bytes[start..]]);
            bytes[start + 6..start + 8].copy_from_slice(&sum.to_be_bytes());
            assert!(read(&bytes).is_ok());
            bytes[start + 8] ^= 1;
            assert_eq!(read(&bytes), Err(Unfit::Malformed));
        }
    }

    /// RFC 1071, 3.
    #[test]
    fn the_sum_is_that_of_the_books() {
        assert_eq!(checksum(0, &[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
        assert_eq!(fold(0x1_ffff), 1);
        assert_eq!(fold(u32::MAX), 0xffff);
    }

    #[test]
    fn fragments_are_told_from_nonsense() {
        let mut frame = Frame::default();
        let (from, to) = ends(PAIRS[0]);
        let whole = frame.udp(from, to, 0).unwrap().to_vec();
        for (at, value, expected) in [
            (16, 0x20, Unfit::Fragment),
            (17, 1, Unfit::Fragment),
            (19, 132, Unfit::Protocol),
            (10, 0x44, Unfit::Malformed),
            (10, 0x55, Unfit::Malformed),
            (13, 200, Unfit::Malformed),
        ] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            assert_eq!(read(&bytes), Err(expected), "{at}");
        }
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), Err(Unfit::Malformed), "{length}");
        }
    }
}
