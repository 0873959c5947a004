//! husk's tables in nf_tables: address translation, isolation and published ports in `inet husk`, and in `bridge husk` what
//! keeps a container from sending in another's name. Other tables are looked at and never changed.
//!
//! The tables are a function of the networks and of who is in them, and hold nothing else: they are written whole in one
//! transaction, and whoever finds them gone or old writes them anew. In between, a container that comes or goes is
//! elements of sets.
//!
//! ```text
//! inet   guard    prerouting -300   nobody on a bridge speaks to this host's loopback addresses
//!        incoming prerouting -100 ┐ to an address of this host: by protocol, address and port, then by
//!        own      output     -100 ┘ protocol and port, to a container
//!        outgoing postrouting 100  from a network to elsewhere: in this host's name
//!        between  forward      0   to a bridge: what goes on; within one network; what was published; nothing else
//! bridge source   prerouting -300  from a container's port: its MAC and its addresses, in frames and in ARP
//! ```
//!
//! What containers may reach that may not reach everything is in [`egress`].

pub mod egress;
pub mod expression;
pub mod foreign;
pub mod keeper;
pub mod message;
pub mod stand_ins;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::io::Errno;

use self::expression::{Comparison, Connection, Expression, Header, Meta, Register, Translation, Verdict};
use self::message::{Element, Entry, Family, Hook, Manner, Set, Table, Type, fields, interface};
use super::forwarding::Apart;
use crate::error::{Context, Error, Result};
use crate::sys::netlink::{Request, Socket};

/// The name of the tables of who runs containers with the directories of the system; others have one of their own.
pub const NAME: &str = "husk";

/// Interfaces of networks; of those that are cut off; pairs that are one network.
const BRIDGES: Set = Set { name: "bridges", key: &[Type::INTERFACE], value: &[] };
const INTERNAL: Set = Set { name: "internal", key: &[Type::INTERFACE], value: &[] };
/// Interfaces of this host that are none of a network's, and between which it forwards nothing, by the family.
const APART_IPV4: Set = Set { name: "apart4", key: &[Type::INTERFACE], value: &[] };
const APART_IPV6: Set = Set { name: "apart6", key: &[Type::INTERFACE], value: &[] };
const WITHIN: Set = Set { name: "within", key: &[Type::INTERFACE, Type::INTERFACE], value: &[] };

/// Published ports: at an address of the host, and at any.
const AT_IPV4: Set =
    Set { name: "published_at4", key: &[Type::PROTOCOL, Type::IPV4, Type::PORT], value: &[Type::IPV4, Type::PORT] };
const ANY_IPV4: Set = Set { name: "published4", key: &[Type::PROTOCOL, Type::PORT], value: &[Type::IPV4, Type::PORT] };
const AT_IPV6: Set =
    Set { name: "published_at6", key: &[Type::PROTOCOL, Type::IPV6, Type::PORT], value: &[Type::IPV6, Type::PORT] };
const ANY_IPV6: Set = Set { name: "published6", key: &[Type::PROTOCOL, Type::PORT], value: &[Type::IPV6, Type::PORT] };

/// The containers' ports of bridges, and in whose name each may speak.
const PORTS: Set = Set { name: "ports", key: &[Type::INTERFACE], value: &[] };
const PINNED_MAC: Set = Set { name: "pinned", key: &[Type::INTERFACE, Type::ETHERNET], value: &[] };
const PINNED_IPV4: Set = Set { name: "pinned4", key: &[Type::INTERFACE, Type::IPV4], value: &[] };
const PINNED_IPV6: Set = Set { name: "pinned6", key: &[Type::INTERFACE, Type::IPV6], value: &[] };

/// Ether types, as in a frame.
const ETHER_IPV4: [u8; 2] = 0x0800_u16.to_be_bytes();
const ETHER_IPV6: [u8; 2] = 0x86dd_u16.to_be_bytes();
const ETHER_ARP: [u8; 2] = 0x0806_u16.to_be_bytes();

