//! Who holds which address of a network: a file below the run root, changed under a lock of its own, and gone at reboot.
//!
//! A lease is its container's for as long as that runs. Whoever allocates asks of each holder whether it still does, so what
//! a killed process has left is cleared by the next that wants something.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::cidr::Cidr;
use super::egress::Guarded;
use super::port::BoundPort;
use crate::error::{Context, Error, Kind, Result};
use crate::support::atomic;
use crate::support::lock::{Lock, Sharing};

pub const LEASES: &str = "leases.json";
const LOCK: &str = "lock";

/// Nobody has them for longer than it takes to write a file.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sixty-four thousand containers' worth.
pub(super) const LEASES_BYTES: usize = 32 << 20;

/// What a container holds of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// One of each family that the network has.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    #[serde(default)]
    pub mac: Mac,
    /// What others in the network call it: its own name, and more.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Who is asked for names that the network does not have, where the container names somebody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolvers: Vec<IpAddr>,
    /// The container's end of its link, and the host's; empty where there is none yet.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interface: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub port: String,
    /// Ports of the host that lead to it over this network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<BoundPort>,
    /// What it may reach, where that is not everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Guarded>,
    /// By chance, to tell the container's runs apart, which have all else in common. Not an inode of a namespace: the kernel gives the next run the
    /// number that the last had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
}

/// An Ethernet address, written as `02:42:ac:11:00:02`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// What addresses there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub block: Cidr,
    /// Where in the block addresses are handed out; anywhere else is for those who ask for one by name.
    pub range: Option<Cidr>,
    /// The bridge's, and what the network's maker keeps for others.
    pub reserved: Vec<IpAddr>,
}

/// What a container asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub addresses: Vec<IpAddr>,
    pub mac: Option<Mac>,
    pub name: String,
    pub aliases: Vec<String>,
    /// Whom it wants asked for names of the world (`--dns`).
    pub resolvers: Vec<IpAddr>,
    /// The container's end of its link, and the host's.
    pub interface: String,
    pub port: String,
    /// Of which run it is ([`new_run`]).
    pub run: Option<u64>,
    /// What it may reach: there is no moment in which its lease does not say so.
    pub egress: Option<Guarded>,
}

/// Makes up the number of a container's run.
pub fn new_run() -> Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("make up a run's number")?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The leases of one network, held against everybody else until it is dropped.
pub struct Leases {
    folder: OwnedFd,
    held: BTreeMap<String, Lease>,
    _lock: Lock,
}

impl Leases {
    /// Opens the leases of the network whose folder below the run root this is.
    pub fn open(folder: BorrowedFd<'_>) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file =
            rustix::fs::openat(folder, LOCK, flags, Mode::from_raw_mode(0o600)).context("open the leases' lock")?;
        let lock = Lock::wait_at_most(file, Sharing::Exclusive, PATIENCE).context("wait for the leases")?;
        let held = read(folder)?;
        Ok(Self { folder: rustix::io::fcntl_dupfd_cloexec(folder, 3)?, held, _lock: lock })
    }

    /// Everybody's.
    pub fn all(&self) -> &BTreeMap<String, Lease> {
        &self.held
    }

    /// Gives a container what it asks for, and what is free where it asks for nothing: what it had before, if it still has
    /// that.
    ///
    /// # Errors
    ///
    /// - [`Kind::Exists`]: another has an address that it asks for.
    /// - [`Kind::Invalid`]: the network has no such address.
    /// - No address is free.
    pub fn take(&mut self, holder: &str, pools: &[Pool], wish: &Wish) -> Result<Lease> {
        let before = self.held.remove(holder);
        let again = before.and_then(|lease| choose(&self.held, pools, &wish.or(&lease)).ok());
        let lease = match again {
            Some(lease) => lease,
            None => choose(&self.held, pools, wish)?,
        };
        self.held.insert(holder.to_owned(), lease.clone());
        self.save()?;
        Ok(lease)
    }

    /// Notes down what became of a container's lease.
    ///
    /// # Errors
    ///
    /// [`Kind::State`]: it has none, since somebody took it for one that has ended.
    pub fn change(&mut self, holder: &str, change: impl FnOnce(&mut Lease)) -> Result<()> {
        let nobodys = || Error::new(Kind::State, format!("container {holder} has lost its address to somebody"));
        change(self.held.get_mut(holder).ok_or_else(nobodys)?);
        self.save()
    }

