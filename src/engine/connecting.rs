//! A container's place in its networks, from its start to its end: leases, links, rules, published ports, and the files that
//! tell it of them. Made by the monitor, between the birth of the network namespace and that of the workload.
//!
//! What there is in the kernel follows from the networks' definitions and from the leases below the run root. The order
//! holds that up: a lease is written before what it stands for is made, and goes after that is gone. So whatever is killed
//! half-way, the next command finds by its lease what is to be removed ([`sweep`]). The link needs nobody: it ends with the
//! container's network namespace.

mod files;
mod names;
mod ports;
mod world;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use self::world::World;
pub use self::world::{check, default_is_out_of_reach};
use super::engine::Engine;
use super::networks::driver::{Driver, DriverOptions};
use super::networks::{NetworkRecord, Networks, StaticRoute};
use super::options::Attachment;
use super::record::{Record, Status};
use crate::error::{Context, Error, Kind, Result};
use crate::network::firewall::{self, Endpoint, Firewall, Segment, foreign};
use crate::network::lease::{Lease, Leases, Wish};
use crate::network::link::{self, InterfaceAddress, Link, Route, Wire};
use crate::network::port::Protocol;
use crate::network::relay::Relay;
use crate::network::{conntrack, forwarding, rootless};
use crate::support::id::ContainerId;
use crate::support::lock::{Lock, Sharing, open_lock_file};

/// Held shared by who adds to husk's tables, and by who writes them anew, or takes from them, alone.
const FIREWALL_LOCK: &str = ".firewall";

/// How the names of bridges begin that husk makes.
pub(super) const OWN_BRIDGE: &str = "hk-";

/// A container's networks, while it starts, runs and ends.
pub struct Connecting<'a> {
    engine: &'a Engine,
    record: &'a Record,
    hostname: &'a str,
    relay: &'a RefCell<Relay>,
    world: OnceCell<World>,
    /// The inode of this run's network namespace, once there is one.
    namespace: Cell<Option<u64>>,
}

/// A lease, and whose it is: of one who has gone, as a rule.
struct Gone {
    network: String,
    holder: String,
    lease: Lease,
}

/// One of them.
struct Place<'a> {
    attachment: &'a Attachment,
    network: NetworkRecord,
    options: DriverOptions,
    /// The container's end of the link, and the host's.
    interface: String,
    port: String,
}

impl<'a> Connecting<'a> {
    /// `None` for a container that is in no network.
    pub fn of(engine: &'a Engine, record: &'a Record, hostname: &'a str, relay: &'a RefCell<Relay>) -> Option<Self> {
        let is_in_any = !record.options.network.attachments().is_empty();
        is_in_any.then(|| Self::new(engine, record, hostname, relay))
    }

    fn new(engine: &'a Engine, record: &'a Record, hostname: &'a str, relay: &'a RefCell<Relay>) -> Self {
        Self { engine, record, hostname, relay, world: OnceCell::new(), namespace: Cell::default() }
    }

    /// Finds or makes what the networks are in. To be called before anything is connected.
    pub fn prepare(&self) -> Result<()> {
        let world = World::ensure(self.engine)?;
        let _ = self.world.set(world);
        Ok(())
    }

    /// Puts a container's configuration into the world of its networks.
    pub fn enter(&self, spec: &mut Spec) {
        self.world().enter(spec);
    }

    /// Says which process is the container's first, once it runs: the way out is kept for as long.
    pub fn keep(&self) -> Result<()> {
        if self.world().handle().is_none() {
            return Ok(());
        }
        let state = self.engine.runtime(false)?.state(self.record.id.as_str())?;
        self.world().keep(state.pid)
    }

    fn world(&self) -> &World {
        self.world.get_or_init(|| World::find(self.engine).unwrap_or(World::None))
    }

    fn note_namespace(&self, namespace: BorrowedFd<'_>) -> Result<()> {
        let inode = rustix::fs::fstat(namespace).context("look at the container's network namespace")?.st_ino;
        self.namespace.set(Some(inode));
        Ok(())
    }

    /// Joins the container's network namespace to its networks. On failure nothing of it is left.
    pub fn connect(&self, namespace: BorrowedFd<'_>) -> Result<()> {
        let is_again = self.namespace.get().is_some();
        self.note_namespace(namespace)?;
        let attachments = if is_again {
            // Since the start before, it may have been put into others.
            self.engine.containers()?.find(self.record.id.as_str())?.record()?.options.network
        } else {
            self.record.options.network.clone()
        };
        let made = self.make(attachments.attachments(), namespace);
        if made.is_err() {
            // The failure is the one to tell; what remains is found by its lease.
            let _ = self.leave();
        }
        made
    }

