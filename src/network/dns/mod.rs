//! The names of a network: one small process for each, which knows the network's containers and asks the host's name servers
//! for everything else.
//!
//! ```text
//!   container ── nameserver GATEWAY ──▶ server ──┬── zone: leases.json of the network (and of the container's others)
//!                                                └── forward ──▶ the host's resolv.conf, or --dns
//! ```
//!
//! It lives as long as somebody has a lease. Whoever starts a container calls [`ensure`]; nobody else has to look after it.

mod cache;
mod forward;
mod message;
mod name;
mod neighbours;
mod policy;
mod process;
mod server;
mod zone;

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::cidr::Cidr;
use super::egress::Policy;
use crate::cgroups::Home;
use crate::error::Result;

pub use forward::PORT;
#[cfg(any(test, fuzzing))]
pub(crate) use message::check_any;
pub use policy::Names;
pub use process::{Ensured, Standing, change_servers, ensure, is_there, serve, standing, watch};
pub use server::{Server, Sockets, Wait};

/// What a network's name server has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The network's name: the last part of its containers' names.
    pub network: String,
    /// The bridge; without one, whatever leads to the gateways.
    pub interface: Option<String>,
    /// The network's addresses of the host, which it hears at.
    pub gateways: Vec<IpAddr>,
    pub subnets: Vec<Cidr>,
    /// Nothing leads out of it.
    pub is_internal: bool,
    /// Whether its containers have names. Else everything is asked of others.
    pub answers_names: bool,
    /// Who is asked for what the network does not know; the host's where there is none.
    pub upstreams: Vec<IpAddr>,
    /// The host's resolv.conf.
    pub resolv_conf: PathBuf,
    /// The user and network namespaces that the bridge is in, by path, where it is not in this process's.
    #[serde(default)]
    pub namespaces: Option<[PathBuf; 2]>,
    /// The inode of that network namespace: a server whose bridge is in another hears nobody any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub world: Option<u64>,
    /// Where its process lives.
    #[serde(default)]
    pub home: Home,
    /// What it takes to guard containers, where the network has such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarding: Option<Guarding>,
}

/// Where the rules are by which containers are guarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarding {
    /// husk's table.
    pub table: String,
    /// Of nfnetlink_log, where the network's refused packets are heard of.
    pub group: u16,
}

/// A container that may not reach everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    pub id: String,
    pub allow: Policy,
    /// Its own, in all of its networks.
    pub addresses: Vec<IpAddr>,
}

/// Who says what a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The container's networks.
    Network,
    /// Somebody else's name server.
    World,
}

/// Says what guarded containers may find by name, and hears what they found.
pub trait Egress {
    /// Whether a container may ask for a name. It is as [RFC 1035, 5.1] writes it, in the letters that it was asked in, and
    /// without a dot at its end.
    ///
    /// [RFC 1035, 5.1]: https://www.rfc-editor.org/rfc/rfc1035#section-5.1
    fn allows(&mut self, asker: &Asker, name: &str) -> bool;

    /// Hears of addresses, and for how many seconds they are good, before the container does. An error keeps them from it.
    /// Says for how many seconds at most the container may go by the answer.
    fn answers(&mut self, asker: &Asker, name: &str, addresses: &[(IpAddr, u32)], origin: Origin) -> Result<u32>;

    /// Whether it has lost its right to change the rules: another has to take its place.
    fn is_shut_out(&self) -> bool;

    /// What says that something was refused.
    fn descriptor(&self) -> BorrowedFd<'_>;

    /// Hears of that. `who` says whose an address is.
    fn hear(&mut self, who: &dyn Fn(IpAddr) -> Option<String>);
}
