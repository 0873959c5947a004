//! Which addresses are this host's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// For documentation, and so nobody's (RFC 5737, RFC 3849).
const NOBODYS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfffe))];

/// Whether an address is one of this network namespace's: only there can a socket be. Where sockets can be anywhere
/// (`net.ipv4.ip_nonlocal_bind`, as keepalived has it), it is one from which this host would call itself.
pub(super) fn is_own(address: IpAddr) -> bool {
    let binds = |address: IpAddr| UdpSocket::bind((address, 0)).ok();
    if binds(address).is_none() {
        return false;
    }
    if binds(NOBODYS[usize::from(address.is_ipv6())]).is_none() {
        return true;
    }
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // Sends nothing. Whoever is asked for is only looked up.
    let calls_itself = |socket: &UdpSocket| {
        socket.connect((address, 9)).is_ok() && socket.local_addr().is_ok_and(|source| source.ip() == address)
    };
    binds(any).is_some_and(|socket| calls_itself(&socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::tests::in_own_namespace;

    #[test]
    fn own_addresses_are_told_from_others() {
        in_own_namespace(|| {
            crate::sys::net::bring_up_loopback().unwrap();
            let near = "10.89.0.1".parse().unwrap();
            let at = crate::network::link::InterfaceAddress { address: near, block: "10.89.0.0/24".parse().unwrap() };
            crate::network::link::make_bridge("near", None, &[at]).unwrap();
            let others: [IpAddr; 2] = ["10.89.0.9".parse().unwrap(), "198.51.100.1".parse().unwrap()];
            for setting in ["0", "1"] {
                let mut file =
                    std::fs::OpenOptions::new().write(true).open("/proc/sys/net/ipv4/ip_nonlocal_bind").unwrap();
                std::io::Write::write_all(&mut file, setting.as_bytes()).unwrap();
                assert!(is_own(near) && is_own(Ipv4Addr::LOCALHOST.into()), "ip_nonlocal_bind={setting}");
                assert!(!others.into_iter().any(is_own), "ip_nonlocal_bind={setting}");
            }
        });
    }
}