    /// Takes a lease back; that its holder has none, or another by now, is no error.
    pub fn release(&mut self, holder: &str, lease: &Lease) -> Result<()> {
        if self.held.get(holder) != Some(lease) {
            return Ok(());
        }
        self.held.remove(holder);
        self.save()
    }

    fn save(&self) -> Result<()> {
        atomic::replace(self.folder.as_fd(), LEASES, &serde_json::to_vec(&self.held)?)
    }
}

/// Reads the leases of a network as they are, by the ids of containers; nobody waits for who changes them.
pub fn read(folder: BorrowedFd<'_>) -> Result<BTreeMap<String, Lease>> {
    match atomic::read(folder, LEASES, LEASES_BYTES)? {
        // Half a file there is none; another's file is nobody's lease.
        Some(bytes) => serde_json::from_slice(&bytes).map_err(Error::from).context("read leases.json"),
        None => Ok(BTreeMap::new()),
    }
}

fn choose(held: &BTreeMap<String, Lease>, pools: &[Pool], wish: &Wish) -> Result<Lease> {
    let taken: HashSet<IpAddr> = held.values().flat_map(|lease| lease.addresses.iter().copied()).collect();
    let owner = |address: IpAddr| held.iter().find(|(_, lease)| lease.addresses.contains(&address));
    for address in &wish.addresses {
        let Some(pool) = pools.iter().find(|pool| pool.block.contains(*address)) else {
            let blocks: Vec<String> = pools.iter().map(|pool| pool.block.to_string()).collect();
            return Err(Error::invalid(format!("address {address} is not in the network ({})", blocks.join(", "))));
        };
        if pool.reserved.contains(address) || [pool.block.first(), pool.block.last()].contains(address) {
            return Err(Error::invalid(format!("address {address} is not for containers in {}", pool.block)));
        }
        if let Some((owner, _)) = owner(*address) {
            let message = format!("address {address} is already in use by container {owner}");
            return Err(Error::new(Kind::Exists, message));
        }
    }
    let mut addresses = Vec::new();
    for is_ipv6 in [false, true] {
        let of_family: Vec<&Pool> = pools.iter().filter(|pool| pool.block.is_ipv6() == is_ipv6).collect();
        if of_family.is_empty() {
            continue;
        }
        let wished = wish.addresses.iter().copied().find(|address| address.is_ipv6() == is_ipv6);
        let found = wished.or_else(|| of_family.iter().find_map(|pool| pool.free(&taken)));
        addresses.push(found.ok_or_else(|| {
            let blocks: Vec<String> = of_family.iter().map(|pool| pool.block.to_string()).collect();
            Error::new(Kind::Other, format!("no address is free in {}", blocks.join(", ")))
                .with_hint("a larger network: husk network create --subnet …")
        })?);
    }
    // The bridge's own is of its address, too.
    let bridges = pools.iter().flat_map(|pool| &pool.reserved).filter_map(|address| Mac::of(*address));
    let used: HashSet<Mac> = held.values().map(|lease| lease.mac).chain(bridges).collect();
    let mac = match wish.mac {
        Some(mac) if used.contains(&mac) => {
            return Err(Error::new(Kind::Exists, format!("MAC address {mac} is already in use")));
        }
        Some(mac) => mac,
        None => match addresses.iter().find_map(|address| Mac::of(*address)) {
            Some(mac) if !used.contains(&mac) => mac,
            // Another has asked for it.
            _ => Mac::random()?,
        },
    };
    Ok(Lease {
        addresses,
        mac,
        name: wish.name.clone(),
        aliases: wish.aliases.clone(),
        resolvers: wish.resolvers.clone(),
        interface: wish.interface.clone(),
        port: wish.port.clone(),
        run: wish.run,
        egress: wish.egress.clone(),
        ..Lease::default()
    })
}

impl Wish {
    /// The same, with what somebody had in the place of what is not asked for.
    fn or(&self, before: &Lease) -> Self {
        let mut wish = self.clone();
        for address in &before.addresses {
            if !wish.addresses.iter().any(|asked| asked.is_ipv6() == address.is_ipv6()) {
                wish.addresses.push(*address);
            }
        }
        wish.mac.get_or_insert(before.mac);
        wish
    }
}

