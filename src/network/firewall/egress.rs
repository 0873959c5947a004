//! The part of husk's tables that keeps containers to what they may reach. Knows no names: what was learned from them is
//! put into its sets by [`learn`].
//!
//! All that a guarded container sends is decided in one place, where connections are known and a refusal can be sent: where
//! packets come in to this host, before any translation. What it sends to a neighbour would pass over the bridge without
//! coming there. So the bridge hands all of its frames to the host, which sends on what is allowed; and those of its
//! neighbours to it, so that both halves of a conversation are seen. (Not every kernel has connection tracking for bridges,
//! and none lets a rule refuse what a bridge forwards.)
//!
//! ```text
//! bridge led      prerouting -250   of a guarded container, and for it: to the bridge's own Ethernet address
//!        kept     forward      0    nothing else of a guarded container passes over the bridge
//! inet   leaving  prerouting -140   of a guarded container: to `egress`
//!        egress                     what goes on; what is granted; nothing else on this host; what was learned
//!        refused                    to the log, and an answer that says so
//!        away     forward    -10    neighbour discovery stays on the link
//! ```
//!
//! Addresses of the link alone and neighbour discovery go as ever: they lead nowhere else.

use std::net::IpAddr;
use std::time::Duration;

use rustix::io::Errno;

use super::expression::{Comparison, Connection, Expression, Header, Meta, Refusal, Register, Verdict};
use super::message::{Element, Entry, Family, Manner, Set, Table, Type, fields, interface, read_entries};
use super::{
    BRIDGE, Chain, ETHER_ARP, ETHER_IPV4, ETHER_IPV6, Endpoint, FIRST, FORWARD, Filling, Hook, ICMPV6, INET,
    NEIGHBOUR_ADVERTISEMENT, NFPROTO_IPV4, NFPROTO_IPV6, PREROUTING, Segment, WITHIN, connection_has, equal, family,
    is_in, is_not_in, link_local, octets, rule,
};
use crate::network::egress::{Grant, Way};
use crate::sys::netlink::Socket;

/// Addresses of guarded containers.
const GUARDED_IPV4: Set = Set { name: "guarded4", key: &[Type::IPV4], value: &[] };
const GUARDED_IPV6: Set = Set { name: "guarded6", key: &[Type::IPV6], value: &[] };

/// From where, where to, by which protocol and at which port: what is granted to blocks, and what was learned of addresses.
const KEY_IPV4: &[Type] = &[Type::IPV4, Type::IPV4, Type::PROTOCOL, Type::PORT];
const KEY_IPV6: &[Type] = &[Type::IPV6, Type::IPV6, Type::PROTOCOL, Type::PORT];
const GRANTED_IPV4: Set = Set { name: "granted4", key: KEY_IPV4, value: &[] };
const GRANTED_IPV6: Set = Set { name: "granted6", key: KEY_IPV6, value: &[] };
const LEARNED_IPV4: Set = Set { name: "learned4", key: KEY_IPV4, value: &[] };
const LEARNED_IPV6: Set = Set { name: "learned6", key: KEY_IPV6, value: &[] };

/// Who was refused something of late, for as long as that is counted.
const LOUD_IPV4: Set = Set { name: "loud4", key: &[Type::IPV4], value: &[] };
const LOUD_IPV6: Set = Set { name: "loud6", key: &[Type::IPV6], value: &[] };

/// The bridge's Ethernet address by the port of a guarded container, and by the container's addresses.
const LED: Set = Set { name: "led", key: &[Type::INTERFACE], value: &[Type::ETHERNET] };
const LED_IPV4: Set = Set { name: "led4", key: &[Type::IPV4], value: &[Type::ETHERNET] };
const LED_IPV6: Set = Set { name: "led6", key: &[Type::IPV6], value: &[Type::ETHERNET] };

pub(super) const SETS: [(Family, Set, Manner); 11] = [
    (INET, GUARDED_IPV4, Manner::Plain),
    (INET, GUARDED_IPV6, Manner::Plain),
    (INET, GRANTED_IPV4, Manner::Ranges),
    (INET, GRANTED_IPV6, Manner::Ranges),
    (INET, LEARNED_IPV4, Manner::Forgets(LEARNED)),
    (INET, LEARNED_IPV6, Manner::Forgets(LEARNED)),
    (INET, LOUD_IPV4, Manner::Noted(LOUD)),
    (INET, LOUD_IPV6, Manner::Noted(LOUD)),
    (BRIDGE, LED, Manner::Plain),
    (BRIDGE, LED_IPV4, Manner::Plain),
    (BRIDGE, LED_IPV6, Manner::Plain),
];