    fn make(&self, attachments: &[Attachment], namespace: BorrowedFd<'_>) -> Result<()> {
        let networks = Networks::of(self.engine);
        let first = first_of(attachments);
        let mut leases = Vec::new();
        let mut places = Vec::new();
        let mut follows_another = false;
        for (number, attachment) in attachments.iter().enumerate() {
            let place = self.place(&networks, number, attachment)?;
            let (lease, before) =
                self.lease(&networks, &place).with_context(|| format!("network {}", place.network.name))?;
            follows_another |= before.is_some_and(|before| !before.port.is_empty());
            leases.push(lease);
            places.push(place);
        }
        if let Some(handle) = self.world().handle() {
            handle.hold()?;
        }
        let opened = match (places.get(first), leases.get(first)) {
            (Some(place), Some(lease)) => ports::open(self.engine, self.world(), self.record, &place.options, lease)?,
            _ => ports::Opened::default(),
        };
        if ports::are_anothers(&networks, self.record.id.as_str(), &opened.bound)? {
            // The host let us have them: who had them is gone, and its rules are not.
            sweep(self.engine)?;
        }
        for (number, (place, lease)) in places.iter().zip(&mut leases).enumerate() {
            if number == first {
                lease.published.clone_from(&opened.bound);
            }
            self.note(&networks, place, lease)?;
        }
        self.world().inside(|| {
            let mut endpoints = Vec::new();
            for (number, (place, lease)) in places.iter().zip(&leases).enumerate() {
                let linked = place.link(self.world(), lease, number == first, namespace);
                linked.with_context(|| format!("network {}", place.network.name))?;
                endpoints.extend((!lease.port.is_empty()).then(|| endpoint(self.world(), lease)));
            }
            self.add_to_firewall(&networks, &endpoints, follows_another)?;
            match opened.datagram_ports() {
                ports if ports.is_empty() => Ok(()),
                ports => conntrack::forget(Protocol::Udp.number(), &ports),
            }
        })?;
        for place in &places {
            self.ensure_names(&networks, &place.network)?;
        }
        self.relay.replace(Relay::default());
        self.relay.borrow_mut().extend(opened.doors);
        if let (Some(place), Some(lease)) = (places.get(first), leases.get(first)) {
            files::write(self.engine, self.world(), self.record, self.hostname, &place.network, lease)?;
        }
        Ok(())
    }

    fn place<'p>(&self, networks: &Networks<'_>, number: usize, attachment: &'p Attachment) -> Result<Place<'p>> {
        let network = networks.find(&attachment.network)?;
        let options = network.parsed()?;
        let prefix = options.interface_prefix.as_deref().unwrap_or("eth");
        let interface = attachment.interface.clone().unwrap_or_else(|| format!("{prefix}{number}"));
        let port = if network.driver == Driver::Bridge { port_of(&self.record.id, number) } else { String::new() };
        Ok(Place { attachment, port, interface, network, options })
    }

    /// Gets addresses; gives besides what the run before has not given back yet.
    fn lease(&self, networks: &Networks<'_>, place: &Place<'_>) -> Result<(Lease, Option<Lease>)> {
        let Place { attachment, network, .. } = place;
        let folder = networks.run_folder(network)?;
        let wish = Wish {
            addresses: attachment.addresses(),
            mac: attachment.mac,
            name: self.record.name.to_string(),
            aliases: attachment.aliases.clone(),
            resolvers: self.record.options.hosts.servers.clone(),
        };
        let mut leases = Leases::open(folder.as_fd())?;
        let id = self.record.id.as_str();
        let before = leases.all().get(id).cloned();
        let lease = match leases.take(id, &network.pools(), &wish) {
            Err(error) if error.kind() != Kind::Invalid => {
                // Somebody may have been killed who would have given back what is wanted.
                drop(leases);
                sweep_named(self.engine, self.world(), networks, &network.name)?;
                leases = Leases::open(folder.as_fd())?;
                leases.take(id, &network.pools(), &wish)?
            }
            answer => answer?,
        };
        Ok((lease, before))
    }

