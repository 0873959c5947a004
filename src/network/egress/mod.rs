//! What a container may reach of the world: what is allowed, the addresses that are learned from allowed names, and the log of
//! what was refused. The rules are in [`firewall`](super::firewall).
//!
//! ```text
//!   container ── every packet that it sends ──▶ rules ──┬── goes on, or is granted: an address, a block, its name servers
//!       │                                               ├── learned ◀──────────────┐
//!       │                                               └── refused ──▶ log        │
//!       └── names ──▶ the network's name server ── allowed? ── asks ── learns ─────┘ ── answers
//! ```
//!
//! What cannot be looked at is refused: there is no moment in which a container is there and its rules are not, and a name
//! server that has ended opens nothing.

mod guard;
mod journal;
mod packet;
mod policy;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::lease::Mac;

pub use guard::{Guard, Means};
pub use journal::{Entry, forget, read};
pub use policy::{Grant, Policy, Way};

/// What a lease says of a container that may not reach everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarded {
    pub allow: Policy,
    /// The network's name servers, and the host to the containers of it.
    pub servers: Vec<IpAddr>,
    /// The Ethernet address of the bridge, which all that it sends is led to.
    pub bridge: Mac,
}
