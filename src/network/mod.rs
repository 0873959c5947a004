//! The containers' networks: links, addresses, rules. Knows no container's record, and keeps nothing running.

pub mod cidr;
pub mod dns;
pub mod firewall;
pub mod lease;
pub mod link;
pub mod relay;

#[cfg(test)]
mod tests;
