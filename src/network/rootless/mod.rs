//! Networks of an ordinary user: namespaces that the user's networks are in, and a process that is their way out, without a
//! right that the user does not have, and without another program.
//!
//! ```text
//!   containers ── bridges ── host0 ═══ tun ═══ translator ── sockets ── the world
//!   └──── user and network namespace ────┘     └────── the host's namespaces ──────┘
//! ```
//!
//! A tun device and not a tap: what is behind it are routes, so there is nobody whose Ethernet address would be asked for. Packets
//! pass whole, up to 64 KiB, with checksums and cutting left to whoever needs them, which is mostly nobody.

mod carriage;
mod confinement;
mod control;
mod datagrams;
mod device;
mod early;
mod frame;
mod handle;
mod host;
mod maker;
mod packet;
mod service;
mod shares;
mod spare;
mod state;
mod table;
mod tcp;
mod translator;
mod world;

pub use control::{Publication, Status, Transport};
pub use datagrams::may_ping;
pub use device::{Dropped, Gateways};
pub use handle::{Config, FOLDER, Handle, become_process, ensure, find};
pub use world::{DEVICE, GATEWAYS, open_inside};

/// The MTU of bridges and their links, where the network says none: no wire is behind them, and what a container sends in one
/// piece is carried in one. As slirp4netns and pasta have it.
pub const BRIDGE_MTU: u32 = 65_520;

/// What the reader of packets promises, for [`crate::fuzzing`].
#[cfg(any(test, fuzzing))]
pub fn check_packet(bytes: &[u8]) {
    let _ = packet::quoted_tcp(bytes);
    let Ok(packet) = packet::read(bytes) else { return };
    assert!(packet.whole.len() <= bytes.len() - packet::OFFLOAD_HEADER);
    let payload = match packet.content {
        packet::Content::Tcp(segment) => segment.payload,
        packet::Content::Udp { payload, .. } => payload,
        packet::Content::Echo { message, .. } => message,
        packet::Content::Unreachable { quoted } => quoted,
    };
    assert!(payload.len() <= packet.whole.len() - 20);
    assert_eq!(packet.source.is_ipv4(), packet.destination.is_ipv4());
}
