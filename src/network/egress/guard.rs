//! What a network's name server does for containers that may not reach everything: says which names they may ask for, has
//! the kernel let them reach what those names stand for, and notes down what was refused. Speaks to the kernel by sockets that
//! are opened in the network namespace of the bridge.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::journal::{self, Entry};
use super::packet::{Packet, protocol_name};
use crate::error::{Context, Error, Kind, Result};
use crate::network::cidr::Cidr;
use crate::network::dns::{Asker, Egress, Origin};
use crate::network::firewall::egress::{self as rules, Learned};
use crate::network::firewall::keeper::Seat;
use crate::network::lease;
use crate::network::own::is_own;
use crate::sys::netlink::{Request, Socket, find_attribute};

/// How long a learned address may be spoken to, whatever the answer says. Who has just looked a name up is yet to call; and
/// what a zone gives away for days is asked for again meanwhile.
const SHORTEST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_hours(1);

/// What one container can have learned, and addresses whose names are kept in mind for the log.
const LEARNED: usize = 4096;
const NAMES: usize = 512;

/// Where clouds tell their machines secrets, and that is not of the link (169.254.169.254 is): Alibaba's, Azure's, Oracle's,
/// Amazon's, Google's.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Refused names that are logged of one container: so many at first, and then so many a second, as packets are.
const NOTED_AT_FIRST: u32 = 50;
const NOTED_EACH_SECOND: u32 = 5;

/// Numbers of linux/netfilter/nfnetlink_log.h.
const LOG: u16 = 4 << 8;
const CONFIGURE: u16 = LOG | 1;
const PACKET: u16 = LOG;
const PAYLOAD: u16 = 9;

/// The sockets by which it is done.
pub struct Means {
    rules: Socket,
    log: Socket,
}

impl Means {
    pub const COUNT: usize = 2;

    /// Opens them in this network namespace, and listens to a group of what is logged. Without that, nothing else is lost:
    /// somebody else may have taken it.
    pub fn open(group: u16) -> Result<Self> {
        let open = || Socket::open_netfilter().context("open a netlink socket to nf_tables");
        let means = Self { rules: open()?, log: open()? };
        let _ = means.listen(group);
        Ok(means)
    }

    fn listen(&self, group: u16) -> Result<(), Errno> {
        let [high, low] = group.to_be_bytes();
        let request = || Request::act(CONFIGURE, &[0, 0, high, low]);
        // NFULNL_CFG_CMD_BIND; as many bytes of each as there are (NFULNL_COPY_PACKET); one at a time, after 10 ms.
        self.log.call(request().attribute(1, &[1])?, |_| ())?;
        let request = request().attribute(2, &[0, 0, 0, 255, 2, 0])?;
        let request = request.attribute(4, &1_u32.to_be_bytes())?.attribute(5, &1_u32.to_be_bytes())?;
        self.log.call(request, |_| ())
    }
}

impl From<Means> for [OwnedFd; Means::COUNT] {
    fn from(means: Means) -> Self {
        [means.rules.into(), means.log.into()]
    }
}

impl From<[OwnedFd; Self::COUNT]> for Means {
    fn from([rules, log]: [OwnedFd; Self::COUNT]) -> Self {
        Self { rules: rules.into(), log: log.into() }
    }
}

/// The guard of one network's containers.
pub struct Guard {
    means: Means,
    seat: Seat,
    table: String,
    /// Of the network's containers, whose names are not the world's to give away.
    subnets: Vec<Cidr>,
    folder: OwnedFd,
    /// By containers: what they have learned, and until when it holds.
    learned: BTreeMap<String, HashMap<Learned, Instant>>,
    names: BTreeMap<String, HashMap<IpAddr, String>>,
    /// How many refused names may be noted down yet, and as of when.
    room: BTreeMap<String, (u32, Instant)>,
    last: i64,
    is_shut_out: bool,
}

impl Guard {
    /// The guard by the rules of a table, at which it has a seat; the folder is the network's, below the run root.
    pub fn new(means: Means, seat: Seat, table: String, subnets: Vec<Cidr>, folder: OwnedFd) -> Self {
        let (learned, names, room) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { means, seat, table, subnets, folder, learned, names, room, last: 0, is_shut_out: false }
    }

    /// Each entry has a time of its own, by which who follows knows what is new.
    fn note(&mut self, id: &str, protocol: String, address: Option<IpAddr>, port: Option<u16>, name: Option<String>) {
        let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        self.last = now.max(self.last.saturating_add(1));
        // Where there is no room for it, it is refused all the same.
        let _ = journal::write(self.folder.as_fd(), id, &Entry { time: self.last, protocol, address, port, name });
    }

