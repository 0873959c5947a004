use std::time::Duration;

use super::egress::Learned;
use super::*;
use crate::network::egress::{Policy, Way};
use crate::network::tests::in_own_namespace;

const TABLES: Firewall<'_> = Firewall { name: NAME, gate: None };

fn segment(interface: &str, subnets: &[(&str, u8)], is_internal: bool) -> Segment {
    let subnets = subnets.iter().map(|(address, prefix)| (address.parse().unwrap(), *prefix)).collect();
    Segment {
        interface: interface.to_owned(),
        subnets,
        is_internal,
        masquerades: true,
        connects_containers: true,
        led: Vec::new(),
    }
}

fn endpoint(port: &str) -> Endpoint {
    let published = |host: Option<&str>, to: &str| Published {
        protocol: 6,
        host: host.map(|host| host.parse().unwrap()),
        host_port: 8080,
        to: to.parse().unwrap(),
        to_port: 80,
    };
    Endpoint {
        port: port.to_owned(),
        mac: [2, 66, 10, 89, 0, 2],
        addresses: vec!["10.89.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        published: vec![
            published(None, "10.89.0.2"),
            published(None, "fd00::2"),
            published(Some("192.0.2.1"), "10.89.0.2"),
            published(Some("2001:db8::1"), "fd00::2"),
        ],
        bounds: None,
    }
}

#[test]
fn the_kernel_takes_the_tables_and_what_comes_and_goes() {
    in_own_namespace(|| {
        let segments = [segment("husk0", &[("10.89.0.0", 16), ("fd00::", 64)], false), segment("hk-1", &[], true)];
        let socket = open_socket().unwrap();
        let early = TABLES.add(&socket, &[endpoint("vh1")]).unwrap_err();
        assert_eq!(early.errno(), Some(Errno::NOENT), "there are no tables yet");
        assert!(!TABLES.knows(&socket, "husk0").unwrap());
        TABLES.write(&socket, false, &segments, &[endpoint("vh1")], &Apart::default()).unwrap();
        let known = ["husk0", "hk-1", "hk-2"].map(|bridge| TABLES.knows(&socket, bridge).unwrap());
        assert_eq!(known, [true, true, false]);
        let again = TABLES.add(&socket, &[endpoint("vh1")]);
        assert!(again.is_ok(), "what is there is there: {again:?}");
        TABLES.remove(&open_socket().unwrap(), &[endpoint("vh1")]).unwrap();
        assert_eq!(TABLES.remove(&open_socket().unwrap(), &[endpoint("vh1")]).unwrap_err().errno(), Some(Errno::NOENT));
        TABLES.add(&open_socket().unwrap(), &[endpoint("vh1")]).unwrap();
        // More than fits into one message.
        let many: Vec<Endpoint> =
            (0..1000).map(|number| Endpoint { published: vec![], ..endpoint(&format!("v{number}")) }).collect();
        TABLES.write(&socket, false, &segments, &many, &Apart::default()).unwrap();
        assert!(TABLES.is_there(&socket).unwrap());
        TABLES.clear(&socket).unwrap();
        TABLES.clear(&socket).unwrap();
        assert!(!TABLES.is_there(&socket).unwrap());
    });
}

#[test]
fn names_that_are_no_interface_are_refused() {
    let error = TABLES
        .write(&open_socket().unwrap(), false, &[segment("a-name-of-16-byt", &[], false)], &[], &Apart::default())
        .unwrap_err();
    assert_eq!(error.errno(), Some(Errno::MSGSIZE), "{error}");
}

#[test]
fn masks_are_of_bits() {
    assert_eq!(mask(4, 20), [255, 255, 240, 0]);
    assert_eq!(mask(4, 0), [0; 4]);
    assert_eq!(mask(4, 99), [255; 4]);
}

#[test]
fn a_link_s_own_address_is_of_its_mac() {
    assert_eq!(link_local([0x02, 0x42, 0xac, 0x11, 0, 2]).to_string(), "fe80::42:acff:fe11:2");
}

