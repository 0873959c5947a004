//! husk's tables in nf_tables, as they follow from the networks and from who is in them; and what containers that were killed
//! have left there. Makes no link.

use std::cell::RefCell;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use super::world::World;
use super::{names, ports};
use crate::engine::engine::Engine;
use crate::engine::networks::driver::Driver;
use crate::engine::networks::{NetworkRecord, Networks};
use crate::engine::record::Status;
use crate::engine::settings::SYSTEM_RUN_ROOT;
use crate::error::{Error, Kind, Result};
use crate::network::conntrack::{self, Conversations};
use crate::network::egress::Grant;
use crate::network::firewall::egress::Bounds;
use crate::network::firewall::{self, Endpoint, Firewall, Segment, foreign, keeper};
use crate::network::forwarding::{self, Apart, Missing};
use crate::network::lease::{Lease, Leases};
use crate::network::{link, rootless};
use crate::sys::netlink::Socket;

/// How long the kernel may take to notice that the last who kept the tables has ended.
const ENDING: Duration = Duration::from_millis(2);
const ENDINGS: u32 = 500;

/// The sockets by which a process speaks to nf_tables: opened where they are first used, and closed by nobody on the way to
/// a container's start.
#[derive(Default)]
pub(super) struct Netfilter {
    own: RefCell<Option<Rc<Socket>>>,
    /// A copy of the one that owns husk's tables, of who stays.
    kept: RefCell<Option<Rc<Socket>>>,
    stays: bool,
}

impl Netfilter {
    /// Those of a process that stays, and keeps the tables for as long.
    pub(super) fn of_a_keeper() -> Self {
        Self { stays: true, ..Self::default() }
    }

    /// This process's own.
    pub(super) fn socket(&self) -> Result<Rc<Socket>> {
        if let Some(socket) = &*self.own.borrow() {
            return Ok(Rc::clone(socket));
        }
        let socket = Rc::new(firewall::open_socket()?);
        self.own.replace(Some(Rc::clone(&socket)));
        Ok(socket)
    }

    /// Keeps the tables no longer: for a copy of the process, which nobody knows of.
    pub(super) fn let_go(&self) {
        self.kept.replace(None);
        self.own.replace(None);
    }

    /// Waits for the turn to change husk's tables.
    pub(super) fn turn<'t>(&'t self, engine: &'t Engine) -> Result<Turn<'t>> {
        let folder = Networks::of(engine).run_root()?;
        let mut turn = keeper::Turn::wait(folder.as_fd())?;
        let firewall = tables(engine);
        // In a user's world there is nobody else who would flush them; and this may be called outside of it.
        if engine.maps.is_some() {
            return Ok(Turn { netfilter: self, firewall, socket: None, place: turn, owns: false, is_anybodys: false });
        }
        let found = turn.find().map(Rc::new);
        let is_kept = found.is_some();
        // One that is used in turns alone: who has a copy would take answers for its own that are another's.
        let socket = match found {
            Some(found) => found,
            None => Rc::new(firewall::open_socket()?),
        };
        let owns = is_kept || keeper::can_be_shared(&socket);
        let mut turn = Turn { netfilter: self, firewall, socket: Some(socket), place: turn, owns, is_anybodys: false };
        if is_kept || owns && turn.adopt()? {
            turn.keep()?;
        } else {
            turn.is_anybodys = owns && firewall::knows_owners();
        }
        Ok(turn)
    }
}

/// husk's tables, in the turn of who changes them.
pub(super) struct Turn<'t> {
    netfilter: &'t Netfilter,
    firewall: Firewall<'t>,
    /// The one that owns the tables, or is to; none where nobody does.
    socket: Option<Rc<Socket>>,
    place: keeper::Turn,
    owns: bool,
    /// The tables could be this one's, and are nobody's that could be taken over: they are not there, or a husk has written them
    /// that could not own them.
    is_anybodys: bool,
}

