//! Networks as people know them: what `network create` makes, and what containers join by name.
//!
//! ```text
//! networks/.lock                 held while a network is made or removed: two that are made at once get different addresses;
//!                                shared by who makes a container of one, which stays meanwhile
//! networks/<name>/network.json   what it is; written last: a folder without it is nobody's network
//! <run root>/networks/<name>/    who is in it: [`lease`](crate::network::lease)
//! ```
//!
//! The kernel's part of a network, its bridge and its rules, is derived from this and from who is in it, and is made when the
//! first container needs it. Who uses a network is said by the records of the containers, and by nothing else.

pub mod driver;
pub mod record;
mod subnets;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::connecting;
use super::engine::Engine;
use super::events;
use super::options::network::DEFAULT;
use super::record::{Record, Status, now};
use crate::error::{Context, Error, Kind, Result};
use crate::network::cidr::Cidr;
use crate::network::lease::{self, Lease};
use crate::network::link;
use crate::support::id::{ContainerId, is_hexadecimal};
use crate::support::lock::{Lock, Sharing, open_lock_file};
use crate::support::{atomic, remove};

use driver::{Driver, DriverOptions};
pub use record::{NetworkRecord, StaticRoute, Subnet};

/// Names that stand for something else where a network is named.
const PREDEFINED: [&str; 4] = [DEFAULT, "host", "none", "default"];

/// The ids of what is no network of anybody's making: `host` and `none` have one in docker, and always the same here.
const HOST_ID: &str = "686f737400000000000000000000000000000000000000000000000000000000";
const NONE_ID: &str = "6e6f6e6500000000000000000000000000000000000000000000000000000000";

/// Podman's name for the network of those who name none.
const PODMANS_DEFAULT: &str = "podman";

/// What a container that ends takes to give back what it had, and some more.
const COMING_AND_GOING: Duration = Duration::from_secs(1);

const RECORD: &str = "network.json";
const LOCK: &str = ".lock";

/// Labels and options are bounded by ARG_MAX.
const RECORD_BYTES: usize = 16 << 20;

/// `NAME_MAX` of Linux file systems: a name is a folder's.
const NAME_BYTES: usize = 255;

/// What is asked of a new network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub driver: Driver,
    pub subnets: Vec<Cidr>,
    pub gateways: Vec<IpAddr>,
    pub ranges: Vec<Cidr>,
    pub reserved: Vec<(String, IpAddr)>,
    /// `--ipam-driver none`
    pub hands_out_nothing: bool,
    pub internal: bool,
    pub lacks_ipv4: bool,
    pub ipv6: bool,
    pub lacks_dns: bool,
    pub dns_servers: Vec<IpAddr>,
    pub routes: Vec<StaticRoute>,
    /// Podman's flag for what `-o com.docker.network.bridge.name` or `-o parent` say as well.
    pub interface: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
}

/// The networks of a data root.
pub struct Networks<'e> {
    engine: &'e Engine,
    directory: PathBuf,
}

impl<'e> Networks<'e> {
    /// Finds them; makes nothing.
    pub fn of(engine: &'e Engine) -> Self {
        Self { engine, directory: engine.settings.data_root.join("networks") }
    }

    /// Makes a network.
    pub fn create(&self, name: &str, asked: &Asked) -> Result<NetworkRecord> {
        check_name(name)?;
        if PREDEFINED.contains(&name) {
            return Err(Error::invalid(format!("operation is not permitted on predefined {name} network")));
        }
        let _lock = self.lock(Sharing::Exclusive)?;
        if self.read(name)?.is_some() {
            return Err(Error::new(Kind::Exists, format!("network with name {name} already exists")));
        }
        self.make(name, asked)
    }

