//! The other networks of a container: one of its name servers is asked for what any of its networks knows. Reads their
//! leases; answers nothing of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Dir, Mode, OFlags};

use super::name::Name;
use super::process;
use super::zone::{Facts, Found, Zone};

/// Networks that are looked at.
const MOST: usize = 256;

/// The default network, whose containers have no names: they have the host's name servers.
const DEFAULT: &std::ffi::CStr = c"bridge";

pub(super) struct Neighbours {
    /// The folder of all networks' folders, and this one's inode in it; `None` where there is none to be seen.
    place: Option<(OwnedFd, u64)>,
    known: BTreeMap<Vec<u8>, Neighbour>,
}

struct Neighbour {
    folder: OwnedFd,
    is_internal: bool,
    answers_names: bool,
    zone: Zone,
}

impl Neighbours {
    pub(super) fn of(folder: &OwnedFd) -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = || {
            let own = rustix::fs::fstat(folder).ok()?.st_ino;
            Some((rustix::fs::openat(folder, c"..", flags, Mode::empty()).ok()?, own))
        };
        Self { place: open(), known: BTreeMap::new() }
    }

    /// Finds a name in the other networks that a container is in.
    pub(super) fn find(&mut self, id: &str, name: &Name) -> Option<Found> {
        let zones = self.of_container(id).filter(|neighbour| neighbour.answers_names);
        zones
            .map(|neighbour| neighbour.zone.find(name))
            .find(|found| !matches!(found, Found::Foreign | Found::Nothing { .. }))
    }

    /// Whether another of a container's networks leads to the world.
    pub(super) fn lead_out(&mut self, id: &str) -> bool {
        self.of_container(id).any(|neighbour| !neighbour.is_internal)
    }

    /// A container's addresses in its other networks.
    pub(super) fn addresses(&mut self, id: &str) -> Vec<IpAddr> {
        let leases = self.of_container(id).filter_map(|neighbour| neighbour.zone.lease(id));
        leases.flat_map(|lease| lease.addresses.iter().copied()).collect()
    }

    /// Whether an address is a container's in one of its other networks.
    pub(super) fn have(&mut self, id: &str, address: IpAddr) -> bool {
        self.of_container(id).any(|neighbour| neighbour.zone.container(address).is_some())
    }

    fn of_container(&mut self, id: &str) -> impl Iterator<Item = &mut Neighbour> {
        self.refresh();
        self.known.values_mut().filter(move |neighbour| neighbour.zone.lease(id).is_some())
    }

    /// Looks which networks there are now.
    fn refresh(&mut self) {
        let Some((place, own)) = &self.place else { return };
        let mut before = std::mem::take(&mut self.known);
        let Ok(entries) = Dir::read_from(place) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_bytes();
            if name.starts_with(b".") || entry.ino() == *own || self.known.len() >= MOST {
                continue;
            }
            let known = before
                .remove(name)
                .filter(|known| rustix::fs::fstat(&known.folder).is_ok_and(|stat| stat.st_ino == entry.ino()));
            let Some(mut neighbour) = known.or_else(|| Neighbour::open(place, entry.file_name())) else { continue };
            if neighbour.zone.refresh(neighbour.folder.as_fd()).is_ok() {
                self.known.insert(name.to_vec(), neighbour);
            }
        }
    }
}

impl Neighbour {
    /// Opens a network's folder; `None` where it has no name server, and is not the one that never has.
    fn open(place: &OwnedFd, name: &std::ffi::CStr) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(place, name, flags, Mode::empty()).ok()?;
        let (network, is_internal, answers_names) = match process::standing(folder.as_fd()) {
            Some(standing) => (standing.config.network, standing.config.is_internal, standing.config.answers_names),
            None if name == DEFAULT => (String::new(), false, false),
            None => return None,
        };
        let network = Name::parse(&network).map(|name| name.folded());
        // Who is the host, and what its addresses are, is the asked network's own to say.
        let facts = Facts { network, gateways: Vec::new(), subnets: Vec::new() };
        Some(Self { folder, is_internal, answers_names, zone: Zone::new(facts) })
    }
}
