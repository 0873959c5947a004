//! What a container reads of its networks: its own addresses in `/etc/hosts`, and in `/etc/resolv.conf` whom to ask for names.
//!
//! Both are files of the container's own that were made with it; what of them depends on the networks is written at each
//! start, and when these change. The container may have changed them: other lines stay as they are.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Seat;
use super::names::{Naming, RESOLV_CONF};
use super::world::World;
use crate::engine::config::resolver_for;
use crate::engine::engine::Engine;
use crate::engine::options::hosts::{HostAddress, HostEntry, HostFiles};
use crate::engine::record::Record;
use crate::error::{Context, Result};
use crate::network::rootless::GATEWAYS;

/// The host, by the names that docker and podman have for it.
const HOST_NAMES: &str = "host.docker.internal host.containers.internal";

/// What is beyond this is no line of ours.
const FILE_BYTES: u64 = 1 << 20;
const USUAL_BYTES: usize = 4096;

/// Above the lines of resolv.conf that are husk's: those that stand for the host's servers.
const MARK: &str = "# The name server of the container's network, by husk";

/// A name without a dot is a container's before it is one below a domain of `search`: docker has it so, too.
const PLAIN_FIRST: &str = "options ndots:0";

/// Writes them.
pub(super) fn write(
    engine: &Engine,
    world: &World,
    record: &Record,
    hostname: &str,
    seats: &[Seat<'_>],
    namings: &[Naming],
) -> Result<()> {
    change(engine, record, "hosts", |text| Ok(hosts(text, &Host::of(world, seats), record, hostname, seats)))?;
    let servers = servers(record, seats, namings);
    change(engine, record, "resolv.conf", |text| match &servers {
        Some((servers, knows_names)) => Ok(resolver(text, servers, *knows_names)),
        None if text.lines().any(|line| line == MARK) => {
            Ok(names_of_host(text, &read_resolver()?, &record.options.hosts))
        }
        None => Ok(text.to_owned()),
    })
}

/// Whom the container asks: of its networks the first that has a server which knows names, since that knows those of the others
/// as well. That asks whom the container names (`--dns`); where one stands in for the host's alone, those are asked by the
/// container itself. One that may not reach everything asks nobody else. Says besides whether it knows names.
fn servers(record: &Record, seats: &[Seat<'_>], namings: &[Naming]) -> Option<(Vec<IpAddr>, bool)> {
    let has_named = !record.options.hosts.servers.is_empty();
    let named = seats.iter().find(|seat| seat.network().has_dns());
    let is_guarded = |seat: &Seat<'_>| seat.lease.egress.is_some() && !seat.network().subnets.is_empty();
    let mut others = seats.iter().zip(namings);
    let stands_in = |(seat, naming): &(&Seat<'_>, &Naming)| is_guarded(seat) || !has_named && naming.stands_in;
    let seat = named.or_else(|| others.find(stands_in).map(|(seat, _)| seat))?;
    Some((seat.network().subnets.iter().map(|subnet| subnet.gateway).collect(), named.is_some()))
}

/// The host, as the container reaches it.
struct Host(Option<IpAddr>);

impl Host {
    /// A user's bridge is in the user's own world: the host is beyond the way out.
    fn of(world: &World, seats: &[Seat<'_>]) -> Self {
        if world.handle().is_some() {
            return Self(Some(IpAddr::V4(GATEWAYS.v4)));
        }
        let leads = |seat: &&Seat<'_>| !seat.network().internal;
        let all = seats.iter().filter(leads).chain(seats);
        Self(all.filter_map(|seat| seat.network().subnets.first()).map(|subnet| subnet.gateway).next())
    }
}

fn hosts(text: &str, host: &Host, record: &Record, hostname: &str, seats: &[Seat<'_>]) -> String {
    // As docker has it, the whole name first.
    let domain = record.options.domainname.as_deref();
    let whole = domain.filter(|domain| !domain.is_empty()).map(|domain| format!("{hostname}.{domain}"));
    let mut own: Vec<&str> = whole.as_deref().into_iter().chain([hostname]).collect();
    if record.name.as_str() != hostname {
        own.push(record.name.as_str());
    }
    let mut ours: Vec<(Option<IpAddr>, String)> = Vec::new();
    let addresses = seats.iter().flat_map(|seat| &seat.lease.addresses);
    ours.extend(addresses.map(|address| (Some(*address), own.join(" "))));
    if ours.is_empty() {
        // Programs look their own name up.
        ours.push((Some(Ipv4Addr::new(127, 0, 1, 1).into()), hostname.to_owned()));
    }
    ours.push((host.0, HOST_NAMES.to_owned()));
    let gateways = record.options.hosts.added.iter().filter(|entry| entry.address == HostAddress::Gateway);
    ours.extend(gateways.map(|entry| (host.0, entry.names.join(" "))));
    // The lines of before: the container may have had another name, and other addresses.
    let is_asked = |names: &str| {
        let is_it = |entry: &&HostEntry| entry.address != HostAddress::Gateway && entry.names.join(" ") == names;
        record.options.hosts.added.iter().any(|entry| is_it(&entry))
    };
    let is_own = |names: &str| {
        let first = names.split(' ').next();
        (first == Some(hostname) || first.is_some() && first == whole.as_deref()) && !is_asked(names)
    };
    let is_old = |line: &&str| {
        line.split_once('\t').is_some_and(|(_, names)| is_own(names) || ours.iter().any(|(_, own)| own == names))
    };
    let mut result: String = text.lines().filter(|line| !is_old(line)).flat_map(|line| [line, "\n"]).collect();
    for (address, names) in &ours {
        if let Some(address) = address {
            let _ = writeln!(result, "{address}\t{names}");
        }
    }
    result
}

fn resolver(text: &str, servers: &[IpAddr], knows_names: bool) -> String {
    let mut result = without_servers(text);
    let says_when = result.lines().any(|line| line.starts_with("options") && line.contains("ndots:"));
    let _ = writeln!(result, "{MARK}");
    if knows_names && !says_when {
        let _ = writeln!(result, "{PLAIN_FIRST}");
    }
    for server in servers {
        let _ = writeln!(result, "nameserver {server}");
    }
    result
}

/// What it would have had from the beginning.
fn names_of_host(text: &str, host: &str, asked: &HostFiles) -> String {
    let of_host = resolver_for(host, asked);
    let is_server = |line: &&str| line.split_whitespace().next() == Some("nameserver");
    let servers: String = of_host.lines().filter(is_server).flat_map(|line| [line, "\n"]).collect();
    without_servers(text) + &servers
}

fn without_servers(text: &str) -> String {
    let mut is_ours = false;
    let is_other = |line: &&str| {
        is_ours |= *line == MARK;
        let is_own = is_ours && [MARK, PLAIN_FIRST].contains(line);
        !is_own && line.split_whitespace().next() != Some("nameserver")
    };
    text.lines().filter(is_other).flat_map(|line| [line, "\n"]).collect()
}

fn read_resolver() -> Result<String> {
    let mut bytes = Vec::new();
    match File::open(RESOLV_CONF) {
        Ok(file) => file.take(FILE_BYTES).read_to_end(&mut bytes).with_context(|| format!("read {RESOLV_CONF}"))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error).with_context(|| format!("read {RESOLV_CONF}")),
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Changes a file of the container's; one that it does not have is not missed.
fn change(engine: &Engine, record: &Record, name: &str, change: impl FnOnce(&str) -> Result<String>) -> Result<()> {
    let path = engine.container_directory(&record.id).join(name);
    let context = || format!("write {}", path.display());
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno).with_context(context),
    };
    // Room for what there usually is: else it is read in small pieces.
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    (&file).take(FILE_BYTES).read_to_end(&mut bytes).with_context(context)?;
    let text = change(&String::from_utf8_lossy(&bytes))?;
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
        let ours = format!("search example.org\noptions ndots:2\n{MARK}\nnameserver 10.89.0.1\n");
        assert_eq!(resolver(text, &servers, true), ours);
        assert_eq!(resolver(&ours, &servers, true), ours);
        let plain = format!("search example.org\n{MARK}\noptions ndots:0\nnameserver 10.89.0.1\n");
        assert_eq!(resolver("search example.org\nnameserver 192.0.2.1\n", &servers, true), plain);
        assert_eq!(resolver(&plain, &servers, true), plain);
        assert_eq!(resolver(&plain, &servers, false), plain.replace("options ndots:0\n", ""));
        let host = "search example.com\nnameserver 192.0.2.7\n";
        let back = names_of_host(&ours, host, &HostFiles::default());
        assert_eq!(back, "search example.org\noptions ndots:2\nnameserver 192.0.2.7\n");
        let asked = HostFiles { servers: vec!["192.0.2.8".parse().unwrap()], ..HostFiles::default() };
        assert_eq!(names_of_host(&ours, host, &asked), "search example.org\noptions ndots:2\nnameserver 192.0.2.8\n");
    }
}
