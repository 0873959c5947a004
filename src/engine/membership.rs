//! `network connect` and `network disconnect`: which networks a container that exists is in. What was asked for is in its
//! record; one that runs is joined and parted by its monitor ([`connecting`](super::connecting)), which has its ports as well, and
//! changes what it may reach ([`update`](super::update)).

use std::os::fd::AsFd;

use super::connecting;
use super::engine::Engine;
use super::networks::Networks;
use super::options::{Attachment, Network};
use super::record::{Container, RECORD, Record};
use super::start::connect as connect_to_monitor;
use crate::error::{Context, Error, Kind, Result};
use crate::monitor::Wants;
use crate::network::lease::Leases;
use crate::support::atomic;

/// Puts a container into a network.
pub fn connect(engine: &Engine, container: &Container, attachment: &Attachment) -> Result<()> {
    let networks = Networks::of(engine);
    let network = networks.find(&attachment.network)?;
    let attachment = Attachment { network: network.name.clone(), ..attachment.clone() };
    network.check(&attachment)?;
    let held = networks.hold()?;
    networks.require(&network.name)?;
    change(container, |record| {
        let name = record.name.clone();
        connecting::check_egress_in(record.options.egress.as_ref(), &network)?;
        let attachments = attachments(record)?;
        if attachments.iter().any(|other| other.network == network.name) {
            let text = format!("endpoint with name {name} already exists in network {}", network.name);
            return Err(Error::new(Kind::Exists, text));
        }
        attachments.push(attachment.clone());
        Ok(())
    })?;
    // From here on it is in use, by the record.
    drop(held);
    if let Err(error) = tell_monitor(container) {
        // The failure is the one to tell.
        let _ = change(container, |record| {
            attachments(record)?.retain(|other| *other != attachment);
            Ok(())
        });
        let _ = tell_monitor(container);
        return Err(error);
    }
    connecting::tell(engine, &network, container.id(), "connect");
    Ok(())
}

/// Takes a container out of a network.
pub fn disconnect(engine: &Engine, container: &Container, word: &str) -> Result<()> {
    let network = Networks::of(engine).find(word)?;
    change(container, |record| {
        let id = record.id;
        let attachments = attachments(record)?;
        let before = attachments.len();
        attachments.retain(|attachment| attachment.network != network.name);
        if attachments.len() == before {
            let text = format!("container {id} is not connected to network {}", network.name);
            return Err(Error::new(Kind::State, text));
        }
        Ok(())
    })?;
    tell_monitor(container)?;
    connecting::tell(engine, &network, container.id(), "disconnect");
    Ok(())
}

/// Changes what a container's record says. The lock is not held beyond that: a container that ends meanwhile with its monitor
/// wants it.
pub(super) fn change(container: &Container, change: impl FnOnce(&mut Record) -> Result<()>) -> Result<()> {
    let _lock = container.lock(|_| ())?;
    let mut record = container.record()?;
    change(&mut record)?;
    atomic::replace(container.directory(), RECORD, &serde_json::to_vec(&record)?)
        .with_context(|| format!("change container {}", record.name))
}

/// Has the monitor of a container that runs do what its record says by now. Without one there is nothing to be joined or parted:
/// whoever starts the container, or takes it over, looks at the record.
pub(super) fn tell_monitor(container: &Container) -> Result<()> {
    match connect_to_monitor(container, Wants::default())? {
        Some(client) => client.change_networks().map(drop),
        None => Ok(()),
    }
}

/// The networks of a container that has a network namespace of its own, in docker's words for those that have none.
fn attachments(record: &mut Record) -> Result<&mut Vec<Attachment>> {
    match &mut record.options.network {
        Network::Joined(attachments) => Ok(attachments),
        Network::None => Err(Error::invalid(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        )),
        Network::Host | Network::Container(_) | Network::Path(_) => Err(Error::invalid(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        )),
    }
}

/// Tells the networks of a container that runs what it is called now: others there look it up by that.
pub fn rename(engine: &Engine, record: &Record) -> Result<()> {
    let networks = Networks::of(engine);
    for attachment in record.options.network.attachments() {
        if networks.leases(&attachment.network)?.contains_key(record.id.as_str()) {
            let folder = networks.run_folder(&networks.find(&attachment.network)?)?;
            let name = record.name.to_string();
            Leases::open(folder.as_fd())?.change(record.id.as_str(), |lease| lease.name = name)?;
        }
    }
    Ok(())
}