impl Turn<'_> {
    fn socket(&self) -> Result<Rc<Socket>> {
        self.socket.as_ref().map_or_else(|| self.netfilter.socket(), |socket| Ok(Rc::clone(socket)))
    }

    /// Takes over what nobody keeps any more.
    fn adopt(&mut self) -> Result<bool> {
        if !self.is_there()? {
            return Ok(false);
        }
        let socket = self.socket()?;
        for _ in 0..ENDINGS {
            match self.firewall.adopt(&socket) {
                Err(error) if error.errno() == Some(Errno::PERM) => {
                    if self.place.out_of_reach().is_some() {
                        break;
                    }
                    std::thread::sleep(ENDING);
                }
                Ok(true) => {
                    self.place.forget_all();
                    return Ok(true);
                }
                answer => return answer,
            }
        }
        Err(self.out_of_reach())
    }

    /// Says why tables that are owned cannot be changed.
    fn out_of_reach(&self) -> Error {
        let error = Error::new(Kind::State, "husk's tables in nf_tables belong to a socket that is out of reach");
        match self.place.out_of_reach() {
            Some(whose) => error.context(whose).with_hint("husk where that process was started, and as who started it"),
            None => error
                .with_hint("of a container's monitor, or of what was started by one; it goes with the last of them"),
        }
    }

    /// Says so of what could not be changed because of that.
    fn explain<T>(&self, changed: Result<T>) -> Result<T> {
        changed.map_err(|error| match error.errno() {
            Some(Errno::PERM) if self.place.out_of_reach().is_some() => self.out_of_reach(),
            _ => error,
        })
    }

    /// Has whoever is next find the tables with this process, if it stays.
    fn keep(&mut self) -> Result<()> {
        let socket = self.socket()?;
        let cookie = |socket: &Socket| rustix::net::sockopt::socket_cookie(socket).ok();
        let is_same = |kept: &Rc<Socket>| cookie(kept) == cookie(&socket);
        if self.netfilter.stays && !self.netfilter.kept.borrow().as_ref().is_some_and(is_same) {
            self.place.enter(&socket)?;
            self.netfilter.kept.replace(Some(socket));
        }
        Ok(())
    }

    fn is_there(&self) -> Result<bool> {
        self.firewall.is_there(self.socket()?.as_ref())
    }

    /// Writes them anew, from the networks and their leases.
    pub(super) fn rewrite(&mut self, world: &World, networks: &Networks<'_>) -> Result<()> {
        self.rewrite_without(world, networks, None, &[])
    }

    /// Writes them where they are not there.
    pub(super) fn ensure(&mut self, world: &World, networks: &Networks<'_>) -> Result<()> {
        if self.is_there()? { Ok(()) } else { self.rewrite(world, networks) }
    }

    /// Has guarded containers reach what they may by now, and know nothing of what they have learned. Says whether it is so: where
    /// the tables are not as they were left, they are to be written anew.
    pub(super) fn change(&self, before: &[Endpoint], after: &[Endpoint]) -> Result<bool> {
        let socket = self.socket()?;
        match self.firewall.change(&socket, before, after) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.errno(), Some(Errno::NOENT | Errno::EXIST | Errno::NOTEMPTY)) => {
                self.firewall.forget(&socket, before).map(|()| false)
            }
            Err(error) => Err(error),
        }
    }

    fn rewrite_without(
        &mut self,
        world: &World,
        networks: &Networks<'_>,
        removed: Option<&str>,
        gone: &[(&str, &Lease)],
    ) -> Result<()> {
        let mut segments = Vec::new();
        let mut endpoints = Vec::new();
        let is_left = |network: &&NetworkRecord| {
            network.driver == Driver::Bridge && removed.is_none_or(|removed| removed != network.name)
        };
        for network in networks.recorded()?.iter().filter(is_left) {
            segments.push(segment(world, networks, network)?);
            // A lease whose link is not there yet is added by who makes that.
            let leases = networks.leases(&network.name)?;
            let stays = |(holder, lease): &(&String, &Lease)| {
                !lease.port.is_empty() && !gone.iter().any(|(other, of)| *other == holder.as_str() && of == lease)
            };
            endpoints.extend(leases.iter().filter(stays).map(|(_, lease)| endpoint(world, lease)));
        }
        let apart = match world {
            World::Host => Apart::read(networks.run_root()?.as_fd())?,
            World::Users(_) | World::None => Apart::default(),
        };
        let written = self.firewall.write(self.socket()?.as_ref(), self.owns, &segments, &endpoints, &apart);
        if self.explain(written)? {
            self.keep()?;
        }
        Ok(())
    }
}

/// How the names of bridges begin that husk makes.
pub(in crate::engine) const OWN_BRIDGE: &str = "hk-";

/// A lease, and whose it is: of one who has gone, as a rule.
pub(super) struct Gone {
    pub(super) network: String,
    pub(super) holder: String,
    pub(super) lease: Lease,
}