    /// Makes it under the lock.
    fn make(&self, name: &str, asked: &Asked) -> Result<NetworkRecord> {
        let context = || format!("make network {name}");
        let others = self.recorded()?;
        let id = ContainerId::random()?.to_string();
        let options = DriverOptions::parse(asked.driver, &asked.options)?;
        let is_bridge = asked.driver == Driver::Bridge;
        let named = if is_bridge { options.bridge } else { options.parent };
        let interface = match named.or_else(|| asked.interface.clone()) {
            Some(interface) => interface,
            None if !is_bridge => String::new(),
            None if name == DEFAULT => "husk0".to_owned(),
            None => format!("{}{}", connecting::OWN_BRIDGE, &id[..10]),
        };
        if let Some(other) = others.iter().find(|other| is_bridge && other.interface == interface) {
            let text = format!("bridge name {interface} already in use by network {}", other.name);
            return Err(Error::new(Kind::Exists, text));
        }
        let subnets = subnets::choose(asked, &others, &link::routed_blocks()?)?;
        if let Some(route) = asked.routes.iter().find(|route| route.destination.is_ipv6() != route.gateway.is_ipv6()) {
            return Err(Error::invalid(format!("route {}: its gateway is of the other family", route.destination)));
        }
        let record = NetworkRecord {
            id,
            name: name.to_owned(),
            created: now(),
            driver: asked.driver,
            interface,
            ipv6: subnets.iter().any(|subnet| subnet.block.is_ipv6()),
            subnets,
            internal: asked.internal,
            lacks_dns: asked.lacks_dns,
            dns_servers: asked.dns_servers.clone(),
            routes: asked.routes.clone(),
            labels: asked.labels.clone(),
            options: asked.options.clone(),
        };
        let folder = make_folder(&self.directory.join(name)).with_context(context)?;
        atomic::create(folder.as_fd(), RECORD, &serde_json::to_vec(&record)?).with_context(context)?;
        events::network(self.engine, &record, "create", &[]);
        Ok(record)
    }

    /// Finds a network by its name, its id, or the beginning of its id. The default one is made where it is asked for.
    pub fn find(&self, word: &str) -> Result<NetworkRecord> {
        match word {
            "host" => return Ok(built_in("host", HOST_ID, Driver::Host)),
            "none" => return Ok(built_in("none", NONE_ID, Driver::Null)),
            DEFAULT | "default" => return self.default_network(),
            _ => {}
        }
        if is_network_name(word)
            && let Some(found) = self.read(word)?
        {
            return Ok(found);
        }
        if word == PODMANS_DEFAULT {
            return self.default_network();
        }
        if !is_hexadecimal(word) {
            return Err(unknown(word));
        }
        let mut found = self.list()?.into_iter().filter(|network| network.id.starts_with(word));
        match (found.next(), found.next()) {
            (Some(network), None) => Ok(network),
            (Some(_), Some(_)) => Err(Error::invalid(format!("network {word}: more than one id begins so"))),
            (None, _) => Err(unknown(word)),
        }
    }

    /// Refuses what is no network any more.
    pub fn require(&self, name: &str) -> Result<()> {
        self.read(name)?.map(drop).ok_or_else(|| unknown(name))
    }

    /// The network of those who name none.
    fn default_network(&self) -> Result<NetworkRecord> {
        if let Some(found) = self.read(DEFAULT)? {
            return Ok(found);
        }
        let _lock = self.lock(Sharing::Exclusive)?;
        match self.read(DEFAULT)? {
            Some(found) => Ok(found),
            None => self.make(DEFAULT, &Asked::default()),
        }
    }

    /// Lists all by name, as docker does: with the default one, and `host` and `none`.
    pub fn list(&self) -> Result<Vec<NetworkRecord>> {
        self.default_network()?;
        let mut found = self.recorded()?;
        found.push(built_in("host", HOST_ID, Driver::Host));
        found.push(built_in("none", NONE_ID, Driver::Null));
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Those that have been made.
    pub fn recorded(&self) -> Result<Vec<NetworkRecord>> {
        let Some(folder) = open(&self.directory)? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for name in super::containers::entries(folder.as_fd())? {
            if is_network_name(&name) {
                found.extend(self.read(&name)?);
            }
        }
        Ok(found)
    }

    /// Writes down what has changed of a network.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut NetworkRecord) -> Result<()>) -> Result<NetworkRecord> {
        let _lock = self.lock(Sharing::Exclusive)?;
        let mut record = self.read(name)?.ok_or_else(|| unknown(name))?;
        change(&mut record)?;
        let folder = open(&self.directory.join(name))?.ok_or_else(|| unknown(name))?;
        let written = atomic::replace(folder.as_fd(), RECORD, &serde_json::to_vec(&record)?);
        written.with_context(|| format!("change network {name}"))?;
        events::network(self.engine, &record, "update", &[]);
        Ok(record)
    }