    fn note(&self, networks: &Networks<'_>, place: &Place<'_>, lease: &mut Lease) -> Result<()> {
        lease.interface.clone_from(&place.interface);
        lease.port.clone_from(&place.port);
        lease.namespace = self.namespace.get();
        let folder = networks.run_folder(&place.network)?;
        Leases::open(folder.as_fd())?.change(self.record.id.as_str(), |held| held.clone_from(lease))
    }

    fn add_to_firewall(&self, networks: &Networks<'_>, endpoints: &[Endpoint], follows_another: bool) -> Result<()> {
        // What is there of the run before may lead elsewhere.
        if !follows_another {
            let _lock = firewall_lock(self.engine, Sharing::Shared)?;
            match tables(self.engine).add(endpoints) {
                Ok(()) => return Ok(()),
                // Not there yet, or gone; a published port that is still led to who had it.
                Err(error) if matches!(error.errno(), Some(Errno::NOENT | Errno::EXIST)) => {}
                Err(error) => return Err(error),
            }
        }
        let _lock = firewall_lock(self.engine, Sharing::Exclusive)?;
        write_firewall(self.engine, self.world(), networks)
    }

    fn ensure_names(&self, networks: &Networks<'_>, network: &NetworkRecord) -> Result<()> {
        if names::ensure(networks, network, self.world())? {
            let _lock = firewall_lock(self.engine, Sharing::Exclusive)?;
            self.world().inside(|| write_firewall(self.engine, self.world(), networks))?;
        }
        Ok(())
    }

    /// Joins it to one network more, while it runs.
    fn attach(&self, attachment: &Attachment, namespace: BorrowedFd<'_>) -> Result<()> {
        let networks = Networks::of(self.engine);
        let held = self.held(&networks)?;
        let is_free = |number: &usize| {
            let (port, interface) = (port_of(&self.record.id, *number), format!("eth{number}"));
            !held.iter().any(|gone| gone.lease.port == port || gone.lease.interface == interface)
        };
        let number = (0..=held.len()).find(is_free).unwrap_or(held.len());
        let place = self.place(&networks, number, attachment)?;
        let join = || {
            let (mut lease, _) = self.lease(&networks, &place)?;
            self.note(&networks, &place, &mut lease)?;
            let world = self.world();
            world.inside(|| {
                place.link(world, &lease, held.is_empty(), namespace)?;
                let endpoints: Vec<Endpoint> =
                    (!lease.port.is_empty()).then(|| endpoint(world, &lease)).into_iter().collect();
                self.add_to_firewall(&networks, &endpoints, false)
            })?;
            self.ensure_names(&networks, &place.network)
        };
        join().map_err(|error| {
            let _ = self.part(&networks, &place.network.name, namespace);
            error.context(format!("network {}", place.network.name))
        })
    }

    /// Takes it out of a network, while it runs.
    fn part(&self, networks: &Networks<'_>, network: &str, namespace: BorrowedFd<'_>) -> Result<()> {
        let held = self.held(networks)?;
        let Some(gone) = held.into_iter().find(|gone| gone.network == network) else { return Ok(()) };
        let removed = self.world().inside(|| link::disconnect(&gone.lease.interface, namespace));
        give_back(self.engine, self.world(), networks, &[gone])?;
        removed
    }

    /// What it has in all networks: those that it is in by its record, and those that it was joined to since it started.
    fn held(&self, networks: &Networks<'_>) -> Result<Vec<Gone>> {
        let id = self.record.id.as_str();
        let mut held = Vec::new();
        for network in networks.in_use()? {
            if let Some(lease) = networks.leases(&network)?.remove(id) {
                held.push(Gone { network, holder: id.to_owned(), lease });
            }
        }
        Ok(held)
    }

    /// Opens the ports again of a container that has lost its monitor.
    pub fn resume(&self) -> Result<()> {
        let networks = Networks::of(self.engine);
        let attachments = self.record.options.network.attachments();
        let Some(attachment) = attachments.get(first_of(attachments)) else { return Ok(()) };
        if let Some(lease) = networks.leases(&attachment.network)?.get(self.record.id.as_str()) {
            self.namespace.set(lease.namespace);
            match self.world().handle() {
                Some(handle) => ports::publish_again(handle, self.record, lease),
                None => self.relay.borrow_mut().extend(ports::reopen(lease)),
            }
        }
        Ok(())
    }

