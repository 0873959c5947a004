//! A container's place in its networks, from its start to its end: leases, links, rules, published ports, and the files that
//! tell it of them. Made by the monitor, between the birth of the network namespace and that of the workload.
//!
//! What there is in the kernel follows from the networks' definitions and from the leases below the run root. The order
//! holds that up: a lease is written before what it stands for is made, and goes after that is gone. So whatever is killed
//! half-way, the next command finds by its lease what is to be removed ([`sweep`]). The link needs nobody: it ends with the
//! container's network namespace.

mod files;
mod names;
mod place;
mod ports;
mod rules;
mod world;

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};

use self::place::Place;
pub(super) use self::rules::OWN_BRIDGE;
use self::rules::{Gone, Netfilter, add, endpoint, give_back, sweep_named};
pub use self::rules::{firewall_name, forget, lacks_rules, reload, sweep};
use self::world::World;
pub use self::world::{check, default_is_out_of_reach};
use super::engine::Engine;
use super::networks::driver::Driver;
use super::networks::{NetworkRecord, Networks};
use super::options::Attachment;
use super::record::Record;
use crate::error::{Context, Error, Kind, Result};
use crate::network::conntrack;
use crate::network::firewall::Endpoint;
use crate::network::lease::{self, Lease, Leases, Wish};
use crate::network::link;
use crate::network::port::Protocol;
use crate::network::relay::Relay;
use crate::network::rootless::open_inside;
use crate::support::id::ContainerId;
use crate::sys::clone::{CloneFlags, Cloned, clone3};
use crate::sys::process::exit_now;

/// How long links may take to go by themselves.
const GOODBYE: Duration = Duration::from_millis(5);
const GOODBYES: u32 = 40;

/// A container's networks, while it starts, runs and ends.
pub struct Connecting<'a> {
    engine: &'a Engine,
    record: &'a Record,
    hostname: &'a str,
    relay: &'a RefCell<Relay>,
    world: RefCell<Option<Rc<World>>>,
    netfilter: Netfilter,
    /// Of which run its leases are, once there is one.
    run: Cell<Option<u64>>,
}

impl<'a> Connecting<'a> {
    /// `None` for a container that is in no network.
    pub fn of(engine: &'a Engine, record: &'a Record, hostname: &'a str, relay: &'a RefCell<Relay>) -> Option<Self> {
        let is_in_any = !record.options.network.attachments().is_empty();
        let made = || Self::new(engine, record, hostname, relay);
        // Whoever asks for all of a container's networks is its monitor.
        is_in_any.then(|| Self { netfilter: Netfilter::of_a_keeper(), ..made() })
    }

    fn new(engine: &'a Engine, record: &'a Record, hostname: &'a str, relay: &'a RefCell<Relay>) -> Self {
        Self {
            engine,
            record,
            hostname,
            relay,
            world: RefCell::default(),
            netfilter: Netfilter::default(),
            run: Cell::default(),
        }
    }

    /// Finds or makes what the networks are in. To be called before anything is connected.
    pub fn prepare(&self) -> Result<()> {
        let world = World::ensure(self.engine)?;
        self.world.replace(Some(Rc::new(world)));
        Ok(())
    }

    /// Puts a container's configuration into the world of its networks; into a new one where the old one has gone.
    pub fn enter(&self, spec: &mut Spec) -> Result<()> {
        if !self.world().lives() {
            self.prepare()?;
        }
        self.world().enter(spec);
        Ok(())
    }

    /// Says which process is the container's first, once it runs: the way out is kept for as long.
    pub fn keep(&self) -> Result<()> {
        if self.world().handle().is_none() {
            return Ok(());
        }
        let state = self.engine.runtime(false)?.state(self.record.id.as_str())?;
        self.world().keep(state.pid)
    }

    fn world(&self) -> Rc<World> {
        let find = || Rc::new(World::find(self.engine).unwrap_or(World::None));
        self.world.borrow_mut().get_or_insert_with(find).clone()
    }