/// Room for what is learned of one family, and for who is refused something.
const LEARNED: u32 = 1 << 16;
const LOUD: u32 = 1 << 14;

/// Refusals that are logged of one container: so many at first, and then so many a second.
const LOGGED_AT_FIRST: u32 = 50;
const LOGGED_EACH_SECOND: u64 = 5;
const QUIET: Duration = Duration::from_mins(1);

/// Of a refused packet, this much is handed on: headers, and none of what it carries but for the first bytes.
const LOGGED_BYTES: u32 = 128;

const NEIGHBOUR_SOLICITATION: u8 = 135;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;

/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`.
const ESTABLISHED: u32 = 0x2;
/// `NF_CT_STATE_BIT(IP_CT_NEW)` and `IP_CT_UNTRACKED`'s: not what comes late, when its conversation is over.
const BEGINS: u32 = 0x8 | 0x40;
/// `RTN_UNICAST`, `RTN_BROADCAST`, `RTN_MULTICAST`.
const UNICAST: u32 = 1;
const BROADCAST: u32 = 3;
const MULTICAST: u32 = 5;
/// `PACKET_HOST`, `PACKET_OTHERHOST` of linux/if_packet.h.
const FOR_US: u8 = 0;
const FOR_ANOTHER: u8 = 3;

/// A container's bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The Ethernet address of its bridge.
    pub bridge: [u8; 6],
    pub grants: Vec<Grant>,
}

/// An address that a container has learned by a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Learned {
    pub from: IpAddr,
    pub to: IpAddr,
    pub way: Way,
}

/// A group of nfnetlink_log for what is refused in a network: its own, as far as a hash of 16 bits goes. Who finds it taken
/// keeps no log.
pub fn group_of(table: &str, interface: &str) -> u16 {
    let bytes = table.bytes().chain([0]).chain(interface.bytes());
    // FNV-1a.
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // The low ones are everybody's: ulogd's and ipt_ULOG's examples have 0 to 32.
    let [high, low, ..] = (hash ^ hash >> 16).to_le_bytes();
    u16::from_le_bytes([high, low]) | 0x4000
}

/// What is in sets and maps because of containers that are guarded.
pub(super) fn elements(endpoints: &[Endpoint]) -> Result<Filling, Errno> {
    let (mut v4, mut v6, mut led, mut led4, mut led6) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (endpoint, bounds) in guarded(endpoints) {
        let value = Some(bounds.bridge.to_vec());
        led.push(Element { key: interface(&endpoint.port)?.to_vec(), value: value.clone() });
        for address in &endpoint.addresses {
            let (guarded, led) = if address.is_ipv4() { (&mut v4, &mut led4) } else { (&mut v6, &mut led6) };
            guarded.push(Element { key: octets(*address), value: None });
            led.push(Element { key: octets(*address), value: value.clone() });
        }
        if endpoint.addresses.iter().any(IpAddr::is_ipv6) {
            v6.push(Element { key: link_local(endpoint.mac).octets().to_vec(), value: None });
        }
    }
    Ok(vec![
        (INET, GUARDED_IPV4, v4),
        (INET, GUARDED_IPV6, v6),
        (BRIDGE, LED, led),
        (BRIDGE, LED_IPV4, led4),
        (BRIDGE, LED_IPV6, led6),
    ])
}

/// What is in the sets of ranges because of them.
pub(super) fn grants(endpoints: &[Endpoint]) -> Vec<(Set, Vec<Entry>)> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (endpoint, bounds) in guarded(endpoints) {
        for from in &endpoint.addresses {
            for grant in bounds.grants.iter().filter(|grant| grant.block.is_ipv6() == from.is_ipv6()) {
                let Grant { block, protocol, ports } = grant;
                let key = |to, port| key(*from, to, Way { protocol: *protocol, port });
                let entry = Entry {
                    key: key(block.first(), *ports.start()),
                    last: Some(key(block.last(), *ports.end())),
                    life: None,
                };
                if from.is_ipv4() { v4.push(entry) } else { v6.push(entry) }
            }
        }
    }
    [(GRANTED_IPV4, v4), (GRANTED_IPV6, v6)].into_iter().filter(|(_, entries)| !entries.is_empty()).collect()
}

fn guarded(endpoints: &[Endpoint]) -> impl Iterator<Item = (&Endpoint, &Bounds)> {
    endpoints.iter().filter_map(|endpoint| endpoint.bounds.as_ref().map(|bounds| (endpoint, bounds)))
}

fn key(from: IpAddr, to: IpAddr, way: Way) -> Vec<u8> {
    fields(&[&octets(from), &octets(to), &[way.protocol], &way.port.to_be_bytes()])
}

/// Lets containers reach what they have learned, for so long from now; what they had learned of it before lives as long. What
/// is forgotten they reach no more. Fails with ENOENT where there are no tables, and with ENFILE where there is no room.
pub fn learn(
    socket: &Socket,
    table: &str,
    learned: &[Learned],
    life: Duration,
    forgotten: &[Learned],
) -> Result<(), Errno> {
    let life = u64::try_from(life.as_millis()).ok();
    let table = Table { family: INET, name: table };
    let mut messages = Vec::new();
    for (set, is_ipv6) in [(LEARNED_IPV4, false), (LEARNED_IPV6, true)] {
        for (all, stays) in [(forgotten, false), (learned, true)] {
            let of_family = all.iter().filter(|one| one.to.is_ipv6() == is_ipv6 && one.from.is_ipv6() == is_ipv6);
            let entries: Vec<Entry> =
                of_family.map(|one| Entry { key: key(one.from, one.to, one.way), last: None, life }).collect();
            for some in entries.chunks(super::ELEMENTS_A_MESSAGE) {
                // Before Linux 6.12 the life of what is there cannot be changed. So it is made to be there, taken away, and
                // put there again: in one transaction, of which nobody sees the middle.
                messages.push(table.add_entries(set.name, some)?);
                messages.push(table.delete_entries(set.name, some)?);
                if stays {
                    messages.push(table.add_entries(set.name, some)?);
                }
            }
        }
    }
    if messages.is_empty() {
        return Ok(());
    }
    socket.transact(super::message::SUBSYSTEM, messages).map_err(|(_, errno)| errno)
}

/// Whether a container may reach it by what it has learned.
pub fn knows(socket: &Socket, table: &str, learned: &Learned) -> Result<bool, Errno> {
    let set = if learned.to.is_ipv6() { LEARNED_IPV6 } else { LEARNED_IPV4 };
    let request =
        Table { family: INET, name: table }.find_element(set.name, &key(learned.from, learned.to, learned.way))?;
    match socket.call(request, |_| ()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// What has been learned by those whose addresses pass, with the life that is left; nothing where there are no tables.
pub(super) fn learned(socket: &Socket, table: Table<'_>, passes: &dyn Fn(&[u8]) -> bool) -> Vec<(Set, Vec<Entry>)> {
    let mut found = Vec::new();
    for (set, length) in [(LEARNED_IPV4, 4), (LEARNED_IPV6, 16)] {
        let mut entries = Vec::new();
        let listed = table
            .list_elements(set.name)
            .and_then(|request| socket.call(request, |body| entries.extend(read_entries(body))));
        entries.retain(|entry| entry.key.get(..length).is_some_and(passes) && entry.life.is_none_or(|life| life > 0));
        if listed.is_ok() && !entries.is_empty() {
            found.push((set, entries));
        }
    }
    found
}

/// The addresses of guarded containers, as keys begin with them.
pub(super) fn sources(endpoints: &[Endpoint]) -> Vec<Vec<u8>> {
    guarded(endpoints).flat_map(|(endpoint, _)| endpoint.addresses.iter().map(|address| octets(*address))).collect()
}

pub(super) fn chains<'a>(table: &str, segments: &[Segment]) -> Vec<Chain<'a>> {
    let filter = |number, priority| Some(Hook { kind: "filter", number, priority });
    vec![
        // Those without a hook first: rules that jump name them.
        Chain { family: INET, name: "refused", hook: None, rules: refused(table, segments) },
        Chain { family: INET, name: "egress", hook: None, rules: egress() },
        // Behind connection tracking (-200), and before addresses are translated (-100).
        Chain { family: INET, name: "leaving", hook: filter(PREROUTING, -140), rules: leaving() },
        Chain { family: INET, name: "away", hook: filter(FORWARD, -10), rules: away() },
        Chain { family: BRIDGE, name: "led", hook: filter(PREROUTING, -250), rules: lead() },
        Chain { family: BRIDGE, name: "kept", hook: filter(FORWARD, 0), rules: keep() },
    ]
}

/// What differs between the families: their number, where addresses are, and how long.
struct Version {
    number: u8,
    ether: [u8; 2],
    source: u32,
    destination: u32,
    length: u32,
    guarded: Set,
    granted: Set,
    learned: Set,
    loud: Set,
    led: Set,
}

const VERSIONS: [Version; 2] = [
    Version {
        number: NFPROTO_IPV4,
        ether: ETHER_IPV4,
        source: 12,
        destination: 16,
        length: 4,
        guarded: GUARDED_IPV4,
        granted: GRANTED_IPV4,
        learned: LEARNED_IPV4,
        loud: LOUD_IPV4,
        led: LED_IPV4,
    },
    Version {
        number: NFPROTO_IPV6,
        ether: ETHER_IPV6,
        source: 8,
        destination: 24,
        length: 16,
        guarded: GUARDED_IPV6,
        granted: GRANTED_IPV6,
        learned: LEARNED_IPV6,
        loud: LOUD_IPV6,
        led: LED_IPV6,
    },
];

fn address<'a>(offset: u32, length: u32, into: Register) -> Expression<'a> {
    Expression::Payload { header: Header::Network, offset, length, into }
}

fn leaving<'a>() -> Vec<Vec<Expression<'a>>> {
    let of = |version: &Version| {
        let source = address(version.source, version.length, FIRST);
        rule(&[&family(version.number), &[source, is_in(version.guarded.name)]], Verdict::Jump("egress"))
    };
    VERSIONS.iter().map(of).collect()
}

/// A router sends on what looks like neighbour discovery, as it does anything else.
fn away<'a>() -> Vec<Vec<Expression<'a>>> {
    let source = || [address(8, 16, FIRST), is_in(GUARDED_IPV6.name)];
    let pair = [
        Expression::Meta { key: Meta::IncomingName, into: FIRST },
        Expression::Meta { key: Meta::OutgoingName, into: Register::word(4) },
        is_not_in(WITHIN.name),
    ];
    let drop = |kind| rule(&[&family(NFPROTO_IPV6), &source(), &is_discovery(kind), &pair], Verdict::Drop);
    vec![drop(NEIGHBOUR_SOLICITATION), drop(NEIGHBOUR_ADVERTISEMENT)]
}

/// How much of a key is asked for; what is not is any.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Precision {
    Port,
    Protocol,
    Address,
}

fn egress<'a>() -> Vec<Vec<Expression<'a>>> {
    let is_near = [
        Expression::DestinationType { into: FIRST },
        Expression::Compare { register: FIRST, comparison: Comparison::NotEqual, with: UNICAST.to_ne_bytes().to_vec() },
    ];
    let to_everybody = [Expression::DestinationType { into: FIRST }, equal(&BROADCAST.to_ne_bytes())];
    let mut rules = vec![
        // Not what is only related to a conversation: an ICMP error is that by what it quotes, whoever sends it.
        rule(&[&connection_has(Connection::State, ESTABLISHED)], Verdict::Accept),
        // A block that is granted has the host's networks in it, perhaps: of those, single addresses.
        rule(&[&to_everybody], Verdict::Jump("refused")),
    ];
    // Neighbour discovery, of which connection tracking knows nothing; `away` keeps it here. With br_netfilter that of its
    // neighbours comes by here, too, on its way over the bridge.
    for kind in [NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT] {
        rules.push(rule(&[&family(NFPROTO_IPV6), &is_discovery(kind)], Verdict::Accept));
    }
    for version in &VERSIONS {
        for precision in [Precision::Port, Precision::Address] {
            rules.push(reaches(version, version.granted.name, precision));
        }
    }
    // Whoever has an allowed name may say that it is this host, by an address that it shares (anycast), too: that takes a
    // word of who started the container.
    rules.push(rule(&[&is_near], Verdict::Jump("refused")));
    for version in &VERSIONS {
        for precision in [Precision::Port, Precision::Protocol, Precision::Address] {
            rules.push(reaches(version, version.learned.name, precision));
        }
    }
    rules.push(rule(&[], Verdict::Jump("refused")));
    rules
}

fn reaches<'a>(version: &Version, set: &'a str, precision: Precision) -> Vec<Expression<'a>> {
    let words = version.length / 4;
    let (protocol, port) = (Register::word(2 * words), Register::word(2 * words + 1));
    let any = |into| Expression::Load { value: vec![0; 4], into };
    let key = [
        address(version.source, version.length, FIRST),
        address(version.destination, version.length, Register::word(words)),
        match precision {
            Precision::Address => any(protocol),
            _ => Expression::Meta { key: Meta::Transport, into: protocol },
        },
        match precision {
            Precision::Port => Expression::Payload { header: Header::Transport, offset: 2, length: 2, into: port },
            _ => any(port),
        },
    ];
    rule(&[&family(version.number), &key, &[is_in(set)]], Verdict::Accept)
}

fn is_discovery<'a>(kind: u8) -> [Expression<'a>; 4] {
    [
        Expression::Meta { key: Meta::Transport, into: FIRST },
        equal(&[ICMPV6]),
        Expression::Payload { header: Header::Transport, offset: 0, length: 1, into: FIRST },
        equal(&[kind]),
    ]
}

/// Nothing comes back from here.
fn refused<'a>(table: &str, segments: &[Segment]) -> Vec<Vec<Expression<'a>>> {
    let mut rules = Vec::new();
    // What systems tell whom it may concern, by themselves: nobody asked, and nobody is to be told.
    for kind in [BROADCAST, MULTICAST] {
        let to = [Expression::DestinationType { into: FIRST }, equal(&kind.to_ne_bytes())];
        rules.push(rule(&[&to], Verdict::Drop));
    }
    for segment in segments {
        let Ok(name) = interface(&segment.interface) else { continue };
        let group = group_of(table, &segment.interface);
        for version in &VERSIONS {
            let by = [Expression::Meta { key: Meta::IncomingName, into: FIRST }, equal(&name)];
            let told = [
                address(version.source, version.length, FIRST),
                Expression::Limit {
                    set: version.loud.name,
                    from: FIRST,
                    each_second: LOGGED_EACH_SECOND,
                    at_first: LOGGED_AT_FIRST,
                    forgotten_after: QUIET.as_secs() * 1000,
                },
                Expression::Log { group, length: LOGGED_BYTES },
            ];
            let begins = connection_has(Connection::State, BEGINS);
            rules.push([&family(version.number)[..], &begins, &by, &told].concat());
        }
    }
    let is_tcp = [Expression::Meta { key: Meta::Transport, into: FIRST }, equal(&[TCP])];
    rules.push([&is_tcp[..], &[Expression::Count, Expression::Refuse(Refusal::Reset)]].concat());
    rules.push(vec![Expression::Count, Expression::Refuse(Refusal::Prohibited)]);
    rules
}

fn is_ether<'a>(kind: [u8; 2]) -> [Expression<'a>; 2] {
    [Expression::Meta { key: Meta::Protocol, into: FIRST }, equal(&kind)]
}

/// The word from which on an Ethernet address is found, behind the longest key.
const ETHERNET: Register = Register::word(4);

fn of_guarded<'a>() -> [Expression<'a>; 2] {
    [
        Expression::Meta { key: Meta::IncomingName, into: FIRST },
        Expression::Lookup { set: LED.name, from: FIRST, into: Some(ETHERNET), is_inverted: false },
    ]
}

fn lead<'a>() -> Vec<Vec<Expression<'a>>> {
    let to_bridge = || {
        [
            Expression::Write { header: Header::Link, offset: 0, length: 6, from: ETHERNET },
            Expression::Load { value: vec![FOR_US], into: FIRST },
            Expression::SetMeta { key: Meta::Addressee, from: FIRST },
        ]
    };
    let discovery = |kind| rule(&[&is_ether(ETHER_IPV6), &is_discovery(kind)], Verdict::Accept);
    let mut rules = vec![discovery(NEIGHBOUR_SOLICITATION), discovery(NEIGHBOUR_ADVERTISEMENT)];
    for version in &VERSIONS {
        let ether = is_ether(version.ether);
        rules.push(rule(&[&ether, &of_guarded(), &to_bridge()], Verdict::Accept));
        // What is for the bridge anyway is not changed.
        let is_anothers = [Expression::Meta { key: Meta::Addressee, into: FIRST }, equal(&[FOR_ANOTHER])];
        let to_guarded = [
            address(version.destination, version.length, FIRST),
            Expression::Lookup { set: version.led.name, from: FIRST, into: Some(ETHERNET), is_inverted: false },
        ];
        rules.push(rule(&[&is_anothers, &ether, &to_guarded, &to_bridge()], Verdict::Accept));
    }
    rules
}

fn keep<'a>() -> Vec<Vec<Expression<'a>>> {
    let passes = |what: &[Expression<'a>]| rule(&[&of_guarded(), what], Verdict::Accept);
    let discovery = |kind| passes(&[&is_ether(ETHER_IPV6)[..], &is_discovery(kind)].concat());
    vec![
        passes(&is_ether(ETHER_ARP)),
        discovery(NEIGHBOUR_SOLICITATION),
        discovery(NEIGHBOUR_ADVERTISEMENT),
        rule(&[&of_guarded()], Verdict::Drop),
    ]
}
