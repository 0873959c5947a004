//! A container's place in its networks, from its start to its end: leases, links, rules, published ports, and the files that
//! tell it of them. Made by the monitor, between the birth of the network namespace and that of the workload.
//!
//! What there is in the kernel follows from the networks' definitions and from the leases below the run root. The order
//! holds that up: a lease is written before what it stands for is made, and goes after that is gone. So whatever is killed
//! half-way, the next command finds by its lease what is to be removed ([`sweep`]). The link needs nobody: it ends with the
//! container's network namespace.

mod changing;
mod files;
mod names;
mod place;
mod ports;
mod rules;
mod ways;
mod world;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use self::names::Naming;
pub use self::names::change_servers;
use self::place::Place;
pub(super) use self::rules::OWN_BRIDGE;
use self::rules::{Gone, Netfilter, Turn, add, endpoint, give_back, sweep_named};
pub use self::rules::{firewall_name, forget, lacks_rules, reload, sweep, sweep_container, sweep_unless};
use self::ways::Ways;
use self::world::World;
pub use self::world::{check_egress, check_egress_in, default_is_out_of_reach};
use super::engine::Engine;
use super::events;
use super::networks::driver::Driver;
use super::networks::{NetworkRecord, Networks};
use super::options::{Attachment, Network};
use super::record::Record;
use crate::error::{Context, Error, Kind, Result};
use crate::network::conntrack;
use crate::network::firewall::Endpoint;
use crate::network::lease::{self, Lease, Leases, Wish};
use crate::network::link;
use crate::network::passed::PassedSockets;
use crate::network::port::{BoundPort, Protocol};
use crate::network::relay::Relay;
use crate::network::rootless::{Handle, open_inside};
use crate::network::watch::Watch;
use crate::runtime;
use crate::support::activation::passed_descriptors;
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
    lifeline: &'a Watch,
    /// What the command's caller has bound already.
    passed: RefCell<PassedSockets>,
    /// Of its networks.
    names: &'a Watch,
    world: RefCell<Option<Rc<World>>>,
    /// Whether its links are in it, as far as is known.
    is_whole: Cell<bool>,
    netfilter: Netfilter,
    /// What tells this run from others, once it has begun.
    run: Cell<Option<u64>>,
    /// Ports of the host that are open for it, and where they lead.
    bound: RefCell<Vec<BoundPort>>,
    targets: RefCell<Vec<IpAddr>>,
    /// What it is in, as has been told.
    joined: RefCell<Vec<(NetworkRecord, Naming)>>,
}

/// A container's place in a network, and what it holds there.
struct Seat<'a> {
    place: Place<'a>,
    lease: Lease,
}

impl Seat<'_> {
    fn network(&self) -> &NetworkRecord {
        &self.place.network
    }
}

impl<'a> Connecting<'a> {
    /// `None` for a container that can be in no network.
    pub fn of(
        engine: &'a Engine,
        record: &'a Record,
        hostname: &'a str,
        relay: &'a RefCell<Relay>,
        lifeline: &'a Watch,
        names: &'a Watch,
    ) -> Option<Self> {
        if !matches!(record.options.network, Network::Joined(_)) {
            return None;
        }
        Some(Self {
            engine,
            record,
            hostname,
            relay,
            lifeline,
            passed: RefCell::default(),
            names,
            world: RefCell::default(),
            is_whole: Cell::default(),
            // Whoever asks for all of a container's networks is its monitor.
            netfilter: Netfilter::of_a_keeper(),
            run: Cell::default(),
            bound: RefCell::default(),
            targets: RefCell::default(),
            joined: RefCell::default(),
        })
    }

    /// Finds or makes what the networks are in. To be called before anything is connected.
    pub fn prepare(&self) -> Result<()> {
        self.world.replace(Some(Rc::new(World::ensure(self.engine)?)));
        self.is_whole.set(false);
        self.watch_way_out()?;
        let listening = passed_descriptors();
        if listening > 0 && !self.record.options.published.is_empty() {
            self.passed.replace(PassedSockets::copy(listening));
        }
        Ok(())
    }

    fn watch_way_out(&self) -> Result<()> {
        if let Some(handle) = self.world().handle() {
            let lease = handle.lease().try_clone().context("copy a descriptor")?;
            self.lifeline.hold(vec![lease], Instant::now());
        }
        Ok(())
    }

