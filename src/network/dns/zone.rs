//! The names of one network: its containers', out of its leases, and those that stand for the host. Answers none but its own,
//! and says which those are, so that no other server is ever asked for them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::name::Name;
use crate::error::{Context, Result};
use crate::network::cidr::Cidr;
use crate::network::lease::{LEASES, LEASES_BYTES, Lease};

/// For how many seconds an answer may be used again. The container that has a name may be another in a moment, with another
/// address, and who asks is one hop from the answer; but 0 has some programs ask for each request that they make.
pub(super) const LIFE: u32 = 5;

/// How docker and podman write a container's id for people.
const SHORT_ID: usize = 12;

/// What stands for the host in every container, under docker's and podman's names.
const HOST: [&str; 3] = ["host.docker.internal", "gateway.docker.internal", "host.containers.internal"];

/// Top-level domains that are nobody's (RFC 6761, RFC 6762, and ICANN's resolution 2024.07.29.06).
const NOBODYS: [&[u8]; 6] = [b"example", b"internal", b"invalid", b"local", b"localhost", b"test"];

/// Names of containers that have gone which are kept in mind.
const GONE: usize = 4096;

/// What a network knows of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is a name here, with these addresses of both families.
    Addresses(Vec<IpAddr>),
    /// It is an address here, and this is its name.
    Pointer(Name),
    /// It could be one here alone, and is none. The labels are those that are in front of what is here.
    Nothing { labels: usize },
    /// Others may know it.
    Foreign,
}

/// What does not change about a network while it has containers.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Its name as the last labels of its containers' names.
    pub(super) network: Option<Name>,
    pub(super) gateways: Vec<IpAddr>,
    pub(super) subnets: Vec<Cidr>,
}

/// The names, as of the leases that were read last.
pub(super) struct Zone {
    facts: Facts,
    hosts: Vec<Name>,
    /// The file that was read last. While it is open no other has its inode number, and none is written to: so that number
    /// tells whether it has been replaced.
    read: Option<(File, u64)>,
    containers: Vec<(String, Lease)>,
    names: HashMap<Name, Vec<usize>>,
    by_address: HashMap<IpAddr, usize>,
    gone: HashSet<Name>,
    /// Where the next answer of several addresses begins.
    turn: usize,
}

impl Zone {
    pub(super) fn new(facts: Facts) -> Self {
        Self {
            facts,
            hosts: HOST.into_iter().filter_map(Name::parse).collect(),
            read: None,
            containers: Vec::new(),
            names: HashMap::new(),
            by_address: HashMap::new(),
            gone: HashSet::new(),
            turn: 0,
        }
    }

    /// Reads the leases in a network's folder if they have changed.
    pub(super) fn refresh(&mut self, folder: BorrowedFd<'_>) -> Result<()> {
        let now = match rustix::fs::statat(folder, LEASES, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(stat.st_ino),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno).context("inspect leases.json"),
        };
        if now == self.read.as_ref().map(|(_, inode)| *inode) {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(folder, LEASES, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => {
                self.read = None;
                self.replace(BTreeMap::new());
                return Ok(());
            }
            Err(errno) => return Err(errno).context("open leases.json"),
        };
        let (leases, file) = read(file).context("read leases.json")?;
        self.read = Some(file);
        self.replace(leases);
        Ok(())
    }

    /// Puts other leases in the place of those that were known.
    pub(super) fn replace(&mut self, leases: BTreeMap<String, Lease>) {
        let before = std::mem::take(&mut self.names);
        self.by_address.clear();
        self.containers = leases.into_iter().collect();
        for (index, (id, lease)) in self.containers.iter().enumerate() {
            let short = id.get(..SHORT_ID).filter(|_| id.len() > SHORT_ID);
            let texts = [Some(&lease.name[..]), Some(&id[..]), short].into_iter().flatten();
            for name in texts.chain(lease.aliases.iter().map(String::as_str)).filter_map(Name::parse) {
                if name.is_root() {
                    continue;
                }
                let holders = self.names.entry(name.folded()).or_default();
                // Its alias may be its name, too.
                if holders.last() != Some(&index) {
                    holders.push(index);
                }
            }
            self.by_address.extend(lease.addresses.iter().map(|address| (*address, index)));
        }
        self.gone.retain(|name| !self.names.contains_key(name));
        let room = GONE - self.gone.len();
        self.gone.extend(before.into_keys().filter(|name| !self.names.contains_key(name)).take(room));
    }

    /// Whether nobody has a lease.
    pub(super) fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    /// Whether somebody may not reach everything.
    pub(super) fn has_guarded(&self) -> bool {
        self.containers.iter().any(|(_, lease)| lease.egress.is_some())
    }