/// A user's ports are published by the way out, not by rules.
pub(super) fn endpoint(world: &World, lease: &Lease) -> Endpoint {
    Endpoint {
        port: lease.port.clone(),
        mac: lease.mac.0,
        addresses: lease.addresses.clone(),
        published: if world.handle().is_none() { ports::published(lease) } else { Vec::new() },
        bounds: lease
            .egress
            .as_ref()
            .map(|egress| Bounds { bridge: egress.bridge.0, grants: egress.allow.grants(&egress.servers) }),
    }
}

fn segment(world: &World, networks: &Networks<'_>, network: &NetworkRecord) -> Result<Segment> {
    Ok(Segment {
        interface: network.interface.clone(),
        subnets: network.subnets.iter().map(|subnet| (subnet.block.first(), subnet.block.prefix())).collect(),
        is_internal: network.internal,
        // The way out of a user's world knows its containers apart.
        masquerades: world.handle().is_none() && network.parsed()?.masquerades,
        connects_containers: network.parsed()?.connects_containers,
        led: names::led(networks, network)?,
    })
}

/// Each run root has tables of its own, so that two know nothing of each other.
pub(super) fn tables(engine: &Engine) -> Firewall<'_> {
    Firewall { name: &engine.firewall_name, gate: engine.maps.as_ref().map(|_| rootless::DEVICE) }
}

/// Adds containers' connections to these networks. Where what is there may be of a run before, or is older than one of the
/// networks, all is written anew.
pub(super) fn add(
    engine: &Engine,
    world: &World,
    networks: &Networks<'_>,
    joined: &[&NetworkRecord],
    netfilter: &Netfilter,
    endpoints: &[Endpoint],
    follows_another: bool,
) -> Result<()> {
    let mut turn = netfilter.turn(engine)?;
    let is_guarded = endpoints.iter().any(|endpoint| endpoint.bounds.is_some());
    let forwards = |network: &&NetworkRecord| network.driver == Driver::Bridge && (!network.internal || is_guarded);
    let missing = missing_forwarding(world, joined.iter().copied().filter(forwards))?;
    if let Some(missing) = missing {
        note_strangers(networks, missing)?;
    } else if !follows_another && !turn.is_anybodys && add_alone(&turn, joined, endpoints)? {
        return Ok(());
    }
    turn.rewrite(world, networks)?;
    // With the rules there are, so that there is no moment in which this host forwards what it did not before.
    missing.map_or(Ok(()), Missing::turn_on)
}

/// What this host does not forward yet, and has to for these networks. A user's world forwards by itself.
fn missing_forwarding<'n>(world: &World, networks: impl Iterator<Item = &'n NetworkRecord>) -> Result<Option<Missing>> {
    let mut open = networks.peekable();
    if open.peek().is_none() || world.handle().is_some() {
        return Ok(None);
    }
    forwarding::missing(open.any(|network| network.ipv6))
}

fn note_strangers(networks: &Networks<'_>, missing: Missing) -> Result<()> {
    let records = networks.recorded()?;
    let bridges: Vec<&str> = records.iter().map(|network| network.interface.as_str()).collect();
    missing.note(networks.run_root()?.as_fd(), &bridges)
}