    /// Finds the way out anew that has died, or has another made, and with it what died with it: ports, and names, which the same
    /// may have befallen.
    pub fn reconnect(&self) -> Result<()> {
        if !self.world().lives() {
            self.prepare()?;
        } else if self.lifeline.links().is_empty() {
            // Whoever asked something of the one that died has met the next.
            self.watch_way_out()?;
        }
        // Where that cannot be said, the way out ends with the last monitor. Before what may fail: a port that is somebody
        // else's by now.
        let _ = self.keep();
        self.restore()
    }

    /// The same, before its time. What cannot be made anew but for the way out itself is tried again then.
    fn reconnect_now(&self) -> Result<()> {
        let answer = self.reconnect();
        match &answer {
            Ok(()) => self.lifeline.restored(),
            Err(_) => self.lifeline.try_again(Instant::now()),
        }
        if self.world().lives() { Ok(()) } else { answer }
    }

    /// Refuses a configuration whose namespaces cannot be in the world of its networks; a new one where the old one has gone.
    pub fn check(&self, spec: &Spec) -> Result<()> {
        if !self.world().lives() {
            self.prepare()?;
        }
        self.world().check(spec)
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

    /// What the container is: since the monitor began, or since the command that starts it looked, it may have been put into
    /// other networks. Who does that says so to the monitor as well ([`Connecting::change`]).
    fn record_now(&self) -> Result<Record> {
        self.engine.containers()?.find(self.record.id.as_str())?.record()
    }

    fn make(&self, record: &Record, is_again: bool, namespace: BorrowedFd<'_>) -> Result<()> {
        let networks = Networks::of(self.engine);
        if let Some(handle) = self.world().handle()
            && handle.hold().is_err()
        {
            // It has died since it was found. Where somebody held the namespaces, they are the same.
            self.prepare()?;
            self.world().handle().map_or(Ok(()), Handle::hold)?;
        }
        let world = self.world();
        let attachments = record.options.network.attachments();
        if is_again {
            self.part(&networks, attachments, None)?;
        }
        let mut seats = Vec::new();
        let mut follows_another = false;
        for (number, attachment) in attachments.iter().enumerate() {
            let place = self.place(&networks, number, attachment)?;
            let (lease, before) =
                self.lease(&networks, record, &place).with_context(|| format!("network {}", place.network.name))?;
            follows_another |= before.is_some_and(|before| !before.port.is_empty());
            seats.push(Seat { place, lease });
        }
        let ways = Ways::of(&seats);
        if let Some(handle) = world.handle() {
            // What the run before had is published anew.
            handle.withdraw(self.record.id.as_str())?;
        }
        let targets = ways.targets(&seats);
        let opened = self.open(&networks, record, &seats, &targets)?;
        let claim = self.claim(&networks, &opened.bound)?;
        for number in 0..seats.len() {
            let published = ways.published(number, &seats, &opened.bound);
            let Some(seat) = seats.get_mut(number) else { continue };
            self.note(&networks, record, seat, published)?;
        }
        drop(claim);
        let linked = seats.iter().filter(|seat| !seat.lease.port.is_empty());
        let endpoints: Vec<Endpoint> = linked.map(|seat| endpoint(&world, &seat.lease)).collect();
        let joined: Vec<&NetworkRecord> = seats.iter().map(Seat::network).collect();
        world.inside(|| {
            // Before the links, so that there is no moment in which a container could say what it wants.
            add(self.engine, &world, &networks, &joined, &self.netfilter, &endpoints, follows_another)?;
            for (number, seat) in seats.iter().enumerate() {
                let gateways = ways.gateways(number, seat);
                let linked = seat.place.link(&world, &self.netfilter, &seat.lease, gateways, namespace);
                linked.with_context(|| format!("network {}", seat.network().name))?;
            }
            forget_conversations(&opened.bound)
        })?;
        let namings =
            seats.iter().map(|seat| self.ensure_names(&networks, seat.network())).collect::<Result<Vec<_>>>()?;
        self.take(opened, targets);
        files::write(self.engine, &world, record, self.hostname, &seats, &namings)?;
        for seat in &seats {
            tell(self.engine, seat.network(), &record.id, "connect");
        }
        self.note_joined(seats, namings);
        self.begin_to_watch_names(&networks);
        Ok(())
    }

    fn note_joined(&self, seats: Vec<Seat<'_>>, namings: Vec<Naming>) {
        self.joined.replace(seats.into_iter().map(|seat| seat.place.network).zip(namings).collect());
    }

    /// Sees to it that all its networks have their name servers, of which one has died.
    pub fn find_names(&self) -> Result<()> {
        let networks = Networks::of(self.engine);
        for (network, naming) in &mut *self.joined.borrow_mut() {
            *naming = self.ensure_names(&networks, network)?;
        }
        self.watch_names(&networks)
    }

    fn watch_names(&self, networks: &Networks<'_>) -> Result<()> {
        let joined = self.joined.borrow();
        let links = joined.iter().filter_map(|(network, naming)| names::watch(networks, network, *naming).transpose());
        self.names.hold(links.collect::<Result<_>>()?, Instant::now());
        self.names.restored();
        Ok(())
    }

    /// Watches them from now on; what cannot be watched yet is looked for again.
    fn begin_to_watch_names(&self, networks: &Networks<'_>) {
        if self.watch_names(networks).is_err() {
            self.names.lost(Instant::now());
        }
    }

    /// Tells that a run has left its networks.
    pub fn tell_parted(&self) {
        for (network, _) in self.joined.take() {
            tell(self.engine, &network, &self.record.id, "disconnect");
        }
    }

    /// Takes the container's ports from the host, if there is somewhere to lead them.
    fn open(
        &self,
        networks: &Networks<'_>,
        record: &Record,
        seats: &[Seat<'_>],
        targets: &[IpAddr],
    ) -> Result<ports::Opened> {
        if targets.is_empty() || record.options.published.is_empty() {
            return Ok(ports::Opened::default());
        }
        // Of the network that callers by IPv4 are led to, as a rule.
        let serves = |seat: &&Seat<'_>| targets.iter().any(|target| seat.lease.addresses.contains(target));
        let binding = seats.iter().find(serves).and_then(|seat| seat.place.options.host_binding);
        let passed = self.passed.borrow();
        let opened = ports::open(self.engine, &self.world(), record, binding, targets, &passed)?;
        if ports::anothers(networks, record.id.as_str(), &opened.bound)?.is_some() {
            // The host let us have them: who had them is gone, and its rules are not.
            for name in networks.in_use()? {
                sweep_named(self.engine, &self.world(), networks, &name)?;
            }
        }
        Ok(opened)
    }

    /// Refuses ports that another container has by its lease: of those that no socket holds (sctp) the leases alone say whose they
    /// are. Gives the turn in which nobody else says that they are theirs, and in which its own lease is to say so; `None` where
    /// the host has told already.
    fn claim(&self, networks: &Networks<'_>, bound: &[BoundPort]) -> Result<Option<Turn<'_>>> {
        let unheld: Vec<BoundPort> = bound.iter().filter(|bound| bound.protocol == Protocol::Sctp).copied().collect();
        if unheld.is_empty() {
            return Ok(None);
        }
        let turn = self.netfilter.turn(self.engine)?;
        match ports::anothers(networks, self.record.id.as_str(), &unheld)? {
            Some((bound, owner)) => Err(ports::allocated(&bound, &owner)),
            None => Ok(Some(turn)),
        }
    }

    fn take(&self, opened: ports::Opened, targets: Vec<IpAddr>) {
        self.relay.replace(Relay::default());
        self.relay.borrow_mut().extend(opened.doors);
        self.bound.replace(opened.bound);
        self.targets.replace(targets);
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
    fn lease(&self, networks: &Networks<'_>, record: &Record, place: &Place<'_>) -> Result<(Lease, Option<Lease>)> {
        let Place { attachment, network, .. } = place;
        let folder = networks.run_folder(network)?;
        let wish = Wish {
            addresses: attachment.addresses(),
            mac: attachment.mac,
            name: record.name.to_string(),
            aliases: aliases(record, attachment),
            resolvers: record.options.hosts.servers.clone(),
            interface: place.interface.clone(),
            port: place.port.clone(),
            run: self.run.get(),
            egress: place.guarded(&self.world(), record.options.egress.as_ref())?,
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

    /// Has the lease say what has been opened for it, and what became known since it was written.
    fn note(
        &self,
        networks: &Networks<'_>,
        record: &Record,
        seat: &mut Seat<'_>,
        published: Vec<BoundPort>,
    ) -> Result<()> {
        let Seat { place, lease } = seat;
        // A bridge that has come by now has its own Ethernet address.
        let egress = place.guarded(&self.world(), record.options.egress.as_ref())?;
        if lease.published == published && lease.egress == egress {
            return Ok(());
        }
        (lease.published, lease.egress) = (published, egress);
        let folder = networks.run_folder(&place.network)?;
        Leases::open(folder.as_fd())?.change(self.record.id.as_str(), |held| held.clone_from(lease))
    }

    fn ensure_names(&self, networks: &Networks<'_>, network: &NetworkRecord) -> Result<Naming> {
        let world = self.world();
        let naming = Naming::of(networks, network)?;
        if names::ensure(self.engine, networks, network, naming, &world)? {
            world.inside(|| self.netfilter.turn(self.engine)?.rewrite(&world, networks))?;
        }
        Ok(naming)
    }

    /// Takes it out of the networks that it is not to be in.
    fn part(&self, networks: &Networks<'_>, stays: &[Attachment], namespace: Option<BorrowedFd<'_>>) -> Result<()> {
        let mut gone = self.held(networks)?;
        gone.retain(|gone| !stays.iter().any(|attachment| attachment.network == gone.network));
        let world = self.world();
        for gone in &gone {
            if let (true, Some(namespace)) = (gone.lease.port.is_empty(), namespace) {
                world.inside(|| link::disconnect(&gone.lease.interface, namespace))?;
            }
        }
        give_back(self.engine, &world, networks, &gone)
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

    /// Opens the ports again of a container that has lost its monitor, and does what that one had not done yet.
    pub fn resume(&self) -> Result<()> {
        let networks = Networks::of(self.engine);
        let world = self.world();
        let held = self.held(&networks)?;
        for Gone { lease, .. } in &held {
            self.run.set(lease.run);
            if !lease.published.is_empty() {
                let (bound, targets) = (&lease.published, &lease.addresses);
                if world.handle().is_none() {
                    self.relay.borrow_mut().extend(ports::reopen(bound, targets));
                }
                self.bound.borrow_mut().extend(bound);
                let mut all = self.targets.borrow_mut();
                let is_first = |address: &&IpAddr| !all.iter().any(|other| other.is_ipv6() == address.is_ipv6());
                let more: Vec<IpAddr> = targets.iter().filter(is_first).copied().collect();
                all.extend(more);
            }
        }
        if self.run.get().is_none() {
            self.run.set(Some(lease::new_run()?));
        }
        if world.handle().is_none() {
            // From now on it keeps the tables, too. Before the name servers, which have their place at them from who does.
            self.netfilter.turn(self.engine)?.ensure(&world, &networks)?;
            for gone in &held {
                self.ensure_names_again(&networks, &gone.network);
            }
        } else if self.restore().is_err() {
            self.lifeline.try_again(Instant::now());
        }
        self.change()
    }

    /// Makes anew what an ordinary user's container has lost with a way out that was killed, or with all that held the networks'
    /// namespace.
    fn restore(&self) -> Result<()> {
        let (networks, world) = (Networks::of(self.engine), self.world());
        let Some(handle) = world.handle() else { return Ok(()) };
        handle.hold()?;
        let held = self.held(&networks)?;
        // It takes a process to look: once is enough, also for who comes back for a port that somebody has taken.
        if !self.is_whole.get() {
            if !self.is_linked(&held) {
                self.link_again(&networks, &held)?;
            }
            self.is_whole.set(true);
        }
        let (bound, targets, passed) = (self.bound.borrow(), self.targets.borrow(), self.passed.borrow());
        let published = ports::publish_again(self.engine, handle, self.record, &bound, &targets, &passed);
        for gone in &held {
            self.ensure_names_again(&networks, &gone.network);
        }
        published
    }

    /// Who killed the monitor may have killed the name servers as well. Without names it is looked after all the same.
    fn ensure_names_again(&self, networks: &Networks<'_>, network: &str) {
        let _ = networks.find(network).and_then(|network| self.ensure_names(networks, &network));
    }

    /// Whether its links are there still: with the last process that held it, an ordinary user's network namespace goes, and all
    /// that is in it.
    fn is_linked(&self, held: &[Gone]) -> bool {
        let is_there = |gone: &Gone| gone.lease.port.is_empty() || link::is_there(&gone.lease.port);
        let look = || if held.iter().all(is_there) { Ok(()) } else { Err(Error::from(Errno::NODEV)) };
        self.world().inside(look).is_ok()
    }

    /// Makes links anew for a container that runs, with the addresses that it has.
    fn link_again(&self, networks: &Networks<'_>, held: &[Gone]) -> Result<()> {
        let world = self.world();
        let record = self.record_now()?;
        let mut seats = Vec::new();
        for attachment in record.options.network.attachments() {
            let place = self.place(networks, 0, attachment)?;
            if let Some(Gone { lease, .. }) = held.iter().find(|gone| gone.network == place.network.name) {
                let (interface, port) = (lease.interface.clone(), lease.port.clone());
                seats.push(Seat { place: Place { interface, port, ..place }, lease: lease.clone() });
            }
        }
        let ways = Ways::of(&seats);
        let namespace = namespace_of(self.engine, &world, &record)?;
        let joined: Vec<&NetworkRecord> = seats.iter().map(Seat::network).collect();
        world.inside(|| {
            add(self.engine, &world, networks, &joined, &self.netfilter, &[], true)?;
            for (number, seat) in seats.iter().enumerate() {
                let gateways = ways.gateways(number, seat);
                // A namespace that nobody is in goes in a while, and one that somebody has a socket in does not: what leads there
                // is in the way.
                link::disconnect(&seat.place.interface, namespace.as_fd())?;
                seat.place.link(&world, &self.netfilter, &seat.lease, gateways, namespace.as_fd())?;
            }
            Ok(())
        })
    }

    /// Closes the doors, so that they are free for the next that wants them.
    pub fn close(&self) {
        self.relay.replace(Relay::default());
        self.bound.replace(Vec::new());
        self.targets.replace(Vec::new());
        self.names.let_go();
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
        let left = self.held(&Networks::of(self.engine)).and_then(|held| {
            self.see_links_off(&held);
            self.give_back(held)
        });
        exit_now(i32::from(left.is_err()));
    }

    /// Waits a little for the pairs to go with their namespace, as they do: the kernel would make everybody wait who asks it for
    /// that.
    fn see_links_off(&self, held: &[Gone]) {
        if !matches!(*self.world(), World::Host) {
            return;
        }
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
        match self.run.get() {
            Some(_) => self.give_back(self.held(&Networks::of(self.engine))?),
            None => Ok(()),
        }
    }

    fn give_back(&self, mut held: Vec<Gone>) -> Result<()> {
        held.retain(|gone| gone.lease.run.is_some() && gone.lease.run == self.run.get());
        if !self.world().lives() {
            // Another may have come in its place.
            if let Ok(found @ World::Users(_)) = World::find(self.engine) {
                self.world.replace(Some(Rc::new(found)));
            }
        }
        give_back(self.engine, &self.world(), &Networks::of(self.engine), &held)
    }
}

impl runtime::container::Networks for Connecting<'_> {
    fn user_namespace(&self) -> Result<Option<OwnedFd>> {
        self.world().user_namespace()
    }

    /// On failure nothing of it is left.
    fn connect(&self, namespace: BorrowedFd<'_>) -> Result<()> {
        let is_again = self.run.replace(Some(lease::new_run()?)).is_some();
        let made = self.make(&self.record_now()?, is_again, namespace);
        if made.is_err() {
            // The failure is the one to tell; what remains is found by its lease.
            let _ = self.leave();
        }
        made
    }
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

/// What a container is called in a network besides its own name: as docker has it, also by the name that it calls itself.
fn aliases(record: &Record, attachment: &Attachment) -> Vec<String> {
    let mut aliases = attachment.aliases.clone();
    let hostname = record.options.hostname.as_ref().filter(|hostname| *hostname != record.name.as_str());
    aliases.extend(hostname.filter(|hostname| !attachment.aliases.contains(hostname)).cloned());
    aliases
}

/// Tells that a container is in a network, or is no more, in docker's words.
pub fn tell(engine: &Engine, network: &NetworkRecord, container: &ContainerId, action: &str) {
    events::network(engine, network, action, &[("container", container.to_string())]);
}

/// Tells that a container has left its networks which ended with its monitor.
pub fn tell_orphan_parted(engine: &Engine, record: &Record) {
    let networks = Networks::of(engine);
    for attachment in record.options.network.attachments() {
        if let Ok(network) = networks.find(&attachment.network) {
            tell(engine, &network, &record.id, "disconnect");
        }
    }
}

/// Who had a port before is forgotten by those who sent to it.
fn forget_conversations(bound: &[BoundPort]) -> Result<()> {
    let datagrams = bound.iter().filter(|bound| bound.protocol == Protocol::Udp);
    match datagrams.map(|bound| bound.host_port).collect::<Vec<_>>() {
        ports if ports.is_empty() => Ok(()),
        ports => conntrack::forget_ports(Protocol::Udp.number(), &ports),
    }
}

/// The host's end of a link, whose name has room for fifteen characters.
fn port_of(id: &ContainerId, number: usize) -> String {
    let short: String = id.as_str().chars().take(11).collect();
    format!("hv{short}{number}")
}