    /// Who has an address.
    pub(super) fn container(&self, address: IpAddr) -> Option<(&str, &Lease)> {
        let (id, lease) = self.containers.get(*self.by_address.get(&address)?)?;
        Some((id, lease))
    }

    /// The lease of a container.
    pub(super) fn lease(&self, id: &str) -> Option<&Lease> {
        // A map was made into this, in its order.
        let index = self.containers.binary_search_by(|(other, _)| other.as_str().cmp(id)).ok()?;
        self.containers.get(index).map(|(_, lease)| lease)
    }

    /// Whether an address is one of the network's.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.facts.subnets.iter().any(|subnet| subnet.contains(address))
    }

    /// Looks a name up.
    pub(super) fn find(&mut self, name: &Name) -> Found {
        let name = name.folded();
        if self.hosts.contains(&name) {
            return Found::Addresses(self.facts.gateways.clone());
        }
        let mut labels = name.labels().rev();
        // RFC 6761, 6.3: asked of nobody.
        if labels.next() == Some(b"localhost") {
            return Found::Addresses(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        drop(labels);
        let front = self.facts.network.as_ref().and_then(|network| name.without(network));
        for name in [Some(&name), front.as_ref()].into_iter().flatten() {
            if let Some(holders) = self.names.get(name) {
                return Found::Addresses(self.addresses(&holders.clone()));
            }
        }
        if let Some(address) = address_of(&name).filter(|address| self.contains(*address)) {
            let Some((id, lease)) = self.container(address) else { return Found::Nothing { labels: 1 } };
            let own = if lease.name.is_empty() { id } else { &lease.name };
            let text = match &self.facts.network {
                Some(network) => format!("{own}.{network}"),
                None => own.to_owned(),
            };
            return Name::parse(&text).map_or(Found::Addresses(Vec::new()), Found::Pointer);
        }
        // What was a container's is not looked for in the world, where somebody may have made that name his.
        let is_gone = [Some(&name), front.as_ref()].into_iter().flatten().any(|name| self.gone.contains(name));
        if is_gone || front.is_some() && self.facts.network.as_ref().is_some_and(is_nobodys) {
            return Found::Nothing { labels: front.map_or(usize::MAX, |front| front.labels().count()) };
        }
        Found::Foreign
    }

    /// The addresses of some containers; each time another one is the first.
    fn addresses(&mut self, holders: &[usize]) -> Vec<IpAddr> {
        self.turn = self.turn.wrapping_add(1);
        let first = self.turn % holders.len().max(1);
        let (before, behind) = holders.split_at(first);
        let of = |index: &usize| self.containers.get(*index).map(|(_, lease)| lease.addresses.as_slice());
        behind.iter().chain(before).filter_map(of).flatten().copied().collect()
    }
}

/// Reads the leases in a file; one that nobody has written yet is empty.
fn read(file: OwnedFd) -> Result<(BTreeMap<String, Lease>, (File, u64))> {
    let inode = rustix::fs::fstat(file.as_fd())?.st_ino;
    let mut bytes = Vec::new();
    let file = File::from(file);
    (&file).take(LEASES_BYTES as u64).read_to_end(&mut bytes)?;
    let leases = if bytes.is_empty() { BTreeMap::new() } else { serde_json::from_slice(&bytes)? };
    Ok((leases, (file, inode)))
}

/// Whether names that end so can be nobody's on the internet: top-level domains are letters, but for those in other
/// scripts, which begin with `xn--` (RFC 1123, 2.1).
fn is_nobodys(network: &Name) -> bool {
    let Some(last) = network.labels().next_back() else { return false };
    NOBODYS.contains(&last) || !last.starts_with(b"xn--") && !last.iter().all(u8::is_ascii_alphabetic)
}

/// The address that a folded name stands for in the trees of those (RFC 1035, 3.5; RFC 3596, 2.5).
fn address_of(name: &Name) -> Option<IpAddr> {
    let labels: Vec<&[u8]> = name.labels().rev().collect();
    let [b"arpa", family, labels @ ..] = labels.as_slice() else { return None };
    match (*family, labels.len()) {
        (b"in-addr", 4) => {
            let mut bytes = [0_u8; 4];
            for (byte, label) in bytes.iter_mut().zip(labels) {
                let text =
                    std::str::from_utf8(label).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
                *byte = text.parse().ok()?;
            }
            Some(bytes.into())
        }
        (b"ip6", 32) => {
            let mut number = 0_u128;
            for label in labels {
                let [digit] = *label else { return None };
                number = number << 4 | u128::from(char::from(*digit).to_digit(16)?);
            }
            Some(Ipv6Addr::from(number).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
