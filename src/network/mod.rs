//! The containers' networks: links, addresses, rules. Knows no container's record, and keeps nothing running.

pub mod firewall;