/// Adds elements to what is there; says whether that would do.
fn add_alone(turn: &Turn<'_>, joined: &[&NetworkRecord], endpoints: &[Endpoint]) -> Result<bool> {
    for network in joined.iter().filter(|network| network.driver == Driver::Bridge) {
        if !turn.firewall.knows(turn.socket()?.as_ref(), &network.interface)? {
            return Ok(false);
        }
    }
    match turn.explain(turn.firewall.add(turn.socket()?.as_ref(), endpoints)) {
        Ok(()) => Ok(true),
        // Not there yet, or gone; a published port that is still led to who had it, and what the address's last holder was
        // granted.
        Err(error) if matches!(error.errno(), Some(Errno::NOENT | Errno::EXIST | Errno::NOTEMPTY)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Ends what guarded containers have begun and may not reach any more, as far as addresses say: what names led to has been
/// forgotten.
pub(super) fn end_what_was_begun(endpoints: &[Endpoint]) -> Result<()> {
    let grants: Vec<&Grant> =
        endpoints.iter().filter_map(|endpoint| endpoint.bounds.as_ref()).flat_map(|bounds| &bounds.grants).collect();
    let addresses: Vec<IpAddr> = endpoints.iter().flat_map(|endpoint| endpoint.addresses.iter().copied()).collect();
    conntrack::forget_begun(&addresses, |to, protocol, port| {
        grants.iter().any(|grant| grant.covers(to, protocol, port))
    })
}

/// Takes the rules of containers away that have ended, and then their leases.
pub(super) fn give_back(engine: &Engine, world: &World, networks: &Networks<'_>, gone: &[Gone]) -> Result<()> {
    if gone.is_empty() {
        return Ok(());
    }
    // Closed behind the lock: the kernel has who closes it wait until nobody looks at what was taken away.
    let netfilter = Netfilter::default();
    let mut turn = netfilter.turn(engine)?;
    let mut endpoints = Vec::new();
    let mut released = Vec::new();
    for Gone { network, holder, lease } in gone {
        // Since then it may have started again.
        if networks.leases(network)?.get(holder) == Some(lease) {
            endpoints.extend((!lease.port.is_empty()).then(|| endpoint(world, lease)));
            released.push((network, holder, lease));
        }
    }
    // The lease goes last: what is killed before that is found by it.
    let gone: Vec<(&str, &Lease)> = released.iter().map(|(_, holder, lease)| (holder.as_str(), *lease)).collect();
    world.inside(|| {
        // With the namespace goes the pair, if nobody else is in that; one that stays would be nobody's.
        endpoints.iter().try_for_each(|endpoint| link::remove(&endpoint.port))?;
        if endpoints.is_empty() {
            return Ok(());
        }
        match turn.explain(turn.firewall.remove(turn.socket()?.as_ref(), &endpoints)) {
            // One of them was not there: what is there is made right, unless there is nothing.
            Err(error) if error.errno() == Some(Errno::NOENT) => {
                if turn.is_there()? {
                    turn.rewrite_without(world, networks, None, &gone)
                } else {
                    Ok(())
                }
            }
            answer => answer,
        }
    })?;
    drop(turn);
    end_conversations(world, networks, &released)?;
    // What was published by a process that has died, has gone with it.
    if let Some(handle) = world.handle().filter(|_| world.lives()) {
        for (_, holder, _) in released.iter().filter(|(_, _, lease)| !lease.published.is_empty()) {
            handle.withdraw(holder)?;
        }
        let addresses: Vec<IpAddr> =
            released.iter().flat_map(|(_, _, lease)| lease.addresses.iter().copied()).collect();
        handle.forget(&addresses)?;
    }
    for (network, holder, lease) in &released {
        if let Some(folder) = networks.existing_run_folder(network)? {
            Leases::open(folder.as_fd())?.release(holder, lease)?;
        }
    }
    Ok(())
}

/// Ends what goes on with addresses that are about to be nobody's: what still comes in for them is, and the next who has one begins
/// anew.
///
/// To look through all that the kernel remembers takes its time on a busy host: nobody waits for it, since the leases are there yet, and
/// with them nobody else gets the addresses. But the container itself may have begun its next run, with the same ones: what it says from
/// then on goes on. Its lease is another's by then; so what was found is ended only if that was not so once all had been looked at.
fn end_conversations(world: &World, networks: &Networks<'_>, released: &[(&String, &String, &Lease)]) -> Result<()> {
    let mut linked = released.iter().filter(|(_, _, lease)| !lease.port.is_empty()).peekable();
    if linked.peek().is_none() {
        return Ok(());
    }
    world.inside(|| {
        let addresses: Vec<IpAddr> = linked.clone().flat_map(|(_, _, lease)| lease.addresses.iter().copied()).collect();
        let conversations = Conversations::of(&addresses)?;
        if conversations.is_empty() {
            return Ok(());
        }
        let mut left = Vec::new();
        for (network, holder, lease) in linked {
            if networks.leases(network)?.get(*holder) == Some(*lease) {
                left.extend(lease.addresses.iter().copied());
            }
        }
        conversations.forget_of(&left)
    })
}

/// Clears what containers have left in the networks whose monitors were killed.
pub fn sweep(engine: &Engine) -> Result<()> {
    sweep_unless(engine, &|_| false)
}

/// The same, for who knows already of most of those that run.
pub fn sweep_unless(engine: &Engine, runs: &dyn Fn(&str) -> bool) -> Result<()> {
    let networks = Networks::of(engine);
    let mut gone = Vec::new();
    // Who has just ended gives back by itself, in a moment.
    for network in networks.in_use()?.into_iter().filter(|name| networks.is_quiet(name)) {
        let leases = networks.leases(&network)?.into_iter();
        let left = leases.filter(|(holder, _)| !runs(holder) && !holds(engine, holder));
        gone.extend(left.map(|(holder, lease)| Gone { network: network.clone(), holder, lease }));
    }
    give_back_all(engine, &networks, &gone)
}

/// Clears what a container has left that is known to have ended without its monitor.
pub fn sweep_container(engine: &Engine, id: &str) -> Result<()> {
    let networks = Networks::of(engine);
    let mut gone = Vec::new();
    for network in networks.in_use()? {
        if let Some(lease) = networks.leases(&network)?.remove(id).filter(|_| !holds(engine, id)) {
            gone.push(Gone { network, holder: id.to_owned(), lease });
        }
    }
    give_back_all(engine, &networks, &gone)
}

fn give_back_all(engine: &Engine, networks: &Networks<'_>, gone: &[Gone]) -> Result<()> {
    if gone.is_empty() { Ok(()) } else { give_back(engine, &World::find(engine)?, networks, gone) }
}

pub(super) fn sweep_named(engine: &Engine, world: &World, networks: &Networks<'_>, name: &str) -> Result<()> {
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
    match find() {
        Ok(holds) => holds,
        // Who cannot be looked at keeps what it has.
        Err(error) => error.kind() != Kind::NotFound,
    }
}

/// Makes the kernel's part of all networks anew: rules that somebody has flushed, the firewalls of others.
pub fn reload(engine: &Engine) -> Result<()> {
    sweep(engine)?;
    let networks = Networks::of(engine);
    let world = World::find(engine)?;
    world.inside(|| {
        let netfilter = Netfilter::default();
        let mut turn = netfilter.turn(engine)?;
        let recorded = networks.recorded()?;
        let mut open = Vec::new();
        for network in recorded.iter().filter(|network| network.driver == Driver::Bridge && !network.internal) {
            if world.handle().is_none() && !networks.leases(&network.name)?.is_empty() {
                open.push(network);
                foreign::let_through(netfilter.socket()?.as_ref(), &network.interface)?;
            }
        }
        let missing = missing_forwarding(&world, open.into_iter())?;
        missing.map_or(Ok(()), |missing| note_strangers(&networks, missing))?;
        turn.rewrite(&world, &networks)?;
        missing.map_or(Ok(()), Missing::turn_on)
    })
}

/// Removes the kernel's part of a network that is about to be removed: its bridge, where husk made it, and its rules.
pub fn forget(engine: &Engine, network: &NetworkRecord) -> Result<()> {
    if network.driver != Driver::Bridge {
        return Ok(());
    }
    let networks = Networks::of(engine);
    let world = World::find(engine)?;
    world.inside(|| {
        let netfilter = Netfilter::default();
        let mut turn = netfilter.turn(engine)?;
        if network.interface.starts_with(OWN_BRIDGE) {
            link::remove(&network.interface)?;
        } else {
            link::unmake_bridge(&network.interface, &network.gateways())?;
        }
        if world.handle().is_none() {
            foreign::forget(&network.interface)?;
        }
        if turn.is_there()? { turn.rewrite_without(&world, &networks, Some(&network.name), &[]) } else { Ok(()) }
    })
}

/// Whether husk's tables are missing that a container needs: somebody has flushed them.
pub fn lacks_rules(engine: &Engine) -> Result<bool> {
    // Only root's can be flushed by somebody else.
    if engine.maps.is_some() {
        return Ok(false);
    }
    let networks = Networks::of(engine);
    let mut needed = Vec::new();
    for name in networks.in_use()? {
        // Only on bridges is there a port.
        if networks.leases(&name)?.values().any(|lease| !lease.port.is_empty()) {
            needed.push(segment(&World::Host, &networks, &networks.find(&name)?)?);
        }
    }
    Ok(!needed.is_empty() && !tables(engine).is_whole(&firewall::open_socket()?, &needed)?)
}

/// The name of the tables for a run root: the system's own has the plain one.
pub fn firewall_name(run_root: &Path) -> String {
    if run_root == Path::new(SYSTEM_RUN_ROOT) {
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