    /// Closes the doors, so that they are free for the next that wants them.
    pub fn close(&self) {
        self.relay.replace(Relay::default());
    }

    /// Gives back what the container had in this run. The next may have begun: what is that one's stays.
    pub fn leave(&self) -> Result<()> {
        self.close();
        let Some(namespace) = self.namespace.get() else { return Ok(()) };
        let networks = Networks::of(self.engine);
        let mut gone = self.held(&networks)?;
        gone.retain(|gone| gone.lease.namespace.is_none_or(|of| of == namespace));
        if let Some(handle) = self.world().handle() {
            handle.withdraw(self.record.id.as_str())?;
        }
        give_back(self.engine, self.world(), &networks, &gone)
    }
}

/// Joins a container that runs to one network more.
pub fn attach(engine: &Engine, record: &Record, attachment: &Attachment) -> Result<()> {
    let relay = RefCell::default();
    let namespace = namespace_of(engine, record)?;
    let connecting = Connecting::new(engine, record, "", &relay);
    connecting.prepare()?;
    connecting.note_namespace(namespace.as_fd())?;
    connecting.attach(attachment, namespace.as_fd())
}

/// Takes a container that runs out of a network.
pub fn detach(engine: &Engine, record: &Record, network: &str) -> Result<()> {
    let relay = RefCell::default();
    let namespace = namespace_of(engine, record)?;
    Connecting::new(engine, record, "", &relay).part(&Networks::of(engine), network, namespace.as_fd())
}

fn namespace_of(engine: &Engine, record: &Record) -> Result<OwnedFd> {
    let state = engine.runtime(false)?.state(record.id.as_str())?;
    let path = format!("/proc/{}/ns/net", state.pid);
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).with_context(|| format!("open {path}"))
}

/// Through which of them goes what is for elsewhere: that of the highest priority, and of equals the first.
fn first_of(attachments: &[Attachment]) -> usize {
    let highest = attachments.iter().map(|attachment| attachment.gateway_priority).max();
    attachments.iter().position(|attachment| Some(attachment.gateway_priority) == highest).unwrap_or_default()
}

/// The host's end of a link, whose name has room for fifteen characters.
fn port_of(id: &ContainerId, number: usize) -> String {
    let short: String = id.as_str().chars().take(11).collect();
    format!("hv{short}{number}")
}

impl Place<'_> {
    /// Makes the link, and what it leads to.
    fn link(&self, world: &World, lease: &Lease, is_first: bool, namespace: BorrowedFd<'_>) -> Result<()> {
        let NetworkRecord { subnets, routes, .. } = &self.network;
        let parent = self.parent()?;
        let wire = match self.network.driver {
            Driver::Bridge => {
                self.make_bridge(world)?;
                let is_isolated = !self.options.connects_containers;
                Wire::Bridge { bridge: &self.network.interface, port: &self.port, is_isolated }
            }
            Driver::Macvlan | Driver::Ipvlan if world.handle().is_some() => {
                return Err(Error::unsupported(format!(
                    "driver {}: the host's interfaces are not an ordinary user's",
                    self.network.driver
                )));
            }
            Driver::Macvlan => Wire::Macvlan { parent: &parent, mode: self.options.macvlan_mode() },
            Driver::Ipvlan => Wire::Ipvlan { parent: &parent, mode: self.options.ipvlan_mode() },
            Driver::Host | Driver::Null => return Err(Error::invalid("no network that a container could be put into")),
        };
        let block_of = |address: &IpAddr| {
            let subnet = subnets.iter().find(|subnet| subnet.block.contains(*address));
            subnet.map(|subnet| InterfaceAddress { address: *address, block: subnet.block })
        };
        let leads_elsewhere = is_first && !self.network.internal && self.options.has_default_route;
        let route = |route: &StaticRoute| Route { to: route.destination, gateway: route.gateway, metric: route.metric };
        let link = Link {
            wire,
            name: &self.interface,
            mac: lease.mac,
            mtu: self.options.mtu,
            addresses: lease.addresses.iter().filter_map(block_of).collect(),
            gateways: if leads_elsewhere { subnets.iter().map(|subnet| subnet.gateway).collect() } else { Vec::new() },
            routes: routes.iter().map(route).collect(),
            metric: self.options.metric,
        };
        match link::connect(&link, namespace) {
            // What a monitor that was killed has left: the other end is in a namespace that has ended, or is about to.
            Err(error) if error.errno() == Some(Errno::EXIST) && !self.port.is_empty() => {
                link::remove(&self.port)?;
                link::connect(&link, namespace)
            }
            answer => answer,
        }
    }

    /// The host's interface that the network is upon.
    fn parent(&self) -> Result<String> {
        match self.network.driver {
            Driver::Macvlan | Driver::Ipvlan if self.network.interface.is_empty() => link::default_interface()?
                .ok_or_else(|| {
                    Error::new(Kind::NotFound, "this host has no default route, by which the parent would be found")
                        .with_hint("husk network create -o parent=INTERFACE names one")
                }),
            _ => Ok(self.network.interface.clone()),
        }
    }

    fn make_bridge(&self, world: &World) -> Result<()> {
        let NetworkRecord { interface, subnets, internal, ipv6, .. } = &self.network;
        let addresses: Vec<InterfaceAddress> =
            subnets.iter().map(|subnet| InterfaceAddress { address: subnet.gateway, block: subnet.block }).collect();
        link::make_bridge(interface, self.options.mtu, &addresses)?;
        // A user's world forwards by itself, and has no firewall but ours.
        if !internal && world.handle().is_none() {
            forwarding::enable(*ipv6)?;
            foreign::let_through(interface)?;
        }
        Ok(())
    }
}

