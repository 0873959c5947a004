//! One container's link to one network, and the bridge that it leads to.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use super::rules::Netfilter;
use super::world::World;
use crate::engine::networks::driver::{Driver, DriverOptions};
use crate::engine::networks::{NetworkRecord, StaticRoute};
use crate::engine::options::Attachment;
use crate::error::{Error, Kind, Result};
use crate::network::egress::{Guarded, Policy};
use crate::network::firewall::foreign;
use crate::network::lease::Lease;
use crate::network::link::{self, InterfaceAddress, Link, Route, Wire};
use crate::network::rootless;

/// A container's place in a network.
pub(super) struct Place<'a> {
    pub(super) attachment: &'a Attachment,
    pub(super) network: NetworkRecord,
    pub(super) options: DriverOptions,
    /// The container's end of the link, and the host's.
    pub(super) interface: String,
    pub(super) port: String,
}

impl Place<'_> {
    /// Makes the link, and what it leads to; `gateways` are those that the container's packets to everywhere go by.
    pub(super) fn link(
        &self,
        world: &World,
        netfilter: &Netfilter,
        lease: &Lease,
        gateways: Vec<IpAddr>,
        namespace: BorrowedFd<'_>,
    ) -> Result<()> {
        let NetworkRecord { subnets, routes, .. } = &self.network;
        let parent = self.parent()?;
        let wire = match self.network.driver {
            Driver::Bridge => {
                self.make_bridge(world, netfilter, lease.egress.is_some())?;
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
        let route = |route: &StaticRoute| Route { to: route.destination, gateway: route.gateway, metric: route.metric };
        let link = Link {
            wire,
            name: &self.interface,
            mac: lease.mac,
            mtu: self.mtu(world),
            addresses: lease.addresses.iter().filter_map(block_of).collect(),
            gateways,
            routes: routes.iter().map(route).collect(),
            metric: self.options.metric,
        };
        link::connect(&link, namespace)
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

    /// What a guarded container may reach, where it is one. Between it and its neighbours, too, this host forwards.
    pub(super) fn guarded(&self, world: &World, egress: Option<&Policy>) -> Result<Option<Guarded>> {
        let Some(allow) = egress.filter(|_| self.network.driver == Driver::Bridge) else { return Ok(None) };
        let servers: Vec<IpAddr> = self.network.subnets.iter().map(|subnet| subnet.gateway).collect();
        // A bridge of somebody else's making has an address of its own. In a user's world there is none.
        let there = if world.handle().is_none() { link::mac_of(&self.network.interface)? } else { None };
        let bridge = there.or_else(|| link::bridge_mac(&servers)).unwrap_or_default();
        Ok(Some(Guarded { allow: allow.clone(), servers, bridge }))
    }

    fn mtu(&self, world: &World) -> Option<u32> {
        self.options.mtu.or_else(|| world.handle().map(|_| rootless::BRIDGE_MTU))
    }

    fn make_bridge(&self, world: &World, netfilter: &Netfilter, is_guarded: bool) -> Result<()> {
        let NetworkRecord { interface, internal, .. } = &self.network;
        link::make_bridge(interface, self.mtu(world), &self.network.gateways())?;
        // A user's world has no firewall but ours.
        if (!internal || is_guarded) && world.handle().is_none() {
            foreign::let_through(netfilter.socket()?.as_ref(), interface)?;
        }
        Ok(())
    }
}