    /// Whether one refused name more may be noted down: who asks for thousands would wash away what was refused before.
    fn has_room(&mut self, id: &str, now: Instant) -> bool {
        let (left, since) = self.room.entry(id.to_owned()).or_insert((NOTED_AT_FIRST, now));
        let seconds = u32::try_from(now.duration_since(*since).as_secs()).unwrap_or(u32::MAX);
        if seconds > 0 {
            *left = left.saturating_add(seconds.saturating_mul(NOTED_EACH_SECOND)).min(NOTED_AT_FIRST);
            *since = now;
        }
        let has = *left > 0;
        *left = left.saturating_sub(1);
        has
    }

    /// Whether what a name stands for may be learned. DNS is anybody's word: a name of the world does not lead to this host,
    /// to the container itself, to its neighbours, or to what only this machine can reach.
    fn is_of_the_world(&self, address: IpAddr) -> bool {
        let is_special = match address {
            IpAddr::V4(address) => {
                address.octets()[0] == 0
                    || address.is_loopback()
                    || address.is_link_local()
                    || address.is_multicast()
                    || address.is_broadcast()
            }
            IpAddr::V6(address) => {
                address.is_unspecified()
                    || address.is_loopback()
                    || address.is_unicast_link_local()
                    || address.is_multicast()
                    || address.to_ipv4_mapped().is_some()
            }
        };
        !is_special
            && !METADATA.contains(&address)
            && embedded(address).is_none_or(|inner| self.is_of_the_world(inner.into()))
            && !self.subnets.iter().any(|subnet| subnet.contains(address))
            && !is_own(address)
    }

    /// Forgets what holds no longer.
    fn sweep(&mut self, now: Instant) {
        self.learned.retain(|_, learned| {
            learned.retain(|_, until| *until > now);
            !learned.is_empty()
        });
        self.names.retain(|id, _| self.learned.contains_key(id));
        let is_noisy = |(_, since): &(u32, Instant)| now.duration_since(*since) < LONGEST;
        self.room.retain(|_, room| is_noisy(room));
    }

    fn remember(&mut self, id: &str, name: &str, addresses: impl Iterator<Item = IpAddr>) {
        let names = self.names.entry(id.to_owned()).or_default();
        for address in addresses {
            if names.len() >= NAMES {
                names.clear();
            }
            names.insert(address, name.to_owned());
        }
    }
}

impl Egress for Guard {
    fn allows(&mut self, asker: &Asker, name: &str) -> bool {
        let is_allowed = asker.allow.allows(name);
        if !is_allowed && self.has_room(&asker.id, Instant::now()) {
            self.note(&asker.id, "name".to_owned(), None, None, Some(name.to_owned()));
        }
        is_allowed
    }

    fn answers(&mut self, asker: &Asker, name: &str, addresses: &[(IpAddr, u32)], origin: Origin) -> Result<u32> {
        let now = Instant::now();
        self.sweep(now);
        self.remember(&asker.id, name, addresses.iter().map(|(address, _)| *address));
        let is_good = |address: IpAddr| origin == Origin::Network || self.is_of_the_world(address);
        let good: Vec<&(IpAddr, u32)> = addresses.iter().filter(|(address, _)| is_good(*address)).collect();
        let ways = asker.allow.ways(name);
        // They are one set of records, which lives as long as the one that ends first (RFC 2181, 5.2).
        let Some(life) = good.iter().map(|(_, life)| Duration::from_secs((*life).into())).min() else {
            return Ok(u32::MAX);
        };
        let life = life.clamp(SHORTEST, LONGEST);
        let mut wanted = Vec::new();
        for (to, _) in good {
            for from in asker.addresses.iter().filter(|from| from.is_ipv6() == to.is_ipv6()) {
                wanted.extend(ways.iter().map(|way| Learned { from: *from, to: *to, way: *way }));
            }
        }
        let describe = || format!("let a container reach {name}");
        let learned = self.learned.entry(asker.id.clone()).or_default();
        let mut fresh = Vec::new();
        let mut open = life;
        for one in wanted {
            // What holds for most of that time anyway is not told to the kernel again, if it still knows.
            let held = learned.get(&one).filter(|until| **until >= now + life * 3 / 4);
            match held {
                Some(until) if rules::knows(&self.means.rules, &self.table, &one).with_context(describe)? => {
                    open = open.min(until.duration_since(now));
                }
                _ => fresh.push(one),
            }
        }
        if fresh.len() > LEARNED {
            return Err(Error::new(Kind::Other, "it stands for too many addresses").context(describe()));
        }
        // What ends first gives way.
        let more = fresh.iter().filter(|one| !learned.contains_key(one)).count();
        let mut ends: Vec<(Instant, Learned)> = Vec::new();
        let over = (learned.len() + more).saturating_sub(LEARNED);
        if over > 0 {
            ends.extend(learned.iter().filter(|(one, _)| !fresh.contains(one)).map(|(one, until)| (*until, *one)));
            ends.sort_unstable_by_key(|(until, _)| *until);
            ends.truncate(over);
        }
        let gone: Vec<Learned> = ends.into_iter().map(|(_, one)| one).collect();
        if !fresh.is_empty() {
            let folder = self.folder.as_fd();
            let learn = |owner: Option<&Socket>| {
                // Since it asked it may have been told to reach less (`update --egress`), by who had the turn before.
                if !holds(folder, asker) {
                    return Err(Errno::STALE);
                }
                rules::learn(owner.unwrap_or(&self.means.rules), &self.table, &fresh, life, &gone)
            };
            let told = self.seat.in_turn(learn).unwrap_or(Err(Errno::TIMEDOUT));
            // The tables are somebody's by now who was not there when it took its seat.
            self.is_shut_out |= told == Err(Errno::PERM);
            told.with_context(describe)?;
        }
        learned.retain(|one, _| !gone.contains(one));
        learned.extend(fresh.into_iter().map(|one| (one, now + life)));
        Ok(u32::try_from(open.as_secs()).unwrap_or(u32::MAX))
    }