    /// Removes a network that no container has, with its bridge.
    pub fn remove(&self, word: &str) -> Result<NetworkRecord> {
        let record = match word {
            DEFAULT | "default" => built_in(DEFAULT, "", Driver::Bridge),
            _ => self.find(word)?,
        };
        let name = &record.name;
        if record.is_built_in() {
            return Err(Error::invalid(format!("{name} is a pre-defined network and cannot be removed")));
        }
        let _lock = self.lock(Sharing::Exclusive)?;
        if self.read(name)?.is_none() {
            return Err(unknown(word));
        }
        self.refuse_in_use(&record)?;
        let context = || format!("remove network {name}");
        connecting::forget(self.engine, &record).with_context(context)?;
        let folder = open(&self.directory)?.ok_or_else(|| unknown(name))?;
        let of_it = open(&self.directory.join(name))?.ok_or_else(|| unknown(name))?;
        rustix::fs::unlinkat(&of_it, RECORD, AtFlags::empty()).with_context(context)?;
        remove::remove_tree(folder.as_fd(), name).with_context(context)?;
        if let Some(folder) = open(&self.run_directory())? {
            remove::remove_tree(folder.as_fd(), name).with_context(context)?;
        }
        events::network(self.engine, &record, "destroy", &[]);
        Ok(record)
    }