#[test]
fn the_kernel_keeps_the_bounds_of_containers() {
    in_own_namespace(|| {
        let allow =
            ["allow=10.0.0.0/8:443,10.1.0.0/16:400-500/tcp,10.1.2.3,[2001:db8::/32]:80-90,192.0.2.9".to_owned()];
        let allow = Policy::parse(&allow).unwrap().unwrap();
        let bounds = egress::Bounds {
            bridge: [2, 66, 10, 89, 0, 1],
            grants: allow.grants(&["10.89.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]),
        };
        let guarded = |port: &str, last: u8| Endpoint {
            addresses: vec![[10, 89, 0, last].into(), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into()],
            bounds: Some(bounds.clone()),
            published: Vec::new(),
            ..endpoint(port)
        };
        let segments = [segment("husk0", &[("10.89.0.0", 16), ("fd00::", 64)], false)];
        let socket = open_socket().unwrap();
        TABLES.write(&socket, false, &segments, &[endpoint("vh1")], &Apart::default()).unwrap();
        let early = TABLES.add(&socket, &[guarded("vh2", 3)]).unwrap_err();
        assert_eq!(early.errno(), Some(Errno::NOENT), "who has nobody to guard has no such sets");
        TABLES.write(&socket, false, &segments, &[endpoint("vh1"), guarded("vh2", 3)], &Apart::default()).unwrap();
        TABLES.add(&socket, &[guarded("vh3", 4)]).unwrap();
        TABLES.add(&socket, &[guarded("vh3", 4)]).unwrap();
        let learned = |last: u8, to: &str, port: u16| Learned {
            from: if to.contains(':') {
                Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into()
            } else {
                [10, 89, 0, last].into()
            },
            to: to.parse().unwrap(),
            way: Way { protocol: 6, port },
        };
        let all = [learned(3, "192.0.2.1", 443), learned(3, "2001:db8::1", 443), learned(4, "192.0.2.1", 443)];
        let know = || all.map(|one| egress::knows(&socket, NAME, &one).unwrap());
        for life in [100_000, 200_000] {
            egress::learn(&socket, NAME, &all, Duration::from_millis(life), &[]).unwrap();
            assert_eq!(know(), [true; 3]);
        }
        let lives = |which: &dyn Fn(&[u8]) -> bool| -> Vec<u64> {
            let found = egress::learned(&socket, TABLES.table(Family::Inet), which);
            found.into_iter().flat_map(|(_, entries)| entries).filter_map(|entry| entry.life).collect()
        };
        assert!(
            lives(&|_| true).iter().all(|life| (150_000..=200_000).contains(life)),
            "they live as long as was said last"
        );
        // Written anew, who is guarded keeps what it knows, and nobody else does.
        TABLES.write(&socket, false, &segments, &[endpoint("vh1"), guarded("vh2", 3)], &Apart::default()).unwrap();
        assert_eq!(know(), [true, true, false]);
        assert!(lives(&|_| true).iter().all(|life| (150_000..=200_000).contains(life)));
        TABLES.remove(&socket, &[guarded("vh2", 3)]).unwrap();
        assert_eq!(know(), [false; 3]);
        TABLES.add(&socket, &[guarded("vh2", 3)]).unwrap();
        egress::learn(&socket, NAME, &all[..1], Duration::from_mins(1), &[]).unwrap();
        egress::learn(&socket, NAME, &all[1..2], Duration::from_mins(1), &[all[0], all[2]]).unwrap();
        assert_eq!(know(), [false, true, false], "what is forgotten need not be known");
        TABLES.remove(&socket, &[guarded("vh2", 3)]).unwrap();
        // One whose life has ended is no hindrance.
        TABLES.add(&socket, &[guarded("vh2", 3)]).unwrap();
        egress::learn(&socket, NAME, &all, Duration::from_millis(1), &[]).unwrap();
        TABLES.remove(&socket, &[guarded("vh2", 3)]).unwrap();
        TABLES.clear(&socket).unwrap();
        let gone = egress::learn(&socket, NAME, &all, Duration::from_secs(1), &[]).unwrap_err();
        assert_eq!(gone, Errno::NOENT, "there is nothing to learn into");
    });
}