/// A user's ports are published by the way out, not by rules.
fn endpoint(world: &World, lease: &Lease) -> Endpoint {
    Endpoint {
        port: lease.port.clone(),
        mac: lease.mac.0,
        addresses: lease.addresses.clone(),
        published: if world.handle().is_none() { ports::published(lease) } else { Vec::new() },
    }
}

fn segment(world: &World, networks: &Networks<'_>, network: &NetworkRecord) -> Result<Segment> {
    Ok(Segment {
        interface: network.interface.clone(),
        subnets: network.subnets.iter().map(|subnet| (subnet.block.first(), subnet.block.prefix())).collect(),
        is_internal: network.internal,
        // The way out of a user's world knows its containers apart.
        masquerades: world.handle().is_none() && network.parsed()?.masquerades,
        led: names::led(networks, network)?,
    })
}

/// Each run root has tables of its own, so that two know nothing of each other.
fn tables(engine: &Engine) -> Firewall<'_> {
    Firewall { name: &engine.firewall_name, gate: engine.maps.as_ref().map(|_| rootless::DEVICE) }
}

fn firewall_lock(engine: &Engine, sharing: Sharing) -> Result<Lock> {
    let folder = Networks::of(engine).run_root()?;
    Lock::wait(open_lock_file(folder.as_fd(), FIREWALL_LOCK, OFlags::CREATE)?, sharing, |_| ())
}

/// Writes husk's tables anew, from the networks and their leases. The caller has the lock.
fn write_firewall(engine: &Engine, world: &World, networks: &Networks<'_>) -> Result<()> {
    write_without(engine, world, networks, None)
}

fn write_without(engine: &Engine, world: &World, networks: &Networks<'_>, removed: Option<&str>) -> Result<()> {
    let mut segments = Vec::new();
    let mut endpoints = Vec::new();
    let is_left = |network: &&NetworkRecord| {
        network.driver == Driver::Bridge && removed.is_none_or(|removed| removed != network.name)
    };
    for network in networks.recorded()?.iter().filter(is_left) {
        segments.push(segment(world, networks, network)?);
        // A lease whose link is not there yet is added by who makes that.
        let linked = networks.leases(&network.name)?;
        endpoints.extend(linked.values().filter(|lease| !lease.port.is_empty()).map(|lease| endpoint(world, lease)));
    }
    tables(engine).write(&segments, &endpoints)
}