    /// Joins the container's network namespace to its networks. On failure nothing of it is left.
    pub fn connect(&self, namespace: BorrowedFd<'_>) -> Result<()> {
        let is_again = self.run.get().is_some();
        self.run.set(Some(lease::new_run()?));
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
        let world = self.world();
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
        let first = first_of(&places);
        if let Some(handle) = world.handle() {
            handle.hold()?;
            // What the run before had is published anew.
            handle.withdraw(self.record.id.as_str())?;
        }
        let opened = match (places.get(first), leases.get(first)) {
            // Nothing comes in to an internal one.
            (Some(place), Some(lease)) if !place.network.internal => {
                ports::open(self.engine, &world, self.record, &place.options, lease)?
            }
            _ => ports::Opened::default(),
        };
        if ports::anothers(&networks, self.record.id.as_str(), &opened.bound)?.is_some() {
            // The host let us have them: who had them is gone, and its rules are not.
            for name in networks.in_use()? {
                sweep_named(self.engine, &self.world(), &networks, &name)?;
            }
            // But for those that no socket holds (sctp).
            if let Some((bound, owner)) = ports::anothers(&networks, self.record.id.as_str(), &opened.bound)? {
                return Err(ports::allocated(&bound, &owner));
            }
        }
        for (number, (place, lease)) in places.iter().zip(&mut leases).enumerate() {
            if number == first {
                lease.published.clone_from(&opened.bound);
            }
            self.note(&networks, place, lease)?;
        }
        let linked = leases.iter().filter(|lease| !lease.port.is_empty());
        let endpoints: Vec<Endpoint> = linked.map(|lease| endpoint(&world, lease)).collect();
        let joined: Vec<&NetworkRecord> = places.iter().map(|place| &place.network).collect();
        world.inside(|| {
            // Before the links, so that there is no moment in which a container could say what it wants.
            add(self.engine, &world, &networks, &joined, &self.netfilter, &endpoints, follows_another)?;
            for (number, (place, lease)) in places.iter().zip(&leases).enumerate() {
                let linked = place.link(&world, &self.netfilter, lease, number == first, namespace);
                linked.with_context(|| format!("network {}", place.network.name))?;
            }
            match opened.datagram_ports() {
                ports if ports.is_empty() => Ok(()),
                ports => conntrack::forget_ports(Protocol::Udp.number(), &ports),
            }
        })?;
        for place in &places {
            self.ensure_names(&networks, &place.network)?;
        }
        self.relay.replace(Relay::default());
        self.relay.borrow_mut().extend(opened.doors);
        if let (Some(place), Some(lease)) = (places.get(first), leases.get(first)) {
            files::write(self.engine, &world, self.record, self.hostname, &place.network, lease)?;
        }
        Ok(())
    }

    fn place<'p>(&self, networks: &Networks<'_>, number: usize, attachment: &'p Attachment) -> Result<Place<'p>> {
        let network = networks.find(&attachment.network)?;
        let options = network.parsed()?;
        let prefix = options.interface_prefix.as_deref().unwrap_or("eth");
        let interface = attachment.interface.clone().unwrap_or_else(|| format!("{prefix}{number}"));
        let port = if network.driver == Driver::Bridge { port_of(&self.record.id, number) } else { String::new() };
        Ok(Place { attachment, network, options, interface, port })
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
            run: self.run.get().map_or_else(lease::new_run, Ok)?,
        };
        let mut leases = Leases::open(folder.as_fd())?;
        let id = self.record.id.as_str();
        let before = leases.all().get(id).cloned();
        let lease = match leases.take(id, &network.pools(), &wish) {
            Err(error) if error.kind() != Kind::Invalid => {
                // Somebody may have been killed who would have given back what is wanted.
                drop(leases);
                sweep_named(self.engine, &self.world(), networks, &network.name)?;
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
        let folder = networks.run_folder(&place.network)?;
        Leases::open(folder.as_fd())?.change(self.record.id.as_str(), |held| held.clone_from(lease))
    }

    fn ensure_names(&self, networks: &Networks<'_>, network: &NetworkRecord) -> Result<()> {
        if names::ensure(networks, network, &self.world())? {
            let world = self.world();
            world.inside(|| self.netfilter.turn(self.engine)?.rewrite(&world, networks))?;
        }
        Ok(())
    }

    /// Joins it to one network more, while it runs.
    fn attach(&self, attachment: &Attachment, namespace: BorrowedFd<'_>) -> Result<()> {
        let networks = Networks::of(self.engine);
        let held = self.held(&networks)?;
        self.run.set(held.iter().find_map(|gone| gone.lease.run));
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
                let endpoints: Vec<Endpoint> =
                    (!lease.port.is_empty()).then(|| endpoint(&world, &lease)).into_iter().collect();
                add(self.engine, &world, &networks, &[&place.network], &self.netfilter, &endpoints, false)?;
                place.link(&world, &self.netfilter, &lease, held.is_empty(), namespace)
            })?;
            self.ensure_names(&networks, &place.network)
        };
        join().map_err(|error| {
            // Not by the name inside, which may be another's: a pair goes with its end out here.
            let _ = self.part(&networks, &place.network.name, None);
            error.context(format!("network {}", place.network.name))
        })
    }

    /// Takes it out of a network, while it runs.
    fn part(&self, networks: &Networks<'_>, network: &str, namespace: Option<BorrowedFd<'_>>) -> Result<()> {
        let held = self.held(networks)?;
        let Some(gone) = held.into_iter().find(|gone| gone.network == network) else { return Ok(()) };
        let world = self.world();
        if let (true, Some(namespace)) = (gone.lease.port.is_empty(), namespace) {
            world.inside(|| link::disconnect(&gone.lease.interface, namespace))?;
        }
        give_back(self.engine, &world, networks, &[gone])
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
        let world = self.world();
        for Gone { network, lease, .. } in self.held(&networks)? {
            self.run.set(lease.run);
            match world.handle() {
                Some(handle) => ports::publish_again(handle, self.record, &lease),
                None => self.relay.borrow_mut().extend(ports::reopen(&lease)),
            }
            // Who killed the monitor may have killed the name servers as well. Without names it is looked after all the same.
            let _ = networks.find(&network).and_then(|network| self.ensure_names(&networks, &network));
        }
        match world.handle() {
            Some(handle) => handle.hold(),
            // From now on it keeps the tables, too.
            None => self.netfilter.turn(self.engine)?.ensure(&world, &networks),
        }
    }

    /// Closes the doors, so that they are free for the next that wants them.
    pub fn close(&self) {
        self.relay.replace(Relay::default());
    }

    /// Gives back what the container had in a process that nobody waits for: before it takes rules away, the kernel waits some
    /// 15 ms until nobody looks at them any more.
    pub fn leave_alone(&self) {
        self.close();
        if self.run.get().is_none() {
            return;
        }
        if let Ok(Cloned::Parent(..)) = clone3(CloneFlags::empty(), None) {
            return;
        }
        let _ = rustix::thread::set_name(c"husk:[leaving]");
        self.netfilter.let_go();
        self.see_links_off();
        let left = self.leave();
        exit_now(i32::from(left.is_err()));
    }

    /// Waits a little for the pairs to go with their namespace, as they do: the kernel would make everybody wait who asks it for
    /// that.
    fn see_links_off(&self) {
        let (Ok(held), World::Host) = (self.held(&Networks::of(self.engine)), &*self.world()) else { return };
        for _ in 0..GOODBYES {
            if held.iter().all(|gone| !link::is_there(&gone.lease.port)) {
                return;
            }
            std::thread::sleep(GOODBYE);
        }
    }

    /// Gives back what the container had in this run. The next may have begun: what is that one's stays.
    pub fn leave(&self) -> Result<()> {
        self.close();
        let Some(run) = self.run.get() else { return Ok(()) };
        let networks = Networks::of(self.engine);
        let mut gone = self.held(&networks)?;
        gone.retain(|gone| gone.lease.run == Some(run));
        give_back(self.engine, &self.world(), &networks, &gone)
    }
}

