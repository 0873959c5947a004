//! `network connect` and `network disconnect`: which networks a container that exists is in. What was asked for is in its
//! record; one that runs is joined and parted by [`connecting`](super::connecting).

use std::os::fd::AsFd;

use super::connecting;
use super::engine::Engine;
use super::events;
use super::networks::{NetworkRecord, Networks};
use super::options::{Attachment, Network};
use super::record::{Container, RECORD, Record, Status};
use crate::error::{Context, Error, Kind, Result};
use crate::network::lease::Leases;
use crate::support::atomic;

/// Puts a container into a network.
pub fn connect(engine: &Engine, container: &Container, attachment: &Attachment) -> Result<()> {
    let networks = Networks::of(engine);
    let network = networks.find(&attachment.network)?;
    let attachment = Attachment { network: network.name.clone(), ..attachment.clone() };
    network.check(&attachment)?;
    let _held = networks.hold()?;
    networks.require(&network.name)?;
    let _lock = container.lock(|_| ())?;
    let mut record = container.record()?;
    connecting::check_egress_in(record.options.egress.as_ref(), &network)?;
    let attachments = attachments(&mut record)?;
    if attachments.iter().any(|other| other.network == network.name) {
        let text = format!("endpoint with name {} already exists in network {}", record.name, network.name);
        return Err(Error::new(Kind::Exists, text));
    }
    attachments.push(attachment.clone());
    // The kernel first: what it refuses is not recorded.
    let is_running = is_running(container)?;
    if is_running {
        connecting::attach(engine, &record, &attachment)?;
    }
    if let Err(error) = write(container, &record) {
        if is_running {
            let _ = connecting::detach(engine, &record, &network.name);
        }
        return Err(error);
    }
    tell(engine, &network, &record, "connect");
    Ok(())
}

/// Takes a container out of a network.
pub fn disconnect(engine: &Engine, container: &Container, word: &str) -> Result<()> {
    let network = Networks::of(engine).find(word)?;
    let _lock = container.lock(|_| ())?;
    let mut record = container.record()?;
    let attachments = attachments(&mut record)?;
    let before = attachments.len();
    attachments.retain(|attachment| attachment.network != network.name);
    if attachments.len() == before {
        let text = format!("container {} is not connected to network {}", record.id, network.name);
        return Err(Error::new(Kind::State, text));
    }
    // The record first: killed between the two, it is out of the network from its next start on.
    write(container, &record)?;
    if is_running(container)? {
        connecting::detach(engine, &record, &network.name)?;
    }
    tell(engine, &network, &record, "disconnect");
    Ok(())
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

/// Between two runs there is nothing to be joined or parted: the next looks at the record.
fn is_running(container: &Container) -> Result<bool> {
    Ok(matches!(container.status()?, Status::Running { .. }))
}

fn write(container: &Container, record: &Record) -> Result<()> {
    atomic::replace(container.directory(), RECORD, &serde_json::to_vec(record)?)
        .with_context(|| format!("change container {}", record.name))
}

fn tell(engine: &Engine, network: &NetworkRecord, record: &Record, action: &str) {
    events::network(engine, network, action, &[("container", record.id.to_string())]);
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