/// Takes the rules of containers away that have ended, and then their leases.
fn give_back(engine: &Engine, world: &World, networks: &Networks<'_>, gone: &[Gone]) -> Result<()> {
    if gone.is_empty() {
        return Ok(());
    }
    let _lock = firewall_lock(engine, Sharing::Exclusive)?;
    let mut endpoints = Vec::new();
    let mut released = Vec::new();
    for Gone { network, holder, lease } in gone {
        // Since then it may have started again.
        if networks.leases(network)?.get(holder) == Some(lease) {
            endpoints.extend((!lease.port.is_empty()).then(|| endpoint(world, lease)));
            released.push((network, holder, lease));
        }
    }
    for (network, holder, lease) in &released {
        if let Some(folder) = networks.existing_run_folder(network)? {
            Leases::open(folder.as_fd())?.release(holder, lease)?;
        }
    }
    if let Some(handle) = world.handle() {
        let addresses: Vec<IpAddr> =
            released.iter().flat_map(|(_, _, lease)| lease.addresses.iter().copied()).collect();
        handle.forget(&addresses)?;
    }
    if endpoints.is_empty() {
        return Ok(());
    }
    world.inside(|| match tables(engine).remove(&endpoints) {
        // One of them was not there: what is there is made right, unless there is nothing.
        Err(error) if error.errno() == Some(Errno::NOENT) => {
            if tables(engine).is_there()? {
                write_firewall(engine, world, networks)
            } else {
                Ok(())
            }
        }
        answer => answer,
    })
}

/// Clears what containers have left in the networks whose monitors were killed.
pub fn sweep(engine: &Engine) -> Result<()> {
    let networks = Networks::of(engine);
    let names = networks.in_use()?;
    if names.is_empty() {
        return Ok(());
    }
    let world = World::find(engine)?;
    names.iter().try_for_each(|name| sweep_named(engine, &world, &networks, name))
}

fn sweep_named(engine: &Engine, world: &World, networks: &Networks<'_>, name: &str) -> Result<()> {
    let gone = networks.leases(name)?.into_iter().filter(|(holder, _)| !holds(engine, holder));
    let gone: Vec<Gone> = gone.map(|(holder, lease)| Gone { network: name.to_owned(), holder, lease }).collect();
    give_back(engine, world, networks, &gone)
}

/// Whether a container may have what its lease says: it runs, or is about to.
fn holds(engine: &Engine, id: &str) -> bool {
    let find = || -> Result<bool> {
        Ok(match engine.containers()?.find(id)?.status()? {
            Status::Running { .. } | Status::Restarting(_) => true,
            Status::Lost { .. } => engine.runtime(false)?.lives(id)?,
            Status::Created | Status::Exited(_) => false,
        })
    };
    find().unwrap_or(false)
}

/// Makes the kernel's part of all networks anew: rules that somebody has flushed, the firewalls of others.
pub fn reload(engine: &Engine) -> Result<()> {
    sweep(engine)?;
    let networks = Networks::of(engine);
    let world = World::find(engine)?;
    let _lock = firewall_lock(engine, Sharing::Exclusive)?;
    world.inside(|| {
        for network in networks.recorded()?.iter().filter(|network| network.driver == Driver::Bridge) {
            if world.handle().is_none() && !network.internal && !networks.leases(&network.name)?.is_empty() {
                forwarding::enable(network.ipv6)?;
                foreign::let_through(&network.interface)?;
            }
        }
        write_firewall(engine, &world, &networks)
    })
}

/// Removes the kernel's part of a network that is about to be removed: its bridge, where husk made it, and its rules.
pub fn forget(engine: &Engine, network: &NetworkRecord) -> Result<()> {
    if network.driver != Driver::Bridge {
        return Ok(());
    }
    let networks = Networks::of(engine);
    let world = World::find(engine)?;
    let _lock = firewall_lock(engine, Sharing::Exclusive)?;
    world.inside(|| {
        if network.interface.starts_with(OWN_BRIDGE) {
            link::remove(&network.interface)?;
        }
        if world.handle().is_none() {
            foreign::forget(&network.interface)?;
        }
        if tables(engine).is_there()? { write_without(engine, &world, &networks, Some(&network.name)) } else { Ok(()) }
    })
}

/// Whether husk's tables are missing that a container needs: somebody has flushed them.
pub fn lacks_rules(engine: &Engine) -> Result<bool> {
    let networks = Networks::of(engine);
    let mut is_needed = false;
    for name in networks.in_use()? {
        is_needed |= networks.leases(&name)?.values().any(|lease| !lease.port.is_empty());
    }
    // Only root's can be flushed by somebody else.
    Ok(is_needed && engine.maps.is_none() && !tables(engine).is_there()?)
}

/// The name of the tables for a run root: the system's own has the plain one.
pub fn firewall_name(run_root: &std::path::Path) -> String {
    if run_root == std::path::Path::new(super::settings::SYSTEM_RUN_ROOT) {
        return firewall::NAME.to_owned();
    }
    // FNV-1a: to tell a few from each other.
    let hash = run_root
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("{}-{hash:08x}", firewall::NAME)
}