/// Joins a container that runs to one network more.
pub fn attach(engine: &Engine, record: &Record, attachment: &Attachment) -> Result<()> {
    let relay = RefCell::default();
    let connecting = Connecting::new(engine, record, "", &relay);
    connecting.prepare()?;
    let namespace = namespace_of(engine, &connecting.world(), record)?;
    connecting.attach(attachment, namespace.as_fd())
}

/// Takes a container that runs out of a network.
pub fn detach(engine: &Engine, record: &Record, network: &str) -> Result<()> {
    let relay = RefCell::default();
    let connecting = Connecting::new(engine, record, "", &relay);
    let namespace = namespace_of(engine, &connecting.world(), record)?;
    connecting.part(&Networks::of(engine), network, Some(namespace.as_fd()))
}

fn namespace_of(engine: &Engine, world: &World, record: &Record) -> Result<OwnedFd> {
    let state = engine.runtime(false)?.state(record.id.as_str())?;
    let path = format!("/proc/{}/ns/net", state.pid);
    let open = || {
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).with_context(|| format!("open {path}"))
    };
    let Some(handle) = world.handle() else { return open() };
    // A workload may have become somebody over whom the user has rights in the user namespace alone.
    let opened = open_inside(handle.user_namespace(), handle.network_namespace(), 1, || Ok(vec![open()?]))?;
    opened.into_iter().next().ok_or_else(|| Error::new(Kind::Other, format!("open {path}: nothing was handed over")))
}

/// Through which of them goes what is for elsewhere: of those that lead there, that of the highest priority, and of equals the
/// first.
fn first_of(places: &[Place<'_>]) -> usize {
    let leads = |place: &Place<'_>| !place.network.internal && place.options.has_default_route;
    let any_leads = places.iter().any(leads);
    let rank = |place: &Place<'_>| place.attachment.gateway_priority;
    let candidates = || places.iter().enumerate().filter(|(_, place)| !any_leads || leads(place));
    let highest = candidates().map(|(_, place)| rank(place)).max();
    candidates().find(|(_, place)| Some(rank(place)) == highest).map_or(0, |(number, _)| number)
}

/// The host's end of a link, whose name has room for fifteen characters.
fn port_of(id: &ContainerId, number: usize) -> String {
    let short: String = id.as_str().chars().take(11).collect();
    format!("hv{short}{number}")
}
