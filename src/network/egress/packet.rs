//! Reads as much of a packet as the log tells of it. Every byte is the container's: lengths are checked, nothing is believed.

use std::net::IpAddr;

/// `IPPROTO_*`.
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// Headers of IPv6 that others follow (RFC 8200, 4.1), each with a length in its second byte, and so many at most.
const EXTENSIONS: [u8; 4] = [0, 43, 60, 135];
const FRAGMENT: u8 = 44;
const MOST: usize = 8;

/// Who sent what to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    /// The destination's, of protocols that have ports.
    pub(super) port: Option<u16>,
}

impl Packet {
    /// Reads a packet from its IP header on, of which the end may be missing.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => {
                let length = usize::from(bytes[0] & 0xf) * 4;
                let address = |at: usize| Some(IpAddr::from(*bytes.get(at..)?.first_chunk::<4>()?));
                Some(Self::with(address(12)?, address(16)?, *bytes.get(9)?, bytes.get(length.max(20)..)))
            }
            6 => {
                let address = |at: usize| Some(IpAddr::from(*bytes.get(at..)?.first_chunk::<16>()?));
                let (source, destination) = (address(8)?, address(24)?);
                let (mut protocol, mut rest) = (*bytes.get(6)?, bytes.get(40..));
                for _ in 0..MOST {
                    let Some(&[next, length, ..]) = rest else { break };
                    let skipped = match protocol {
                        FRAGMENT => 8,
                        _ if EXTENSIONS.contains(&protocol) => 8 + usize::from(length) * 8,
                        _ => break,
                    };
                    (protocol, rest) = (next, rest.and_then(|rest| rest.get(skipped..)));
                }
                Some(Self::with(source, destination, protocol, rest))
            }
            _ => None,
        }
    }

    fn with(source: IpAddr, destination: IpAddr, protocol: u8, rest: Option<&[u8]>) -> Self {
        let has_ports = [TCP, UDP, SCTP].contains(&protocol);
        let port = rest.filter(|_| has_ports).and_then(|rest| rest.get(2..4)?.first_chunk().copied());
        Self { source, destination, protocol, port: port.map(u16::from_be_bytes) }
    }
}

/// What a protocol is called.
pub(super) fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "icmp".to_owned(),
        TCP => "tcp".to_owned(),
        UDP => "udp".to_owned(),
        58 => "icmp6".to_owned(),
        SCTP => "sctp".to_owned(),
        other => format!("protocol-{other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(protocol: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 2, 192, 0, 2, 1];
        bytes.extend_from_slice(rest);
        bytes
    }

    fn ipv6(protocol: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        bytes.extend_from_slice(rest);
        bytes
    }

    fn text(bytes: &[u8]) -> String {
        let Some(Packet { source, destination, protocol, port }) = Packet::read(bytes) else { return String::new() };
        format!("{source} {destination} {} {port:?}", protocol_name(protocol))
    }

    #[test]
    fn what_is_there_is_told() {
        let ports = [0x80, 0, 1, 187];
        assert_eq!(text(&ipv4(6, &ports)), "10.0.0.2 192.0.2.1 tcp Some(443)");
        assert_eq!(text(&ipv4(1, &ports)), "10.0.0.2 192.0.2.1 icmp None");
        assert_eq!(text(&ipv4(47, &ports)), "10.0.0.2 192.0.2.1 protocol-47 None");
        assert_eq!(text(&ipv6(17, &ports)), "fd00::2 fd00::9 udp Some(443)");
        let behind = |kind: u8| ipv6(kind, &[&[17, 0, 0, 0, 0, 0, 0, 0][..], &ports].concat());
        for kind in EXTENSIONS.into_iter().chain([FRAGMENT]) {
            assert_eq!(text(&behind(kind)), "fd00::2 fd00::9 udp Some(443)", "{kind}");
        }
    }

    #[test]
    fn what_is_cut_or_forged_is_no_panic() {
        for whole in [ipv4(6, &[0; 20]), ipv6(0, &[0; 60]), ipv6(43, &[0, 255, 0, 0]), vec![0x4f; 30], vec![0x45; 64]] {
            for length in 0..whole.len() {
                let _ = Packet::read(&whole[..length]);
            }
        }
        assert_eq!(text(&ipv4(6, &[1, 2, 3])), "10.0.0.2 192.0.2.1 tcp None");
        assert_eq!(text(&[0x50; 40]), "");
    }
}
