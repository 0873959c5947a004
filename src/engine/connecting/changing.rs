//! A container whose networks, or whose bounds, change while it runs: what it joins, what it parts from, which ways it has by then,
//! and what it may reach. What it has from its start on is the parent's.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use super::names::Naming;
use super::place::Place;
use super::rules::{self, Gone, add, endpoint};
use super::ways::Ways;
use super::{Connecting, Seat, files, forget_conversations, namespace_of, port_of, ports};
use crate::engine::networks::{NetworkRecord, Networks};
use crate::engine::options::Attachment;
use crate::engine::record::Record;
use crate::error::{Error, Result};
use crate::network::firewall::Endpoint;
use crate::network::lease::{Lease, Leases};
use crate::network::port::BoundPort;
use crate::network::way;

impl Connecting<'_> {
    /// Makes it so that a container which runs is in the networks that its record names, and in no other, and may reach what that
    /// says.
    ///
    /// 1. It joins those that it is not in yet. What cannot be joined is given back, and all else is as before.
    /// 2. The ways to everywhere and of callers are chosen anew, and lead to what it keeps.
    /// 3. Only then it parts from the others: their addresses may be somebody else's in a moment.
    pub fn change(&self) -> Result<()> {
        if !self.world().lives() {
            self.reconnect_now()?;
        }
        let record = self.record_now()?;
        let networks = Networks::of(self.engine);
        let namespace = namespace_of(self.engine, &self.world(), &record)?;
        let namespace = namespace.as_fd();
        let attachments = record.options.network.attachments();
        let mut held = self.held(&networks)?;
        let mut seats = Vec::new();
        for attachment in attachments {
            match held.iter().position(|gone| gone.network == attachment.network) {
                Some(number) => {
                    let Gone { lease, .. } = held.swap_remove(number);
                    let place = self.place(&networks, 0, attachment)?;
                    let (interface, port) = (lease.interface.clone(), lease.port.clone());
                    seats.push(Seat { place: Place { interface, port, ..place }, lease });
                }
                None => seats.push(self.join(&networks, &record, attachment, namespace)?),
            }
        }
        self.keep_to_bounds(&networks, &record, &mut seats)?;
        self.lead(&networks, &record, &mut seats, namespace)?;
        self.part(&networks, attachments, Some(namespace))?;
        let namings = seats.iter().map(|seat| Naming::of(&networks, seat.network())).collect::<Result<Vec<_>>>()?;
        files::write(self.engine, &self.world(), &record, self.hostname, &seats, &namings)?;
        // Who asked for it tells of it.
        self.note_joined(seats, namings);
        self.begin_to_watch_names(&networks);
        Ok(())
    }

    /// Has the rules, and then the leases, say what it may reach by now, if they say something else: in one turn, so that nothing
    /// is learned meanwhile by what was allowed before. What it has begun and may not any more ends.
    fn keep_to_bounds(&self, networks: &Networks<'_>, record: &Record, seats: &mut [Seat<'_>]) -> Result<()> {
        let Some(allow) = &record.options.egress else { return Ok(()) };
        let is_other = |seat: &&mut Seat<'_>| seat.lease.egress.as_ref().is_some_and(|egress| egress.allow != *allow);
        let mut changed: Vec<&mut Seat<'_>> = seats.iter_mut().filter(is_other).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let world = self.world();
        let endpoints = |seats: &[&mut Seat<'_>]| -> Vec<Endpoint> {
            seats.iter().map(|seat| endpoint(&world, &seat.lease)).collect()
        };
        let before = endpoints(&changed);
        for egress in changed.iter_mut().filter_map(|seat| seat.lease.egress.as_mut()) {
            egress.allow.clone_from(allow);
        }
        let after = endpoints(&changed);
        world.inside(|| {
            let mut turn = self.netfilter.turn(self.engine)?;
            let is_written = turn.change(&before, &after)?;
            for seat in &changed {
                let folder = networks.run_folder(seat.network())?;
                let write = |held: &mut Lease| held.egress.clone_from(&seat.lease.egress);
                Leases::open(folder.as_fd())?.change(self.record.id.as_str(), write)?;
            }
            if !is_written {
                turn.rewrite(&world, networks)?;
            }
            rules::end_what_was_begun(&after)
        })?;
        // Of a user's, the way out knows no rules: what the world says next would be taken for the begin of a conversation.
        let addresses: Vec<IpAddr> = after.iter().flat_map(|endpoint| endpoint.addresses.iter().copied()).collect();
        world.handle().map_or(Ok(()), |handle| handle.forget(&addresses))
    }

    /// Joins it to one network more, while it runs; no way to everywhere leads there yet.
    fn join<'p>(
        &self,
        networks: &Networks<'_>,
        record: &Record,
        attachment: &'p Attachment,
        namespace: BorrowedFd<'_>,
    ) -> Result<Seat<'p>> {
        let held = self.held(networks)?;
        let is_free = |number: &usize| {
            let (port, interface) = (port_of(&self.record.id, *number), format!("eth{number}"));
            !held.iter().any(|gone| gone.lease.port == port || gone.lease.interface == interface)
        };
        let number = (0..=held.len()).find(is_free).unwrap_or(held.len());
        let place = self.place(networks, number, attachment)?;
        let name = place.network.name.clone();
        let join = || {
            let (lease, _) = self.lease(networks, record, &place)?;
            let mut seat = Seat { place, lease };
            self.note(networks, record, &mut seat, Vec::new())?;
            let world = self.world();
            world.inside(|| {
                let linked = (!seat.lease.port.is_empty()).then(|| endpoint(&world, &seat.lease));
                let endpoints: Vec<Endpoint> = linked.into_iter().collect();
                add(self.engine, &world, networks, &[seat.network()], &self.netfilter, &endpoints, false)?;
                seat.place.link(&world, &self.netfilter, &seat.lease, Vec::new(), namespace)
            })?;
            self.ensure_names(networks, seat.network())?;
            Ok(seat)
        };
        join().map_err(|error: Error| {
            // Not by the name inside, which may be another's: a pair goes with its end out here.
            let others: Vec<Attachment> = held.iter().map(|gone| Attachment::to(&gone.network)).collect();
            let _ = self.part(networks, &others, None);
            error.context(format!("network {name}"))
        })
    }

    /// Chooses the ways to everywhere and of callers, among what it is in now.
    fn lead(
        &self,
        networks: &Networks<'_>,
        record: &Record,
        seats: &mut [Seat<'_>],
        namespace: BorrowedFd<'_>,
    ) -> Result<()> {
        let world = self.world();
        let ways = Ways::of(seats);
        let targets = ways.targets(seats);
        if *self.targets.borrow() != targets {
            if targets.is_empty() {
                self.close();
            } else if self.bound.borrow().is_empty() {
                let opened = self.open(networks, record, seats, &targets)?;
                self.take(opened, targets.clone());
            } else {
                self.redirect(record, &targets)?;
            }
            self.targets.replace(targets);
        }
        self.move_ports(networks, seats, ways)?;
        let gateways = |network: NetworkRecord| network.subnets.into_iter().map(|subnet| subnet.gateway);
        // Also of those that it is about to leave.
        let of_all: Vec<IpAddr> = networks.recorded()?.into_iter().flat_map(gateways).collect();
        world.inside(|| way::lead(&ways.to_everywhere(seats), &of_all, namespace))
    }

    /// Has ports that are open lead elsewhere.
    fn redirect(&self, record: &Record, targets: &[IpAddr]) -> Result<()> {
        let bound = self.bound.borrow();
        match self.world().handle() {
            Some(handle) => {
                handle.withdraw(record.id.as_str())?;
                ports::publish_again(self.engine, handle, record, &bound, targets, &self.passed.borrow())?;
            }
            None => self.relay.borrow_mut().lead(|at, port| ports::target(at, port, targets)),
        }
        Ok(())
    }

    /// Has the leases say which network the ports lead to, and the rules.
    fn move_ports(&self, networks: &Networks<'_>, seats: &mut [Seat<'_>], ways: Ways) -> Result<()> {
        let world = self.world();
        let id = self.record.id.as_str();
        let mut has_changed = false;
        let mut say = |network: &str, lease: &mut Lease, published: Vec<BoundPort>| -> Result<()> {
            if lease.published != published {
                has_changed = true;
                lease.published = published;
                let folder = networks.existing_run_folder(network)?;
                let Some(folder) = folder else { return Ok(()) };
                Leases::open(folder.as_fd())?.change(id, |held| held.published.clone_from(&lease.published))?;
            }
            Ok(())
        };
        let claim = self.claim(networks, &self.bound.borrow());
        if claim.is_err() {
            self.take(ports::Opened::default(), Vec::new());
        }
        let claim = claim?;
        let published: Vec<Vec<BoundPort>> =
            (0..seats.len()).map(|number| ways.published(number, seats, &self.bound.borrow())).collect();
        for mut gone in self.held(networks)? {
            if !seats.iter().any(|seat| seat.network().name == gone.network) {
                say(&gone.network, &mut gone.lease, Vec::new())?;
            }
        }
        for (seat, published) in seats.iter_mut().zip(published) {
            let name = seat.place.network.name.clone();
            say(&name, &mut seat.lease, published)?;
        }
        // Ports of an ordinary user are led by no rule.
        if !has_changed || world.handle().is_some() {
            return Ok(());
        }
        let mut turn = match claim {
            Some(turn) => turn,
            None => self.netfilter.turn(self.engine)?,
        };
        turn.rewrite(&world, networks)?;
        forget_conversations(&self.bound.borrow())
    }
}