/// `IPPROTO_ICMPV6`, and types of its messages (RFC 4861).
const ICMPV6: u8 = 58;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)` and `…RELATED`; `IPS_DST_NAT`.
const GOES_ON: u32 = 0x2 | 0x4;
const WAS_PUBLISHED: u32 = 0x20;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;

/// Elements of one message: its list has a length of 16 bits.
const ELEMENTS_A_MESSAGE: usize = 256;

/// A network as the tables see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The bridge.
    pub interface: String,
    /// Addresses of its containers, with the length of the prefix.
    pub subnets: Vec<(IpAddr, u8)>,
    /// Nothing of it goes elsewhere, and nothing comes in.
    pub is_internal: bool,
    /// What goes elsewhere goes in this host's name.
    pub masquerades: bool,
    /// Its containers are in reach of each other.
    pub connects_containers: bool,
    /// What is for ports of this host in it that others have, and hears at other ones.
    pub led: Vec<Published>,
}

/// A container's connection to a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The host's end of its link, a port of the bridge.
    pub port: String,
    pub mac: [u8; 6],
    pub addresses: Vec<IpAddr>,
    pub published: Vec<Published>,
    /// What it may reach, where that is not everything.
    pub bounds: Option<egress::Bounds>,
}

/// A published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// `IPPROTO_*`.
    pub protocol: u8,
    /// Where it is published; `None` is everywhere.
    pub host: Option<IpAddr>,
    pub host_port: u16,
    pub to: IpAddr,
    pub to_port: u16,
}

/// Whether this kernel is one that has tables which outlive who owns them (Linux 6.9). Of one that has them by somebody's patch alone
/// this is not said: there they are owned once they are written whole.
pub fn knows_owners() -> bool {
    const FIRST: (u32, u32) = (6, 9);
    let name = rustix::system::uname();
    let mut numbers = name.release().to_str().unwrap_or_default().split(|letter: char| !letter.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    next().zip(next()).is_some_and(|version| version >= FIRST)
}

/// The two tables of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Firewall<'a> {
    pub name: &'a str,
    /// The interface behind which is somebody who lets in what is published, and nothing else.
    pub gate: Option<&'a str>,
}

impl<'a> Firewall<'a> {
    fn table(self, family: Family) -> Table<'a> {
        Table { family, name: self.name }
    }

    /// Writes the tables anew, in one transaction: as this socket's own, if they are to be, and where the kernel has such
    /// (Linux 6.9). Says whether they are. What guarded containers have learned is kept. Fails with EPERM where they are
    /// another socket's.
    pub fn write(
        self,
        socket: &Socket,
        owns: bool,
        segments: &[Segment],
        endpoints: &[Endpoint],
        apart: &Apart,
    ) -> Result<bool> {
        let learned = self.learned_by(socket, endpoints);
        let messages = |owns| {
            let mut messages = self.whole(owns, segments, endpoints, apart)?;
            messages.extend(self.entries(&learned, Table::add_entries)?);
            Ok(messages)
        };
        let write = |owns| transact(socket, || messages(owns), "write husk's tables into nf_tables").map(|()| owns);
        match write(owns) {
            Err(error) if owns && error.errno() == Some(Errno::OPNOTSUPP) => write(false),
            answer => answer,
        }
    }

    /// Makes tables this socket's own that are there, and nobody's any more. Says whether they are.
    pub fn adopt(self, socket: &Socket) -> Result<bool> {
        let describe = "own husk's tables in nf_tables";
        let messages = || [INET, BRIDGE].map(|family| self.table(family).own()).into_iter().collect();
        match transact(socket, messages, describe) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Some(Errno::OPNOTSUPP) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adds containers' connections. Fails with ENOENT where the tables are not there, and with EEXIST where what is there
    /// is another's: they are to be written anew.
    ///
    /// The socket is the caller's, who need not close it soon: to be closed, the kernel has it wait for whatever anybody
    /// has taken out of tables before.
    pub fn add(self, socket: &Socket, endpoints: &[Endpoint]) -> Result<()> {
        self.forget(socket, endpoints)?;
        let messages = || {
            let filling = elements(endpoints)?.into_iter();
            let plain = filling.map(|(family, set, elements)| self.table(family).add_elements(set.name, &elements));
            let mut messages = plain.collect::<Result<Vec<_>, Errno>>()?;
            messages.extend(self.entries(&egress::grants(endpoints), Table::add_entries)?);
            Ok(messages)
        };
        transact(socket, messages, "add a container to husk's tables in nf_tables")
    }

    /// Takes containers' connections away. Fails with ENOENT where one of them, or the tables, are not there.
    /// The socket is the caller's, to be closed while nobody waits for the caller.
    pub fn remove(self, socket: &Socket, endpoints: &[Endpoint]) -> Result<()> {
        self.forget(socket, endpoints)?;
        let messages = || {
            let filling = elements(endpoints)?.into_iter();
            let plain = filling.map(|(family, set, elements)| self.table(family).delete_elements(set.name, &elements));
            let mut messages = plain.collect::<Result<Vec<_>, Errno>>()?;
            messages.extend(self.entries(&egress::grants(endpoints), Table::delete_entries)?);
            Ok(messages)
        };
        transact(socket, messages, "remove a container from husk's tables in nf_tables")
    }

    /// Has guarded containers reach what they may by now, in place of what they might before, and nothing that they have learned,
    /// in one transaction. Both lists are of the same connections. Fails with ENOENT where what they might is not there.
    pub fn change(self, socket: &Socket, before: &[Endpoint], after: &[Endpoint]) -> Result<()> {
        let learned = self.learned_by(socket, before);
        let messages = || {
            let mut messages = self.entries(&learned, Table::add_entries)?;
            // The life of one may have ended meanwhile: it is made to be there.
            messages.extend(self.entries(&learned, Table::delete_entries)?);
            messages.extend(self.entries(&egress::grants(before), Table::delete_entries)?);
            messages.extend(self.entries(&egress::grants(after), Table::add_entries)?);
            Ok(messages)
        };
        transact(socket, messages, "change what a container may reach in husk's tables in nf_tables")
    }

    /// Says whether the tables are there, with a network whose bridge this is: one that was made after they were written is not
    /// in them.
    pub fn knows(self, socket: &Socket, bridge: &str) -> Result<bool> {
        let describe = "look for a network in husk's tables in nf_tables";
        let key = interface(bridge).context(describe)?;
        let request = self.table(INET).find_element(BRIDGES.name, &key).context(describe)?;
        match socket.call(request, |_| ()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno).context(describe),
        }
    }

    /// Says whether the tables are there.
    pub fn is_there(self, socket: &Socket) -> Result<bool> {
        let describe = "look for husk's tables in nf_tables";
        for family in [Family::Inet, Family::Bridge] {
            match socket.call(self.table(family).find().context(describe)?, |_| ()) {
                Ok(()) => {}
                Err(Errno::NOENT) => return Ok(false),
                Err(errno) => return Err(errno).context(describe),
            }
        }
        Ok(true)
    }

    /// Says whether all of their rules are there, and these bridges: a table may have been emptied, or a chain of it.
    pub fn is_whole(self, socket: &Socket, segments: &[Segment]) -> Result<bool> {
        let describe = "read the rules of husk's tables in nf_tables";
        let mut found: BTreeMap<(u8, Vec<u8>), usize> = BTreeMap::new();
        for family in [INET, BRIDGE] {
            let request = self.table(family).list_rules().context(describe)?;
            let count = |object: &[u8]| {
                if let Some(chain) = self.table(family).chain_of(object) {
                    *found.entry((family as u8, chain.to_vec())).or_default() += 1;
                }
            };
            match socket.call(request, count) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).context(describe),
            }
        }
        let is_there = |chain: &Chain<'_>| {
            let key = (chain.family as u8, expression::terminated(chain.name));
            found.get(&key).copied().unwrap_or(0) >= chain.rules.len()
        };
        if !chains(segments, self.gate).iter().all(is_there) {
            return Ok(false);
        }
        for segment in segments {
            if !self.knows(socket, &segment.interface)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes the tables; that they are not there is no error.
    pub fn clear(self, socket: &Socket) -> Result<()> {
        let tables = [Family::Inet, Family::Bridge].map(|family| self.table(family));
        let messages = || tables.into_iter().flat_map(|table| [table.create(), table.delete()]).collect();
        transact(socket, messages, "remove husk's tables from nf_tables")
    }

    /// Everything: away with what is there, then tables, sets, chains, and what is in them.
    fn whole(
        self,
        owns: bool,
        segments: &[Segment],
        endpoints: &[Endpoint],
        apart: &Apart,
    ) -> Result<Vec<Request>, Errno> {
        let mut messages = Vec::new();
        for family in [Family::Inet, Family::Bridge] {
            let table = self.table(family);
            // Made first, so that there is something to remove.
            let create = if owns { table.own() } else { table.create() };
            messages.extend([table.create()?, table.delete()?, create?]);
        }
        // What it takes of the kernel to guard somebody, nobody else needs.
        let guards = endpoints.iter().any(|endpoint| endpoint.bounds.is_some());
        let (sets, more) =
            if guards { (&egress::SETS[..], egress::chains(self.name, segments)) } else { Default::default() };
        let plain = SETS.into_iter().map(|(family, set)| (family, set, Manner::Plain));
        for (id, (family, set, manner)) in (1..).zip(plain.chain(sets.iter().copied())) {
            messages.push(self.table(family).add_set_of(set, manner, id)?);
        }
        for chain in chains(segments, self.gate).into_iter().chain(more) {
            let table = self.table(chain.family);
            messages.push(table.add_chain(chain.name, chain.hook)?);
            for rule in &chain.rules {
                messages.push(table.add_rule(chain.name, rule)?);
            }
        }
        let filled = networks(segments)?.into_iter().chain(elements(endpoints)?).chain(strangers(apart)?);
        for (family, set, elements) in filled {
            for some in elements.chunks(ELEMENTS_A_MESSAGE) {
                messages.push(self.table(family).add_elements(set.name, some)?);
            }
        }
        messages.extend(self.entries(&egress::grants(endpoints), Table::add_entries)?);
        Ok(messages)
    }

    fn entries(
        self,
        filling: &[(Set, Vec<Entry>)],
        act: impl Fn(Table<'a>, &str, &[Entry]) -> Result<Request, Errno>,
    ) -> Result<Vec<Request>, Errno> {
        let parts =
            filling.iter().flat_map(|(set, entries)| entries.chunks(ELEMENTS_A_MESSAGE).map(|some| (set.name, some)));
        parts.map(|(set, some)| act(self.table(Family::Inet), set, some)).collect()
    }

    /// Has containers forget what they have learned, and whoever has their addresses next know nothing.
    pub fn forget(self, socket: &Socket, endpoints: &[Endpoint]) -> Result<()> {
        for (set, entries) in self.learned_by(socket, endpoints) {
            for some in entries.chunks(ELEMENTS_A_MESSAGE) {
                // The life of one may have ended meanwhile: it is made to be there.
                let table = self.table(Family::Inet);
                let messages = || Ok(vec![table.add_entries(set.name, some)?, table.delete_entries(set.name, some)?]);
                transact(socket, messages, "remove what a container has learned from nf_tables")?;
            }
        }
        Ok(())
    }

    fn learned_by(self, socket: &Socket, endpoints: &[Endpoint]) -> Vec<(Set, Vec<Entry>)> {
        let sources = egress::sources(endpoints);
        let passes = |source: &[u8]| sources.iter().any(|own| own == source);
        if sources.is_empty() { Vec::new() } else { egress::learned(socket, self.table(INET), &passes) }
    }
}

/// Opens a socket to nf_tables in this process's network namespace.
pub fn open_socket() -> Result<Socket> {
    Socket::open_netfilter().map_err(|errno| {
        let error = Error::from(errno).context("open a netlink socket to nf_tables");
        match errno {
            Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT => {
                error.with_hint("this kernel has no nf_tables; --network none and --network host do without")
            }
            _ => error,
        }
    })
}

fn transact(socket: &Socket, messages: impl FnOnce() -> Result<Vec<Request>, Errno>, act: &'static str) -> Result<()> {
    let messages = messages().context(act)?;
    socket.transact(message::SUBSYSTEM, messages).map_err(|(place, errno)| {
        let place = place.map_or_else(String::new, |place| format!(" (message {place})"));
        Error::from(errno).context(format!("{act}{place}"))
    })
}

const INET: Family = Family::Inet;
const BRIDGE: Family = Family::Bridge;

const SETS: [(Family, Set); 13] = [
    (INET, BRIDGES),
    (INET, APART_IPV4),
    (INET, APART_IPV6),
    (INET, INTERNAL),
    (INET, WITHIN),
    (INET, AT_IPV4),
    (INET, ANY_IPV4),
    (INET, AT_IPV6),
    (INET, ANY_IPV6),
    (BRIDGE, PORTS),
    (BRIDGE, PINNED_MAC),
    (BRIDGE, PINNED_IPV4),
    (BRIDGE, PINNED_IPV6),
];

type Filling = Vec<(Family, Set, Vec<Element>)>;

fn networks(segments: &[Segment]) -> Result<Filling, Errno> {
    let (mut bridges, mut internal, mut within) = (Vec::new(), Vec::new(), Vec::new());
    let mut published = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for segment in segments {
        for port in &segment.led {
            let (place, element) = port.element();
            published[place].push(element);
        }
        let name = interface(&segment.interface)?;
        bridges.push(Element { key: name.to_vec(), value: None });
        if segment.connects_containers {
            within.push(Element { key: fields(&[&name, &name]), value: None });
        }
        if segment.is_internal {
            internal.push(Element { key: name.to_vec(), value: None });
        }
    }
    let [at4, any4, at6, any6] = published;
    Ok(without_empty(vec![
        (INET, BRIDGES, bridges),
        (INET, INTERNAL, internal),
        (INET, WITHIN, within),
        (INET, AT_IPV4, at4),
        (INET, ANY_IPV4, any4),
        (INET, AT_IPV6, at6),
        (INET, ANY_IPV6, any6),
    ]))
}

fn strangers(apart: &Apart) -> Result<Filling, Errno> {
    let names = |names: &[String]| {
        // Longer ones there are none.
        let names = names.iter().map(|name| Ok(Element { key: interface(name)?.to_vec(), value: None }));
        names.collect::<Result<Vec<Element>, Errno>>()
    };
    Ok(without_empty(vec![(INET, APART_IPV4, names(&apart.ipv4)?), (INET, APART_IPV6, names(&apart.ipv6)?)]))
}

fn elements(endpoints: &[Endpoint]) -> Result<Filling, Errno> {
    let (mut ports, mut macs, mut v4, mut v6) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut published = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for endpoint in endpoints {
        let name = interface(&endpoint.port)?;
        ports.push(Element { key: name.to_vec(), value: None });
        macs.push(Element { key: fields(&[&name, &endpoint.mac]), value: None });
        for address in &endpoint.addresses {
            match address {
                IpAddr::V4(address) => v4.push(Element { key: fields(&[&name, &address.octets()]), value: None }),
                IpAddr::V6(address) => v6.push(Element { key: fields(&[&name, &address.octets()]), value: None }),
            }
        }
        // Without an address of the link there is no neighbour discovery; and without IPv6 nothing of it is anybody's.
        if endpoint.addresses.iter().any(IpAddr::is_ipv6) {
            v6.push(Element { key: fields(&[&name, &link_local(endpoint.mac).octets()]), value: None });
        }
        for port in &endpoint.published {
            let (place, element) = port.element();
            published[place].push(element);
        }
    }
    let [at4, any4, at6, any6] = published;
    let mut filling = egress::elements(endpoints)?;
    filling.extend([
        (BRIDGE, PORTS, ports),
        (BRIDGE, PINNED_MAC, macs),
        (BRIDGE, PINNED_IPV4, v4),
        (BRIDGE, PINNED_IPV6, v6),
        (INET, AT_IPV4, at4),
        (INET, ANY_IPV4, any4),
        (INET, AT_IPV6, at6),
        (INET, ANY_IPV6, any6),
    ]);
    Ok(without_empty(filling))
}

fn without_empty(mut filling: Filling) -> Filling {
    filling.retain(|(_, _, elements)| !elements.is_empty());
    filling
}

impl Published {
    /// In which of the four maps, and as what.
    fn element(&self) -> (usize, Element) {
        let (protocol, port, to_port) = ([self.protocol], self.host_port.to_be_bytes(), self.to_port.to_be_bytes());
        let to = octets(self.to);
        let is_ipv6 = usize::from(self.to.is_ipv6());
        let value = Some(fields(&[&to, &to_port]));
        match self.host {
            Some(host) => (2 * is_ipv6, Element { key: fields(&[&protocol, &octets(host), &port]), value }),
            None => (2 * is_ipv6 + 1, Element { key: fields(&[&protocol, &port]), value }),
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The address that an interface gives itself (RFC 4291, appendix A).
fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [first, second, third, rest @ ..] = mac;
    let mut octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, first ^ 2, second, third, 0xff, 0xfe, 0, 0, 0];
    octets[13..].copy_from_slice(&rest);
    Ipv6Addr::from(octets)
}

struct Chain<'a> {
    family: Family,
    name: &'static str,
    hook: Option<Hook>,
    rules: Vec<Vec<Expression<'a>>>,
}

/// `NF_INET_*`; those of bridges have the same numbers.
const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

fn chains<'a>(segments: &[Segment], gate: Option<&str>) -> Vec<Chain<'a>> {
    let filter = |number, priority| Some(Hook { kind: "filter", number, priority });
    let nat = |number, priority| Some(Hook { kind: "nat", number, priority });
    vec![
        Chain { family: INET, name: "published", hook: None, rules: published() },
        Chain { family: INET, name: "guard", hook: filter(PREROUTING, -300), rules: guard() },
        Chain { family: INET, name: "incoming", hook: nat(PREROUTING, -100), rules: to_published() },
        Chain { family: INET, name: "own", hook: nat(OUTPUT, -100), rules: to_published() },
        Chain { family: INET, name: "outgoing", hook: nat(POSTROUTING, 100), rules: outgoing(segments) },
        Chain { family: INET, name: "inwards", hook: None, rules: inwards(gate) },
        Chain { family: INET, name: "between", hook: filter(FORWARD, 0), rules: between() },
        Chain { family: BRIDGE, name: "source", hook: filter(PREROUTING, -300), rules: source() },
    ]
}

/// The word of the registers from which on a key is collected.
const FIRST: Register = Register::word(0);

fn incoming_is(set: &'static str) -> [Expression<'static>; 2] {
    [Expression::Meta { key: Meta::IncomingName, into: FIRST }, is_in(set)]
}

fn outgoing_is(set: &'static str) -> [Expression<'static>; 2] {
    [Expression::Meta { key: Meta::OutgoingName, into: FIRST }, is_in(set)]
}

fn is_in(set: &str) -> Expression<'_> {
    Expression::Lookup { set, from: FIRST, into: None, is_inverted: false }
}

fn is_not_in(set: &str) -> Expression<'_> {
    Expression::Lookup { set, from: FIRST, into: None, is_inverted: true }
}

fn equal<'a>(with: &[u8]) -> Expression<'a> {
    Expression::Compare { register: FIRST, comparison: Comparison::Equal, with: with.to_vec() }
}

fn decide(verdict: Verdict<'_>) -> Expression<'_> {
    Expression::Decide(verdict)
}

/// Whether a connection has one of these bits.
fn connection_has<'a>(key: Connection, bits: u32) -> [Expression<'a>; 3] {
    [
        Expression::Connection { key, into: FIRST },
        Expression::Mask { register: FIRST, mask: bits.to_ne_bytes().to_vec() },
        Expression::Compare { register: FIRST, comparison: Comparison::NotEqual, with: vec![0; 4] },
    ]
}

fn rule<'a>(parts: &[&[Expression<'a>]], verdict: Verdict<'a>) -> Vec<Expression<'a>> {
    parts.concat().into_iter().chain([Expression::Count, decide(verdict)]).collect()
}

/// A rule of what is usual, which nobody counts.
fn pass<'a>(parts: &[&[Expression<'a>]], verdict: Verdict<'a>) -> Vec<Expression<'a>> {
    parts.concat().into_iter().chain([decide(verdict)]).collect()
}

fn family<'a>(family: u8) -> [Expression<'a>; 2] {
    [Expression::Meta { key: Meta::Family, into: FIRST }, equal(&[family])]
}

/// To 127.0.0.0/8.
fn to_loopback_ipv4<'a>() -> Vec<Expression<'a>> {
    let first = Expression::Payload { header: Header::Network, offset: 16, length: 1, into: FIRST };
    [&family(NFPROTO_IPV4)[..], &[first, equal(&Ipv4Addr::LOCALHOST.octets()[..1])]].concat()
}

fn to_loopback_ipv6<'a>() -> Vec<Expression<'a>> {
    let whole = Expression::Payload { header: Header::Network, offset: 24, length: 16, into: FIRST };
    [&family(NFPROTO_IPV6)[..], &[whole, equal(&Ipv6Addr::LOCALHOST.octets())]].concat()
}

fn guard<'a>() -> Vec<Vec<Expression<'a>>> {
    vec![rule(&[&incoming_is(BRIDGES.name), &to_loopback_ipv4()], Verdict::Drop)]
}

/// Who calls from a loopback address is led by a relay: the kernel would have to take such addresses from anywhere
/// (`route_localnet`, CVE-2020-8558) for a translation to work.
fn to_published<'a>() -> Vec<Vec<Expression<'a>>> {
    let to_us = [Expression::DestinationType { into: FIRST }, equal(&LOCAL.to_ne_bytes())];
    let accept = [decide(Verdict::Accept)];
    vec![
        [&to_loopback_ipv4()[..], &accept].concat(),
        [&to_loopback_ipv6()[..], &accept].concat(),
        to_us.into_iter().chain([decide(Verdict::Jump("published"))]).collect(),
    ]
}

fn published<'a>() -> Vec<Vec<Expression<'a>>> {
    let v4 = (NFPROTO_IPV4, 16, 4, AT_IPV4.name, ANY_IPV4.name);
    let v6 = (NFPROTO_IPV6, 24, 16, AT_IPV6.name, ANY_IPV6.name);
    let mut rules = Vec::new();
    for (protocol, offset, length, at, any) in [v4, v6] {
        let words = length / 4;
        let transport = Expression::Meta { key: Meta::Transport, into: FIRST };
        let port =
            |word| Expression::Payload { header: Header::Transport, offset: 2, length: 2, into: Register::word(word) };
        let address = Expression::Payload { header: Header::Network, offset, length, into: Register::word(1) };
        let to = |set: &'static str| {
            [
                Expression::Lookup { set, from: FIRST, into: Some(FIRST), is_inverted: false },
                Expression::Translate {
                    kind: Translation::Destination,
                    family: protocol.into(),
                    address: FIRST,
                    port: Register::word(words),
                },
            ]
        };
        let with = |key: &[Expression<'a>], set| [&family(protocol)[..], key, &to(set)].concat();
        rules.push(with(&[transport.clone(), address, port(1 + words)], at));
        rules.push(with(&[transport, port(1)], any));
    }
    rules
}

fn outgoing<'a>(segments: &[Segment]) -> Vec<Vec<Expression<'a>>> {
    let mut rules = Vec::new();
    for segment in segments.iter().filter(|segment| !segment.is_internal) {
        let Ok(name) = interface(&segment.interface) else { continue };
        for (subnet, prefix) in &segment.subnets {
            let (version, offset) = if subnet.is_ipv4() { (NFPROTO_IPV4, 12) } else { (NFPROTO_IPV6, 8) };
            let bytes = octets(*subnet);
            let mask = mask(bytes.len(), *prefix);
            let masked: Vec<u8> = bytes.iter().zip(&mask).map(|(byte, mask)| byte & mask).collect();
            let length = if subnet.is_ipv4() { 4 } else { 16 };
            let is_of = [
                Expression::Payload { header: Header::Network, offset, length, into: FIRST },
                Expression::Mask { register: FIRST, mask },
                equal(&masked),
            ];
            let elsewhere = [
                Expression::Meta { key: Meta::OutgoingName, into: FIRST },
                Expression::Compare { register: FIRST, comparison: Comparison::NotEqual, with: name.to_vec() },
            ];
            let last = [Expression::Count, Expression::Masquerade];
            if segment.masquerades {
                rules.push([&family(version)[..], &is_of, &elsewhere, &last].concat());
            }
            // A container that calls its own network by a published port: the answer is to take the same way back.
            let to_itself = [Expression::Meta { key: Meta::OutgoingName, into: FIRST }, equal(&name)];
            let by_port = connection_has(Connection::Status, WAS_PUBLISHED);
            rules.push([&family(version)[..], &is_of, &to_itself, &by_port, &last].concat());
        }
    }
    rules
}

fn mask(length: usize, prefix: u8) -> Vec<u8> {
    let mut mask = vec![0_u8; length];
    for bit in 0..usize::from(prefix).min(length * 8) {
        mask[bit / 8] |= 0x80 >> (bit % 8);
    }
    mask
}

fn between<'a>() -> Vec<Vec<Expression<'a>>> {
    let mut rules = vec![
        pass(&[&outgoing_is(BRIDGES.name)], Verdict::Jump("inwards")),
        rule(&[&incoming_is(INTERNAL.name)], Verdict::Drop),
        pass(&[&incoming_is(BRIDGES.name)], Verdict::Accept),
    ];
    // This host is no router but for networks, if it was none before.
    for (version, set) in [(NFPROTO_IPV4, APART_IPV4.name), (NFPROTO_IPV6, APART_IPV6.name)] {
        rules.push(rule(&[&family(version), &incoming_is(set), &outgoing_is(set)], Verdict::Drop));
    }
    rules
}

/// What goes to a bridge.
fn inwards<'a>(gate: Option<&str>) -> Vec<Vec<Expression<'a>>> {
    let pair = [
        Expression::Meta { key: Meta::IncomingName, into: FIRST },
        Expression::Meta { key: Meta::OutgoingName, into: Register::word(4) },
        is_in(WITHIN.name),
    ];
    let goes_on = connection_has(Connection::State, GOES_ON);
    let was_published = connection_has(Connection::Status, WAS_PUBLISHED);
    let mut rules = vec![
        pass(&[&goes_on], Verdict::Accept),
        rule(&[&pair], Verdict::Accept),
        rule(&[&incoming_is(INTERNAL.name)], Verdict::Drop),
        rule(&[&outgoing_is(INTERNAL.name)], Verdict::Drop),
        rule(&[&was_published], Verdict::Accept),
    ];
    if let Some(gate) = gate.and_then(|gate| interface(gate).ok()) {
        let by_gate = [Expression::Meta { key: Meta::IncomingName, into: FIRST }, equal(&gate)];
        rules.push(rule(&[&by_gate], Verdict::Accept));
    }
    rules.push(rule(&[], Verdict::Drop));
    rules
}

/// In the name of another is dropped: the frame's sender, and what it says in IPv4, IPv6 and ARP; of IPv6 also who offers
/// itself as a router, and who says that another's address is its own. Of anything else there is nobody who would look at it:
/// a second VLAN tag would hide all of the above.
///
/// Every frame on a bridge comes here: who is no container's port has passed with the first rule, and what is IPv4 with the third.
fn source<'a>() -> Vec<Vec<Expression<'a>>> {
    let ether = |kind: [u8; 2]| [Expression::Meta { key: Meta::Protocol, into: FIRST }, equal(&kind)];
    let speaker = |header, offset, length| {
        [
            Expression::Meta { key: Meta::IncomingName, into: FIRST },
            Expression::Payload { header, offset, length, into: Register::word(4) },
        ]
    };
    let is_another = |header, offset, length, set| {
        let [port, name] = speaker(header, offset, length);
        [port, name, is_not_in(set)]
    };
    let is_itself = |header, offset, length, set| {
        let [port, name] = speaker(header, offset, length);
        [port, name, is_in(set)]
    };
    let says = |kind: u8, more: &[Expression<'a>]| {
        let is_icmp = [Expression::Meta { key: Meta::Transport, into: FIRST }, equal(&[ICMPV6])];
        let first = Expression::Payload { header: Header::Transport, offset: 0, length: 1, into: FIRST };
        rule(&[&ether(ETHER_IPV6), &is_icmp, &[first, equal(&[kind])], more], Verdict::Drop)
    };
    let no_port = [Expression::Meta { key: Meta::IncomingName, into: FIRST }, is_not_in(PORTS.name)];
    let (ipv4, arp, ipv6) = (ether(ETHER_IPV4), ether(ETHER_ARP), ether(ETHER_IPV6));
    vec![
        pass(&[&no_port], Verdict::Accept),
        rule(&[&is_another(Header::Link, 6, 6, PINNED_MAC.name)], Verdict::Drop),
        pass(&[&ipv4, &is_itself(Header::Network, 12, 4, PINNED_IPV4.name)], Verdict::Accept),
        rule(&[&arp, &is_another(Header::Network, 8, 6, PINNED_MAC.name)], Verdict::Drop),
        pass(&[&arp, &is_itself(Header::Network, 14, 4, PINNED_IPV4.name)], Verdict::Accept),
        rule(&[&ipv6, &is_another(Header::Network, 8, 16, PINNED_IPV6.name)], Verdict::Drop),
        says(ROUTER_ADVERTISEMENT, &[]),
        says(REDIRECT, &[]),
        says(NEIGHBOUR_ADVERTISEMENT, &is_another(Header::Transport, 8, 16, PINNED_IPV6.name)),
        pass(&[&ipv6], Verdict::Accept),
        // And anything else.
        rule(&[], Verdict::Drop),
    ]
}

#[cfg(test)]
mod tests;