impl Pool {
    fn free(&self, taken: &HashSet<IpAddr>) -> Option<IpAddr> {
        let is_host = |address: &IpAddr| {
            let block = &self.block;
            let has_ends = !block.is_ipv6() && block.prefix() < 31 || block.is_ipv6() && block.prefix() < 127;
            !has_ends || *address != block.first() && (block.is_ipv6() || *address != block.last())
        };
        // A range's own ends are addresses like others.
        let range = self.range.unwrap_or(self.block);
        (0..)
            .map_while(|place| range.nth(place))
            .find(|address| is_host(address) && !taken.contains(address) && !self.reserved.contains(address))
    }
}

impl Mac {
    /// The MAC of who has an IPv4 address, as docker makes them: who keeps its address keeps its neighbours.
    pub fn of(address: IpAddr) -> Option<Self> {
        let IpAddr::V4(address) = address else { return None };
        let [a, b, c, d] = address.octets();
        // Locally administered, for one.
        Some(Self([0x02, 0x42, a, b, c, d]))
    }

    fn random() -> Result<Self> {
        let mut octets = [0; 6];
        let by_chance = rustix::rand::getrandom(&mut octets, rustix::rand::GetRandomFlags::empty());
        by_chance.context("make up a MAC address")?;
        octets[0] = 0x02;
        Ok(Self(octets))
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            write!(formatter, "{}{byte:02x}", if place == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let malformed = || Error::invalid(format!("{text:?}: not a MAC address, such as 02:42:ac:11:00:02"));
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let is_byte = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            let part = parts.next().filter(is_byte).ok_or_else(malformed)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| malformed())?;
        }
        match (parts.next(), bytes[0] & 1) {
            (None, 0) => Ok(Self(bytes)),
            (None, _) => Err(Error::invalid(format!("{text}: an address of many, which no interface can have"))),
            _ => Err(malformed()),
        }
    }
}

impl TryFrom<String> for Mac {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools() -> Vec<Pool> {
        let pool = |block: &str, gateway: &str| Pool {
            block: block.parse().unwrap(),
            range: None,
            reserved: vec![gateway.parse().unwrap()],
        };
        vec![pool("10.89.0.0/29", "10.89.0.1"), pool("fd00::/64", "fd00::1")]
    }

    fn wish(address: &str) -> Wish {
        Wish { addresses: vec![address.parse().unwrap()], ..Wish::default() }
    }

    #[test]
    fn everybody_gets_an_address_of_each_family_until_none_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let folder = std::fs::File::open(folder.path()).unwrap();
        let take = |holder: &str, wish: &Wish| Leases::open(folder.as_fd()).unwrap().take(holder, &pools(), wish);
        let one = take("one", &Wish::default()).unwrap();
        assert_eq!(one.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.89.0.2", "fd00::2"]);
        assert_eq!(one.mac.to_string(), "02:42:0a:59:00:02");
        assert_eq!(take("one", &Wish::default()).unwrap(), one, "its own address is free to itself");
        assert_eq!(take("two", &wish("10.89.0.5")).unwrap().addresses[0].to_string(), "10.89.0.5");
        assert_eq!(take("three", &wish("10.89.0.5")).unwrap_err().kind(), Kind::Exists);
        for address in ["10.89.0.1", "10.89.0.0", "10.89.0.7", "10.90.0.2", "fe80::1"] {
            assert_eq!(take("three", &wish(address)).unwrap_err().kind(), Kind::Invalid, "{address}");
        }
        for holder in ["three", "four", "five"] {
            take(holder, &Wish::default()).unwrap();
        }
        let full = take("six", &Wish::default()).unwrap_err();
        assert!(full.to_string().contains("no address is free in 10.89.0.0/29"), "{full}");
        let mut leases = Leases::open(folder.as_fd()).unwrap();
        let two = leases.all()["two"].clone();
        leases.release("two", &two).unwrap();
        drop(leases);
        assert_eq!(take("six", &Wish::default()).unwrap().addresses[0].to_string(), "10.89.0.5");
        let mut leases = Leases::open(folder.as_fd()).unwrap();
        let four = leases.all()["four"].clone();
        leases.release("three", &four).unwrap();
        leases.release("four", &four).unwrap();
        assert_eq!(leases.all().keys().collect::<Vec<_>>(), ["five", "one", "six", "three"]);
        leases.take("one", &pools(), &wish("10.89.0.4")).unwrap();
        let again = leases.take("one", &pools(), &Wish::default()).unwrap();
        assert_eq!(again.addresses[0].to_string(), "10.89.0.4", "who comes again has what it had");
    }