    /// Removes those that pass and that no container has. Gives their names.
    pub fn prune(&self, passes: &dyn Fn(&NetworkRecord) -> bool) -> Result<Vec<String>> {
        let users = self.users()?;
        let mut removed = Vec::new();
        for record in self.recorded()? {
            if record.is_built_in() || users.contains_key(&record.name) || !passes(&record) {
                continue;
            }
            match self.remove(&record.name) {
                Ok(record) => removed.push(record.name),
                // In use, or gone, since we looked.
                Err(error) if matches!(error.kind(), Kind::State | Kind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        removed.sort();
        events::networks_pruned(self.engine);
        Ok(removed)
    }

    fn refuse_in_use(&self, network: &NetworkRecord) -> Result<()> {
        let name = &network.name;
        let users = self.users()?;
        let Some(users) = users.get(name).filter(|users| !users.is_empty()) else { return Ok(()) };
        // Docker's words.
        let listed: Vec<String> =
            users.iter().map(|user| format!("name:{:?} id:{:?}", user.name.as_str(), user.id.short())).collect();
        let names: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
        let text = format!("network {name} has active endpoints ({})", listed.join(", "));
        Err(Error::new(Kind::State, text).with_hint(format!("husk rm {}", names.join(" "))))
    }

    /// Gives the containers that have each network, running or not.
    pub fn users(&self) -> Result<BTreeMap<String, Vec<Record>>> {
        let mut users: BTreeMap<String, Vec<Record>> = BTreeMap::new();
        let listing = self.engine.containers()?.list()?;
        // Nobody knows what that one has.
        if let Some(error) = listing.unreadable.into_iter().next() {
            return Err(error.context("find out which containers have networks"));
        }
        for (record, _) in listing.containers {
            for attachment in record.options.network.attachments() {
                users.entry(attachment.network.clone()).or_default().push(record.clone());
            }
        }
        Ok(users)
    }

    /// Keeps networks from being removed: for who makes a container of one.
    pub fn hold(&self) -> Result<Lock> {
        self.lock(Sharing::Shared)
    }

    /// The folder of who is in a network, below the run root; made where there is none.
    pub fn run_folder(&self, record: &NetworkRecord) -> Result<OwnedFd> {
        if let Some(folder) = self.existing_run_folder(&record.name)? {
            return Ok(folder);
        }
        let parent = self.run_directory();
        let context = || format!("make a folder for who is in network {}", record.name);
        drop(make_folder(&parent).with_context(context)?);
        make_folder(&parent.join(&record.name)).with_context(context)
    }

    /// The same, where there is one.
    pub fn existing_run_folder(&self, name: &str) -> Result<Option<OwnedFd>> {
        open(&self.run_directory().join(name))
    }

    /// Whether nobody has come or gone for a while.
    pub fn is_quiet(&self, name: &str) -> bool {
        let changed =
            std::fs::metadata(self.run_directory().join(name).join(lease::LEASES)).and_then(|stat| stat.modified());
        // A clock that was set back says nothing of when that was.
        changed.is_ok_and(|changed| changed.elapsed().map_or(true, |age| age > COMING_AND_GOING))
    }

    /// The folder of all of these.
    pub fn run_root(&self) -> Result<OwnedFd> {
        make_folder(&self.run_directory()).context("make a folder for who is in networks")
    }

    /// The names of the networks that somebody is in, or was.
    pub fn in_use(&self) -> Result<Vec<String>> {
        let Some(folder) = open(&self.run_directory())? else { return Ok(Vec::new()) };
        Ok(super::containers::entries(folder.as_fd())?.into_iter().filter(|name| is_network_name(name)).collect())
    }

    /// Who is in a network now, by the ids of containers, without waiting for anybody.
    pub fn leases(&self, name: &str) -> Result<BTreeMap<String, Lease>> {
        match open(&self.run_directory().join(name))? {
            Some(folder) => lease::read(folder.as_fd()).with_context(|| format!("network {name}")),
            None => Ok(BTreeMap::new()),
        }
    }

    /// What everybody holds, by the ids of containers and the names of networks; of containers that ended badly it may be there
    /// still.
    pub fn everybodys(&self) -> Result<BTreeMap<String, BTreeMap<String, Lease>>> {
        let mut all: BTreeMap<String, BTreeMap<String, Lease>> = BTreeMap::new();
        for name in self.in_use()? {
            for (id, lease) in self.leases(&name)? {
                all.entry(id).or_default().insert(name.clone(), lease);
            }
        }
        Ok(all)
    }

    /// What one container holds, by the names of its networks.
    pub fn held_by(&self, record: &Record) -> Result<BTreeMap<String, Lease>> {
        let mut held = BTreeMap::new();
        for attachment in record.options.network.attachments() {
            if let Some(lease) = self.leases(&attachment.network)?.remove(record.id.as_str()) {
                held.insert(attachment.network.clone(), lease);
            }
        }
        Ok(held)
    }

    /// Who is in a network and runs: what others have left is nobody's.
    pub fn endpoints(&self, network: &NetworkRecord) -> Result<BTreeMap<String, Lease>> {
        let mut leases = self.leases(&network.name)?;
        let containers = self.engine.containers()?;
        leases.retain(|id, _| {
            let status = containers.find(id).and_then(|container| container.status());
            matches!(status, Ok(Status::Running { .. } | Status::Restarting(_)))
        });
        Ok(leases)
    }

    fn run_directory(&self) -> PathBuf {
        self.engine.settings.run_root.join("networks")
    }

    fn read(&self, name: &str) -> Result<Option<NetworkRecord>> {
        let Some(folder) = open(&self.directory.join(name))? else { return Ok(None) };
        let bytes = atomic::read(folder.as_fd(), RECORD, RECORD_BYTES)?.filter(|bytes| !bytes.is_empty());
        let parse = |bytes: Vec<u8>| -> Result<NetworkRecord> {
            let record: NetworkRecord = serde_json::from_slice(&bytes)?;
            Ok(NetworkRecord { name: name.to_owned(), ..record })
        };
        bytes.map(parse).transpose().with_context(|| format!("read network {name}"))
    }

    fn lock(&self, sharing: Sharing) -> Result<Lock> {
        let folder = make_folder(&self.directory).context("make a folder for networks")?;
        Lock::wait(open_lock_file(folder.as_fd(), LOCK, OFlags::CREATE)?, sharing, |_| ())
    }
}

/// What `network ls` shows of docker's other two: names that stand for no network of husk's.
fn built_in(name: &str, id: &str, driver: Driver) -> NetworkRecord {
    NetworkRecord {
        id: id.to_owned(),
        name: name.to_owned(),
        created: 0,
        driver,
        interface: String::new(),
        subnets: Vec::new(),
        internal: false,
        ipv6: false,
        lacks_dns: true,
        dns_servers: Vec::new(),
        routes: Vec::new(),
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
    }
}

/// Says whether a network can be called so: docker's letters, and one is enough.
pub fn is_network_name(text: &str) -> bool {
    text.len() <= NAME_BYTES
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn check_name(name: &str) -> Result<()> {
    if !is_network_name(name) {
        return Err(Error::invalid(format!("network name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed")));
    }
    // It would hide the network that has it.
    if name.len() == HOST_ID.len() && is_hexadecimal(name) {
        return Err(Error::invalid(format!("network name {name}: has the form of an id")));
    }
    Ok(())
}

fn make_folder(path: &Path) -> Result<OwnedFd> {
    if let Some(folder) = open(path)? {
        return Ok(folder);
    }
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    open(path)?.ok_or_else(|| Errno::NOENT.into())
}

fn open(path: &Path) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("open {}", path.display())),
    }
}

/// Says that there is none, in docker's words.
pub fn unknown(word: &str) -> Error {
    Error::new(Kind::NotFound, format!("network {word} not found"))
}
