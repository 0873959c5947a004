//! What a container reads of its networks: its own address in `/etc/hosts`, and in `/etc/resolv.conf` whom to ask for names.
//!
//! Both are files of the container's own that were made with it; what of them depends on the network is written at each
//! start. The container may have changed them: other lines stay as they are.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::names;
use super::world::World;
use crate::engine::engine::Engine;
use crate::engine::networks::NetworkRecord;
use crate::engine::options::hosts::HostAddress;
use crate::engine::record::Record;
use crate::error::{Context, Result};
use crate::network::lease::Lease;
use crate::network::rootless::GATEWAYS;

/// The host, by the names that docker and podman have for it.
const HOST_NAMES: &str = "host.docker.internal host.containers.internal";

/// What is beyond this is no line of ours.
const FILE_BYTES: u64 = 1 << 20;

/// Writes them.
pub(super) fn write(
    engine: &Engine,
    world: &World,
    record: &Record,
    hostname: &str,
    network: &NetworkRecord,
    lease: &Lease,
) -> Result<()> {
    change(engine, record, "hosts", |text| hosts(text, world, record, hostname, network, lease))?;
    if let Some(servers) = servers(record, network, lease) {
        change(engine, record, "resolv.conf", |text| resolver(text, &servers))?;
    }
    Ok(())
}

/// Whom the container asks: the network's own server, if it has one. That asks whom the container names (`--dns`); where it
/// stands in for the host's alone, those are asked by the container itself. One that may not reach everything asks nobody
/// else.
fn servers(record: &Record, network: &NetworkRecord, lease: &Lease) -> Option<Vec<IpAddr>> {
    let stands_in = !network.has_dns() && record.options.hosts.servers.is_empty() && names::stands_in(network);
    (network.has_dns() || stands_in || lease.egress.is_some())
        .then(|| network.subnets.iter().map(|subnet| subnet.gateway).collect())
}

fn hosts(text: &str, world: &World, record: &Record, hostname: &str, network: &NetworkRecord, lease: &Lease) -> String {
    let mut ours: Vec<(IpAddr, String)> = Vec::new();
    for address in &lease.addresses {
        let name = record.name.as_str();
        let names = if name == hostname { hostname.to_owned() } else { format!("{hostname} {name}") };
        ours.push((*address, names));
    }
    // A user's bridge is in the user's own world: the host is beyond the way out.
    let host = match world.handle() {
        Some(_) => Some(IpAddr::V4(GATEWAYS.v4)),
        None => network.subnets.first().map(|subnet| subnet.gateway),
    };
    if let Some(gateway) = host {
        ours.push((gateway, HOST_NAMES.to_owned()));
        for entry in &record.options.hosts.added {
            if entry.address == HostAddress::Gateway {
                ours.push((gateway, entry.names.join(" ")));
            }
        }
    }
    // The lines of the start before, and the one that stands for a container without a network.
    let is_old = |line: &&str| {
        line.split_once('\t').is_some_and(|(_, names)| names == hostname || ours.iter().any(|(_, own)| own == names))
    };
    let mut result: String = text.lines().filter(|line| !is_old(line)).flat_map(|line| [line, "\n"]).collect();
    for (address, names) in &ours {
        let _ = writeln!(result, "{address}\t{names}");
    }
    result
}

fn resolver(text: &str, servers: &[IpAddr]) -> String {
    let is_other = |line: &&str| line.split_whitespace().next() != Some("nameserver");
    let mut result: String = text.lines().filter(is_other).flat_map(|line| [line, "\n"]).collect();
    for server in servers {
        let _ = writeln!(result, "nameserver {server}");
    }
    result
}

/// Changes a file of the container's; one that it does not have is not missed.
fn change(engine: &Engine, record: &Record, name: &str, change: impl FnOnce(&str) -> String) -> Result<()> {
    let path = engine.container_directory(&record.id).join(name);
    let context = || format!("write {}", path.display());
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno).with_context(context),
    };
    let mut bytes = Vec::new();
    (&file).take(FILE_BYTES).read_to_end(&mut bytes).with_context(context)?;
    let text = change(&String::from_utf8_lossy(&bytes));
    if text.as_bytes() == bytes {
        return Ok(());
    }
    // In place: the container's mount is of this file, not of its name.
    file.set_len(0).with_context(context)?;
    file.write_all_at(text.as_bytes(), 0).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_take_the_place_of_the_host_s() {
        let servers = ["10.89.0.1".parse().unwrap()];
        let text = "nameserver 127.0.0.53\nsearch example.org\noptions ndots:2\nnameserver 192.0.2.1\n";
        assert_eq!(resolver(text, &servers), "search example.org\noptions ndots:2\nnameserver 10.89.0.1\n");
    }
}