    fn is_shut_out(&self) -> bool {
        self.is_shut_out
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.means.log.as_fd()
    }

    fn hear(&mut self, who: &dyn Fn(IpAddr) -> Option<String>) {
        let mut packets = Vec::new();
        // What cannot be heard is lost to the log, and to nothing else.
        let _ = self.means.log.hear(|kind, body| {
            // Behind `nfgenmsg`.
            let payload = body.get(4..).and_then(|attributes| find_attribute(attributes, PAYLOAD));
            packets.extend(payload.filter(|_| kind == PACKET).and_then(Packet::read));
        });
        for Packet { source, destination, protocol, port } in packets {
            let Some(id) = who(source) else { continue };
            let name = self.names.get(&id).and_then(|names| names.get(&destination)).cloned();
            self.note(&id, protocol_name(protocol), Some(destination), port, name);
        }
    }
}

/// Whether what a container may reach is still what its lease says.
fn holds(folder: BorrowedFd<'_>, asker: &Asker) -> bool {
    let leases = lease::read(folder).unwrap_or_default();
    let egress = leases.get(&asker.id).and_then(|lease| lease.egress.as_ref());
    egress.is_some_and(|egress| egress.allow == asker.allow)
}

/// The IPv4 address that others send on to what they get for this one: through NAT64 (RFC 6052) and 6to4 (RFC 3056); and
/// the obsolete form that some take for IPv4 (RFC 4291, 2.5.5.1).
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let octets = address.octets();
    let at = |from: usize| Some(Ipv4Addr::new(octets[from], octets[from + 1], octets[from + 2], octets[from + 3]));
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0, ..] => at(12),
        [0x2002, ..] => at(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_the_world_alone() {
        let place = tempfile::tempdir().unwrap();
        let folder = OwnedFd::from(std::fs::File::open(place.path()).unwrap());
        let means = Means { rules: Socket::open_netfilter().unwrap(), log: Socket::open_netfilter().unwrap() };
        let seat = Seat::take(folder.as_fd()).unwrap();
        let guard = Guard::new(means, seat, "husk".to_owned(), vec!["10.89.0.0/24".parse().unwrap()], folder);
        for (address, expected) in [
            ("192.0.2.1", true),
            ("10.88.0.1", true),
            ("2001:db8::1", true),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("127.0.0.1", false),
            ("127.1.2.3", false),
            ("10.89.0.7", false),
            ("169.254.169.254", false),
            ("100.100.100.200", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("::ffff:192.0.2.1", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("fd00:ec2::254", false),
            ("fd20:ce::254", false),
            ("168.63.129.16", false),
            ("192.0.0.192", false),
            ("64:ff9b::a9fe:a9fe", false),
            ("64:ff9b::c633:6401", true),
            ("2002:a9fe:a9fe::1", false),
            ("::169.254.169.254", false),
        ] {
            assert_eq!(guard.is_of_the_world(address.parse().unwrap()), expected, "{address}");
        }
    }
}
