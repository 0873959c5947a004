//! Published sockets that others hold, and of both families, with a pair of sockets in place of the device.

use std::net::{TcpListener, TcpStream, UdpSocket};

use rustix::net::{AddressFamily, RecvFlags, SocketType};

use super::*;
use crate::network::rootless::world::GATEWAYS;

fn translator() -> (Translator, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (device, packets) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None).unwrap();
    (Translator::new(device, Policy { gateways: GATEWAYS, reaches_host: false }, 1024).unwrap(), packets)
}

#[test]
fn a_socket_that_others_hold_is_not_heard_once_withdrawn() {
    let (mut translator, _packets) = translator();
    let (streams, datagrams) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let guest = "10.89.0.2:80".parse().unwrap();
    translator.publish("one", false, guest, streams.try_clone().unwrap().into()).unwrap();
    translator.publish("one", true, guest, datagrams.try_clone().unwrap().into()).unwrap();
    let _caller = TcpStream::connect(streams.local_addr().unwrap()).unwrap();
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"hi", datagrams.local_addr().unwrap()).unwrap();
    let mut happened = Vec::new();
    translator.wait(&mut happened, Some(Duration::ZERO)).unwrap();
    assert_eq!(happened.len(), 2);
    translator.withdraw("one");
    translator.wait(&mut happened, Some(Duration::ZERO)).unwrap();
    assert!(happened.is_empty(), "{happened:?}");
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that does not run says so")]
fn a_socket_of_both_families_leads_each_to_its_own_address() {
    let (mut translator, packets) = translator();
    let Ok(both) = UdpSocket::bind("[::]:0") else {
        eprintln!("skipped: no IPv6 here");
        return;
    };
    let port = both.local_addr().unwrap().port();
    for guest in ["10.89.0.2:53", "[fd00::53]:53"] {
        translator.publish("one", true, guest.parse().unwrap(), both.try_clone().unwrap().into()).unwrap();
    }
    assert_eq!(translator.counts().2, 1);
    let mut happened = Vec::new();
    for (host, version) in [("127.0.0.1", 4), ("::1", 6)] {
        let caller = UdpSocket::bind((host, 0)).unwrap();
        caller.send_to(b"hi", (host, port)).unwrap();
        translator.wait(&mut happened, Some(Duration::ZERO)).unwrap();
        for event in std::mem::take(&mut happened) {
            translator.handle(event);
        }
        let mut buffer = [0; 256];
        rustix::net::recv(&packets, &mut buffer[..], RecvFlags::empty()).unwrap();
        assert_eq!(buffer[OFFLOAD_HEADER] >> 4, version);
        // The answer goes back through the same socket.
        let (guest, gateway): (SocketAddr, IpAddr) = if version == 4 {
            ("10.89.0.2:53".parse().unwrap(), GATEWAYS.v4.into())
        } else {
            ("[fd00::53]:53".parse().unwrap(), GATEWAYS.v6.into())
        };
        let own = caller.local_addr().unwrap();
        let called = translator.datagrams.called_from(Protocol::Udp, guest, SocketAddr::new(gateway, own.port()));
        assert_eq!(called, Some(own));
    }
    translator.withdraw("one");
    assert_eq!(translator.counts().2, 0);
}
