//! The name servers of networks: which network has one, and what it is told.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::world::World;
use crate::engine::engine::Engine;
use crate::engine::networks::driver::Driver;
use crate::engine::networks::{NetworkRecord, Networks};
use crate::error::{Error, Kind, Result};
use crate::network::dns::{self, Config, Guarding};
use crate::network::firewall::Published;
use crate::network::firewall::egress::group_of;
use crate::network::port::Protocol;
use crate::network::rootless::Handle;
use crate::support::resolv_conf::Servers;

/// The host's.
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Why a network has a name server while it has containers, if it does.
#[derive(Clone, Copy)]
pub(super) struct Naming {
    /// Its containers have names.
    knows_names: bool,
    /// The host's own servers are out of its containers' reach.
    pub(super) stands_in: bool,
    /// Somebody is in it who may not reach everything.
    has_guarded: bool,
}

impl Naming {
    pub(super) fn of(networks: &Networks<'_>, network: &NetworkRecord) -> Result<Self> {
        if network.driver != Driver::Bridge || network.subnets.is_empty() {
            return Ok(Self { knows_names: false, stands_in: false, has_guarded: false });
        }
        let knows_names = network.has_dns();
        Ok(Self {
            knows_names,
            stands_in: !knows_names && !network.lacks_dns && hosts_are_out_of_reach(Path::new(RESOLV_CONF)),
            has_guarded: networks.leases(&network.name)?.values().any(|lease| lease.egress.is_some()),
        })
    }

    fn has_server(self) -> bool {
        self.knows_names || self.stands_in || self.has_guarded
    }
}

/// Sees to it that a network has its name server, if it is to have one. Somebody has a lease in it by now. Says whether the
/// firewall leads elsewhere than where it is.
pub(super) fn ensure(
    engine: &Engine,
    networks: &Networks<'_>,
    network: &NetworkRecord,
    naming: Naming,
    world: &World,
) -> Result<bool> {
    // Whoever of them comes first after a server has ended starts the next, for all of them.
    if !naming.has_server() {
        return Ok(false);
    }
    let guarding = naming.has_guarded.then(|| Guarding {
        table: engine.firewall_name.clone(),
        group: group_of(&engine.firewall_name, &network.interface),
    });
    let config = Config {
        network: network.name.clone(),
        interface: Some(network.interface.clone()),
        gateways: network.subnets.iter().map(|subnet| subnet.gateway).collect(),
        subnets: network.subnets.iter().map(|subnet| subnet.block).collect(),
        is_internal: network.internal,
        answers_names: naming.knows_names,
        upstreams: network.dns_servers.clone(),
        resolv_conf: RESOLV_CONF.into(),
        namespaces: world.paths(),
        world: world.handle().map(Handle::network_inode),
        home: engine.helpers_home(),
        guarding,
    };
    Ok(dns::ensure(networks.run_folder(network)?.as_fd(), &config)?.has_moved)
}

/// Connects to a network's name server, if it is to have one, to see its end.
pub(super) fn watch(networks: &Networks<'_>, network: &NetworkRecord, naming: Naming) -> Result<Option<OwnedFd>> {
    if !naming.has_server() {
        return Ok(None);
    }
    let folder = networks.existing_run_folder(&network.name)?;
    let link = folder.and_then(|folder| dns::watch(folder.as_fd()));
    link.map(Some).ok_or_else(|| Error::new(Kind::NotFound, format!("network {} has no name server", network.name)))
}

/// Has the name server of a network that has changed ask whom that says.
pub fn change_servers(networks: &Networks<'_>, network: &NetworkRecord) -> Result<()> {
    match networks.existing_run_folder(&network.name)? {
        Some(folder) => dns::change_servers(folder.as_fd(), &network.dns_servers),
        None => Ok(()),
    }
}

/// What leads to a network's name server: elsewhere, where somebody else has its port at all addresses of the host; and past
/// whoever has that port published.
pub(super) fn led(networks: &Networks<'_>, network: &NetworkRecord) -> Result<Vec<Published>> {
    if !Naming::of(networks, network)?.has_server() {
        return Ok(Vec::new());
    }
    let folder = networks.existing_run_folder(&network.name)?;
    let standing = folder.and_then(|folder| dns::standing(folder.as_fd()));
    let to_port = standing.and_then(|standing| standing.port).unwrap_or(dns::PORT);
    let gateways = network.subnets.iter().map(|subnet| subnet.gateway);
    let led = |gateway| {
        [Protocol::Udp, Protocol::Tcp].map(|protocol| Published {
            protocol: protocol.number(),
            host: Some(gateway),
            host_port: dns::PORT,
            to: gateway,
            to_port,
        })
    };
    Ok(gateways.flat_map(led).collect())
}

/// Whether all of them are at loopback addresses (127.0.0.53 is systemd-resolved's), where no container reaches them.
fn hosts_are_out_of_reach(path: &Path) -> bool {
    // Without the file, the machine itself is asked.
    Servers::read(path, dns::PORT).is_ok_and(|servers| servers.addresses.iter().all(|server| server.ip().is_loopback()))
}
