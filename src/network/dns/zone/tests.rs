use super::*;
use crate::network::lease::{Leases, Wish};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn lease(name: &str, aliases: &[&str], addresses: &[&str]) -> Lease {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let aliases = aliases.iter().map(ToString::to_string).collect();
    Lease { addresses, name: name.to_owned(), aliases, ..Lease::default() }
}

fn zone(network: &str) -> Zone {
    let mut zone = Zone::new(Facts {
        network: Some(name(network)),
        gateways: vec!["10.89.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        subnets: vec!["10.89.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
    });
    zone.replace(BTreeMap::from([
        (ID.to_owned(), lease("Web", &["app", "web", "a.b"], &["10.89.0.2", "fd00::2"])),
        ("db1".to_owned(), lease("db1", &["db", "bad..name", ""], &["10.89.0.3"])),
        ("db2".to_owned(), lease("db2", &["db"], &["10.89.0.4"])),
    ]));
    zone
}

fn found(zone: &mut Zone, text: &str) -> String {
    match zone.find(&name(text)) {
        Found::Addresses(addresses) => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        Found::Pointer(name) => name.to_string(),
        Found::Nothing { labels } => format!("nothing {labels}"),
        Found::Foreign => "foreign".to_owned(),
    }
}

#[test]
fn containers_have_names() {
    let zone = &mut zone("my_net");
    let web = "10.89.0.2 fd00::2";
    for (asked, answer) in [
        ("web", web),
        ("WEB.My_Net", web),
        ("app", web),
        ("a.b", web),
        ("a.b.my_net", web),
        ("0123456789ab", web),
        ("db1", "10.89.0.3"),
        ("host.docker.internal", "10.89.0.1 fd00::1"),
        ("Host.Containers.Internal", "10.89.0.1 fd00::1"),
        ("localhost", "127.0.0.1 ::1"),
        ("x.localhost", "127.0.0.1 ::1"),
        ("2.0.89.10.in-addr.arpa", "Web\\.my_net"),
        ("9.0.89.10.in-addr.arpa", "nothing 1"),
        ("9.9.9.9.in-addr.arpa", "foreign"),
        ("256.0.89.10.in-addr.arpa", "foreign"),
        ("89.10.in-addr.arpa", "foreign"),
        ("gone.my_net", "nothing 1"),
        ("x.web.my_net", "nothing 2"),
        ("other", "foreign"),
        ("x.web", "foreign"),
        ("my_net", "foreign"),
        (".", "foreign"),
    ] {
        assert_eq!(found(zone, asked), answer.replace('\\', ""), "{asked}");
    }
    let reverse = |address: &str| {
        let bytes = address.parse::<Ipv6Addr>().unwrap().octets();
        let digits = bytes.iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
        let labels: Vec<String> = digits.map(|digit| format!("{digit:x}")).collect();
        format!("{}.ip6.arpa", labels.join("."))
    };
    assert_eq!(found(zone, &reverse("fd00::2")), "Web.my_net");
    assert_eq!(found(zone, &reverse("fd00::3")), "nothing 1");
    assert_eq!(found(zone, &reverse("2001:db8::1")), "foreign");
}

#[test]
fn those_who_share_a_name_take_turns() {
    let zone = &mut zone("net");
    let both = [found(zone, "db"), found(zone, "db.net")];
    assert!(both.contains(&"10.89.0.3 10.89.0.4".to_owned()), "{both:?}");
    assert!(both.contains(&"10.89.0.4 10.89.0.3".to_owned()), "{both:?}");
}

#[test]
fn what_was_a_containers_is_nobody_elses() {
    // A network may be called as a top-level domain is.
    let zone = &mut zone("app");
    assert_eq!(found(zone, "cash.app"), "foreign");
    zone.replace(BTreeMap::from([("db2".to_owned(), lease("db2", &["new"], &["10.89.0.4"]))]));
    for (asked, answer) in [
        ("web", "nothing 18446744073709551615"),
        ("web.app", "nothing 1"),
        ("db1.app", "nothing 1"),
        ("new", "10.89.0.4"),
    ] {
        assert_eq!(found(zone, asked), answer, "{asked}");
    }
    zone.replace(BTreeMap::from([("x".to_owned(), lease("web", &[], &["10.89.0.9"]))]));
    assert_eq!(found(zone, "web.app"), "10.89.0.9", "and is one's again");
    for round in 0..3 {
        zone.replace((0..GONE).map(|number| (format!("{round}-{number}"), Lease::default())).collect());
    }
    assert!(zone.gone.len() <= GONE);
}

#[test]
fn leases_are_read_when_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let folder = File::open(folder.path()).unwrap();
    let mut zone = zone("net");
    zone.refresh(folder.as_fd()).unwrap();
    assert!(!zone.is_empty(), "there was no file, and there is none");
    let mut leases = Leases::open(folder.as_fd()).unwrap();
    let pool = crate::network::lease::Pool { block: "10.89.0.0/24".parse().unwrap(), range: None, reserved: vec![] };
    let mut lease = leases.take("one", std::slice::from_ref(&pool), &Wish::default()).unwrap();
    zone.refresh(folder.as_fd()).unwrap();
    assert_eq!(zone.container("10.89.0.1".parse().unwrap()).unwrap().0, "one");
    for _ in 0..3 {
        leases.release("one", &lease).unwrap();
        zone.refresh(folder.as_fd()).unwrap();
        assert!(zone.is_empty());
        lease = leases.take("one", std::slice::from_ref(&pool), &Wish::default()).unwrap();
        zone.refresh(folder.as_fd()).unwrap();
        assert!(!zone.is_empty(), "an inode's number is not used again while the file is open");
    }
    rustix::fs::unlinkat(&folder, LEASES, AtFlags::empty()).unwrap();
    zone.refresh(folder.as_fd()).unwrap();
    assert!(zone.is_empty());
}