    #[test]
    fn a_lease_tells_what_became_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let folder = std::fs::File::open(folder.path()).unwrap();
        let mut leases = Leases::open(folder.as_fd()).unwrap();
        let wish = Wish { name: "web".to_owned(), aliases: vec!["www".to_owned()], ..Wish::default() };
        leases.take("one", &pools(), &wish).unwrap();
        leases.change("one", |lease| lease.published = vec!["[::1]:80->8080/udp".parse().unwrap()]).unwrap();
        assert_eq!(leases.change("nobody", |_| unreachable!()).unwrap_err().kind(), Kind::State);
        let first = leases.all()["one"].clone();
        let again = leases.take("one", &pools(), &Wish { run: Some(7), ..wish }).unwrap();
        assert_eq!((again.addresses, again.run), (first.addresses.clone(), Some(7)));
        leases.release("one", &first).unwrap();
        assert!(leases.all().contains_key("one"), "what the next run has is not given back by the one before");
        leases.change("one", |lease| lease.published = first.published).unwrap();
        let read = read(folder.as_fd()).unwrap();
        assert_eq!(&read, leases.all());
        assert_eq!((read["one"].name.as_str(), read["one"].published[0].port), ("web", 8080));
        let old: Lease = serde_json::from_str(r#"{"addresses":["10.0.0.2"],"mac":"02:42:0a:00:00:02"}"#).unwrap();
        assert_eq!((old.aliases.len(), old.run), (0, None), "what is not said is not there");
    }

    #[test]
    fn an_ethernet_address_is_one_containers() {
        let folder = tempfile::tempdir().unwrap();
        let folder = std::fs::File::open(folder.path()).unwrap();
        let mut leases = Leases::open(folder.as_fd()).unwrap();
        let asks = |mac: &str| Wish { mac: Some(mac.parse().unwrap()), ..wish("10.89.0.5") };
        leases.take("one", &pools(), &asks("02:42:0a:59:00:02")).unwrap();
        let two = leases.take("two", &pools(), &Wish::default()).unwrap();
        assert_eq!(two.addresses[0].to_string(), "10.89.0.2");
        assert_ne!(two.mac.to_string(), "02:42:0a:59:00:02", "somebody has it");
        let bridges = Wish { addresses: vec![], ..asks("02:42:0a:59:00:01") };
        assert_eq!(leases.take("three", &pools(), &bridges).unwrap_err().kind(), Kind::Exists);
    }

    #[test]
    fn many_at_once_get_different_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let folder = std::fs::File::open(folder.path()).unwrap();
        let pools = [Pool {
            block: "10.0.0.0/24".parse().unwrap(),
            range: Some("10.0.0.128/25".parse().unwrap()),
            reserved: vec![],
        }];
        let found: HashSet<IpAddr> = std::thread::scope(|scope| {
            let take = |holder: usize| {
                let (folder, pools) = (&folder, &pools);
                scope.spawn(move || {
                    let mut leases = Leases::open(folder.as_fd()).unwrap();
                    leases.take(&holder.to_string(), pools, &Wish::default()).unwrap().addresses[0]
                })
            };
            let threads: Vec<_> = (0..64).map(take).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(found.len(), 64);
        assert!(found.iter().all(|address| pools[0].range.unwrap().contains(*address)));
    }

    #[test]
    fn mac_addresses_are_read_as_they_are_written() {
        assert_eq!("02-42-AC-11-00-02".parse::<Mac>().unwrap().to_string(), "02:42:ac:11:00:02");
        for text in
            ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "2:42:ac:11:00:02", "+2:42:ac:11:00:02", "01:00:5e:00:00:01"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
