//! What a network is: the definition in `network.json`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::driver::{Driver, DriverOptions};
use crate::engine::options::Attachment;
use crate::engine::options::is_default;
use crate::engine::options::network::{DEFAULT, no_alias};
use crate::engine::record::Timestamp;
use crate::error::{Context, Error, Result};
use crate::image::digest::{Algorithm, Digest};
use crate::network::cidr::Cidr;
use crate::network::lease::Pool;
use crate::network::link::InterfaceAddress;

/// What a network is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    pub id: String,
    /// Its folder's name, and written nowhere else.
    #[serde(skip)]
    pub name: String,
    pub created: Timestamp,
    #[serde(default)]
    pub driver: Driver,
    /// The bridge; of macvlan and ipvlan the host's interface, empty where that is for the start to choose.
    #[serde(default)]
    pub interface: String,
    /// None where the network hands out no addresses.
    #[serde(default)]
    pub subnets: Vec<Subnet>,
    /// Nothing of it goes elsewhere, and nothing comes in.
    #[serde(default, skip_serializing_if = "is_default")]
    pub internal: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub ipv6: bool,
    /// Its containers ask the host's servers for names, and don't know each other by theirs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lacks_dns: bool,
    /// Whom its name server asks; the host's where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_servers: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<StaticRoute>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// As typed; what they mean is in [`NetworkRecord::parsed`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// One block of a network's addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub block: Cidr,
    /// The bridge's address; of macvlan and ipvlan, of somebody's out there.
    pub gateway: IpAddr,
    /// Where addresses are handed out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<Cidr>,
    /// Kept for others, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved: BTreeMap<String, IpAddr>,
}

impl Subnet {
    /// Its addresses for containers.
    pub fn pool(&self) -> Pool {
        let reserved = self.reserved.values().copied().chain([self.gateway]).collect();
        Pool { block: self.block, range: self.range, reserved }
    }
}

/// A route that all of the network's containers have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticRoute {
    pub destination: Cidr,
    pub gateway: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
}

impl NetworkRecord {
    /// Understands its options.
    pub fn parsed(&self) -> Result<DriverOptions> {
        DriverOptions::parse(self.driver, &self.options).with_context(|| format!("network {}", self.name))
    }

    /// Its addresses for containers.
    pub fn pools(&self) -> Vec<Pool> {
        self.subnets.iter().map(Subnet::pool).collect()
    }

    /// The bridge's addresses.
    pub fn gateways(&self) -> Vec<InterfaceAddress> {
        let gateway = |subnet: &Subnet| InterfaceAddress { address: subnet.gateway, block: subnet.block };
        self.subnets.iter().map(gateway).collect()
    }

    /// Whether it has a name server of its own: as docker has it, not the default network.
    pub fn has_dns(&self) -> bool {
        !self.lacks_dns && self.driver == Driver::Bridge && self.name != DEFAULT && !self.subnets.is_empty()
    }

    /// Refuses who cannot be in it.
    pub fn check(&self, attachment: &Attachment) -> Result<()> {
        let name = &self.name;
        let addresses = attachment.addresses();
        if let Some(address) = addresses.iter().find(|address| self.subnet_of(**address).is_none()) {
            let blocks: Vec<String> = self.subnets.iter().map(|subnet| subnet.block.to_string()).collect();
            let blocks = if blocks.is_empty() { "it hands out none".to_owned() } else { blocks.join(", ") };
            return Err(Error::invalid(format!("address {address} is not in network {name} ({blocks})")));
        }
        if !attachment.aliases.is_empty() && self.name == DEFAULT {
            return Err(no_alias());
        }
        Ok(())
    }

    /// The subnet that an address is in.
    pub fn subnet_of(&self, address: IpAddr) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.block.contains(address))
    }

    /// Docker has an id for a container's place in a network: always the same for the same two.
    pub fn endpoint_id(&self, container: &str) -> String {
        Digest::of(Algorithm::Sha256, format!("{container} {}", self.id).as_bytes()).hex()
    }

    /// Whether it is none that people make or remove.
    pub fn is_built_in(&self) -> bool {
        self.name == DEFAULT || matches!(self.driver, Driver::Host | Driver::Null)
    }
}
